"""The route of BrainNRDS, trained: a subject's films and responses in, a folder with motion decoders out.

    subject -> standardised averages of training trials -> ridge on flow components       (continuous)
                                                        -> network on a codebook of flow  (codebook)

    ridge, flow-basis      continuous decoder and its shrinkage
    network, codebook      codebook decoder and its temperature; its checkpoints and log in training/
    model.json             options, measured errors, checksums

One training film in eight (whole groups, such as all films of one photograph) is held out of the network's training to
calibrate its temperature. The network is shown the ridge's leave-one-out predictions, never in-sample ones.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.seeds import rng_of, seed_of
from radiata_core.train import TrainOptions, train
from radiata_core.weights import read_tensors, write_tensors
from radiata_decode.data.normalisation import subject_standardiser
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.experiment.motion_stimuli import first_frames, frame_features, stimulus_flow
from radiata_decode.experiment.trained_models import ModelCard, chosen_voxels, standardised, write_card
from radiata_decode.model.codebook_decoder import CodebookMotion, calibrated_temperature
from radiata_decode.model.flow_codebook import FlowCodebook
from radiata_decode.model.motion_decoder import (
    ContinuousMotion,
    FittedMotion,
    combined_motion,
    fit_continuous,
)
from radiata_decode.model.motion_network import INPUTS, CodeCrossEntropy, MotionNetwork
from radiata_decode.model.reliability_weights import repeat_weights, voxel_weights

if TYPE_CHECKING:
    from radiata_decode.data.repeats import Averaged
    from radiata_decode.data.subject import Subject

__all__ = ["MotionModel", "MotionOptions", "load_motion", "train_motion"]

METHODS = ("continuous", "codebook", "both")
HELD_OUT = 8
BUILD, CODES, HOLD = 31, 32, 33  # keys of random numbers


@dataclass(frozen=True)
class MotionOptions:
    """Options of the route.

    Attributes:
        method: continuous, codebook or both (their mean).
        inputs: brain, image or both: what the decoders may know.
        grid: Cells a side of the flow.
        steps: Predicted flow fields of a film; its frame steps are averaged in as many groups.
        components: Of the flow, for the ridge.
        codes: Of the codebook.
        way: mean or median of the codes' distribution.
        guess: Show the ridge's prediction to the network.
        optimiser_steps: Of the network.
        batch_size: Films a step.
        zscore: Rule of `data.normalisation`.
        rois: Regions to read; none: all voxels.
        count: Repeats to average; None: all.
        weighted: Voxels count with their noise ceiling, films with their repeats.
        flow_network: Exported RAFT (.pt2) for films whose flow is not known; None: DIS.
        seed: Of codes, weights and orders.
        device: cpu or auto.
        resume: Go on from the newest checkpoint of the network.
    """

    method: str = "continuous"
    inputs: str = "brain"
    grid: int = 16
    steps: int = 1
    components: int = 100
    codes: int = 40
    way: str = "mean"
    guess: bool = True
    optimiser_steps: int = 300
    batch_size: int = 32
    zscore: str = "train"
    rois: tuple[str, ...] = ()
    count: int | None = None
    weighted: bool = True
    flow_network: Path | None = None
    seed: int = 0
    device: str = "cpu"
    resume: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.inputs not in INPUTS:
            raise InputError(
                f"expected a method of {', '.join(METHODS)} and inputs of {', '.join(INPUTS)}; got {self.method} and "
                f"{self.inputs}."
            )


@dataclass(frozen=True, eq=False)
class MotionModel:
    """Trained decoders of motion.

    Attributes:
        options: They were trained with.
        continuous: Of method continuous and both, and as a guess.
        codebook: Of method codebook and both.
    """

    options: MotionOptions
    continuous: ContinuousMotion | None
    codebook: CodebookMotion | None

    def predict(self, responses: Any = None, frames: Tensor | None = None) -> Tensor:
        """Flow, (n, step, 2, grid, grid), cells a frame step; every row from its own inputs.

        Args:
            responses: (n, voxel), standardised, of the model's voxels; not needed for inputs image.
            frames: First frames (n, 3, y, x), true or decoded; not needed for inputs brain.

        Raises:
            InputError: an input is missing or does not fit.
        """
        features = None
        if self.options.inputs != "brain":
            if frames is None:
                raise InputError(f"expected first frames for a decoder of {self.options.inputs}; got none.")
            features = frame_features(frames, self.options.grid)
        ridge = None if self.continuous is None else self.continuous.predict(responses, features)
        if self.codebook is None:
            if ridge is None:
                raise InputError("expected a trained decoder; got neither ridge nor network. Train it again.")
            return ridge
        coded = self.codebook.predict(responses, features, ridge)
        return coded if self.options.method == "codebook" or ridge is None else combined_motion(coded, ridge)


def train_motion(subject: "Subject", options: MotionOptions, out: Path) -> dict[str, Any]:
    """Fit and write decoders of motion; returns what was measured on training films, each left out once.

    Raises:
        InputError: no films, too few of them, regions or options that do not fit.
    """
    stimuli = read_stimuli(subject.folder)
    voxels = chosen_voxels(subject, options.rois)
    statistics = subject_standardiser(subject, options.zscore, voxels)
    films = standardised(subject, "train", statistics, voxels, options.count)
    flow = stimulus_flow(stimuli, films.stimulus, options.grid, options.steps, options.flow_network)
    features = None
    if options.inputs != "brain":
        features = frame_features(first_frames(stimuli, films.stimulus), options.grid)
    facts: dict[str, Any] = {"motion": asdict(options)}
    fitted = None
    zero = float(flow.norm(dim=2).mean())
    measured: dict[str, Any] = {"epe_zero": zero}
    if options.method != "codebook" or options.guess:
        weights = _weights(subject, films, voxels) if options.weighted else {}
        fitted = fit_continuous(
            flow, films.responses, features, inputs=options.inputs, components=options.components, **weights
        )
        facts["continuous"] = fitted.decoder.save(out)
        measured |= {
            "epe_loo": float((fitted.loo - flow).norm(dim=2).mean()),
            "loo_r2": [round(float(value), 4) for value in fitted.loo_r2[:20]],
            "shrinkage": fitted.decoder.shrinkage,
        }
    if options.method != "continuous":
        groups = _groups(stimuli.table, films.stimulus)
        facts["codebook"], told = _train_network(flow, films, features, fitted, groups, options, out)
        measured |= told
    facts |= {
        "subject": subject.folder.name, "subject_sha256": subject.sha256, "subject_voxels": len(subject.voxels),
        "voxels": len(voxels), "rois": list(options.rois), "training_stimuli": films.stimulus,
        "synthetic": bool(subject.manifest.get("SyntheticData", False)), "measured": measured,
    }  # fmt: skip
    write_card(out, "motion", statistics, facts)
    return measured


def load_motion(card: ModelCard) -> MotionModel:
    """The decoders of a folder that `train_motion` wrote.

    Raises:
        InputError: a model of another route, or files that are missing or changed.
    """
    if card.route != "motion":
        raise InputError(f"expected a model of the route motion in {card.folder}; got {card.route}.")
    kept = dict(card.facts["motion"])
    kept["rois"] = tuple(kept["rois"])
    options = MotionOptions(**kept)
    continuous = None
    if "continuous" in card.facts:
        continuous = ContinuousMotion.load(card.folder, card.facts["continuous"])
    codebook = None
    if "codebook" in card.facts:
        network = load_model(card.folder / "network.safetensors").denoiser
        if not isinstance(network, MotionNetwork):
            raise InputError(
                f"expected a motion network in {card.folder}; got another network. Copy the whole run."
            )
        vectors = read_tensors(card.folder / "codebook.safetensors")["vectors"]
        temperature = float(card.facts["codebook"]["temperature"])
        codebook = CodebookMotion(network, FlowCodebook(vectors), temperature, options.way)
    return MotionModel(options, continuous, codebook)


class _Films(torch.utils.data.Dataset):
    """Codes of the flow and what the network sees, film by film."""

    def __init__(self, parts: dict[str, Tensor], rows: np.ndarray) -> None:
        self.parts, self.rows = parts, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: part[int(self.rows[index])] for name, part in self.parts.items()}


def _train_network(
    flow: Tensor,
    films: "Averaged",
    features: Tensor | None,
    fitted: FittedMotion | None,
    groups: np.ndarray,
    options: MotionOptions,
    out: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, calibrate and write the codebook decoder: what the card keeps, and what was measured."""
    codebook = FlowCodebook.fit(flow, options.codes, rng=rng_of(options.seed, CODES))
    seen: dict[str, Tensor] = {}
    if options.inputs != "image":
        seen["responses"] = torch.from_numpy(films.responses)
    if features is not None:
        seen["features"] = features
    if fitted is not None and options.guess:
        seen["guess"] = fitted.loo.flatten(1, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.seed, BUILD))
        network = MotionNetwork(
            (options.grid, options.grid), options.steps, codebook.size,
            *(seen[name].shape[1] if name in seen else 0 for name in ("responses", "features", "guess")),
        )  # fmt: skip
    held = _held_out(groups, options.seed)
    rows = np.arange(len(flow))
    parts = {"image": codebook.codes(flow).float()} | seen
    settings = TrainOptions(
        steps=options.optimiser_steps, batch_size=options.batch_size, learning_rate=2e-3, warmup=20, cosine=True,
        weight_decay=0.1, condition_dropout=0.0, seed=options.seed, device="auto" if options.device == "auto" else "cpu",
        tensorboard=False, resume=options.resume, ema=(0.1,), validate_every=max(1, options.optimiser_steps),
        validation_draws=1,
    )  # fmt: skip
    shown, unseen = _Films(parts, rows[~held]), _Films(parts, rows[held])
    if not options.resume:  # of an earlier run in this folder
        shutil.rmtree(out / "training", ignore_errors=True)
    train(network, CodeCrossEntropy(), shown, out / "training", settings, validation=unseen)
    trained = load_model(out / "training").denoiser
    save_model(out / "network.safetensors", trained, metadata={"codes": codebook.size})
    decoder = CodebookMotion(trained, codebook, 1.0, options.way)  # type: ignore[arg-type]
    known = {
        name: value[held].unflatten(1, flow.shape[1:3]) if name == "guess" else value[held]
        for name, value in seen.items()
    }
    temperature = calibrated_temperature(decoder, flow[held], **known)
    with atomic_path(out / "codebook.safetensors") as part:
        write_tensors(part, {"vectors": codebook.vectors})
    best = CodebookMotion(decoder.network, codebook, temperature, options.way)
    told = {
        "epe_held_out_codebook": float((best.predict(**known) - flow[held]).norm(dim=2).mean()),
        "epe_held_out_zero": float(flow[held].norm(dim=2).mean()),
        "quantisation_error": codebook.quantisation_error(flow),
        "temperature": temperature,
    }
    return {"temperature": temperature, "codes": codebook.size}, told


