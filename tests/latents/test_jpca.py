"""Planes of rotation against rotations that are known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from radiata_core.errors import InputError
from radiata_latents.model.jpca import principal_plane, rotation_plane


def turning(rng: np.random.Generator, hz: float = 2.5, bin_s: float = 0.02, noise: float = 0.0):
    """8 conditions of 40 bins in 7 latents that turn at `hz` in a known plane and decay elsewhere; (states, plane)."""
    axes = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    angle = 2 * np.pi * hz * bin_s * np.arange(40) + rng.uniform(0, 2 * np.pi, (8, 1))
    size = rng.uniform(0.5, 2, (8, 1))
    fast = np.stack([size * np.cos(angle), size * np.sin(angle)], -1) @ axes[:, :2].T
    slow = np.exp(-0.01 * np.arange(40))[:, None] * rng.standard_normal((8, 1, 2)) @ axes[:, 2:4].T
    return 3.0 + fast + slow + noise * rng.standard_normal((8, 40, 7)), axes[:, :2]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the largest angle between two planes."""
    return float(np.linalg.svd(a.T @ b)[1].min())


@pytest.mark.parametrize("hz", [0.7, 2.5, 11.0])
def test_a_pure_rotation_is_found_with_its_exact_frequency(rng: np.random.Generator, hz: float) -> None:
    """No error of the bin's width, even at 11 Hz in bins of 20 ms (79 degrees a bin)."""
    angle = 2 * np.pi * hz * 0.02 * np.arange(50) + np.array([0.0, 2.0, 4.1])[:, None]
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :2]
    plane = rotation_plane(np.stack([np.cos(angle), np.sin(angle)], -1) @ axes.T, 0.02, components=2)
    assert plane.frequency_hz == pytest.approx(hz, abs=1e-9)
    assert overlap(plane.axes, axes) == pytest.approx(1, abs=1e-9)
    assert plane.share == pytest.approx(1, abs=1e-9) and sum(plane.variance) == pytest.approx(1, abs=1e-9)


def test_a_rotation_among_other_latents_and_noise(rng: np.random.Generator) -> None:
    states, axes = turning(rng, noise=0.05)
    plane = rotation_plane(states, 0.02)
    assert plane.frequency_hz == pytest.approx(2.5, rel=0.03)
    assert overlap(plane.axes, axes) > 0.99
    seen = plane.project(states - states.mean(0) + states.mean((0, 1)))
    angles = np.unwrap(np.arctan2(seen[..., 1], seen[..., 0]), axis=1)
    assert (angles[:, -1] > angles[:, 0]).all(), "it turns anticlockwise"


def test_the_rotation_is_the_best_among_all_skew_matrices(rng: np.random.Generator) -> None:
    """Against a general optimiser over the free entries of a skew-symmetric matrix."""
    from radiata_latents.model.jpca import _skew

    x, dx = rng.standard_normal((2, 60, 4))
    upper = np.triu_indices(4, 1)

    def matrix(entries: np.ndarray) -> np.ndarray:
        full = np.zeros((4, 4))
        full[upper] = entries
        return full - full.T

    best = minimize(lambda e: np.square(dx - x @ matrix(e).T).sum(), np.zeros(6), tol=1e-12).x
    np.testing.assert_allclose(_skew(x, dx), matrix(best), atol=1e-5)


def test_principal_components_are_those_of_a_singular_value_decomposition(rng: np.random.Generator) -> None:
    states = rng.standard_normal((6, 20, 5)) * np.array([5, 3, 1, 1, 0.5]) + 2
    plane = principal_plane(states)
    flat = states.reshape(-1, 5) - states.reshape(-1, 5).mean(0)
    _, spread, axes = np.linalg.svd(flat, full_matrices=False)
    assert overlap(plane.axes, axes[:2].T) == pytest.approx(1)
    np.testing.assert_allclose(plane.variance, (spread**2 / (spread**2).sum())[:2])
    np.testing.assert_allclose(plane.project(states).var((0, 1)), spread[:2] ** 2 / len(flat))


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (np.ones((3, 10, 4)), "states that vary"),
        (np.full((3, 10, 4), np.nan), "finite states"),
        (np.zeros((10, 4)), "trial, time"),
        (np.arange(24.0).reshape(3, 2, 4), "three bins"),
    ],
)
def test_what_cannot_be_projected_is_said(states: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rotation_plane(states, 0.02)
