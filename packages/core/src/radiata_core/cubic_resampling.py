r"""Cubic up-sampling: what a viewer shows of thick slices and large voxels, the baseline of super-resolution.

Between measured values at equal distances, along each axis in turn, Keys' cubic convolution

    z(u) = sum over i of y_i h(u - i),      h(u) = (a + 2)|u|^3 - (a + 3)|u|^2 + 1          |u| <= 1
                                                   a |u|^3 - 5 a |u|^2 + 8 a |u| - 4 a   1 < |u| < 2,   a = -1/2

goes through the values and is exact for parabolas. The position of a measured value is the centre of mass of its row in the
matrix of the operator, so slices with gaps, overlaps and profiles are put where they are. Beyond the first and the last the
image is continued by the value there.

The least-norm solution `operator.pseudo_inverse(y)`, of blocks where these are smooth, is the other baseline.

References:
    Keys, "Cubic convolution interpolation for digital image processing", 1981, https://doi.org/10.1109/TASSP.1981.1163711,
        eq. 15 and section IV.
"""

import torch
from torch import Tensor

from radiata_core.downsampling import AveragePooling, box_average
from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.separable import Separable
from radiata_core.types import Batch, Measurement

__all__ = ["cubic_matrix", "cubic_upsampling"]

_A = -0.5


def cubic_upsampling(operator: LinearOperator, y: Measurement) -> Batch:
    """The measurement on the grid of the image, by cubic interpolation, (batch, *event).

    Args:
        operator: A down-sampling of real images along its axes, `AveragePooling` or `Separable`.
        y: (batch, *measurement).

    Raises:
        InputError: another operator, or a measurement of another shape.
    """
    matrices: list[tuple[int, Tensor]]
    if isinstance(operator, AveragePooling):
        factors = enumerate(operator.factors, start=-len(operator.factors))
        space = operator.event_shape
        matrices = [(a, box_average(space[a], space[a] // f)) for a, f in factors if f > 1]
    elif isinstance(operator, Separable):
        matrices = [(axis, getattr(operator, f"matrix{-axis}")) for axis in operator.axes]
    else:
        raise InputError(
            f"expected a down-sampling along axes, AveragePooling or Separable; got {operator}. "
            "For others the baseline is pseudo_inverse."
        )
    if tuple(y.shape[1:]) != operator.measurement_shape:
        raise InputError(
            f"expected measurements {operator.measurement_shape}; got {tuple(y.shape)}. Use the operator's own."
        )
    for axis, matrix in matrices:
        up = cubic_matrix(matrix).to(y)
        y = (y.movedim(axis, -1) @ up.mT).movedim(-1, axis)
    return y


def cubic_matrix(matrix: Tensor) -> Tensor:
    """Cubic interpolation from the rows of a down-sampling to its voxels, (voxels, measured), float64.

    Args:
        matrix: Weights of every measured value, (measured, voxels), of positive row sums; the centres of mass of the rows
            are taken to be at equal distances.

    Raises:
        InputError: centres of mass that do not rise.
    """
    weights = matrix.detach().cpu().double()
    measured, voxels = weights.shape
    at = torch.arange(voxels, dtype=torch.float64)
    centres = (weights @ at) / weights.sum(1)
    if measured == 1:
        return torch.ones(voxels, 1, dtype=torch.float64)
    # Rows that reach beyond the grid are cut there, which moves their centre: the line is laid through the others.
    index = torch.arange(measured, dtype=torch.float64)
    inner = slice(1, -1) if measured >= 4 else slice(None)
    i, c = index[inner] - index[inner].mean(), centres[inner] - centres[inner].mean()
    spacing = float((i * c).sum() / i.square().sum())
    if not spacing > 0:
        raise InputError("expected measured values in the order of the voxels; got others. Sort the rows.")
    u = (at - centres[inner].mean()) / spacing + index[inner].mean()
    u = u.clamp(0, measured - 1)
    up = torch.zeros(voxels, measured, dtype=torch.float64)
    for neighbour in range(-1, 3):
        index = u.floor() + neighbour
        up.scatter_add_(1, index.clamp(0, measured - 1).long()[:, None], _keys((u - index).abs())[:, None])
    return up


def _keys(u: Tensor) -> Tensor:
    near = (_A + 2) * u**3 - (_A + 3) * u**2 + 1
    far = _A * (u**3 - 5 * u**2 + 8 * u - 4)
    return torch.where(u <= 1, near, torch.where(u < 2, far, 0.0))