def _held_out(groups: np.ndarray, seed: int) -> np.ndarray:
    """Whole groups, until an eighth of the films is held out; films, where there are too few groups."""
    names = np.unique(groups)
    order = rng_of(seed, HOLD).permutation(names)
    held = np.zeros(len(groups), bool)
    for name in order:
        if held.sum() * HELD_OUT >= len(groups):
            break
        held |= groups == name
    if held.all() or not held.any() or held.sum() * 2 > len(groups):
        held = rng_of(seed, HOLD).permutation(len(groups)) < max(1, len(groups) // HELD_OUT)
    return held


def _groups(table: Any, ids: list[str]) -> np.ndarray:
    if "group" not in table:
        return np.array(ids)
    of = dict(zip(table["stimulus"], table["group"].astype(str), strict=True))
    return np.array([of[name] for name in ids])


def _weights(subject: "Subject", films: "Averaged", voxels: np.ndarray) -> dict[str, Any]:
    ceiling = subject.noise_ceiling
    if ceiling is None or not (np.nan_to_num(ceiling[voxels]) > 0).any():
        return {}
    known = np.nan_to_num(ceiling[voxels])
    ratio = np.sqrt(known / np.maximum(1 - known, 1e-3))
    return {"voxel_weights": voxel_weights(known), "sample_weights": repeat_weights(films.repeats, ratio)}
