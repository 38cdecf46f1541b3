"""Motion energy of drifting, still and flickering gratings, whose direction and speed are known."""

import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import WAVELENGTHS
from radiata_decode.data.motion_maps import DIRECTIONS, MOTION_MAPS, SPEEDS, motion_maps

SIZE, FRAMES = 32, 12


def drifting(direction: float, wavelength: float, speed: float) -> torch.Tensor:
    """A grating that moves in `direction` (degrees, counterclockwise, 0 to the right) at `speed` widths a frame."""
    centres = (np.arange(SIZE) + 0.5) / SIZE
    y, x = np.meshgrid(centres, centres, indexing="ij")
    theta = math.radians(direction)
    along = x * math.cos(theta) - y * math.sin(theta)
    frames = [0.5 + 0.4 * np.cos(2 * np.pi * (along - speed * t) / wavelength) for t in range(FRAMES)]
    return torch.from_numpy(np.repeat(np.stack(frames)[:, None], 3, axis=1)).to(torch.float32)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_the_map_of_the_direction_and_speed_answers_most(row):
    films = torch.stack([drifting(d, WAVELENGTHS[row], SPEEDS[row]) for d in DIRECTIONS])
    centre = motion_maps(films)[:, :, 16, 16].unflatten(1, (3, 8))
    for number in range(8):
        assert int(centre[number].argmax()) == row * 8 + number
        assert centre[number, :, (number + 4) % 8].max() < 1e-3 * centre[number].max()  # the opposite


def test_stills_and_flicker_move_nowhere():
    still = drifting(0.0, 1 / 4, 0.0)
    both = (drifting(0.0, 1 / 4, 1 / 24) + drifting(180.0, 1 / 4, 1 / 24)) / 2
    right = motion_maps(drifting(0.0, 1 / 4, 1 / 24)[None])[0, :, 16, 16].max()
    maps = motion_maps(torch.stack([still, both]))[:, :, 16, 16]
    assert maps[0].max() < 1e-6 * right
    assert maps[1].max() < 0.02 * right


def test_a_film_backwards_moves_in_the_opposite_direction(rng):
    film = torch.from_numpy(rng.random((1, FRAMES, 3, SIZE, SIZE))).to(torch.float32)
    forward = motion_maps(film).unflatten(1, (3, 8))
    backward = motion_maps(film.flip(1)).unflatten(1, (3, 8))
    assert torch.allclose(backward, forward.roll(4, dims=2), rtol=1e-2, atol=1e-6)


def test_a_film_has_the_same_maps_alone_and_in_a_batch(generator):
    films = torch.rand(5, 4, 3, 16, 16, generator=generator)
    maps = motion_maps(films, chunk=2)
    assert maps.shape == (5, len(MOTION_MAPS), 16, 16)
    assert torch.allclose(motion_maps(films[3:4]), maps[3:4], atol=1e-8)


def test_what_does_not_go_is_said():
    with pytest.raises(InputError, match="at least 4 frames"):
        motion_maps(torch.zeros(1, 3, 3, 16, 16))
    with pytest.raises(InputError, match="square RGB films"):
        motion_maps(torch.zeros(1, 4, 16, 16, 3))
