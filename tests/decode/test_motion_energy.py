"""Filters of motion: the direction and rate of a drifting grating, whatever its phase; no answer to flicker of the whole."""

import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.motion_energy import MotionEnergy


def grating(
    direction: float, hertz: float, frequency: float = 4.0, phase: float = 0.0, frames: int = 16
) -> torch.Tensor:
    """A drifting grating, (1, frame, 3, 32, 32), 8 frames a second."""
    centres = (torch.arange(32) + 0.5) / 32
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    angle = math.radians(direction)
    along = frequency * (math.cos(angle) * x - math.sin(angle) * y)
    t = torch.arange(frames)[:, None, None] / 8
    film = 0.5 + 0.4 * torch.cos(2 * math.pi * (along - hertz * t) + phase)
    return film[None, :, None].expand(1, frames, 3, 32, 32)


@pytest.fixture(scope="module")
def bank() -> MotionEnergy:
    return MotionEnergy(8.0, temporal_hz=(0.0, 1.0, 2.0), compress="root")


def best(bank: MotionEnergy, film: torch.Tensor) -> tuple[float, float, float]:
    """Direction, rate and frequency that answer most, at the middle of the picture."""
    table, energy = bank.table, bank.features(film)[0]
    middle = (table["x"] - 0.5).abs().lt(0.3) & (table["y"] - 0.5).abs().lt(0.3)
    row = table[middle].iloc[int(np.argmax(energy[middle.to_numpy()]))]
    return row["direction"], row["temporal_hz"], row["frequency"]


@pytest.mark.parametrize("direction", [0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0])
def test_each_direction_is_told_from_all_others(bank: MotionEnergy, direction: float) -> None:
    assert best(bank, grating(direction, 2.0)) == (direction, 2.0, 4.0)


def test_the_opposite_direction_answers_little_and_rest_is_static(bank: MotionEnergy) -> None:
    table, energy = bank.table, bank.features(grating(0.0, 2.0))[0]
    here = (table["frequency"] == 4) & (table["temporal_hz"] == 2)
    along, against = (energy[(here & (table["direction"] == d)).to_numpy()].mean() for d in (0.0, 180.0))
    assert against < 0.15 * along
    assert best(bank, grating(90.0, 0.0)) == (90.0, 0.0, 4.0)


def test_the_phase_does_not_matter_and_amplitude_is_linear(bank: MotionEnergy) -> None:
    first, second = (bank.features(grating(45.0, 1.0, phase=phase)) for phase in (0.0, 1.3))
    strong = first > 0.3 * first.max()
    np.testing.assert_allclose(first[strong], second[strong], rtol=0.1)
    half = bank.features(0.5 + (grating(45.0, 1.0) - 0.5) / 2)
    np.testing.assert_allclose(half, first / 2, atol=1e-4)
    assert first.max() == pytest.approx(0.2, abs=0.03)  # half of the amplitude 0.4


def test_flicker_of_the_whole_picture_is_no_motion(bank: MotionEnergy) -> None:
    film = 0.5 + 0.4 * torch.sin(torch.arange(16.0)).reshape(1, 16, 1, 1, 1).expand(1, 16, 3, 32, 32)
    assert bank.features(film).max() < 1e-4


def test_half_a_picture_that_flickers_is_seen_at_its_edge_alone(bank: MotionEnergy) -> None:
    """Inside a half, all that changes is a constant, which no filter answers to."""
    film = torch.full((1, 16, 3, 32, 32), 0.5)
    film[..., :16] += 0.4 * torch.sin(torch.arange(16.0)).reshape(1, 16, 1, 1, 1)
    table, energy = bank.table, bank.features(film)[0]
    inside = (table["x"] < 0.2) & (table["frequency"] == 8)
    edge = (table["x"] - 0.5).abs().lt(0.1) & (table["frequency"] == 8)
    assert energy[inside.to_numpy()].max() < 1e-4
    assert energy[edge.to_numpy()].max() > 0.01


def test_a_series_has_the_films_energy_as_its_mean_and_rows_stand_alone(
    bank: MotionEnergy, generator: torch.Generator
) -> None:
    films = torch.rand(3, 8, 3, 32, 32, generator=generator)
    series = bank.series(films)
    np.testing.assert_allclose(np.sqrt((series**2).mean(1)), bank.features(films), atol=1e-5)
    assert series.shape == (3, 8, len(bank.table))
    np.testing.assert_allclose(bank.features(films)[1:2], bank.features(films[1:2]), atol=1e-6)


def test_banks_and_films_that_do_not_go() -> None:
    with pytest.raises(InputError, match="half of the frame rate"):
        MotionEnergy(8.0, temporal_hz=(4.0,))
    with pytest.raises(InputError, match="even number"):
        MotionEnergy(8.0, directions=5)
    with pytest.raises(InputError, match="root or log"):
        MotionEnergy(8.0, compress="no")
    with pytest.raises(InputError, match="square"):
        MotionEnergy(8.0).features(torch.zeros(1, 4, 3, 16, 20))
