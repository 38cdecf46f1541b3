"""Simulated lesions: their volume is what was asked for, they stay where they may be, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_medical.data.lesions import (
    LesionSpec,
    blob_shape,
    largest_sections,
    lesion_mean,
    placed_lesion,
    read_shapes,
    simulate_lesion,
)

BALL = sum((axis - 6.0) ** 2 for axis in np.indices((13, 13, 13))) <= 30


def brain(shape=(40, 36, 32)) -> np.ndarray:
    centre = [(n - 1) / 2 for n in shape]
    scaled = [(axis - c) / (0.45 * n) for axis, c, n in zip(np.indices(shape), centre, shape, strict=True)]
    return sum(axis**2 for axis in scaled) < 1


@pytest.mark.parametrize("voxels", [1, 40, 1500])
@pytest.mark.parametrize("kind", ["ball", "blob"])
def test_volume_is_exact_and_inside(voxels: int, kind: str, rng: np.random.Generator) -> None:
    allowed = brain()
    for _ in range(4):
        shape = BALL if kind == "ball" else blob_shape(rng)
        mask = placed_lesion(shape, allowed, allowed, voxels, rng)
        assert mask.sum() == voxels
        assert not mask[~allowed].any()


def test_a_turned_and_scaled_ball_is_a_ball(rng: np.random.Generator) -> None:
    """Second moments about the centre of a ball of N voxels: (3N/4pi)^(2/3)/5 along every axis."""
    everywhere = np.ones((48, 48, 48), bool)
    middle = np.zeros_like(everywhere)
    middle[24, 24, 24] = True
    mask = placed_lesion(BALL, middle, everywhere, 4000, rng)
    places = np.argwhere(mask)
    moments = np.linalg.eigvalsh(np.cov(places.T))
    np.testing.assert_allclose(moments, (3 * 4000 / (4 * np.pi)) ** (2 / 3) / 5, rtol=0.1)
    np.testing.assert_allclose(places.mean(0), 24, atol=0.7)


def test_shape_is_kept(rng: np.random.Generator) -> None:
    """A rod of 4 x 4 x 24 stays one: its moments are those of a rod of the new volume."""
    rod = np.ones((4, 4, 24), bool)
    everywhere = np.ones((64, 64, 64), bool)
    middle = np.zeros_like(everywhere)
    middle[32, 32, 32] = True
    mask = placed_lesion(rod, middle, everywhere, 8 * rod.sum(), rng)
    moments = np.sqrt(np.linalg.eigvalsh(np.cov(np.argwhere(mask).T)))
    assert moments[2] / moments[1] == pytest.approx(6, rel=0.2)
    assert moments[1] / moments[0] == pytest.approx(1, rel=0.2)


def test_image_changes_towards_the_lesion_mean_and_only_there(rng: np.random.Generator) -> None:
    allowed = brain()
    image = 0.5 * allowed.astype(np.float32)
    spec = LesionSpec(voxels=(300, 300), edge=0.0, texture=0.0, severity=(1.0, 1.0))
    lesion = simulate_lesion(image, allowed, allowed, (), 0.9, spec, rng)
    assert lesion.mask.sum() == 300
    np.testing.assert_allclose(lesion.image[lesion.mask], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(lesion.image[~lesion.mask], image[~lesion.mask])


def test_partial_volume_keeps_the_sum(rng: np.random.Generator) -> None:
    everywhere = np.ones((48, 48), bool)
    middle = np.zeros_like(everywhere)
    middle[20:28, 20:28] = True
    spec = LesionSpec(voxels=(120, 120), edge=1.0, texture=0.0, severity=(1.0, 1.0))
    lesion = simulate_lesion(np.zeros((48, 48)), middle, everywhere, (), 1.0, spec, rng)
    assert lesion.fraction.sum() == pytest.approx(120, rel=1e-3)
    assert lesion.image.sum() == pytest.approx(120, rel=1e-3)
    assert 0 < (lesion.fraction[lesion.mask] < 0.9).mean() < 1


def test_mass_effect_pushes_away(rng: np.random.Generator) -> None:
    """A coordinate as image: the tissue seen at a place comes from nearer to the lesion, on both sides."""
    shape = (40, 40)
    image = np.indices(shape)[0].astype(np.float64)
    everywhere, middle = np.ones(shape, bool), np.zeros(shape, bool)
    middle[20, 20] = True
    spec = LesionSpec(voxels=(80, 80), edge=0.0, texture=0.0, mass_effect=2.0, severity=(1e-6, 1e-6))
    moved = simulate_lesion(image, middle, everywhere, (), 0.0, spec, rng).image - image
    assert moved[13, 20] > 0.5
    assert moved[27, 20] < -0.5
    assert np.abs(moved).max() <= 2.0 + 1e-3


def test_lesions_are_bright_in_flair_and_dark_in_t1() -> None:
    assert lesion_mean("flair", 1.0) > 1.3
    assert lesion_mean("t2", 1.0) > 1.3
    assert lesion_mean("t1", 1.0) < 0.9
    with pytest.raises(InputError, match="contrast out of t1, t2"):
        lesion_mean("random", 1.0)


def test_bad_input_is_one_line(rng: np.random.Generator, tmp_path: Path) -> None:
    allowed = brain()
    with pytest.raises(InputError, match="may start; got none"):
        placed_lesion(BALL, np.zeros_like(allowed), allowed, 10, rng)
    with pytest.raises(InputError, match="Take a slice"):
        placed_lesion(BALL[0], allowed, allowed, 10, rng)
    with pytest.raises(InputError, match="range of voxels"):
        LesionSpec(voxels=(0, 10))
    with pytest.raises(InputError, match="got none in"):
        read_shapes(tmp_path)


@pytest.mark.needs_shared
def test_real_shapes_are_read_at_one_millimetre(shared_data: Path, rng: np.random.Generator) -> None:
    shapes = read_shapes(shared_data / "lesions", "Subject_*", limit=2)
    assert [round(shape.sum() / 1000, 2) for shape in shapes] == [9.42, 224.41]
    mask = placed_lesion(shapes[0], brain(), brain(), 500, rng)
    assert mask.sum() == 500

    section = largest_sections(shapes)[0]
    assert section.sum() == shapes[0].sum((0, 1)).max()
    with pytest.raises(InputError, match="0 and one other value; got 525 values"):
        read_shapes(shared_data / "lesions", "*_T2*")
