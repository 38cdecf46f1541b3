"""Rendering: the moments of Rician noise, the bias field's scale, tissue order."""

import numpy as np
import pytest
from scipy import ndimage, stats

from radiata_imaging.contrast import T1_CLASSES, bias_field, intensities_of, point_spread, rician


def test_rician_noise_has_scipys_law(rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov against scipy's Rice law; p > 1e-3 fails one correct program in a thousand."""
    drawn = rician(np.full((40, 40, 40), 3.0, np.float32), 2.0, rng).ravel()[:20000]
    assert stats.kstest(drawn, stats.rice(3.0 / 2.0, scale=2.0).cdf).pvalue > 1e-3


def test_bias_field_is_smooth_positive_and_scaled(rng: np.random.Generator) -> None:
    field = bias_field((24, 28, 24), rng, strength=0.1)
    log = np.log(field)
    assert abs(log.std() - 0.1) < 1e-5
    assert abs(log.mean()) < 1e-6
    assert np.abs(np.diff(log, axis=0)).max() < 0.1


def test_tissues_keep_their_order_and_texture(rng: np.random.Generator) -> None:
    """CSF < cortex < white matter, cortex / white near 0.76, and the texture's sd inside a tissue."""
    labels = np.zeros((60, 20, 20), np.int16)
    labels[:20], labels[20:40], labels[40:] = 24, 3, 2
    image = intensities_of(labels, rng)
    csf, cortex, white = (image[part].mean() for part in (slice(0, 20), slice(20, 40), slice(40, 60)))
    assert csf < cortex < white
    assert 0.65 < cortex / white < 0.87
    assert abs(image[40:].std() / T1_CLASSES["cerebral white matter"].texture - 1) < 0.05


def test_every_code_belongs_to_one_class() -> None:
    codes = [code for tissue in T1_CLASSES.values() for code in tissue.labels]
    assert len(codes) == len(set(codes))


def test_voxels_are_drawn_as_in_one_call() -> None:
    """Work in pieces does not change the stream: means of the classes first, then one normal a voxel in memory's order."""
    labels = np.full((5, 90, 91), 2, np.int16)
    drawn, replay = (np.random.default_rng(4) for _ in range(2))
    image = intensities_of(labels, drawn)
    means = {name: c.mean + c.spread * replay.standard_normal() for name, c in T1_CLASSES.items()}
    noise = replay.standard_normal(labels.shape, dtype=np.float32)
    white = np.float32(means["cerebral white matter"]) + np.float32(8.0) * noise
    assert np.array_equal(image, np.maximum(white, 0))
    assert drawn.bit_generator.state == replay.bit_generator.state


@pytest.mark.parametrize("sd", [0.0, 0.6, 1.0, 1.7])
def test_point_spread_has_the_stated_variance(sd: float, rng: np.random.Generator) -> None:
    """A point keeps its mass and its place and gets the variance sd^2 along each axis; and scipy's filter agrees."""
    image = np.zeros((25, 27, 23))
    image[12, 13, 11] = 1.0
    spread = point_spread(image, sd)
    assert spread.sum() == pytest.approx(1.0)
    for axis, centre in enumerate((12, 13, 11)):
        line = spread.sum(tuple({0, 1, 2} - {axis}))
        offset = np.arange(len(line)) - centre
        assert line @ offset == pytest.approx(0.0, abs=1e-12)
        assert line @ offset**2 == pytest.approx(sd**2, abs=1e-12)
    steps = max(1, round(sd**2 / 0.4))
    w = sd**2 / (2 * steps)
    expected = noise = rng.standard_normal((9, 8, 7))
    for axis in (0, 1, 2) * steps:
        expected = ndimage.correlate1d(expected, [w, 1 - 2 * w, w], axis, mode="constant")
    np.testing.assert_allclose(point_spread(noise.copy(), sd), expected, atol=1e-12)
