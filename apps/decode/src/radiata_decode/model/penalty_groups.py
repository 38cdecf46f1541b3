"""Which penalties are compared, which targets share one, and which of them are looked at to choose it.

A group is a token, a principal component, a layer of latents: targets for which one penalty is enough. Its leave-one-out
error is estimated from a random subset of its targets, because the choice needs a few hundred, not all 200 000.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["checked_alphas", "checked_groups", "looked_at"]

Array = np.ndarray | Tensor


def checked_alphas(alphas: Array | Sequence[float] | float) -> Tensor:
    """Penalties as (penalties,) float64.

    Raises:
        InputError: none, or one that is not above 0.
    """
    grid = torch.as_tensor(alphas, dtype=torch.float64).flatten()
    if not len(grid) or not torch.isfinite(grid).all() or not (grid > 0).all():
        raise InputError(f"expected penalties alpha > 0; got {grid.tolist()}.")
    return grid


def checked_groups(groups: Array | Sequence[int] | None, number: int) -> Tensor:
    """The group of each of `number` targets, (t,), numbered from 0; each its own for None.

    Raises:
        InputError: another number of them.
    """
    if groups is None:
        return torch.arange(number)
    label = torch.as_tensor(groups)
    if label.shape != (number,):
        raise InputError(
            f"expected a group for each of {number} targets; got {tuple(label.shape)}. Give one whole number each."
        )
    return label.unique(return_inverse=True)[1]


def looked_at(label: Tensor, subset: int, generator: torch.Generator) -> Tensor:
    """Numbers of the targets that choose the penalties, ascending: some of each group at random."""
    groups = int(label.max()) + 1
    most = max(8, subset // groups)
    order = torch.randperm(len(label), generator=generator)
    order = order[label[order].argsort(stable=True)]
    counts = label.bincount(minlength=groups)
    rank = torch.arange(len(label)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[rank < most].sort().values
