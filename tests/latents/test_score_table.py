"""The table of scores: the metrics' own numbers, dashes where a score does not exist, nothing of other splits."""

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population
from radiata_latents.experiment.score_table import SCORES, Scored, kernel_of, score_rows
from radiata_latents.model.behaviour_decoding import behaviour_r2
from radiata_latents.model.bits import bits_per_spike, forward_bits_per_spike
from radiata_latents.model.psth import psth_r2, smoothed_psth
from radiata_latents.model.rate_scores import log_rate_r2, rate_r2, squared_correlation

from .conftest import wavy_population

SEEN = slice(0, 17)


@pytest.fixture
def found(wavy: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
    """Rates off the truth."""
    return wavy["rates"].values * np.exp(rng.normal(0, 0.2, wavy["rates"].shape))


def test_scores_are_the_metrics(wavy: xr.Dataset, found: np.ndarray, rng: np.random.Generator) -> None:
    """Each column against a call of the metric on what it says it scores."""
    (row,) = score_rows(wavy, {"m": found}, "validation", rng, heldin_scored=("m",), kernel_ms=40)
    split, heldout = wavy["split"].values, wavy["heldout"].values
    rows = split == "validation"
    counts, truth, mine = (
        wavy["counts"].values[rows].astype(float),
        wavy["rates"].values[rows].astype(float),
        found[rows],
    )
    assert row["co_bps"] == bits_per_spike(mine[:, SEEN][..., heldout], counts[:, SEEN][..., heldout])
    seen = bits_per_spike(mine[:, SEEN][..., ~heldout], counts[:, SEEN][..., ~heldout])
    assert row["heldin_bps"] == pytest.approx(seen, rel=1e-12)
    forward = forward_bits_per_spike(
        mine[:, 17:][..., ~heldout],
        mine[:, 17:][..., heldout],
        counts[:, 17:][..., ~heldout],
        counts[:, 17:][..., heldout],
    )
    assert row["fp_bps"] == pytest.approx(forward, rel=1e-12)
    assert row["r2_rates"] == row["r2_expected"] == rate_r2(truth[:, SEEN], mine[:, SEEN])
    assert row["correlation2"] == squared_correlation(truth[:, SEEN], mine[:, SEEN])
    assert row["log_r2"] == log_rate_r2(truth[:, SEEN], mine[:, SEEN])
    train = split == "train"
    behaviour = wavy["behaviour"].values
    assert row["behaviour_r2"] == pytest.approx(
        behaviour_r2(
            found[train][:, SEEN], behaviour[train][:, SEEN], mine[:, SEEN], behaviour[rows][:, SEEN]
        ),
        rel=1e-9,
    )
    condition = wavy["condition"].values
    members = [np.flatnonzero(condition == label) for label in (0, 1)]
    psth = smoothed_psth(wavy["counts"].values[:, SEEN], members, bin_s=0.02, kernel_ms=40)
    own = [np.flatnonzero(condition[rows] == label) for label in (0, 1)]
    assert row["psth_r2"] == pytest.approx(psth_r2(psth, mine[:, SEEN], own), rel=1e-9)
    for column in SCORES:
        assert row[f"{column}_low"] <= row[f"{column}_high"], column
    assert row["co_bps_low"] < row["co_bps"] < row["co_bps_high"]


def test_the_truth_is_the_best_row(wavy: xr.Dataset, found: np.ndarray, rng: np.random.Generator) -> None:
    rows = score_rows(wavy, {"found": found, "truth": wavy["rates"].values}, "validation", rng)
    worse, best = rows
    assert best["r2_rates"] == 1 and best["log_r2"] == pytest.approx(1)
    assert all(best[c] > worse[c] for c in ("co_bps", "fp_bps", "r2_rates", "log_r2"))
    assert best["heldin_bps"] is None  # nobody said that it means something


def test_only_the_scored_split_and_observed_bins_enter(
    wavy: xr.Dataset, found: np.ndarray, rng: np.random.Generator
) -> None:
    """Counts and rates of test trials change nothing, nor do those of a bin that was not observed."""
    cells = wavy.copy(deep=True)
    cells["observed"][26, 4] = False
    before = score_rows(cells, {"m": found}, "validation", np.random.default_rng(3), kernel_ms=0)
    cells["counts"][26, 4], cells["counts"][30:] = 60, 7
    spoiled = found.copy()
    spoiled[26, 4], spoiled[30:] = 9, 9
    assert score_rows(cells, {"m": spoiled}, "validation", np.random.default_rng(3), kernel_ms=0) == before
    assert before != score_rows(wavy, {"m": found}, "validation", np.random.default_rng(3), kernel_ms=0)


def test_a_population_without_held_out_neurons_has_a_dash_and_a_reason(rng: np.random.Generator) -> None:
    bare = wavy_population(heldout=False, forward=0).drop_vars(["rates", "behaviour"])
    bare = bare.assign_coords(condition=("trial", np.full(36, -1)))
    (row,) = score_rows(bare, {"m": np.ones(bare["counts"].shape)}, "validation", rng, heldin_scored=("m",))
    assert row["heldin_bps"] is not None
    assert [c for c in SCORES if row[c] is not None] == ["heldin_bps"]
    why = Scored(bare, "validation").why
    assert set(why) == set(SCORES) - {"heldin_bps"}
    assert "no held-out neurons" in why["co_bps"] and "no forward window" in why["fp_bps"]


def test_what_a_prediction_does_not_say_is_a_dash(
    wavy: xr.Dataset, found: np.ndarray, rng: np.random.Generator
) -> None:
    found = found.copy()
    found[:, 17:] = np.nan
    (row,) = score_rows(wavy, {"m": found}, "validation", rng)
    assert row["fp_bps"] is None and row["co_bps"] is not None
    found[26] = np.nan  # a validation trial that it has nothing on
    (row,) = score_rows(wavy, {"m": found}, "validation", rng)
    assert all(row[column] is None for column in SCORES)


def test_wrong_input_is_refused(wavy: xr.Dataset, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"of 'm'; got \(36, 20, 9\)"):
        score_rows(wavy, {"m": np.ones((36, 20, 9))}, "validation", rng)
    alone = wavy.assign_coords(split=("trial", ["train"] * 36))
    with pytest.raises(InputError, match=r"two validation trials or more to score; got 0 \(36 train\)"):
        score_rows(alone, {}, "validation", rng)


def test_kernel_is_the_presets() -> None:
    cells = population(np.ones((2, 4, 2)), 0.005, preset="mc_maze_small")
    assert kernel_of(cells) == 50 and kernel_of(population(np.ones((2, 4, 2)), 0.005)) == 0
    assert kernel_of(cells.assign_attrs(preset="nlb:area2_bump")) == 40


def test_withheld_neurons_are_not_scored(wavy: xr.Dataset, found: np.ndarray) -> None:
    """A trial whose held-out neurons a benchmark keeps counts for its held-in ones only."""
    kept = np.isin(np.arange(36), [25])
    cells = wavy.copy(deep=True).assign_coords(withheld=("trial", kept))
    cells["counts"][25, :, np.flatnonzero(wavy["heldout"].values)] = 0
    (row,) = score_rows(cells, {"m": found}, "validation", np.random.default_rng(0), heldin_scored=("m",))
    heldout = wavy["heldout"].values
    scored = [24, 26, 27, 28, 29]
    parts = (a[scored][:, SEEN][..., heldout] for a in (found, wavy["counts"].values))
    assert row["co_bps"] == pytest.approx(bits_per_spike(*parts), rel=1e-12)
    (plain,) = score_rows(wavy, {"m": found}, "validation", np.random.default_rng(0), heldin_scored=("m",))
    assert row["heldin_bps"] == plain["heldin_bps"]
    everything = wavy.assign_coords(withheld=("trial", np.ones(36, bool)))
    assert "no held-out neuron fires" in Scored(everything, "validation").why["co_bps"]
