"""Translation between contrasts: error in the brain on pairs of one slice in two contrasts, beside what needs no prior.

Slices are rendered from the test people's labels, twice with equal everything but the contrast. Tissue maps are exact, or
displaced by a smooth field of 0.7 pixels as a segmenter might give them. Two guides of the prior are measured: none, and the
tissue map read by the joint model (`translate --guide joint-2d`).
"""

from typing import Any

import numpy as np

from radiata_core.posterior_spread import Spread
from radiata_core.seeds import rng_of
from radiata_imaging.case_statistics import mean_interval
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.synthesis import head_of
from radiata_medical.experiment.synthetic_trials import pair_trials, translation_errors, with_label_errors
from radiata_medical.experiment.translating import tissue_map_guide

PAIRS = (("t1", "t2"), ("t2", "t1"), ("t1", "flair"))
DISPLACEMENT = 0.7


def translation_figures(
    prior: Any, spread: Spread, joint: Any, store: LabelMaps, count: int
) -> dict[str, Any]:
    """Root mean square error in the brain (units of white), each method, with its interval over slices' people.

    Args:
        prior: Of slices.
        spread: Of the prior, for the guide.
        joint: Joint denoiser of slices that guides.
        store: With people in test.
        count: Slices of each pair.
    """
    heads = [head_of(store.read(name).codes) for name in store.of_split("test")]
    figures: dict[str, Any] = {}
    for given, wanted in PAIRS:
        exact = pair_trials(heads, count, 800, given=given, wanted=wanted)
        for kind, trials in (("exact", exact), ("displaced", with_label_errors(exact, DISPLACEMENT, 801))):
            errors = translation_errors(prior, trials, spread=spread, exact=exact.tissues)
            guide = tissue_map_guide(joint, trials.tissues)
            guided = translation_errors(
                prior, trials, spread=spread, guide=guide, exact=exact.tissues, batch_size=count
            )
            errors["prior, joint guide"] = guided["prior"]
            rows = {}
            for name, values in errors.items():
                found = mean_interval(values, trials.people, rng_of(0, 81))
                rows[name] = (found.mean, found.low, found.high)
            figures[f"{given}_{wanted}_{kind}"] = rows
            told = ", ".join(
                f"{name} {mean:.4f} [{low:.4f}, {high:.4f}]" for name, (mean, low, high) in rows.items()
            )
            print(f"{given} to {wanted}, {kind} labels: {told}", flush=True)
    best = [min(rows, key=lambda name: rows[name][0]) for rows in figures.values()]
    print({name: best.count(name) for name in np.unique(best).tolist()})
    return figures
