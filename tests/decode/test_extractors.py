"""Extractors: what their features keep, and that each picture has its own."""

import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.efficientnet_lite import EfficientNetLite0
from radiata_decode.model.extractors import (
    EfficientNetFeatures,
    FeatureExtractor,
    GaborFeatures,
    PcaFeatures,
    PixelFeatures,
    extracted,
)


def grating(angle: float, wavelength: float, phase: float = 0.0, side: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side) * 1.0, torch.arange(side) * 1.0, indexing="ij")
    wave = torch.cos(2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle)) + phase)
    return (0.5 + 0.4 * wave).expand(1, 3, side, side)


@pytest.mark.parametrize("scale", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_gabor_energy_is_tuned(number: int, scale: int) -> None:
    """Each grating is strongest in its own filter; neither phase nor light level change that."""
    gabor = GaborFeatures()
    angle, wavelength = math.pi * number / 4, gabor.wavelengths[scale]
    found = gabor(grating(angle, wavelength)).reshape(3, 4, 8, 8)
    assert np.unravel_index(found[:, :, 2:6, 2:6].mean((2, 3)).argmax(), (3, 4)) == (scale, number)
    shifted = gabor(grating(angle, wavelength, phase=1.0)).reshape(3, 4, 8, 8)
    np.testing.assert_allclose(shifted[scale, number, 3:5, 3:5], found[scale, number, 3:5, 3:5], rtol=0.05)
    assert np.abs(gabor(torch.full((1, 3, 64, 64), 0.7))).max() < 1e-6


def test_pca_keeps_what_pictures_share(generator: torch.Generator) -> None:
    """Against scikit-learn; the distance of two pictures in all components is that of their pixels."""
    from sklearn.decomposition import PCA

    training = torch.rand(30, 3, 8, 8, generator=generator)
    found = PcaFeatures.fit(training, components=29, side=8)
    features = extracted(found, training)
    reference = PCA(29, svd_solver="full").fit_transform(training.flatten(1).double().numpy())
    np.testing.assert_allclose(np.abs(features), np.abs(reference), atol=1e-4)
    distance = (training[0] - training[1]).norm().item()
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(distance, rel=1e-4)
    with pytest.raises(InputError, match="1 to 29 components of 30 pictures; got 30"):
        PcaFeatures.fit(training, components=30, side=8)


def test_features_of_a_picture_do_not_depend_on_its_batch(generator: torch.Generator) -> None:
    images = torch.rand(5, 3, 24, 24, generator=generator)
    with torch.random.fork_rng():
        network = EfficientNetFeatures(EfficientNetLite0().eval(), side=32)
    for extractor in (PixelFeatures(8), GaborFeatures(32), network):
        assert isinstance(extractor, FeatureExtractor)
        whole, one = extracted(extractor, images), extracted(extractor, images, batch=1)
        np.testing.assert_allclose(whole, one, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"pictures \(n, 3, y, x\)"):
        extracted(PixelFeatures(), images[0])
