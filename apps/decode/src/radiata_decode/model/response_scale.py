r"""What is done to responses before the ridge: centre each voxel, weigh it, weigh the trials; and products of the result.

With trial weights $s_i$ and voxel weights $q_v$, ridge with an intercept sees

$$ \tilde X_{iv} = \sqrt{s_i}\,(x_{iv} - \bar x_v)\,q_v, \qquad \bar x_v = \sum_i s_i x_{iv} / \sum_i s_i . $$

$\tilde X$ is never kept: responses stay where they are (an array or a memory map), and the matrices made of $\tilde X$ are
summed over blocks of voxels or trials. Means are taken in float64; blocks are multiplied in the precision asked for and
added up in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["ResponseScale", "response_scale"]

VOXELS = 1024  # a block: 8859 trials of them are 36 MB in float32
ROWS = 1024
Responses = np.ndarray | Tensor


@dataclass(frozen=True)
class ResponseScale:
    """Centre and weight of each voxel, from training responses.

    Attributes:
        mean: Weighted mean over training trials, (v,) float64, in units of the responses.
        weight: What the centred response is multiplied by, (v,) float64, ≥ 0.
    """

    mean: Tensor
    weight: Tensor

    def check(self, responses: Responses, what: str = "responses") -> None:
        """Refuse responses that do not fit.

        Raises:
            InputError: not (trial, voxel), or another number of voxels.
        """
        _check_matrix(responses, what)
        if responses.shape[1] != len(self.mean):
            raise InputError(
                f"expected {what} of {len(self.mean)} voxels, as in training; got {responses.shape[1]}. "
                "Use the subject, the mask and the order of voxels that the model was trained with."
            )

    def blocks(
        self,
        responses: Responses,
        *,
        rows: slice = slice(None),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[slice, Tensor]]:
        """Centred and weighted responses, `VOXELS` voxels at a time: (which voxels, (trial, voxels of the block)).

        Raises:
            InputError: a response that is not finite.
        """
        for start in range(0, len(self.mean), VOXELS):
            part = slice(start, start + VOXELS)
            block = _tensor(responses[rows, part], dtype, device)
            if not torch.isfinite(block).all():
                raise _not_finite(block, start)
            mean, weight = (each[part].to(block) for each in (self.mean, self.weight))
            yield part, (block - mean) * weight


def response_scale(
    responses: Responses,
    sample_weights: Tensor,
    voxel_weights: np.ndarray | Tensor | None = None,
    *,
    standardise: bool = False,
) -> ResponseScale:
    """Weighted mean and weight of each voxel.

    Args:
        responses: (n, v).
        sample_weights: (n,) float64, > 0.
        voxel_weights: (v,), ≥ 0, e.g. the root of the noise ceiling; None: 1.
        standardise: Also divide by the standard deviation (ddof = 1) of the responses; a voxel that never
            changes gets weight 0.

    Raises:
        InputError: shapes, weights or responses that cannot be used.
    """
    _check_matrix(responses, "responses")
    trials, voxels = responses.shape
    weight = _checked_weights(voxel_weights, voxels)
    mean = torch.empty(voxels, dtype=torch.float64)
    share = sample_weights.cpu() / sample_weights.sum().cpu()
    for start in range(0, voxels, VOXELS):
        part = slice(start, start + VOXELS)
        block = _tensor(responses[:, part], torch.float64, "cpu")
        if not torch.isfinite(block).all():
            raise _not_finite(block, start)
        mean[part] = share @ block
        if standardise:
            # A voxel that is constant up to rounding says nothing.
            spread = (block - block.mean(0)).square().sum(0).div(trials - 1).sqrt()
            constant = spread <= 1e-6 * block.abs().amax(0)
            weight[part] = torch.where(constant, 0.0, weight[part] / spread.where(~constant, torch.ones(())))
    return ResponseScale(mean, weight)


def _checked_weights(voxel_weights: np.ndarray | Tensor | None, voxels: int) -> Tensor:
    if voxel_weights is None:
        return torch.ones(voxels, dtype=torch.float64)
    weight = torch.tensor(np.asarray(voxel_weights), dtype=torch.float64)
    if weight.shape != (voxels,) or not torch.isfinite(weight).all() or (weight < 0).any():
        raise InputError(
            f"expected one finite voxel weight ≥ 0 for each of {voxels} voxels; got {tuple(weight.shape)} with "
            f"{int((~torch.isfinite(weight) | (weight < 0)).sum())} others. Give 0 to voxels of unknown reliability."
        )
    if not weight.any():
        raise InputError("expected a voxel with a weight above 0; got none. Leave the voxel weights out.")
    return weight


def _check_matrix(responses: Any, what: str) -> None:
    shape = tuple(getattr(responses, "shape", ()))
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"expected {what} of (trial, voxel), at least one of each; got shape {shape}.")


def _not_finite(block: Tensor, start: int) -> InputError:
    bad = ~torch.isfinite(block).all(0)
    first = start + int(bad.nonzero()[0])
    return InputError(
        f"expected finite responses; got NaN or infinity in {int(bad.sum())} of the voxels {start} to "
        f"{start + block.shape[1] - 1}, first in {first}. Prepare the subject again: it masks them."
    )


def _tensor(values: Any, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    if not isinstance(values, Tensor):
        values = torch.from_numpy(
            np.array(values, copy=True)
        )  # a memory map is read here, and may be read-only
    return values.detach().to(device, dtype)
