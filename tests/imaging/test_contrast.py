"""Rendering: the moments of Rician noise, the bias field's scale, tissue order."""

import numpy as np
from scipy import stats

from radiata_imaging.contrast import T1_CLASSES, bias_field, intensities_of, rician


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
