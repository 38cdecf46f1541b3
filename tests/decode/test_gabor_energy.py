"""Gabor energies against gratings, whose energies are known, and a second implementation in pixels."""

import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import MAPS, ORIENTATIONS, WAVELENGTHS, gabor_energy, picture_maps

SIZE = 32


def grating(wavelength: float, orientation: float, phase: float, size: int = SIZE) -> torch.Tensor:
    """Bars along `orientation`, counterclockwise from horizontal, in a picture whose y grows downward."""
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    theta = math.radians(orientation)
    across = x * math.sin(theta) + y * math.cos(theta)
    return torch.cos(2 * math.pi * across / wavelength + phase).to(torch.float32)


@pytest.mark.parametrize("wavelength", WAVELENGTHS[:2])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_filter_of_a_grating_answers_most_and_by_a_quarter_of_the_squared_amplitude(
    wavelength, orientation
):
    energy = gabor_energy(0.8 * grating(wavelength, orientation, 0.4)[None])[0, :, 16, 16]
    best = WAVELENGTHS.index(wavelength) * 4 + ORIENTATIONS.index(orientation)
    assert int(energy.argmax()) == best
    assert float(energy[best]) == pytest.approx(0.8**2 / 4, rel=0.02)
    assert energy.sort().values[-2] < 0.2 * energy[best]


def test_energy_does_not_depend_on_the_phase_and_not_on_the_mean():
    phases = torch.stack([grating(1 / 8, 45.0, phase) for phase in (0.0, 1.0, 2.0, 3.0)])
    energy = gabor_energy(phases)[:, 1, 8:24, 8:24]
    assert torch.allclose(energy, energy[:1].expand_as(energy), rtol=0.03)
    assert torch.allclose(gabor_energy(phases + 3.0), gabor_energy(phases), atol=1e-4)
    assert gabor_energy(torch.ones(1, SIZE, SIZE)).abs().max() < 1e-6


@pytest.mark.parametrize(("row", "column"), [(14, 11), (1, 30)])
def test_energy_is_that_of_a_filter_summed_over_pixels(row, column, rng):
    """The value at one point, by the definition in the module's docstring, on the mirrored picture."""
    plane = rng.random((SIZE, SIZE))
    mirrored = np.pad(plane, 16, mode="reflect")
    wavelength, theta = WAVELENGTHS[0] * SIZE, math.radians(45.0)
    y, x = np.mgrid[:64, :64] - np.array([16 + row, 16 + column])[:, None, None]
    sigma = wavelength / 2
    bell = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    wave = np.exp(-2j * math.pi * (x * math.sin(theta) + y * math.cos(theta)) / wavelength)
    kernel = bell * (wave - math.exp(-2 * (math.pi / 2) ** 2))
    expected = abs((kernel * mirrored).sum()) ** 2
    found = gabor_energy(torch.from_numpy(plane).to(torch.float32)[None])[0, 1, row, column]
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_maps_of_colours_and_luminance_are_rectified_pairs():
    picture = torch.zeros(1, 3, SIZE, SIZE)
    picture[:, 0] = 0.9
    maps = dict(zip(MAPS, picture_maps(picture)[0], strict=True))
    assert float(maps["red"].mean()) == pytest.approx(0.9)
    assert float(maps["yellow"].mean()) == pytest.approx(0.45)
    assert float(maps["off"].mean()) == pytest.approx(0.5 - 0.2126 * 0.9, abs=1e-5)
    assert maps["green"].max() == maps["blue"].max() == maps["on"].max() == 0


def test_a_picture_has_the_same_maps_alone_and_in_a_batch(generator):
    pictures = torch.rand(9, 3, 16, 16, generator=generator)
    maps = picture_maps(pictures, chunk=4)
    assert maps.shape == (9, 18, 16, 16) and maps.min() >= 0
    assert torch.allclose(picture_maps(pictures[5:6]), maps[5:6], atol=1e-7)


def test_what_does_not_go_is_said():
    with pytest.raises(InputError, match="square RGB pictures"):
        picture_maps(torch.zeros(2, 3, 16, 20))
    with pytest.raises(InputError, match="at least 8 pixels"):
        picture_maps(torch.zeros(2, 3, 4, 4))
