"""Baselines: fitted on training trials, in the population's order, as good as they should be on a known population."""

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.trials import heldin_first
from radiata_latents.experiment.baselines import baseline_rates, fit_baselines
from radiata_latents.experiment.score_table import score_rows
from radiata_latents.model.gpfa import fit_gpfa_rates
from radiata_latents.model.smoothing import WIDTHS_S, fit_smoothed_rates

NAMES = [
    "mean rate",
    "smoothing + Poisson regression",
    "GPFA + Poisson regression",
    "condition average",
    "oracle",
]


@pytest.fixture(scope="module")
def made(wavy: xr.Dataset) -> dict[str, np.ndarray]:
    return baseline_rates(wavy)


def test_all_are_there_for_all_neurons(wavy: xr.Dataset, made: dict[str, np.ndarray]) -> None:
    assert list(made) == NAMES
    for name, rates in made.items():
        assert rates.shape == wavy["counts"].shape
        assert np.isfinite(rates[:, :17]).all(), name
        assert np.isnan(rates[:, 17:]).all() == (name in NAMES[1:3])


def test_they_are_the_models_own_in_the_populations_order(
    wavy: xr.Dataset, made: dict[str, np.ndarray]
) -> None:
    order = heldin_first(wavy)
    counts = wavy["counts"].values[:, :17][..., order].astype(float)
    train = wavy["split"].values == "train"
    seen, hidden = counts[..., :8], counts[..., 8:]
    smooth = fit_smoothed_rates(seen[train], hidden[train], bin_s=0.02, widths_s=WIDTHS_S)
    np.testing.assert_allclose(made[NAMES[1]][:, :17][..., order], smooth.rates(seen))
    gpfa = fit_gpfa_rates(seen[train], hidden[train], latents=7, iterations=30)
    np.testing.assert_allclose(made[NAMES[2]][:, :17][..., order], gpfa.rates(seen))


def test_they_never_see_other_trials(wavy: xr.Dataset, made: dict[str, np.ndarray]) -> None:
    """Other counts of validation and test trials: rates of training trials stay as they were, to the bit; and held-out or
    forward counts of the others change nothing at all."""
    other = wavy.copy(deep=True)
    later = np.flatnonzero(wavy["split"].values != "train")
    other["counts"][later] = 9
    for name, rates in baseline_rates(other).items():
        np.testing.assert_array_equal(rates[:24], made[name][:24], err_msg=name)
    hidden = wavy.copy(deep=True)
    hidden["counts"][later, :, np.flatnonzero(wavy["heldout"].values)] = 9
    hidden["counts"][later, 17:] = 9
    for name, rates in baseline_rates(hidden).items():
        np.testing.assert_array_equal(rates, made[name], err_msg=name)


def test_they_rank_as_they_should(wavy: xr.Dataset, made: dict[str, np.ndarray]) -> None:
    """A phase that conditions repeat: the oracle is best, everything beats the mean rate; its bits are near 0."""
    rows = {row["name"]: row for row in score_rows(wavy, made, "validation", np.random.default_rng(0))}
    bits = {name: row["co_bps"] for name, row in rows.items()}
    assert max(bits, key=bits.get) == "oracle"
    assert all(bits[name] > bits["mean rate"] + 0.03 for name in NAMES[1:])
    assert -0.05 < bits["mean rate"] <= 0
    assert rows["oracle"]["r2_rates"] == 1
    assert rows["mean rate"]["fp_bps"] is not None and rows[NAMES[1]]["fp_bps"] is None


def test_conditions_that_training_has_not_are_not_averaged(wavy: xr.Dataset) -> None:
    split = np.where(wavy["condition"].values == 0, "train", "validation")
    assert "condition average" not in baseline_rates(wavy.assign_coords(split=("trial", split)))


def test_silent_neurons_and_missing_bins(wavy: xr.Dataset) -> None:
    """A held-in neuron that is silent in training does not stop GPFA; trials with unobserved bins are not fitted on."""
    cells = wavy.copy(deep=True)
    cells["counts"][:24, :, 3] = 0
    silent = fit_baselines(cells)
    assert silent.left_out == {} and silent.rates[NAMES[2]][:, :17, 3].max() < 0.01
    cells = wavy.copy(deep=True)
    cells["observed"][0, 5] = False
    once = baseline_rates(cells)
    cells["counts"][0] = 8
    again = baseline_rates(cells)
    for name in NAMES[1:]:  # the mean rate takes every bin that was recorded
        np.testing.assert_array_equal(once[name][1:], again[name][1:], err_msg=name)


def test_what_cannot_be_fitted_is_left_out_with_a_reason(wavy: xr.Dataset) -> None:
    few = wavy.isel(trial=[0, 1, 2, 30, 31])
    made = fit_baselines(few)
    assert "five trials or more" in made.left_out[NAMES[1]] and "mean rate" in made.rates
    with pytest.raises(InputError, match="training trials that were recorded whole; got none of 0"):
        fit_baselines(wavy.assign_coords(split=("trial", ["test"] * 36)))
