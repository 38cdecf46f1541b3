"""A function of physical space stays where it is, whatever axes and grids it is seen on."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from radiata_core.errors import InputError
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.orientation import Grid, reorient, resample
from radiata_imaging.volume import Volume, centred_affine

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "SI"))
    for codes in itertools.product(*axes)
]


def world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ab,bxyz->axyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)


def scene(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A smooth function of world coordinates in mm without any symmetry."""
    x, y, z = world(affine, shape)
    return np.sin(x / 17) + 0.7 * np.cos(y / 19 + 0.4) + 0.5 * np.sin(z / 23 + x / 40)


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    return nib.eulerangles.euler2mat(*angles)


def seen(affine: np.ndarray, shape: tuple[int, int, int]) -> Volume:
    return Volume(scene(affine, shape), affine)


@pytest.mark.parametrize("target", ["LPS", "RAS", "LIA"])
def test_reorienting_moves_nothing(target: str) -> None:
    """All 48 orientations: the values are those of the function at the new voxels' places; and back is bit-identical."""
    shape = (9, 11, 13)
    for codes in ORIENTATIONS:
        volume = seen(centred_affine(shape, (1.0, 1.5, 2.0), codes), shape)
        moved = reorient(volume, target)
        assert moved.axcodes == target
        np.testing.assert_allclose(moved.array, scene(moved.affine, moved.shape), atol=1e-6)
        back = reorient(moved, codes)
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_allclose(back.affine, volume.affine, atol=1e-12)


def test_oblique_grids_keep_their_angle() -> None:
    affine = centred_affine((20, 22, 24), 1.5, "PIR")
    affine[:3] = rotation((0.2, -0.1, 0.15)) @ affine[:3]
    moved = reorient(seen(affine, (20, 22, 24)), "LPS")
    assert moved.axcodes == "LPS"
    np.testing.assert_allclose(moved.array, scene(moved.affine, moved.shape), atol=1e-6)


@pytest.mark.parametrize("spacing", [1.0, 2.0, 2.6, (1.5, 2.0, 3.0)])
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_resampling_keeps_the_scene_in_place(spacing: object, angles: tuple[float, float, float]) -> None:
    """Inside, within what a smooth function loses to averaging; a shift by a hundredth of a voxel would be seen."""
    shape = (44, 46, 48)
    affine = centred_affine(shape, 2.0, "LIA")
    affine[:3] = rotation(angles) @ affine[:3]
    affine[:3, 3] += 3.0, -5.0, 8.0
    result = resample(seen(affine, shape), spacing)
    truth = scene(result.affine, result.shape)
    inner = (slice(5, -5),) * 3
    error = (result.array - truth)[inner]
    assert np.abs(error).max() < 0.01
    gradient = np.stack(np.gradient(truth))[(slice(None), *inner)].reshape(3, -1)
    shift = np.linalg.lstsq(gradient.T, error.ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 1e-3  # voxels


def test_the_affine_is_exact_and_the_middle_stays() -> None:
    affine = centred_affine((40, 41, 42), (0.9, 1.0, 1.1), "RAS")
    affine[:3, 3] += 7.0
    result = resample(seen(affine, (40, 41, 42)), 3.0)
    np.testing.assert_allclose(result.spacing, 3.0, atol=1e-12)
    middle = [(np.array([*(np.array(s) - 1), 2]) / 2) for s in ((40, 41, 42), result.shape)]
    np.testing.assert_allclose(affine @ middle[0], result.affine @ middle[1], atol=1e-6)


def test_a_turned_grid_agrees_with_scipy(rng: np.random.Generator) -> None:
    """No anti-aliasing at equal spacing: the same numbers as scipy's spline on the same relative affine."""
    source = Volume(rng.normal(size=(20, 20, 20)), centred_affine((20, 20, 20), 1.0, "RAS"))
    affine = centred_affine((18, 19, 20), 1.0, "RAS")
    affine[:3] = rotation((0.2, 0.1, -0.3)) @ affine[:3]
    relative = np.linalg.inv(source.affine) @ affine
    expected = affine_transform(
        source.array, relative[:3, :3], relative[:3, 3], (18, 19, 20), order=3, mode="constant"
    )
    result = resample(source, Grid((18, 19, 20), affine), antialias=False)
    np.testing.assert_allclose(result.array, expected, atol=1e-5)


def test_the_same_grid_changes_nothing(rng: np.random.Generator) -> None:
    volume = Volume(rng.normal(size=(9, 8, 7)), centred_affine((9, 8, 7), 1.3, "PSR"))
    np.testing.assert_array_equal(resample(volume, Grid(volume.shape, volume.affine)).array, volume.array)


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1)])
def test_labels_stay_labels(rng: np.random.Generator, angles: tuple[float, float, float]) -> None:
    labels = Volume(rng.choice([0, 2, 41, 530], (20, 21, 22)), centred_affine((20, 21, 22), 1.0))
    affine = centred_affine((10, 11, 12), 2.0)
    affine[:3] = rotation(angles) @ affine[:3]
    result = resample(labels, Grid((10, 11, 12), affine), interpolation=Interpolation.NEAREST)
    assert set(np.unique(result.array)) <= {0, 2, 41, 530}


def test_outside_the_field_of_view_is_what_is_asked() -> None:
    volume = Volume(np.full((8, 8, 8), 5.0), centred_affine((8, 8, 8), 1.0))
    result = resample(volume, Grid((16, 8, 8), centred_affine((16, 8, 8), 1.0)), outside=-1.0)
    np.testing.assert_array_equal(result.array[:4], -1)
    np.testing.assert_array_equal(result.array[4:12], 5)


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_a_spacing_must_be_positive(spacing: float) -> None:
    with pytest.raises(InputError, match="positive spacing"):
        resample(Volume(np.zeros((4, 4, 4)), np.eye(4)), spacing)
