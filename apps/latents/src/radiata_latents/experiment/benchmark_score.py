"""The Neural Latents Benchmark's leaderboard, offline.

A submission (`data.submission`) against the public targets (`eval_data_test.h5`, 106 MB, of neurallatents/nlb_tools), with
the keys of the benchmark's own evaluation:

| data set | co-bps | vel R2 | tp corr | psth R2 | fp-bps |
|---|---|---|---|---|---|
| mc_maze, its scaling sets, area2_bump | yes | yes | | yes | if submitted |
| mc_rtt | yes | yes | | | if submitted |
| dmfc_rsg | yes | | yes | yes | if submitted |

mc_maze_{large, medium, small} are one entry, `mc_maze_scaling{_20}_split`, prefixed [500], [250], [100]. The numbers
equal those of nlb_tools bit for bit (a test compares them where it is installed). Test targets are for a last number, never
for a choice: choose on validation.

References:
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463, section 3.3.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import open_hdf5
from radiata_latents.data.benchmark import BENCHMARK_BINS_MS, PRESETS
from radiata_latents.data.submission import check_unit, group_name, load_submission
from radiata_latents.model.behaviour_decoding import behaviour_r2
from radiata_latents.model.bits import bits_per_spike, forward_bits_per_spike
from radiata_latents.model.neural_speed import speed_interval_correlation
from radiata_latents.model.psth import psth_r2

__all__ = ["score_group", "score_submission"]

_SCALING = {"mc_maze_large": "[500]", "mc_maze_medium": "[250]", "mc_maze_small": "[100]"}


def score_submission(submission: Path, targets: Path) -> dict[str, dict[str, float]]:
    """Split → metric → value, for the data sets that both files have.

    Args:
        submission: Written by `save_submission`, or by other tools in its format.
        targets: The benchmark's `eval_data_test.h5`, or one of the same keys.

    Raises:
        InputError: a file that cannot be read, targets that lack a submitted data set, shapes that differ, or rates in Hz.

    References:
        Pei et al., 2021, section 3.3.
    """
    submitted = load_submission(submission)
    if not Path(targets).is_file():
        raise InputError(
            f"expected targets; got no such file: {targets}. eval_data_test.h5 is at github.com/neurallatents/nlb_tools."
        )
    found: dict[str, dict[str, float]] = {}
    with _opened(targets) as file:
        for name in PRESETS:
            for bin_ms in BENCHMARK_BINS_MS:
                group = group_name(name, bin_ms)
                if group not in submitted:
                    continue
                if "eval_spikes_heldout" not in file.get(group, {}):
                    there = [
                        g for g, at in file.items() if "eval_spikes_heldout" in getattr(at, "keys", dict)()
                    ]
                    raise InputError(
                        f"expected targets of {group}; got {targets}, which has those of "
                        f"{', '.join(there) or 'no data set'}. Give the benchmark's eval_data_test.h5."
                    )
                scores = score_group(
                    name, submitted[group], {key: file[group][key][()] for key in file[group]}
                )
                suffix = group.removeprefix(name)
                if name in _SCALING:
                    split = found.setdefault(f"mc_maze_scaling{suffix}_split", {})
                    split |= {f"{_SCALING[name]} {key}": value for key, value in scores.items()}
                else:
                    found[f"{group}_split"] = scores
    return found


def score_group(name: str, rates: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, float]:
    """Metric → value of one data set.

    Args:
        name: A key of `PRESETS`, without suffix.
        rates: Key → rates, as in a submission.
        targets: Key → arrays, as in the targets' file.

    Raises:
        InputError: shapes differ, or rates are in Hz.
    """
    predicted = {key: np.asarray(value, float) for key, value in rates.items()}
    heldout = np.asarray(targets["eval_spikes_heldout"], float)
    check_unit(predicted["eval_rates_heldout"], heldout, "eval_rates_heldout")
    found = {"co-bps": bits_per_spike(predicted["eval_rates_heldout"], heldout)}
    everything = np.concatenate([predicted["eval_rates_heldin"], predicted["eval_rates_heldout"]], -1)
    behaviour = np.asarray(targets["eval_behavior"], float)
    if name == "dmfc_rsg":
        found["tp corr"] = speed_interval_correlation(heldout, everything, behaviour)
    else:
        masks = [targets.get(f"{part}_decode_mask") for part in ("train", "eval")]
        train = np.concatenate([predicted["train_rates_heldin"], predicted["train_rates_heldout"]], -1)
        known = np.asarray(targets["train_behavior"], float)
        found["vel R2"] = behaviour_r2(train, known, everything, behaviour, *masks)
    if "psth" in targets:
        members = list(targets["eval_cond_idx"])
        found["psth R2"] = psth_r2(targets["psth"], everything, members, targets.get("eval_jitter"))
    if "eval_rates_heldin_forward" in predicted and "eval_spikes_heldin_forward" in targets:
        parts = ("heldin_forward", "heldout_forward")
        forward = [predicted[f"eval_rates_{part}"] for part in parts]
        found["fp-bps"] = forward_bits_per_spike(
            *forward, *(targets[f"eval_spikes_{part}"] for part in parts)
        )
    return found


def _opened(targets: Path) -> h5py.File:
    with foreign(f"expected targets; got {targets}, which cannot be read", "Download it again."):
        return open_hdf5(targets, whole=True)
