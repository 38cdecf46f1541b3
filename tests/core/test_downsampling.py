"""Down-sampling: torch's pooling, shares of voxels at any factor, slices where their centres are."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, avg_pool3d

from radiata_core.downsampling import AveragePooling, Profile, box_average, slice_profile, thick_slices
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.separable import Separable


def _of(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def test_pooling_is_that_of_torch_in_all_axes() -> None:
    plane, space = _of(2, 3, 8, 6), _of(2, 1, 4, 6, 8)
    torch.testing.assert_close(AveragePooling((4, 3), (3, 8, 6))(plane), avg_pool2d(plane, (4, 3)))
    pooled = AveragePooling((2, 2, 2), (1, 4, 6, 8))(space)
    assert pooled.shape == (2, 1, 2, 3, 4)
    torch.testing.assert_close(pooled, avg_pool3d(space, 2))


def test_pooling_is_the_separable_operator_of_boxes() -> None:
    x, pooling = _of(2, 1, 6, 8), AveragePooling((3, 2), (1, 6, 8))
    other = Separable([box_average(6, 2), box_average(8, 4)], (1, 6, 8))
    y = pooling(x)
    torch.testing.assert_close(y, other(x))
    torch.testing.assert_close(pooling.prox(x, y + 1, 0.3), other.prox(x, y + 1, 0.3))
    assert pooling.norm == pytest.approx(other.norm)


def test_boxes_of_any_factor_keep_the_mean_and_integrate_lines() -> None:
    """The integral of a piecewise constant line over [a, b] by its cumulative sum."""
    for measured in (1, 3, 5, 7):
        matrix, x = box_average(7, measured), _of(7)
        assert torch.allclose(matrix.sum(1), torch.ones(measured, dtype=torch.float64))
        torch.testing.assert_close((matrix @ x).mean(), x.mean())
        edges = torch.arange(measured + 1).double() * 7 / measured
        total = torch.cat([torch.zeros(1).double(), x.cumsum(0)])
        whole = edges.floor().long().clamp_max(6)
        at = total[whole] + (edges - whole) * x[whole]
        torch.testing.assert_close(matrix @ x, at.diff() * measured / 7)


@pytest.mark.parametrize("profile", list(Profile))
def test_slices_lie_where_they_should(profile: Profile) -> None:
    """A symmetric profile measures a straight line exactly at its centre, wherever it does not leave the grid."""
    for spacing, thickness in ((3.0, 3.0), (2.5, 4.0), (3.0, 1.3)):
        matrix = slice_profile(30, spacing, thickness, profile)
        assert len(matrix) == math.floor(30 / spacing)
        centres = 15 + (torch.arange(len(matrix)) - (len(matrix) - 1) / 2).double() * spacing
        measured = matrix @ (torch.arange(30).double() + 0.5)
        inner = (centres > 6) & (centres < 24)
        assert (measured - centres)[inner].abs().max() < (
            1e-9 if profile == Profile.BOX and thickness != 1.3 else 0.2
        )
        assert torch.allclose(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64))


def test_gaussian_profile_has_its_width() -> None:
    """Full width at half maximum, from the second moment: 2.355 standard deviations."""
    row = slice_profile(61, 61.0, 12.0, Profile.GAUSSIAN)[0]
    at = torch.arange(61).double() - 30
    assert 2.3548 * float((row * at**2).sum().sqrt()) == pytest.approx(12.0, rel=1e-3)


def test_thick_slices_average_and_leave_the_other_axes() -> None:
    x = _of(1, 1, 8, 5)
    torch.testing.assert_close(thick_slices((1, 8, 5), -2, 4.0)(x), avg_pool2d(x, (4, 1)))
    gaps = thick_slices((1, 8, 5), -2, 4.0, 2.0)(x)
    torch.testing.assert_close(gaps[0, 0], torch.stack([x[0, 0, 1:3].mean(0), x[0, 0, 5:7].mean(0)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AveragePooling((3, 2), (1, 8, 8)), "expected factors >= 1 that divide"),
        (lambda: AveragePooling((0, 2), (1, 8, 8)), "expected factors >= 1 that divide"),
        (lambda: AveragePooling((2,) * 4, (1, 8, 8)), "expected factors >= 1 that divide"),
        (lambda: box_average(4, 5), "expected 1 to 4 parts; got 5"),
        (lambda: slice_profile(8, 0.0, 1.0), "expected a spacing and a thickness > 0"),
        (lambda: slice_profile(8, 2.0, -1.0), "expected a spacing and a thickness > 0"),
        (lambda: slice_profile(8, 4.0, 4.0, slices=5), "expected slices whose centres lie on the 8 voxels"),
        (lambda: thick_slices((1, 8, 8), 1, 2.0), "expected an axis from the end"),
        (lambda: thick_slices((1, 8, 8), -3, 2.0), "expected an axis from the end"),
    ],
)
def test_bad_factors_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
