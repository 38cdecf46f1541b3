"""A data set that a generative model made: samples by seed, for whoever has a prior and no data (`noise_experts`).

Item i is the sample of seed `first_seed + i`, the same whatever the batch it was drawn in. Samples are drawn once and kept.

References:
    Go et al. 2023, https://arxiv.org/abs/2212.05973, section 4.2 (transfer on what the diffusion model generates).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_core.solvers import MultistepTable, integrate
from radiata_core.types import Batch

__all__ = ["GeneratedSet", "generated_set"]

_START, _STEPS = 41, 42  # keys of the generators


@dataclass(frozen=True, eq=False)
class GeneratedSet:
    """Samples as a map-style data set for `radiata_core.train.train`.

    Attributes:
        images: (samples, *event), on the CPU.
        conditions: Name -> what each sample was drawn with, (samples, ...).
    """

    images: Batch
    conditions: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[index]} | {name: rows[index] for name, rows in self.conditions.items()}


def generated_set(
    denoiser: Any,
    count: int,
    event: Sequence[int],
    table: MultistepTable,
    *,
    first_seed: int = 0,
    batch_size: int = 16,
    device: str = "cpu",
    keep: Sequence[str] = (),
    **conditions: torch.Tensor,
) -> GeneratedSet:
    """Samples of a model.

    Args:
        denoiser: E[x_0 | x_t].
        count: Samples, >= 1.
        event: Shape of one.
        table: Solver on a grid of the denoiser's path; its first time is where the samples start.
        first_seed: Of the first sample.
        batch_size: Samples at once.
        device: Where the denoiser is.
        keep: Names of conditions that become part of the items.
        conditions: A row a sample, for the denoiser.

    Raises:
        InputError: no sample, or conditions of another number of rows.
    """
    if count < 1 or any(len(rows) != count for rows in conditions.values()):
        raise InputError(
            f"expected at least one sample and a row of conditions each; got {count} and "
            f"{[len(rows) for rows in conditions.values()]}. Repeat the rows."
        )
    c = denoiser.path.coefficients(table.times[0])
    parts = []
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        seeds = range(first_seed + rows.start, first_seed + rows.stop)
        noise = [torch.randn(tuple(event), generator=g) for g in generators_of(seeds, _START)]
        given: dict[str, Any] = {name: values[rows].to(device) for name, values in conditions.items()}
        # What is left of the data at the first time is not known: alpha is 0 there, or nearly.
        first = float(c.sigma) * torch.stack(noise).to(device)
        drawn = integrate(denoiser, first, table, generators=generators_of(seeds, _STEPS), **given)
        parts.append(drawn.float().cpu())
    return GeneratedSet(torch.cat(parts), {name: conditions[name].cpu() for name in keep})
