"""Renoising: how much noise a state has, old and fresh, and by singular direction."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from radiata_core.data_steps import Correction, Moment, Problem
from radiata_core.paths import LinearPath
from radiata_core.renoising import (
    AncestralShare,
    FixedShare,
    MixedNoise,
    PathShare,
    SpectralRenoising,
)
from radiata_core.tables import ddim

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", Path(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)

EVENT, NOISE, normal, mixer = known.EVENT, known.NOISE, known.normal, known.mixer
T, S = 0.5, 0.2
X0, OLD, FRESH = (normal(1, *EVENT, seed=seed) for seed in (1, 2, 3))


def moment(fresh: float, denoised: Tensor = X0, s: float = S) -> Moment:
    """A state on the straight path that was made from X0 and OLD."""
    operator = mixer()
    problem = Problem(operator, operator(X0), NOISE)
    x = (1 - T) * X0 + T * OLD
    return Moment(problem, 0, s == 0, 1 - T, T, 1 - s, s, fresh, x, denoised, denoised, lambda like: FRESH)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (FixedShare(0.0), 0.0),
        (FixedShare(0.3), 0.3),
        (FixedShare(1.0), 1.0),
        (AncestralShare(), 1 - 0.25**2),
        (AncestralShare(0.5), 0.25 * (1 - 0.25**2)),
        (PathShare(), 1 - 0.8**2),
    ],
)
def test_old_and_fresh_noise_by_their_shares(share, expected: float, corrected: bool) -> None:
    rule = MixedNoise(share, corrected)
    fresh = rule.fresh(T / (1 - T), S / (1 - S), S)
    assert fresh == pytest.approx(S * expected**0.5)
    found = rule(moment(fresh), Correction(X0))
    mixed = (1 - expected) ** 0.5 * OLD + expected**0.5 * FRESH
    torch.testing.assert_close(found, (1 - S) * X0 + S * mixed, rtol=0, atol=1e-12)


def test_ancestral_noise_is_ddims() -> None:
    table = ddim(torch.tensor([T, S, 0.0], dtype=torch.float64), LinearPath(), eta=0.6)
    rule = MixedNoise(AncestralShare(0.6))
    fresh = rule.fresh(T / (1 - T), S / (1 - S), S)
    assert fresh == pytest.approx(float(table.noise[0]))
    at = moment(fresh)
    step = table.states[0, 0] * at.x + table.outputs[0, 0] * X0 + table.noise[0] * FRESH
    torch.testing.assert_close(rule(at, Correction(X0)), step, rtol=0, atol=1e-12)


def test_what_is_left_of_the_state_is_told_from_the_estimate_or_the_denoiser() -> None:
    moved = X0 + 0.1
    of_denoiser = MixedNoise(FixedShare(0.0))(moment(0.0), Correction(moved))
    of_estimate = MixedNoise(FixedShare(0.0), corrected=True)(moment(0.0), Correction(moved))
    torch.testing.assert_close(of_denoiser, (1 - S) * moved + S * OLD, rtol=0, atol=1e-12)
    left = OLD - (1 - T) / T * 0.1
    torch.testing.assert_close(of_estimate, (1 - S) * moved + S * left, rtol=0, atol=1e-12)


def test_the_last_state_is_the_estimate() -> None:
    for rule in (MixedNoise(FixedShare(0.5)), SpectralRenoising()):
        torch.testing.assert_close(rule(moment(0.0, s=0.0), Correction(X0)), X0, rtol=0, atol=0)


@pytest.mark.parametrize("s", [0.02, 0.2, 0.6])
def test_ddrm_gives_every_direction_the_variance_of_its_level(s: float) -> None:
    """With D right and a noisy A^+ y, the state has variance kappa_s^2 in measured directions and in unmeasured ones.

    Where the measurement is noisier than the level, (1 - eta^2) of it comes from y.
    """
    operator, rule, kappa = mixer(), SpectralRenoising(), s / (1 - s)
    vectors, values = operator.vectors, operator.values
    for i in range(8):
        along = vectors[:, i].view(1, *EVENT)
        at = replace(
            moment(0.0, denoised=torch.zeros_like(X0), s=s),
            x=0 * X0,
            problem=Problem(operator, torch.zeros(1, 5, dtype=torch.float64), NOISE),
            draw=lambda like, along=along: along,
        )
        of_fresh = float((rule(at, Correction(at.denoised)) * along).sum()) / (1 - s)
        at = replace(at, draw=torch.zeros_like, x=T * along)
        of_old = float((rule(at, Correction(at.denoised)) * along).sum()) / (1 - s)
        at = replace(at, x=0 * X0, problem=Problem(operator, operator(along), NOISE))
        of_known = float((rule(at, Correction(at.denoised)) * along).sum()) / (1 - s)
        noise = NOISE / math.sqrt(values[i]) if values[i] else 0.0
        total = of_fresh**2 + of_old**2 + (of_known * noise) ** 2
        assert total == pytest.approx(kappa**2, rel=1e-9)
