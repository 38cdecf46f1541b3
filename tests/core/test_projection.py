"""Projection: chords of a disc, sums over rows and columns, scikit-image's transform where it is installed."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.seeds import generator_of


def _blobs(side: int) -> torch.Tensor:
    """A smooth image that is not symmetric in any way, within the inscribed circle."""
    at = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side
    rows, columns = at[:, None], at[None]
    first = torch.exp(-((rows - 0.12) ** 2 + (columns + 0.08) ** 2) / 0.012)
    second = 0.6 * torch.exp(-((rows + 0.1) ** 2 / 0.004 + (columns - 0.15) ** 2 / 0.01))
    return (first + second) * (torch.hypot(rows, columns) < 0.45)


def test_chords_of_a_disc() -> None:
    """2 sqrt(r² - s²) at every angle, to the raggedness of its edge: 2 % of the diameter on average."""
    side, radius = 101, 36.0
    at = torch.arange(side, dtype=torch.float64) - 50
    disc = (torch.hypot(at[:, None], at) <= radius).double()[None, None]
    operator = ParallelBeam(view_angles(12), (1, side, side), detectors=101)
    chords = 2 * (radius**2 - at**2).clamp_min(0).sqrt()
    gap = (operator(disc)[0, 0] - chords).abs()
    assert float(gap.mean()) < 0.02 * 2 * radius
    assert (operator(disc)[0, 0].sum(1) / (math.pi * radius**2) - 1).abs().max() < 0.01


def test_gaussian_blobs_at_any_angle() -> None:
    """The projection of exp(-|r - c|²/2w²) is w sqrt(2 pi) exp(-(s - c . u)²/2w²), to 1e-3 of its peak."""
    side, w, c = 65, 5.0, (6.0, -9.0)
    at = torch.arange(side, dtype=torch.float64) - 32
    image = torch.exp(-((at[:, None] - c[0]) ** 2 + (at - c[1]) ** 2) / (2 * w * w))
    angles = torch.tensor([0.0, 17, 45, 80, 90, 133, 180, 271], dtype=torch.float64)
    found = ParallelBeam(angles, (1, side, side), detectors=side)(image[None, None])[0, 0]
    theta = torch.deg2rad(angles)
    centre = -c[0] * theta.sin() + c[1] * theta.cos()
    expected = w * math.sqrt(2 * math.pi) * torch.exp(-((at - centre[:, None]) ** 2) / (2 * w * w))
    assert (found - expected).abs().max() < 0.02 * expected.max()


def test_right_angles_are_sums() -> None:
    x = torch.randn(2, 1, 5, 7, generator=generator_of(1), dtype=torch.float64)
    rows = ParallelBeam(torch.tensor([0.0]), (1, 5, 7), detectors=7)(x)
    torch.testing.assert_close(rows[:, :, 0], x.sum(2))
    columns = ParallelBeam(torch.tensor([90.0]), (1, 5, 7), detectors=5)(x)
    torch.testing.assert_close(columns[:, :, 0], x.sum(3).flip(2))
    beyond = ParallelBeam(torch.tensor([0.0]), (1, 5, 7), detectors=11)(x)
    assert torch.equal(beyond[..., :2], torch.zeros(2, 1, 1, 2, dtype=torch.float64))


def test_opposite_views_are_mirror_images() -> None:
    x = torch.randn(1, 1, 9, 8, generator=generator_of(1), dtype=torch.float64)
    views = ParallelBeam(torch.tensor([33.0, 213.0]), (1, 9, 8))(x)[0, 0]
    torch.testing.assert_close(views[1], views[0].flip(0))


def test_scikit_image_agrees() -> None:
    """It turns the image with linear interpolation and sums: another discretisation, the same within 1 % of the peak."""
    transform = pytest.importorskip("skimage.transform")
    image, angles = _blobs(65), view_angles(20, start=3.0)
    expected = torch.as_tensor(transform.radon(image.numpy(), angles.numpy(), circle=True)).T
    found = ParallelBeam(angles, (1, 65, 65), detectors=65)(image[None, None])[0, 0]
    assert (found - expected).abs().max() < 0.01 * expected.max()


def test_volumes_are_projected_plane_by_plane() -> None:
    x = torch.randn(2, 1, 6, 5, 3, generator=generator_of(1), dtype=torch.float64)
    angles = view_angles(4)
    whole = ParallelBeam(angles, (1, 6, 5, 3), axes=(-3, -2))(x)
    assert whole.shape[1:3] == (1, 3)
    for z in range(3):
        torch.testing.assert_close(whole[:, :, z], ParallelBeam(angles, (1, 6, 5))(x[..., z]))


def test_many_views_determine_the_image() -> None:
    image = _blobs(16)[None, None]
    operator = ParallelBeam(view_angles(60), (1, 16, 16))
    operator.iterations = 400
    assert (operator.pseudo_inverse(operator(image)) - image).norm() < 1e-3 * image.norm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: view_angles(0), "expected a view or more"),
        (lambda: view_angles(3, span=0.0), "expected a view or more over"),
        (lambda: ParallelBeam(torch.ones(2, 2), (1, 4, 4)), "expected finite angles"),
        (lambda: ParallelBeam(torch.tensor([torch.nan]), (1, 4, 4)), "expected finite angles"),
        (lambda: ParallelBeam(view_angles(2), (1, 4, 4), axes=(-1, -1)), "expected two different axes"),
        (lambda: ParallelBeam(view_angles(2), (1, 4, 4), axes=(1, 2)), "expected two different axes"),
        (lambda: ParallelBeam(view_angles(2), (1, 4, 4), detectors=0), "expected a detector or more"),
    ],
)
def test_bad_views_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
