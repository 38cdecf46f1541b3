"""A head goes on the network's grid and comes back to its own; the same head in other clothes gives the same array."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.specs import describe, rebuild
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.preprocess import (
    PreprocessSpec,
    Record,
    canonical_affine,
    prepare_volume,
    restore_to_input,
)
from radiata_imaging.volume import Volume, centred_affine

SPEC = PreprocessSpec(spacing=4.0, shape=(48, 56, 48))


def smooth_head(
    spacing: float = 3.0, axcodes: str = "LPS", shape: tuple[int, int, int] = (64, 78, 66)
) -> Volume:
    """A soft ball of 80 mm with an inner landscape, black outside, in front of a flat floor."""
    affine = centred_affine(shape, spacing, axcodes)
    affine[:3, 3] += 5.0, 9.0, -4.0
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    x, y, z = (
        np.einsum("ab,bxyz->axyz", affine[:3, :3], index)
        + affine[:3, 3].reshape(3, 1, 1, 1)
        - np.reshape([5, 9, -4], (3, 1, 1, 1))
    )
    edge = 1 / (1 + np.exp((np.sqrt(x**2 + y**2 + z**2) - 80) / 6))
    return Volume(
        400 * edge * (1 + 0.2 * np.sin(x / 20 + 0.3) + 0.2 * np.cos(y / 25) + 0.2 * np.sin(z / 22)), affine
    )


def test_the_default_is_medforjs_grid_and_4_mm_sees_the_same() -> None:
    assert PreprocessSpec().field_of_view == SPEC.field_of_view == (192.0, 224.0, 192.0)
    np.testing.assert_allclose(canonical_affine(SPEC) @ [23.5, 27.5, 23.5, 1], [0, 0, 0, 1])


def test_nothing_is_interpolated_where_spacing_agrees() -> None:
    """Bit-exact both ways up to the intensity scale: prepared voxels are input voxels, and come back as they were."""
    volume = smooth_head()
    spec = PreprocessSpec(spacing=3.0, shape=(70, 84, 72), percentiles=(0.0, 100.0))
    prepared = prepare_volume(volume, spec)
    record = prepared.record
    assert all(axis.is_crop for axis in record.axes)
    start = np.array(record.start).astype(int)
    inside = prepared.array[tuple(slice(-s, -s + n) for s, n in zip(start, volume.shape, strict=True))]
    scaled = (volume.array - record.low) * np.float32(2 / (record.high - record.low)) - 1
    np.testing.assert_allclose(inside, scaled, atol=1e-6)
    assert (prepared.array == -1).sum() >= prepared.array.size - volume.array.size
    back = restore_to_input(prepared.array, record)
    np.testing.assert_array_equal(back.affine, volume.affine)
    np.testing.assert_allclose(back.array, volume.array, atol=1e-4)


def test_integers_come_back_exactly(rng: np.random.Generator) -> None:
    """An 8-bit head at the wanted spacing survives the round trip, voxel by voxel, outside what the percentiles clip."""
    array = np.rint(smooth_head().array / 3)
    volume = Volume(array, smooth_head().affine)
    prepared = prepare_volume(volume, PreprocessSpec(spacing=3.0, shape=(70, 84, 72)))
    back = restore_to_input(prepared.array, prepared.record)
    clipped = np.clip(array, prepared.record.low, prepared.record.high)
    np.testing.assert_allclose(back.array, clipped, atol=2e-5)


@pytest.mark.parametrize("axcodes", ["RAS", "LIA", "PSR"])
def test_orientation_of_the_file_does_not_matter(axcodes: str) -> None:
    volume = smooth_head()
    first = prepare_volume(volume, SPEC)
    second = prepare_volume(reorient(volume, axcodes), SPEC)
    np.testing.assert_allclose(second.array, first.array, atol=1e-5)
    np.testing.assert_allclose(second.affine, first.affine, atol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.01, 0.0), (3.0, 500.0)])
def test_the_scanners_units_do_not_matter(a: float, b: float) -> None:
    volume = smooth_head()
    first = prepare_volume(volume, SPEC).array
    second = prepare_volume(Volume(a * volume.array + b, volume.affine), SPEC).array
    np.testing.assert_allclose(second, first, atol=2e-5)


def test_finer_scans_give_the_same_head() -> None:
    """The scene sampled at 2 mm and at 3 mm, on shifted grids, is the same head at 4 mm (where its affine says)."""
    arrays = []
    for spacing, shape in ((2.0, (96, 117, 99)), (3.0, (64, 78, 66))):
        prepared = prepare_volume(smooth_head(spacing, shape=shape), SPEC)
        affine = prepared.affine
        index = np.stack(np.meshgrid(*map(np.arange, prepared.array.shape), indexing="ij"))
        world = np.einsum("ab,bxyz->axyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
        x, y, z = world - np.reshape([5, 9, -4], (3, 1, 1, 1))
        edge = 1 / (1 + np.exp((np.sqrt(x**2 + y**2 + z**2) - 80) / 6))
        truth = 400 * edge * (1 + 0.2 * np.sin(x / 20 + 0.3) + 0.2 * np.cos(y / 25) + 0.2 * np.sin(z / 22))
        record = prepared.record
        values = np.clip(2 * (truth - record.low) / (record.high - record.low) - 1, -1, 1)
        assert np.abs(prepared.array - values).max() < 0.06
        assert np.abs(prepared.array - values).mean() < 0.005
        arrays.append((record.low, record.high))
    np.testing.assert_allclose(arrays[0], arrays[1], atol=4)


def test_a_smooth_head_survives_the_way_there_and_back() -> None:
    """3 mm → 4 mm → 3 mm: mean error below half a percent of the range inside the field of view; background outside."""
    volume = reorient(smooth_head(), "RAS")
    prepared = prepare_volume(volume, SPEC)
    back = restore_to_input(prepared.array, prepared.record)
    assert (back.shape, back.axcodes) == (volume.shape, "RAS")
    np.testing.assert_array_equal(back.affine, volume.affine)
    record = prepared.record
    clipped = np.clip(volume.array, record.low, record.high)
    error = np.abs(back.array - clipped) / (record.high - record.low)
    inner = (slice(4, -4),) * 3
    assert error[inner].mean() < 0.005
    assert error[inner].max() < 0.08


def test_outside_the_prepared_box_is_background() -> None:
    volume = smooth_head()
    spec = PreprocessSpec(spacing=3.0, shape=(20, 20, 20))
    prepared = prepare_volume(volume, spec)
    back = restore_to_input(np.ones_like(prepared.array), prepared.record)
    assert (back.array == np.float32(prepared.record.low)).sum() == volume.array.size - 20**3


def test_labels_come_back_as_labels(rng: np.random.Generator) -> None:
    volume = smooth_head()
    prepared = prepare_volume(volume, SPEC)
    labels = rng.choice([0, 3, 42], SPEC.shape).astype(np.float32)
    back = restore_to_input(labels, prepared.record, interpolation=Interpolation.NEAREST)
    assert set(np.unique(back.array)) == {0, 3, 42}


def test_specification_and_record_are_plain_json() -> None:
    prepared = prepare_volume(smooth_head(), SPEC)
    record = Record.from_dict(json.loads(json.dumps(prepared.record.to_dict())))
    assert record == prepared.record
    np.testing.assert_array_equal(
        restore_to_input(prepared.array, record).array,
        restore_to_input(prepared.array, prepared.record).array,
    )
    assert rebuild(json.loads(json.dumps(describe(SPEC)))) == SPEC
    with pytest.raises(InputError, match="preprocessing record"):
        Record.from_dict({"shape": [1, 2, 3]})


def test_a_network_value_is_background_where_nothing_was_scanned() -> None:
    volume = smooth_head(shape=(40, 44, 40))
    prepared = prepare_volume(volume, SPEC)
    assert prepared.array.dtype == np.float32
    assert prepared.array.min() == -1
    assert prepared.array.max() <= 1
    np.testing.assert_array_equal(prepared.array[0], -1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"spacing": 0.0}, "spacing"),
        ({"spacing": float("nan")}, "spacing"),
        ({"shape": (0, 4, 4)}, "three positive"),
        ({"percentiles": (50.0, 2.0)}, "percentiles"),
        ({"axcodes": "LLS"}, "anatomical"),
    ],
)
def test_nonsense_is_refused(keywords: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PreprocessSpec(**keywords)
    with pytest.raises(InputError, match="expected an array of"):
        restore_to_input(np.zeros((3, 3, 3), np.float32), prepare_volume(smooth_head(), SPEC).record)


def test_a_flat_field_of_view_is_refused() -> None:
    array = np.zeros((60, 60, 60))
    array[0, 0, 0] = 1
    spec = PreprocessSpec(spacing=1.0, shape=(8, 8, 8), around_head=False)
    with pytest.raises(InputError, match="got the constant 0"):
        prepare_volume(Volume(array, np.eye(4)), spec)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_head() -> None:
    volume = smooth_head()
    np.testing.assert_allclose(
        prepare_volume(volume, SPEC, device="cuda").array, prepare_volume(volume, SPEC).array, atol=1e-3
    )


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["colin27_ch2", pytest.param("chris_t1", marks=pytest.mark.slow)])
def test_real_heads(shared_data: Path, name: str) -> None:
    """Brain and scalp fill the field of view, air stays −1, and 4 mm is the average of 1 mm."""
    volume = read_volume(shared_data / "t1" / f"{name}.nii.gz")
    fine = prepare_volume(volume, PreprocessSpec())
    coarse = prepare_volume(volume, SPEC)
    assert fine.array.shape == (192, 224, 192)
    assert 0.25 < (fine.array > -0.8).mean() < 0.75
    assert np.abs(fine.array[:3]).mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(
        (fine.record.low, fine.record.high), (coarse.record.low, coarse.record.high), atol=2
    )
    averaged = fine.array.reshape(48, 4, 56, 4, 48, 4).mean((1, 3, 5))
    assert np.corrcoef(averaged.ravel(), coarse.array.ravel())[0, 1] > 0.99
    assert averaged.mean() == pytest.approx(coarse.array.mean(), abs=0.01)
