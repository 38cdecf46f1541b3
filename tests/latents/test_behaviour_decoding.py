"""Ridge decoding of behaviour."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from radiata_core.errors import InputError
from radiata_latents.model.behaviour_decoding import PENALTIES, behaviour_r2, fit_behaviour_decoder


def made(rng: np.random.Generator, trials: int = 40, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rates = rng.uniform(0, 0.3, (trials, 20, 6))
    read = np.random.default_rng(3).standard_normal((6, 2))
    behaviour = rates @ read
    return rates, behaviour + noise * behaviour.std((0, 1)) * rng.standard_normal(behaviour.shape)


def test_decodes_as_well_as_the_noise_allows(rng: np.random.Generator) -> None:
    """R² = 1 / (1 + noise²) = 0.8 in expectation; 0.03 is four standard deviations for 800 bins and two channels."""
    found = behaviour_r2(*made(rng, 200), *made(rng))
    assert found == pytest.approx(0.8, abs=0.03)
    assert behaviour_r2(*made(rng, noise=0), *made(rng, noise=0)) == pytest.approx(1, abs=1e-4)


def test_equals_a_second_way_to_choose_the_penalty(rng: np.random.Generator) -> None:
    train, scored = made(rng, noise=3.0), made(rng, noise=3.0)
    rows = [a.reshape(-1, a.shape[2]) for a in (*train, *scored)]
    ridge = RidgeCV(PENALTIES, cv=KFold(5)).fit(rows[0], rows[1])
    assert fit_behaviour_decoder(*train).best_params_["alpha"] == pytest.approx(ridge.alpha_)
    assert behaviour_r2(*train, *scored) == pytest.approx(r2_score(rows[3], ridge.predict(rows[2])), abs=1e-9)


def test_groups_have_their_own_decoder(rng: np.random.Generator) -> None:
    """Behaviour turns its sign in the second group: one decoder knows nothing, two know all."""
    rates, behaviour = made(rng, noise=0)
    second = np.arange(40) % 2 == 1
    behaviour = np.where(second[:, None, None], -behaviour, behaviour)
    groups = np.stack([~second, second], 1)
    assert behaviour_r2(rates, behaviour, rates, behaviour) < 0.1
    assert behaviour_r2(rates, behaviour, rates, behaviour, groups, groups) == pytest.approx(1, abs=1e-4)


def test_bins_without_behaviour_do_not_count(rng: np.random.Generator) -> None:
    rates, behaviour = made(rng)
    masked, wild = behaviour.copy(), rates.copy()
    masked[:, 15:], wild[:, 15:] = np.nan, np.nan
    found = behaviour_r2(wild, masked, wild, masked)
    assert found == behaviour_r2(rates[:, :15], behaviour[:, :15], rates[:, :15], behaviour[:, :15])


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    rates, behaviour = made(rng)
    with pytest.raises(InputError, match="equal"):
        behaviour_r2(rates[:, :5], behaviour, rates, behaviour)
    with pytest.raises(InputError, match="finite rates"):
        behaviour_r2(rates * np.nan, behaviour, rates, behaviour)
    with pytest.raises(InputError, match="ten bins"):
        behaviour_r2(rates, behaviour * np.nan, rates, behaviour)
    with pytest.raises(InputError, match="of both"):
        behaviour_r2(rates, behaviour, rates, behaviour, np.ones((40, 1)))
    with pytest.raises(InputError, match="for 40 and"):
        behaviour_r2(rates, behaviour, rates, behaviour, np.ones((40, 1)), np.ones((40, 2)))
