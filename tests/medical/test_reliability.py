"""Calibration: closed forms, MONAI's implementation, and a temperature that is known because it was put in."""

import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_medical.model.reliability import (
    class_wise_reliability,
    fit_temperature,
    spread_error_correlation,
    tempered,
    top_label_reliability,
)


@pytest.fixture
def world(rng):
    """Probabilities (3, 40, 50) and labels drawn from them: calibrated by construction."""
    p = rng.dirichlet([0.6, 0.8, 1.0], (40, 50)).transpose(2, 0, 1)
    labels = (rng.random((40, 50)) > p.cumsum(0)).sum(0)
    return p, labels


def test_the_error_by_hand():
    p = np.array([[0.9, 0.8, 0.3, 0.45], [0.1, 0.2, 0.7, 0.55]])
    found = top_label_reliability(p, np.array([0, 1, 1, 1]), bins=2)
    # All four promises lie in (0.5, 1]: 0.9 + 0.8 + 0.7 + 0.55 promised, three right.
    assert found.counts.tolist() == [0, 4] and math.isnan(found.accuracy[0])
    assert found.expected_error == pytest.approx(abs(0.75 - 2.95 / 4))
    assert found.largest_error == pytest.approx(found.expected_error)


def test_calibrated_probabilities_have_a_small_error(world):
    """What 2000 voxels in 15 bins leave by chance: below .04 (its mean is about .02), and .25 for a sharpened law."""
    p, labels = world
    assert top_label_reliability(p, labels).expected_error < 0.04
    assert max(r.expected_error for r in class_wise_reliability(p, labels)) < 0.04
    sharp = tempered(np.log(p), 0.3)
    assert top_label_reliability(sharp, labels).expected_error > 0.15


def test_class_wise_errors_are_monais(world):
    """MONAI bins [left, right) and this page (left, right]; no probability lies on an edge here."""
    from monai.metrics import CalibrationErrorMetric

    p, labels = world
    metric = CalibrationErrorMetric(num_bins=15, metric_reduction="none")
    onehot = np.eye(3)[labels].transpose(2, 0, 1)
    metric(*(torch.tensor(np.ascontiguousarray(v[None])).float() for v in (p, onehot)))
    ours = [r.expected_error for r in class_wise_reliability(p, labels)]
    np.testing.assert_allclose(ours, metric.aggregate().numpy()[0], atol=1e-5)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(rng, true):
    """Labels from softmax(z / T): the fit of 20 000 voxels is within 5 % of T, and the error goes down."""
    z = 2 * rng.standard_normal((4, 20_000))
    labels = (rng.random(20_000) > tempered(z, true).cumsum(0)).sum(0)
    found = fit_temperature(z, np.minimum(labels, 3))
    assert found.temperature == pytest.approx(true, rel=0.05)
    assert found.nll_after <= found.nll_before and found.ece_after < 0.02
    if true != 1.0:
        assert found.ece_before > 0.1
    assert np.array_equal(tempered(z, found.temperature).argmax(0), z.argmax(0))


def test_the_fit_is_a_minimum(rng):
    z, labels = rng.standard_normal((3, 500)), rng.integers(0, 3, 500)
    z[labels, np.arange(500)] += 1.5
    found = fit_temperature(z, labels)

    def nll(t: float) -> float:
        return float(-np.log(tempered(z, t))[labels, np.arange(500)].mean())

    assert nll(found.temperature) == pytest.approx(found.nll_after, abs=1e-6)
    assert nll(found.temperature) < min(nll(found.temperature * 1.05), nll(found.temperature / 1.05))


def test_unknown_and_masked_voxels_do_not_count(world):
    p, labels = world
    mask = np.zeros(labels.shape, bool)
    mask[:20] = True
    unknown = np.where(mask, labels, -1)
    a, b = top_label_reliability(p, labels, mask=mask), top_label_reliability(p, unknown)
    assert a.expected_error == b.expected_error and a.counts.sum() == mask.sum()


def test_correlations_are_scipys(rng):
    from scipy.stats import pearsonr, spearmanr

    spread = rng.random((8, 9))
    error = (rng.random((8, 9)) < spread).astype(float)
    found = spread_error_correlation(spread, error)
    assert found.pearson == pytest.approx(pearsonr(spread.ravel(), error.ravel())[0])
    assert found.spearman == pytest.approx(spearmanr(spread.ravel(), error.ravel())[0])
    assert math.isnan(spread_error_correlation(np.ones(5), np.arange(5.0)).pearson)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: top_label_reliability(np.ones((2, 3)), np.zeros(4, int)), "class axis first"),
        (lambda: top_label_reliability(np.ones((2, 3)), np.full(3, 2)), "expected labels below 2; got 2"),
        (lambda: top_label_reliability(np.ones((2, 3)), np.zeros(3, int), bins=0), "at least 1 bin"),
        (lambda: fit_temperature(np.full((2, 3), np.nan), np.zeros(3, int)), "finite logits"),
        (lambda: spread_error_correlation(np.ones(3), np.ones(4)), "of one shape"),
    ],
)
def test_bad_input_in_one_line(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
