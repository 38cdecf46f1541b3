"""Decoded motion against the motion that was seen, beside everything that knows less than the decoder.

    decoder               the flow in the file
    zero flow             control: nothing moves; EPE skill is measured against it
    mean flow             control: the average training motion
    random training flow  control: the motion of a training film drawn at random
    permuted brain        control: the decoder's flow, each of another film of its run
    retrieval             control: the motion of the training film with the most similar response
    image only            control: a ridge from the first frame to the motion, trained without the brain
    noise-free ceiling    the same model on responses without noise, of simulated subjects only

Flow is compared on the grid that was decoded, in cells a frame step. True flow of films without one is estimated (DIS, or
the network the run was trained with), and then so are at most `MOST` training films for the controls.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.runs import Progress
from radiata_core.seeds import rng_of
from radiata_decode.data.stimuli import Stimuli
from radiata_decode.experiment.comparison import Comparison
from radiata_decode.experiment.evaluation import DECODER, Evaluation, differences
from radiata_decode.experiment.evaluation_figures import null_figure, score_figure
from radiata_decode.experiment.flow_figures import flow_gallery, ranked
from radiata_decode.experiment.motion_stimuli import first_frames, frame_features, stimulus_flow
from radiata_decode.experiment.noise_free import CEILING, ceiling_flow
from radiata_decode.experiment.stimulus_overlap import group_scores, measured_overlap
from radiata_decode.model.controls import mean_flow, permuted_brain, retrieved_rows, zero_flow
from radiata_decode.model.motion_decoder import fit_continuous
from radiata_decode.model.motion_scores import MotionScores, endpoint_errors, motion_rows, motion_scores
from radiata_decode.model.permutation import PermutationTest
from radiata_decode.model.score_table import ScoreRow

if TYPE_CHECKING:
    from radiata_decode.experiment.evaluate import Evaluate

__all__ = ["evaluate_motion"]

PERMUTE, TESTS, DIFFER, GROUPS, SHOWN, SUBSET, RANDOM = 71, 72, 73, 74, 75, 76, 77  # keys of random numbers
MOST = 1000
FEWEST_FOR_IMAGE_ONLY = 10
COMPONENTS = 100
SHOWN_CONTROLS = ("permuted brain", "retrieval", "image only", CEILING)


def evaluate_motion(comparison: Comparison, task: "Evaluate") -> Evaluation:
    """Scores of motion; see the module.

    Raises:
        InputError: neither flow nor films of what was seen, or flow that is not on a square grid.
    """
    stimuli = comparison.stimuli()
    decoded = torch.from_numpy(comparison.decoded.arrays["flow"])
    if decoded.shape[3] != decoded.shape[4]:
        raise InputError(
            f"expected decoded flow on a square grid; got {tuple(decoded.shape[3:])} cells. Decode again."
        )
    truth = _true_flow(comparison, stimuli, comparison.names, decoded)
    notes = list(comparison.notes)
    controls = _controls(comparison, stimuli, decoded, task, notes)
    flows = {DECODER: decoded} | controls
    ceiling = ceiling_flow(comparison, stimuli, notes)
    if ceiling is not None:
        flows[CEILING] = ceiling
    runs = comparison.runs if len(truth) > 1 else None
    rows: list[ScoreRow] = []
    tests: dict[str, PermutationTest] = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    with Progress(len(flows), "score", unit="set") as bar:
        for number, (name, flow) in enumerate(flows.items()):
            scores = motion_scores(truth, flow, task.threshold)
            made = motion_rows(
                name, scores, endpoint_errors(truth, flow), rng_of(task.seed, TESTS, number), runs=runs,
                draws=task.permutations, control=name in controls,
            )  # fmt: skip
            rows += made.rows
            values[name] = _values(scores)
            tests = dict(made.tests) if name == DECODER else tests
            bar.update(1)
    overlap = measured_overlap(comparison, stimuli)
    groups = []
    if "seen" in overlap:
        groups = group_scores(overlap["seen"], values[DECODER], rng_of(task.seed, GROUPS))
    figures: dict[str, Any] = {
        "gallery": _gallery(comparison, stimuli, truth, flows, values[DECODER]["flow correlation"], task),
        "scores": score_figure(
            rows,
            _shown_metrics([row.metric for row in rows]),
            stimuli=len(truth),
            synthetic=comparison.synthetic,
        ),
    }
    if tests:
        figures["permutations"] = null_figure(tests, comparison.within, synthetic=comparison.synthetic)
    compare = differences(values, rng_of(task.seed, DIFFER))
    extra = {"threshold": task.threshold, "grid": list(decoded.shape[1:])}
    return Evaluation("motion", rows, values, tests, compare, overlap, groups, notes, figures, extra)


def _true_flow(comparison: Comparison, stimuli: Stimuli, names: list[str], like: Tensor) -> Tensor:
    network = None
    if comparison.card is not None:
        network = comparison.card.facts.get("motion", {}).get("flow_network")
    return stimulus_flow(
        stimuli, names, like.shape[4], like.shape[1], None if network is None else Path(network)
    )


def _controls(
    comparison: Comparison, stimuli: Stimuli, decoded: Tensor, task: "Evaluate", notes: list[str]
) -> dict[str, Tensor]:
    count = len(decoded)
    made = {"zero flow": zero_flow(decoded)}
    if count > 1:
        made["permuted brain"] = permuted_brain(decoded, rng_of(task.seed, PERMUTE), comparison.runs)
    training = comparison.training_names()
    if not training:
        notes.append("The subject has no training trials: controls are zero flow and the permuted brain.")
        return made
    if len(training) > MOST:
        chosen = rng_of(task.seed, SUBSET).permutation(len(training))[:MOST]
        names = [training[row] for row in sorted(chosen.tolist())]
        notes.append(f"Controls use {MOST} of {len(training)} training films, drawn at random.")
    else:
        names = training
    known = _true_flow(comparison, stimuli, names, decoded)
    made["mean flow"] = mean_flow(known, count)
    drawn = rng_of(task.seed, RANDOM).integers(0, len(known), count)
    made["random training flow"] = known[torch.from_numpy(drawn)]
    if comparison.held_out:
        taught, responses = comparison.responses()
        nearest = [taught.stimulus[row] for row in retrieved_rows(taught.responses, responses)]
        made["retrieval"] = _true_flow(comparison, stimuli, nearest, decoded)
        found = _image_only(stimuli, names, known, comparison.names)
        if found is None:
            notes.append("No image-only control: it needs films or pictures, and ten training stimuli.")
        else:
            made["image only"] = found
    else:
        notes.append("No retrieval and no image-only control: both would have seen these stimuli.")
    return made


def _image_only(stimuli: Stimuli, training: list[str], flow: Tensor, names: list[str]) -> Tensor | None:
    """Flow that a ridge makes of first frames; None without frames or with too few training films."""
    if not {"movies", "images"} & set(stimuli.shapes) or len(training) < FEWEST_FOR_IMAGE_ONLY:
        return None
    grid = int(flow.shape[4])
    known, new = (frame_features(first_frames(stimuli, ids), grid) for ids in (training, names))
    components = min(COMPONENTS, len(training) - 2)
    return fit_continuous(flow, None, known, inputs="image", components=components).decoder.predict(None, new)


def _values(scores: MotionScores) -> dict[str, np.ndarray]:
    moving = f">= {scores.threshold:g} cells"
    return {
        "epe": scores.epe,
        f"epe {moving}": scores.epe_moving,
        f"cosine {moving}": scores.cosine,
        f"angle {moving}": scores.angle,
        "flow correlation": scores.correlation,
        "field cosine": scores.field_cosine,
        "flow 2-way": scores.two_way,
    }


def _shown_metrics(known: list[str]) -> list[str]:
    return [
        name
        for name in ("epe", "epe skill", "flow correlation", "field cosine", "flow 2-way")
        if name in known
    ]


def _gallery(
    comparison: Comparison,
    stimuli: Stimuli,
    truth: Tensor,
    flows: dict[str, Tensor],
    scores: np.ndarray,
    task: "Evaluate",
) -> Any:
    shown = ranked(scores, rng_of(task.seed, SHOWN))
    kept = {DECODER: flows[DECODER]} | {name: flows[name] for name in SHOWN_CONTROLS if name in flows}
    places = list(shown.values())
    frames = None
    if {"movies", "images"} & set(stimuli.shapes):
        frames = first_frames(stimuli, [comparison.names[row] for row in places]).numpy()
    return flow_gallery(
        {"seen": truth[places].numpy()} | {name: flow[places].numpy() for name, flow in kept.items()},
        {label: place for place, label in enumerate(shown)},
        frames=frames, values=scores[places], synthetic=comparison.synthetic,
    )  # fmt: skip
