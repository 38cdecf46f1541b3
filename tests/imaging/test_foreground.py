"""The head is found by its outline, whatever noise, neck, orientation or threads of ghosting are there."""

from pathlib import Path

import numpy as np
import pytest

from radiata_imaging.foreground import find_head, otsu
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine

SHAPE = (64, 80, 72)
SPACING = 3.0


def head_affine() -> np.ndarray:
    affine = centred_affine(SHAPE, SPACING, "LPS")
    affine[:3, 3] += 11.0, -7.0, 5.0
    return affine


def synthetic_head(
    rng: np.random.Generator, *, noise: float = 0.0, neck: float = 60.0, offset: float = 0.0
) -> Volume:
    """A bright ellipsoid (75, 95, 85 mm) with a dark shell, a neck below and Rician noise; its middle is `offset` off."""
    affine = head_affine()
    grid = np.stack(np.meshgrid(*[SPACING * (np.arange(n) - (n - 1) / 2) for n in SHAPE], indexing="ij"))
    grid[2] -= offset
    radius = np.sqrt((grid[0] / 75) ** 2 + (grid[1] / 95) ** 2 + (grid[2] / 85) ** 2)
    image = np.where(radius < 1, 150.0, 0.0)
    image[(radius > 0.86) & (radius < 0.94)] = 12.0  # skull
    image[(radius < 0.3)] = 30.0  # ventricles
    column = (np.hypot(grid[0], grid[1] - 20) < 45) & (grid[2] < -50) & (grid[2] > -85 - neck)
    image = np.maximum(image, np.where(column, 120.0, 0.0))
    noisy = np.hypot(image + rng.normal(0, noise, SHAPE), rng.normal(0, noise, SHAPE)) if noise else image
    return Volume(noisy, affine)


@pytest.mark.parametrize("noise", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("neck", [0.0, 20.0])
@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR"])
def test_the_centre_hangs_from_the_vertex(
    rng: np.random.Generator, noise: float, neck: float, axcodes: str
) -> None:
    """88 mm below the top, in the middle of the widest part, to a coarse voxel; sd 30 is a fifth of the signal."""
    volume = reorient(synthetic_head(rng, noise=noise, neck=neck), axcodes)
    middle = (head_affine() @ [*((np.array(SHAPE) - 1) / 2), 1])[:3]
    centre = find_head(volume).centre
    np.testing.assert_allclose(centre, middle + np.array([0, 0, 85 - 88]), atol=4)


def test_noise_alone_does_not_become_head(rng: np.random.Generator) -> None:
    clean, noisy = find_head(synthetic_head(rng)), find_head(synthetic_head(rng, noise=30.0))
    both = (clean.mask & noisy.mask).sum() * 2 / (clean.mask.sum() + noisy.mask.sum())
    assert both > 0.97


def test_holes_are_filled_and_specks_dropped(rng: np.random.Generator) -> None:
    """Dark skull and ventricles belong to the head; a bright capsule in the air does not move the centre."""
    volume = synthetic_head(rng)
    head = find_head(volume)
    middle = np.rint(
        np.linalg.solve(head.affine, head_affine() @ [*((np.array(SHAPE) - 1) / 2), 1])[:3]
    ).astype(int)
    assert head.mask[tuple(middle)]
    array = volume.array.copy()
    array[2:5, 2:5, -6:-3] = 500
    np.testing.assert_allclose(find_head(Volume(array, volume.affine)).centre, head.centre, atol=4)


def test_otsu_maximises_the_variance_between_classes(rng: np.random.Generator) -> None:
    """Against every threshold of the same histogram, tried one by one."""
    values = np.concatenate([rng.normal(10, 3, 4000), rng.normal(60, 10, 2500)])
    threshold, low, high = otsu(values)
    edges = np.linspace(values.min(), values.max(), 257)[1:-1]

    def between(t: float) -> float:
        below = values < t
        return below.mean() * (~below).mean() * (values[~below].mean() - values[below].mean()) ** 2

    assert between(threshold) == pytest.approx(max(map(between, edges)), rel=1e-3)
    assert (low, high) == pytest.approx((10, 60), abs=1.5)


@pytest.mark.needs_shared
def test_real_heads_fill_the_field_of_view(shared_data: Path) -> None:
    """Two scans of one man, cropped differently and in different orientations, give the same place in his world."""
    first = read_volume(shared_data / "t1" / "chris_t1.nii.gz")
    head = find_head(first)
    assert 0.3 < head.fraction < 0.7
    box = first.array.shape
    index = np.linalg.solve(first.affine, [*head.centre, 1])[:3]
    assert (np.abs(index / box - 0.5) < 0.2).all()
    # Without the lowest 40 mm (neck and chin) the centre stays.
    cut = reorient(first, "RAS")
    lower = round(40 / cut.spacing[2])
    affine = cut.affine.copy()
    affine[:3, 3] = (cut.affine @ [0, 0, lower, 1])[:3]
    np.testing.assert_allclose(find_head(Volume(cut.array[:, :, lower:], affine)).centre, head.centre, atol=5)


@pytest.mark.needs_shared
@pytest.mark.parametrize("number", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_the_centre_is_near_the_middle_of_the_brain(shared_data: Path, number: int) -> None:
    """MedForJ crops around the brain's bounding box; ours, without a brain mask, is within 14 mm of it on known anatomy."""
    labels = read_volume(shared_data / "labels" / f"training_seg_{number:02d}.nii.gz")
    brain = (labels.array > 1) & (labels.array < 100) & (labels.array != 24)
    image = Volume(np.where(brain, 100, np.where(labels.array > 0, 60, 0)), labels.affine)
    index = np.argwhere(brain)
    middle = (labels.affine @ [*((index.min(0) + index.max(0)) / 2), 1])[:3]
    assert np.abs(find_head(image).centre - middle).max() < 14
