"""Encoding models against scikit-learn and by known weights; lags stay in their segment; the maximum statistic."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.encoding_model import encoding_scores, fit_encoding, lagged


def world(rng: np.random.Generator, samples: int = 120, noise: float = 1.0):
    """20 features, 30 voxels; the last ten voxels answer to nothing."""
    weights = np.random.default_rng(3).normal(size=(20, 30))
    weights[:, 20:] = 0
    features = rng.normal(size=(samples, 20)).astype(np.float32)
    signal = features @ weights / np.sqrt(20)
    return features, (signal + noise * rng.normal(size=signal.shape)).astype(np.float32), signal


def test_the_fit_is_the_ridge_of_scikit_learn(rng: np.random.Generator) -> None:
    from sklearn.linear_model import Ridge

    features, responses, _ = world(rng)
    fresh = rng.normal(size=(9, 20)).astype(np.float32)
    fit = fit_encoding(features, responses, alphas=[30.0])
    mean, sd = features.mean(0), features.std(0, ddof=1)
    expected = Ridge(30.0).fit((features - mean) / sd, responses).predict((fresh - mean) / sd)
    np.testing.assert_allclose(fit.predict(fresh), expected, atol=2e-4)


def test_penalties_by_segments_are_those_of_a_grid_search(rng: np.random.Generator) -> None:
    from sklearn.linear_model import Ridge

    features, responses, _ = world(rng, 60, noise=3.0)
    folds, grid = np.repeat(["a", "b", "c"], 20), [3.0, 30.0, 300.0, 3000.0]
    errors = np.zeros((4, 30))
    for name in "abc":
        held = folds == name
        x = features[~held]
        scaled = lambda z, x=x: (z - x.mean(0)) / x.std(0, ddof=1)  # noqa: E731
        for k, alpha in enumerate(grid):
            model = Ridge(alpha).fit(scaled(x), responses[~held])
            errors[k] += ((model.predict(scaled(features[held])) - responses[held]) ** 2).sum(0)
    fit = fit_encoding(features, responses, folds=folds, alphas=grid)
    np.testing.assert_array_equal(fit.alphas.numpy(), np.array(grid)[errors.argmin(0)])
    region = np.arange(30) // 20
    one = fit_encoding(features, responses, folds=folds, alphas=grid, groups=region)
    assert [len(np.unique(one.alphas.numpy()[region == k])) for k in (0, 1)] == [1, 1]
    alone = [
        fit_encoding(features, responses[:, [v]], alphas=[float(fit.alphas[v])]).predict(features)
        for v in (0, 25)
    ]
    np.testing.assert_allclose(fit.predict(features)[:, [0, 25]], np.concatenate(alone, 1), atol=1e-4)


def test_predicted_voxels_reach_their_ceiling_and_others_nothing(rng: np.random.Generator) -> None:
    features, responses, _ = world(rng, 800)
    fresh, measured, signal = world(rng, 300)
    ceiling = np.r_[(signal.var(0) / measured.var(0))[:20], np.full(10, 0.01)]
    found = encoding_scores(
        measured, fit_encoding(features, responses).predict(fresh), rng, ceiling=ceiling, draws=200
    )
    assert 0.85 < found.r2_normalised[:20].mean() < 1.05
    assert found.r_normalised[:20].mean() == pytest.approx(1, abs=0.08)
    assert np.isnan(found.r2_normalised[20:]).all()  # nothing to explain, nothing to divide by
    assert np.abs(found.r[20:]).max() < 0.25
    assert (found.p[:20] < 0.01).all()
    assert (found.p[20:] > 0.05).all()


def test_the_maximum_statistic_keeps_one_false_voxel_in_twenty_experiments(rng: np.random.Generator) -> None:
    """60 experiments of 50 voxels of noise at 5 %: more than eight with any voxel have a chance of .3 %."""
    false = sum(
        (encoding_scores(rng.normal(size=(20, 50)), rng.normal(size=(20, 50)), rng, draws=99).p <= 0.05).any()
        for _ in range(60)
    )
    assert false <= 8


def test_lags_are_the_past_of_the_same_segment() -> None:
    features = np.arange(1.0, 9.0)[:, None]
    found = lagged(features, (0, 2), ["a"] * 5 + ["b"] * 3)
    np.testing.assert_array_equal(found.features[:, 0], np.arange(1, 9))
    np.testing.assert_array_equal(found.features[:, 1], [0, 0, 1, 2, 3, 0, 0, 6])
    np.testing.assert_array_equal(found.complete, [False, False, True, True, True, False, False, True])


def test_a_segment_that_comes_again_is_another_stretch_of_time() -> None:
    found = lagged(np.ones((6, 1)), (1,), ["a", "a", "b", "b", "a", "a"])
    np.testing.assert_array_equal(found.complete, [False, True, False, True, False, True])
    far = lagged(np.ones((10, 1)), (4,), ["a"] * 2 + ["b"] * 2 + ["a"] * 6)
    np.testing.assert_array_equal(np.flatnonzero(far.complete), [8, 9])


def test_a_delayed_response_is_found_by_its_lag(rng: np.random.Generator) -> None:
    """Responses follow the feature by two samples: with the lags they are predicted, without they are not."""
    x = rng.normal(size=(200, 1)).astype(np.float32)
    runs = np.repeat([0, 1], 100)
    delayed = lagged(x, (2,), runs)
    y = delayed.features + 0.1 * rng.normal(size=(200, 1)).astype(np.float32)
    window = lagged(x, (1, 2, 3), runs)
    train, test = window.complete & (runs == 0), window.complete & (runs == 1)
    predicted = fit_encoding(window.features[train], y[train]).predict(window.features[test])
    plain = fit_encoding(x[train], y[train]).predict(x[test])
    assert encoding_scores(y[test], predicted, rng, draws=0).r[0] > 0.98
    assert abs(encoding_scores(y[test], plain, rng, draws=0).r[0]) < 0.3


def test_what_cannot_be_encoded(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="0 samples or more"):
        lagged(np.ones((5, 1)), (-1,))
    with pytest.raises(InputError, match="longer than the largest lag"):
        lagged(np.ones((4, 1)), (2,), [0, 0, 1, 1])
    with pytest.raises(InputError, match="two segments"):
        fit_encoding(rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), folds=[0] * 9)
    with pytest.raises(InputError, match="measured and predicted"):
        encoding_scores(np.ones((5, 2)), np.ones((5, 3)), rng)
    with pytest.raises(InputError, match="ceiling for each"):
        encoding_scores(rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), rng, ceiling=np.ones(3))
