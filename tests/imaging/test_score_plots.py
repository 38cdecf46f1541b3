"""Figures of an evaluation show its numbers."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.calibration import reliability
from radiata_imaging.score_plots import interval_chart, reliability_diagram


def test_the_diagram_has_the_error_of_the_bins(rng: np.random.Generator) -> None:
    p = rng.uniform(0.3, 1.0, 5000)
    bins = reliability(p, rng.random(5000) < p**2)
    figure = reliability_diagram(bins.mean_confidence.tolist(), bins.accuracy.tolist(), bins.count.tolist())
    assert figure.numbers["ece"] == pytest.approx(bins.ece, abs=1e-6)
    measured = figure.axes[0].lines[1]
    assert np.all(measured.get_ydata() < measured.get_xdata() + 0.1), "overconfident: below the diagonal"
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == pytest.approx(1)
    with pytest.raises(InputError, match="voxels in them"):
        reliability_diagram([None], [None], [0])


def test_rows_stand_in_their_order_with_their_intervals() -> None:
    figure = interval_chart(
        {"thalamus": (0.9, 0.88, 0.91), "caudate": (0.8, float("nan"), float("nan"))}, xlabel="Dice"
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["thalamus", "caudate"]
    assert axes.get_yticks()[0] > axes.get_yticks()[1]
    with pytest.raises(InputError, match="at least one row"):
        interval_chart({}, xlabel="Dice")
