"""The k-shot curve: what it rewards and what it refuses."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.few_shot import few_shot_curve
from radiata_latents.model.poisson_glm import fit_poisson_readout


def made(rng: np.random.Generator, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Two latents and four neurons that follow them."""
    latents = rng.standard_normal((trials, 20, 2))
    rates = 0.3 * np.exp(latents @ np.array([[0.7, -0.5, 0.2, 0.0], [0.0, 0.5, 0.6, -0.8]]))
    return latents, rng.poisson(rates)


def test_more_trials_are_better(rng: np.random.Generator) -> None:
    train, evaluated = made(rng, 60), made(rng, 60)
    curve = few_shot_curve(*train, *evaluated, (1, 3, 10, 60), rng, draws=8)
    steps, errors = np.diff(curve.mean), np.hypot(curve.error[1:], curve.error[:-1])
    assert (steps > 0).all() and steps[0] > 2 * errors[0]
    whole = fit_poisson_readout(*train, 1e-3).rates(evaluated[0])
    np.testing.assert_allclose(curve.bits[-1], bits_per_spike(whole, evaluated[1]), rtol=1e-4)


def test_superfluous_latents_cost_where_trials_are_few(rng: np.random.Generator) -> None:
    """With all trials 20 latents of noise cost little; with 2 they cost much more. What the metric is for."""
    train, evaluated = made(rng, 150), made(rng, 60)
    noisy = [
        np.concatenate([z, rng.standard_normal((*z.shape[:2], 20))], 2) for z in (train[0], evaluated[0])
    ]
    plain = few_shot_curve(*train, *evaluated, (2, 150), np.random.default_rng(1), draws=4).mean
    padded = few_shot_curve(
        noisy[0], train[1], noisy[1], evaluated[1], (2, 150), np.random.default_rng(1), draws=4
    ).mean
    cost = plain - padded
    assert cost[1] < 0.05 and cost[0] > 5 * max(cost[1], 0.02)


def test_draws_depend_on_their_generator_only(rng: np.random.Generator) -> None:
    train, evaluated = made(rng, 20), made(rng, 20)
    curves = [
        few_shot_curve(*train, *evaluated, (2,), np.random.default_rng(s), draws=3).bits for s in (5, 5, 6)
    ]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert (curves[0] != curves[2]).any()


def test_impossible_shots_are_refused(rng: np.random.Generator) -> None:
    train, evaluated = made(rng, 5), made(rng, 5)
    for shots in ((0,), (6,), ()):
        with pytest.raises(InputError, match="shots from 1 to 5"):
            few_shot_curve(*train, *evaluated, shots, rng)
    with pytest.raises(InputError, match="same latents"):
        few_shot_curve(*train, evaluated[0][..., :1], evaluated[1], (2,), rng)
