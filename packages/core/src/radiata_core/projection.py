r"""Parallel-beam projection: the line integrals of computed tomography, from few views or a limited range of angles.

    (A x)(theta, s) = sum over steps of the ray of x, linear between the two voxels beside it, times the length of a step

which is Joseph's method: a ray steps from row to row (or column to column, whichever it crosses more steeply). Weights are
kept as one sparse matrix and its transpose, so the adjoint is exact, for about 2 x views x detectors x side numbers of 16
bytes each, twice. Rays at angle theta run along v = (cos theta, sin theta) in (row, column) and lie side by side along u =
(-sin theta, cos theta), so theta = 0 sums over rows; lengths are voxels. Volumes are projected plane by plane.

There is no closed form; conjugate gradients solve. Directions that few views leave unseen have singular values near 0.

References:
    Joseph, "An improved algorithm for reprojecting rays through pixel images", 1982, https://doi.org/10.1109/TMI.1982.4307572.
    Kak & Slaney, "Principles of computerized tomographic imaging", 1988, https://doi.org/10.1137/1.9780898719277, chapter 3.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator

__all__ = ["ParallelBeam", "view_angles"]


def view_angles(count: int, *, start: float | int = 0.0, span: float | int = 180.0) -> Float[Tensor, "views"]:
    """Even angles from `start` over `span` degrees, the end left out, float64: fewer are sparse views, a span below 180 is
    a limited angle.

    Raises:
        InputError: no view, or a span outside (0, 360].
    """
    if count < 1 or not 0 < span <= 360:
        raise InputError(
            f"expected a view or more over 0 to 360 degrees; got {count} over {span}. 180 is whole."
        )
    return start + torch.arange(count, dtype=torch.float64) * span / count


class ParallelBeam(LinearOperator):
    """Sinograms, (channel, ..., view, detector), of the planes of an image.

    Args:
        angles: Of the views, in degrees, (views,).
        event_shape: Shape of one event, channels first.
        detectors: Their number, one voxel apart, the middle one(s) facing the middle of the plane; None: enough to see all.
        axes: The two axes of the plane, from the end, in order; the axial plane of `channel x y z` is (-3, -2).

    Raises:
        InputError: angles, detectors or axes out of range.
    """

    complex_event = complex_measurement = False

    def __init__(
        self,
        angles: Tensor,
        event_shape: Sequence[int],
        *,
        detectors: int | None = None,
        axes: tuple[int, int] = (-2, -1),
    ) -> None:
        shape, rank = tuple(event_shape), len(event_shape)
        if not all(-rank <= axis < 0 for axis in axes) or axes[0] == axes[1]:
            raise InputError(
                f"expected two different axes from the end of {shape}; got {axes}. (-2, -1) is usual."
            )
        if angles.ndim != 1 or len(angles) < 1 or not bool(torch.isfinite(angles).all()):
            raise InputError(f"expected finite angles (views,); got {tuple(angles.shape)}. Use view_angles.")
        plane = shape[axes[0]], shape[axes[1]]
        if detectors is None:
            detectors = math.ceil(math.hypot(*plane)) + 1
        if detectors < 1:
            raise InputError(f"expected a detector or more; got {detectors}. None sees the whole plane.")
        rest = tuple(n for i, n in enumerate(shape) if i - rank not in axes)
        super().__init__(shape, (*rest, len(angles), detectors), angles.device)
        self.angles, self.axes, self.plane = angles, axes, plane
        entries = _joseph(angles.detach().cpu().double(), plane, detectors)
        size = len(angles) * detectors, plane[0] * plane[1]
        self.matrix = _csr(*entries, size).to(angles.device)
        self.transposed = _csr(entries[1], entries[0], entries[2], size[::-1]).to(angles.device)

    def _forward(self, x: Tensor) -> Tensor:
        planes = x.movedim(self.axes, (-2, -1))
        rows = planes.reshape(-1, self.plane[0] * self.plane[1])
        return self._multiplied("matrix", "transposed", rows).reshape(len(x), *self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        rows = y.reshape(-1, y.shape[-2] * y.shape[-1])
        planes = self._multiplied("transposed", "matrix", rows)
        return planes.reshape(*y.shape[:-2], *self.plane).movedim((-2, -1), self.axes)

    def _multiplied(self, name: str, other: str, rows: Tensor) -> Tensor:
        product: Tensor = _SparseProduct.apply(rows, self._like(name, rows), self._like(other, rows))
        return product


class _SparseProduct(torch.autograd.Function):
    """rows @ matrix^T, whose way back is the transpose that is there already."""

    @staticmethod
    def forward(rows: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        return (matrix @ rows.mT).mT.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.pair = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        matrix, transposed = ctx.pair
        return _SparseProduct.apply(slopes[0], transposed, matrix), None, None


def _joseph(angles: Tensor, plane: tuple[int, int], detectors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ray, voxel and weight of every contribution."""
    rays, voxels, weights = [], [], []
    at = torch.arange(detectors, dtype=torch.float64) - (detectors - 1) / 2
    for view, theta in enumerate(torch.deg2rad(angles).tolist()):
        u, v = (-math.sin(theta), math.cos(theta)), (math.cos(theta), math.sin(theta))
        main = 0 if abs(v[0]) >= abs(v[1]) else 1
        across = 1 - main
        steps = torch.arange(plane[main], dtype=torch.float64) - (plane[main] - 1) / 2
        along = (steps[None] - at[:, None] * u[main]) / v[main]  # length along the ray, (detectors, steps)
        place = (plane[across] - 1) / 2 + at[:, None] * u[across] + along * v[across]
        lower = place.floor()
        for neighbour, share in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
            inside = (neighbour >= 0) & (neighbour < plane[across]) & (share > 0)
            ray, step = inside.nonzero(as_tuple=True)
            beside = neighbour[inside].long()
            rays.append(view * detectors + ray)
            voxels.append(step * plane[1] + beside if main == 0 else beside * plane[1] + step)
            weights.append(share[inside] / abs(v[main]))
    return torch.cat(rays), torch.cat(voxels), torch.cat(weights)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    order = (rows * size[1] + columns).argsort()
    starts = torch.zeros(size[0] + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(rows, minlength=size[0]).cumsum(0)
    with warnings.catch_warnings():
        # torch calls its CSR layout beta; it is 20 times faster than COO here, and the tests compare it with dense.
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(starts, columns[order], values[order], size, check_invariants=False)
