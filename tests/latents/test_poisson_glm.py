"""Poisson regressions against scikit-learn by hand, and against a truth."""

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor

from radiata_core.errors import InputError
from radiata_latents.model.poisson_glm import fit_poisson_readout


def test_equals_scikit_learn_on_standardised_features(rng: np.random.Generator) -> None:
    features = rng.normal(2, [0.5, 3, 1], (20, 30, 3))
    counts = rng.poisson(np.exp(features @ np.array([[0.5, -0.3], [0.1, 0.05], [0, 0.4]]) - 1.0))
    rows = features.reshape(-1, 3)
    rows = (rows - rows.mean(0)) / rows.std(0)
    by_hand = [
        PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=2000).fit(rows, n) for n in counts.reshape(-1, 2).T
    ]
    expected = np.stack(
        [np.minimum(r.predict(rows), n.max()) for r, n in zip(by_hand, counts.reshape(-1, 2).T, strict=True)],
        1,
    )
    found = fit_poisson_readout(features, counts, penalty=0.1).rates(features)
    np.testing.assert_allclose(found.reshape(-1, 2), expected, rtol=1e-4)


def test_recovers_the_weights_of_simulated_neurons(rng: np.random.Generator) -> None:
    """20 000 bins at about a spike a bin: standard error of a weight 1 / sqrt(20 000 · 1) = 0.007; 5 of them."""
    weights, bias = np.array([[0.5, -0.3], [0.2, 0.1]]), np.array([0.0, -0.2])
    features = rng.standard_normal((400, 50, 2))
    found = fit_poisson_readout(features, rng.poisson(np.exp(features @ weights + bias)), penalty=0)
    np.testing.assert_allclose(found.weights, weights, atol=0.04)
    np.testing.assert_allclose(found.bias, bias, atol=0.04)


def test_the_unit_of_a_feature_does_not_matter(rng: np.random.Generator) -> None:
    features = rng.standard_normal((10, 20, 2))
    counts = rng.poisson(np.exp(0.5 * features))
    one = fit_poisson_readout(features, counts, 0.1).rates(features)
    other = fit_poisson_readout(1000 * features + 7, counts, 0.1).rates(1000 * features + 7)
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_silent_neurons_and_far_features_stay_finite(rng: np.random.Generator) -> None:
    features = rng.standard_normal((5, 20, 2))
    counts = rng.poisson(np.exp(features))
    counts[..., 1] = 0
    readout = fit_poisson_readout(features, counts)
    far = readout.rates(1000 * np.abs(features))
    assert far[..., 0].max() == pytest.approx(counts[..., 0].max())
    np.testing.assert_allclose(far[..., 1], 0.5 / 100)


def test_what_does_not_fit_is_refused() -> None:
    ok = np.ones((2, 3, 1))
    for features, counts, penalty in ((ok, np.ones((2, 4, 1)), 0.1), (ok * np.nan, ok, 0.1), (ok, ok, -1.0)):
        with pytest.raises(InputError):
            fit_poisson_readout(features, counts, penalty)
    with pytest.raises(InputError, match="expected 1 features; got 2"):
        fit_poisson_readout(ok, ok).rates(np.ones((2, 3, 2)))
