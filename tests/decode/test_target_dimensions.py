"""How many target dimensions are predicted, where the answer is known."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from radiata_core.errors import InputError
from radiata_decode.model.target_dimensions import participation_ratio, target_dimensions


def test_predictable_dimensions_are_counted(rng):
    """4 of 40 carry signal; the rate of false ones stays near .05 of those found (here at most 1)."""
    truth = rng.standard_normal((150, 40))
    predicted = 0.5 * rng.standard_normal((150, 40))
    predicted[:, :4] += truth[:, :4]
    found = target_dimensions(predicted, truth, rng, permutations=400)
    assert found.above_chance[:4].all()
    assert 4 <= found.count <= 5
    assert found.p.min() == 1 / 401
    for column in (0, 20):
        assert np.isclose(found.r[column], pearsonr(predicted[:, column], truth[:, column]).statistic)


def test_p_values_are_uniform_without_signal(rng):
    """Mean of 400 independent p values within 5 standard errors of 1/2."""
    found = target_dimensions(
        rng.standard_normal((30, 400)), rng.standard_normal((30, 400)), rng, permutations=99
    )
    assert abs(found.p.mean() - 0.5) < 5 / (12 * 400) ** 0.5
    assert found.count <= 2


def test_effective_dimensions_of_known_spectra(rng):
    basis = np.linalg.qr(rng.standard_normal((500, 6)) - 0)[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0]
    assert np.isclose(participation_ratio(basis), 6)
    assert np.isclose(participation_ratio(basis[:, :1] @ rng.standard_normal((1, 9))), 1)
    assert np.isclose(participation_ratio(basis * np.array([2, 1, 0, 0, 0, 0])), 25 / 17)
    assert participation_ratio(np.ones((5, 3))) == 0


def test_collapse_shows_along_rotated_axes(rng):
    """One predicted direction, spread over all columns by a rotation, is one dimension along the right axes."""
    axes = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    truth = rng.standard_normal((200, 12)) @ axes
    predicted = np.outer(truth @ axes[0], axes[0])
    plain = target_dimensions(predicted, truth, rng)
    turned = target_dimensions(predicted, truth, rng, axes=axes)
    assert np.isclose(plain.effective, 1)
    assert plain.effective_truth > 9
    assert turned.count == 1
    assert plain.count > 3
    assert np.isclose(plain.variance_explained, turned.variance_explained)


def test_constant_predictions_have_no_correlation_and_no_nan(rng):
    truth = rng.standard_normal((20, 3))
    truth[:, 2] = 4
    found = target_dimensions(np.ones((20, 3)), truth, rng, permutations=50)
    assert np.isfinite(found.r2).all()
    assert (found.r == 0).all()
    assert (found.p == 1).all()
    assert found.count == 0


def test_bad_input_is_refused(rng):
    for a, b in (
        (np.ones((5, 2)), np.ones((5, 3))),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.full((5, 2), np.nan),) * 2,
    ):
        with pytest.raises(InputError, match="expected"):
            target_dimensions(a, b, rng)
