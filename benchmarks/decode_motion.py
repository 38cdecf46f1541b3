"""Motion from a simulated cortex with MT: decoders of optical flow beside zero flow and every other control.

A section of `benchmarks/decode.py`. Real photographs, moved by known motions; each film is seen three times. Errors are in
cells of a 16 × 16 grid a frame step.

brain                the default: ridge on components of the flow, shrunk
brain and frame      the same, which also sees the first frame
codebook             the network that chooses among code vectors, on the first seed alone
noise-free           responses without noise through the same ridge
controls             zero flow, mean training flow, the first frame alone, permuted brain
"""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decode_image import Figures, plain, print_table
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.motion_stimuli import first_frames, stimulus_flow
from radiata_decode.experiment.motion_training import MotionOptions, load_motion, train_motion
from radiata_decode.experiment.simulating import noise_free, write_simulated_subject
from radiata_decode.experiment.trained_models import chosen_voxels, read_card, standardised
from radiata_decode.model.controls import mean_flow, permuted_brain, zero_flow
from radiata_decode.model.motion_scores import motion_scores, motion_table, zero_flow_margin
from radiata_decode.model.permutation import permutation_test

BRAIN = "brain"
METRICS = ("epe", "epe skill", "flow correlation", "field cosine", "flow 2-way")
CONTROLS = ("zero flow", "mean flow", "first frame alone", "permuted brain")


def motion_section(*, seeds: int = 3, quick: bool = False) -> dict[str, Any]:
    """Scores of everything above, and the keys epe, epe_zero, flow_corr, flow_corr_permuted."""
    train, test, draws = (120, 40, 100) if quick else (600, 120, 1000)
    found: Figures = defaultdict(lambda: defaultdict(list))
    margins, tests = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            subject = write_simulated_subject(
                Path(name) / "subject", kind="motion", train=train, test=test, seed=seed, subject=seed
            )
            truth, made = decoded_flow(subject, Path(name), codebook=seed == 0 and not quick)
        rng = np.random.default_rng(seed)
        made["permuted brain"] = permuted_brain(made[BRAIN], rng)
        decoders = {key: value for key, value in made.items() if key not in CONTROLS}
        controls = {key: made[key] for key in CONTROLS}
        for row in motion_table(truth, decoders, rng, controls=controls, draws=draws):
            found[row.decoder][row.metric].append(row)
        scores = motion_scores(truth, made[BRAIN])
        margins.append(zero_flow_margin(scores, rng))
        tests.append(permutation_test(scores.correlations, rng, draws=draws))
    print_table(f"motion, {train} training and {test} test films, {seeds} seeds", found, METRICS)
    print(
        "  EPE of zero flow - EPE: " + "; ".join(f"{m.mean:.3f} [{m.low:.3f}, {m.high:.3f}]" for m in margins)
    )
    null = np.stack([test.null for test in tests])
    told: dict[str, Any] = {
        "epe": _mean(found, BRAIN, "epe"),
        "epe_zero": _mean(found, "zero flow", "epe"),
        "flow_corr": _mean(found, BRAIN, "flow correlation"),
        "flow_corr_permuted": float(null.mean()),
        "flow_corr_permuted_highest": float(null.max()),
        "flow_corr_p": max(test.p for test in tests),
        "epe_margin": [[margin.mean, margin.low, margin.high] for margin in margins],
    }
    print(
        f"  flow correlation {told['flow_corr']:.3f}; of {draws} permuted brains a seed {told['flow_corr_permuted']:.3f} on "
        f"average, at most {told['flow_corr_permuted_highest']:.3f}; largest p {told['flow_corr_p']:.4f}",
        flush=True,
    )
    return told | {"motion": plain(found)}


def decoded_flow(subject: Subject, folder: Path, *, codebook: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """True test flow, and flow by decoder or control, all (n, step, 2, y, x)."""
    stimuli, made = read_stimuli(subject.folder), {}
    kinds = {BRAIN: ("continuous", "brain"), "brain and frame": ("continuous", "both")}
    kinds["first frame alone"] = ("continuous", "image")
    if codebook:
        kinds["codebook"] = ("codebook", "brain")
    truth = torch.empty(0)
    for name, (method, inputs) in kinds.items():
        run = folder / name.replace(" ", "-")
        run.mkdir()
        options = MotionOptions(method=method, inputs=inputs)
        train_motion(subject, options, run)
        card = read_card(run)
        statistics, voxels = card.standardiser(), chosen_voxels(subject, ())
        films = standardised(subject, "test", statistics, voxels)
        model, frames = load_motion(card), first_frames(stimuli, films.stimulus)
        made[name] = model.predict(films.responses, frames)
        if name == BRAIN:
            truth = stimulus_flow(stimuli, films.stimulus, options.grid, options.steps)
            known = stimulus_flow(stimuli, card.facts["training_stimuli"], options.grid, options.steps)
            made["noise-free"] = model.predict(statistics.apply(noise_free(subject, films.stimulus), None))
            made["zero flow"], made["mean flow"] = zero_flow(truth), mean_flow(known, len(truth))
    return truth, made


def _mean(found: Figures, decoder: str, metric: str) -> float:
    return float(np.mean([row.mean for row in found[decoder][metric]]))
