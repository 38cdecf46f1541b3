r"""Principal components of flow: what motion in training looks like, in as few numbers as it has.

$w \approx \bar w + \sum_k a_k\, e_k$, with orthonormal $e_k$ over all steps, components and cells. Camera motion, which
moves everything at once, is in the first; objects are in the later ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.flow_grids import check_flow

__all__ = ["FlowBasis"]


@dataclass(frozen=True, eq=False)
class FlowBasis:
    """A linear code of flow.

    Attributes:
        mean: Mean training flow, (step, 2, y, x).
        components: (k, step · 2 · y · x), orthonormal rows, largest variance first.
        variance: Share of the variance of training flow that is in them, 0 to 1.
    """

    mean: Tensor
    components: Tensor
    variance: float = 1.0

    @property
    def size(self) -> int:
        """k."""
        return len(self.components)

    @classmethod
    def fit(cls, flow: Tensor, components: int = 100) -> "FlowBasis":
        """Components of training flow (n, step, 2, y, x); as many as there can be, if fewer than asked for.

        Raises:
            InputError: not flow, fewer than two films, or components below 1.
        """
        check_flow(flow)
        if len(flow) < 2 or components < 1:
            raise InputError(
                f"expected at least two films and one component; got {len(flow)} and {components}."
            )
        mean = flow.double().mean(0)
        flat = (flow.double() - mean).flatten(1)
        tall = len(flat) > flat.shape[1]
        values, vectors = torch.linalg.eigh(flat.T @ flat if tall else flat @ flat.T)
        order = values.argsort(descending=True)[: min(components, len(flow) - 1, flat.shape[1])]
        kept = order[values[order] > 1e-10 * values.max().clamp(min=1e-30)]
        if not len(kept):
            raise InputError("expected flow that differs between films; got the same in all.")
        rows = vectors[:, kept].T if tall else vectors[:, kept].T @ flat
        chosen = rows / rows.norm(dim=1, keepdim=True)
        share = float(values[kept].sum() / values.clamp(min=0).sum())
        return cls(mean.float(), chosen.float().contiguous(), share)

    def encode(self, flow: Tensor) -> Tensor:
        """Coefficients (n, k)."""
        if flow.shape[1:] != self.mean.shape:
            raise InputError(
                f"expected flow (n, {', '.join(map(str, self.mean.shape))}); got {tuple(flow.shape)}. Resample it."
            )
        return (flow - self.mean.to(flow)).flatten(1) @ self.components.T.to(flow)

    def decode(self, coefficients: Tensor) -> Tensor:
        """Flow (n, step, 2, y, x)."""
        flat = coefficients @ self.components.to(coefficients)
        return flat.reshape(-1, *self.mean.shape) + self.mean.to(coefficients)
