r"""The law of the noise: what $\varepsilon$ is in $x_t = \alpha_t x_0 + \sigma_t \varepsilon$.

A kernel draws noise of any shape. With a list of generators, one a sample, row i depends on generator i
only: a sample is the same alone and inside any batch. Numbers are drawn on the generator's device and then
moved, so a CPU generator gives the same noise whatever the device of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_core.types import Batch

__all__ = ["GaussianKernel"]


@buildable("gaussian-kernel")
@dataclass(frozen=True)
class GaussianKernel:
    r"""The unit normal law, $\varepsilon \sim \mathcal N(0, I)$."""

    def sample(
        self,
        shape: Sequence[int],
        generator: Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Noise of the given shape, dtype and device.

        Half-precision noise is drawn in float32 and rounded, so that a seed is the same in float16 and
        bfloat16.
        """
        fine = torch.promote_types(dtype, torch.float32)
        drawn = torch.randn(tuple(shape), generator=generator, dtype=fine, device=generator.device)
        return drawn.to(device, dtype)

    def noise(self, x0: Batch, generators: Generator | Sequence[Generator]) -> Batch:
        """Noise like `x0`, (batch, *event): from one generator, or row i from generator i.

        Raises:
            InputError: the number of generators is not that of rows.
        """
        if isinstance(generators, Generator):
            return self.sample(x0.shape, generators, x0.dtype, x0.device)
        if len(generators) != x0.shape[0]:
            raise InputError(
                f"expected one generator a sample, {x0.shape[0]}; got {len(generators)}. "
                "Make them from one seed a sample."
            )
        rows = [self.sample(x0.shape[1:], g, x0.dtype, x0.device) for g in generators]
        return torch.stack(rows) if rows else torch.empty_like(x0)
