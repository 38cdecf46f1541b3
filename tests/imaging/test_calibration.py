"""Reliability of confidences: outcomes drawn at known rates."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.calibration import reliability


def test_outcomes_at_the_stated_rates_are_calibrated(rng: np.random.Generator) -> None:
    """2·10⁵ honest outcomes: the error is that of chance, below 0.01; shifted by 0.2 it is 0.2."""
    p = rng.uniform(0.0, 0.8, 200_000)
    honest = rng.random(p.shape) < p
    assert reliability(p, honest).ece < 0.01
    assert reliability(p, rng.random(p.shape) < p + 0.2).ece == pytest.approx(0.2, abs=0.01)


def test_two_bins_by_hand() -> None:
    """Ten at 0.9 of which 6 are right, thirty at 0.3 of which 9: ECE = (10 · 0.3 + 30 · 0)/40."""
    p = np.array([0.9] * 10 + [0.3] * 30)
    right = np.array([1] * 6 + [0] * 4 + [1] * 9 + [0] * 21, bool)
    found = reliability(p, right, bins=10)
    assert found.ece == pytest.approx(0.075, abs=1e-6) and found.mce == pytest.approx(0.3, abs=1e-6)
    assert found.count.sum() == 40 and (found.count > 0).sum() == 2


def test_parts_add_up(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins of two sets together are the bins of their union, in any pieces."""
    p, right = rng.random((2, 5000))
    correct = right < p
    whole = reliability(p.reshape(50, 100), correct.reshape(50, 100))
    halves = reliability(p[:1234], correct[:1234]) + reliability(p[1234:], correct[1234:])
    monkeypatch.setattr("radiata_imaging.calibration._PIECE", 77)
    pieces = reliability(p, correct)
    for other in (halves, pieces):
        assert np.array_equal(whole.count, other.count)
        assert np.allclose(whole.confidence, other.confidence, rtol=1e-5)
        assert other.ece == pytest.approx(whole.ece, abs=1e-5)


def test_nothing_and_bad_input() -> None:
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).ece)
    with pytest.raises(InputError, match=r"confidences in \[0, 1\]"):
        reliability(np.array([1.5]), np.array([True]))
    with pytest.raises(InputError, match="one shape"):
        reliability(np.zeros(3), np.zeros(2, bool))
