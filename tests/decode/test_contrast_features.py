"""Local contrast, light and colour of pictures, against what they must be for plain pictures and gratings."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.contrast_features import WAVELENGTHS, contrast_features

CELLS = 16  # grid of 4


def parts(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Amplitudes (n, wavelength, orientation, y, x), sides (n, 6, y, x), their roots, light (n, y, x)."""
    found = contrast_features(images, grid=4)
    cut = np.cumsum([16 * CELLS, 6 * CELLS, 6 * CELLS])
    amplitude, sides, roots, light = np.split(found, cut, axis=1)
    n = len(images)
    return (
        amplitude.reshape(n, 4, 4, 4, 4),
        sides.reshape(n, 6, 4, 4),
        roots.reshape(n, 6, 4, 4),
        light.reshape(n, 8, 8),
    )


def test_a_plain_picture_has_light_and_colour_only() -> None:
    colour = torch.tensor([0.8, 0.2, 0.4])
    amplitude, sides, roots, light = parts(colour.view(1, 3, 1, 1).expand(1, 3, 32, 32))
    grey = float(colour @ torch.tensor([0.2126, 0.7152, 0.0722]))
    assert np.abs(amplitude).max() < 1e-3
    expected = [max(grey - 0.5, 0), 0.6, 0.2, max(0.5 - grey, 0), 0, 0]
    np.testing.assert_allclose(sides[0].mean((1, 2)), expected, atol=1e-6)
    np.testing.assert_allclose(roots, np.sqrt(sides), atol=1e-6)
    np.testing.assert_allclose(light, grey, atol=1e-6)


def test_a_grating_has_half_its_amplitude_at_its_own_wavelength() -> None:
    """Energy of a·cos is a²/4 at the filter's own wave, away from the border; the cross orientation hears far less."""
    x = (torch.arange(32) + 0.5) / 32
    wave = 0.5 + 0.3 * torch.cos(2 * torch.pi * x / WAVELENGTHS[1])
    amplitude = parts(wave.expand(1, 3, 32, 32))[0][0, 1, :, 1:3, 1:3].mean((1, 2))
    assert amplitude.max() == pytest.approx(0.15, rel=0.05)
    assert np.sort(amplitude)[0] < 0.02


def test_a_mirrored_picture_has_mirrored_features() -> None:
    """Orientations of 45 and 135 degrees change places, the others stay."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, mirrored = parts(images), parts(images.flip(-1))
    np.testing.assert_allclose(mirrored[0][:, :, [0, 3, 2, 1]], plain[0][..., ::-1], atol=2e-4)
    for one, other in zip(plain[1:], mirrored[1:], strict=True):
        np.testing.assert_allclose(other, one[..., ::-1], atol=1e-5)


def test_bad_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="square pictures"):
        contrast_features(torch.zeros(1, 3, 32, 16))
    with pytest.raises(InputError, match="grid of 1 to 16"):
        contrast_features(torch.zeros(1, 3, 32, 32), grid=20)
