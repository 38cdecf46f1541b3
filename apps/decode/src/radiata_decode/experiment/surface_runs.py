"""The cortex route as the verbs call it: a run folder from subjects, and pictures from a run folder.

    train    autoencode, pretrain (all people) -> refine (the first) -> surface.safetensors, card
    decode   responses -> picture of the cortex -> guess, control -> the frozen generator -> draws

The frozen generator is the picture prior that ships. It can be told a guess and how far each of its components is to be
trusted (R2); a guess whose R2 was measured on training pictures would be believed too much, so a tenth of the stimuli is
held out of all three stages and of everybody (the validation split, where there is one). While the second stage learns the
guess, nothing is known of it and the generator is told nothing; R2 is measured after it, believed in refining, and
measured again.

    autoencode/ pretrain/ refine/   runs of the stages, each of which can be resumed
    surface.safetensors + .json     the refined decoder, with its measured R2
    model.json, standardiser        see `trained_models`

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (the stages).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.shipped_weights import find_weights
from radiata_decode.data.decoded import Decoded
from radiata_decode.data.normalisation import subject_standardiser
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.image_decoding import bytes_of, device_of, responses_of, seeds_of
from radiata_decode.experiment.surface_models import load_surface
from radiata_decode.experiment.surface_people import SurfacePerson, people_on_canvas, surface_items
from radiata_decode.experiment.surface_presets import PRESETS, SurfacePreset
from radiata_decode.experiment.surface_training import autoencode, picture_basis, pretrain, refine
from radiata_decode.experiment.trained_models import ModelCard, chosen_voxels, write_card
from radiata_decode.model.manipulated_generator import FrozenGenerator, controlled_pictures
from radiata_decode.model.picture_prior import BANDS, CENTRE, SPREAD, banded
from radiata_decode.model.surface_decoder import SurfaceDecoder, SurfacePrediction

if TYPE_CHECKING:
    from radiata_decode.experiment.decode import Decode
    from radiata_decode.experiment.train import Train

__all__ = ["decode_surface_run", "frozen_prior", "held_out", "train_surface_run"]

STAGES = ("autoencode", "pretrain", "refine")
SIDE = 32
"""Of the pictures that the shipped prior draws, pixels."""


def frozen_prior(generator: NetworkDenoiser, reliability: Tensor) -> FrozenGenerator:
    """The picture prior as a frozen generator that is told the guess as far as it is reliable.

    Args:
        generator: A prior of `model.picture_prior`.
        reliability: R2 of each component of the guess, (d,); all 0: it is told nothing, as in its own training.
    """
    padded = torch.nn.functional.pad(reliability.float().cpu(), (0, max(0, BANDS - len(reliability))))
    profile = banded(padded.clamp(0, 1))
    known = bool(profile.amax() > 0)

    def told(said: SurfacePrediction) -> dict[str, Tensor]:
        if said.first is None or not known:
            return {}
        guess = (said.first.detach() - CENTRE) / SPREAD
        return {"guess": guess, "profile": profile.to(guess).expand(len(guess), -1)}

    frozen = generator.eval().requires_grad_(False)
    return FrozenGenerator(frozen, (3, SIDE, SIDE), CENTRE, SPREAD, told)


def held_out(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects with a validation split: their own, or the last tenth of the first one's training stimuli, for all.

    Raises:
        InputError: fewer than two training stimuli.
    """
    first = subjects[0]
    split = first.trials["split"]
    names = list(dict.fromkeys(first.trials.loc[split == "train", "stimulus"]))
    if len(names) < 2:
        raise InputError(f"expected two training stimuli or more in {first.folder}; got {len(names)}.")
    kept = set(first.trials.loc[split == "validation", "stimulus"])
    kept = kept or set(names[-max(1, len(names) // 10) :])
    found = []
    for subject in subjects:
        trials = subject.trials.copy()
        moved = (trials["split"] == "train") & trials["stimulus"].isin(kept)
        trials.loc[moved, "split"] = "validation"
        found.append(replace(subject, trials=trials))
    return found


def train_surface_run(
    subjects: list[Subject],
    task: "Train",
    generator: NetworkDenoiser | None = None,
    preset: SurfacePreset | None = None,
) -> dict[str, Any]:
    """Three stages into the run's folder; returns what was measured on held-out pictures.

    Args:
        subjects: All pretrain, the first is refined.
        task: Options of the verb.
        generator: The picture prior; None: the one that ships.
        preset: Sizes; None: tiny.

    Raises:
        InputError: a size that the prior does not draw, subjects without stimuli or positions, options that do not fit.
    """
    if task.size != SIDE:
        raise InputError(f"expected --size {SIDE}, which the picture prior draws; got {task.size}.")
    if task.steps is not None and task.steps < 1:
        raise InputError(f"expected --steps of 1 or more; got {task.steps}.")
    preset = preset or PRESETS["tiny"]
    if task.steps is not None:
        preset = replace(preset, steps=(task.steps,) * 3)
    denoiser, checksum = _prior(generator)
    people = people_on_canvas(held_out(subjects), preset.size, rule=task.zscore, regions=task.rois)
    _cleared(task.out, task.resume)
    decoder, canvas = _three_stages(people, denoiser.to(device_of(task.device)), preset, task)
    measured = _measured(decoder, people[0], task.repeats)
    about = {"canvas": canvas, "stage": "refine", "rule": task.zscore}
    save_model(task.out / "surface.safetensors", decoder, metadata=about)
    own = people[0].subject
    facts = {
        "subject": own.folder.name,
        "subjects": {subject.folder.name: subject.sha256 for subject in subjects},
        "subject_voxels": len(own.voxels),
        "rois": list(task.rois),
        "size": task.size,
        "generator_sha256": checksum,
        "training_stimuli": people[0].averages("train").stimulus,
        "synthetic": bool(own.manifest.get("SyntheticData", False)),
        "measured": measured,
    }
    statistics = subject_standardiser(own, task.zscore, chosen_voxels(own, task.rois))
    write_card(task.out, "surface", statistics, facts)
    return measured


def _prior(generator: NetworkDenoiser | None) -> tuple[NetworkDenoiser, str | None]:
    if generator is not None:
        return generator, None
    loaded = load_model(find_weights("radiata_decode", "picture-prior"))
    if not isinstance(loaded.denoiser, NetworkDenoiser):
        raise InputError(f"expected a denoiser as picture prior; got a {type(loaded.denoiser).__name__}.")
    return loaded.denoiser, loaded.sha256


def _cleared(folder: Path, resume: bool) -> None:
    """Without what an earlier training left, which would be taken for a part of this one."""
    (folder / "model.json").unlink(missing_ok=True)
    if not resume:
        for name in STAGES:
            shutil.rmtree(folder / name, ignore_errors=True)


def _three_stages(
    people: list[SurfacePerson], denoiser: NetworkDenoiser, preset: SurfacePreset, task: "Train"
) -> tuple[SurfaceDecoder, dict[str, Any]]:
    changes = {"seed": task.seed, "device": task.device}
    one, two, three = (task.out / name for name in STAGES)

    def options(folder: Path) -> dict[str, Any]:
        return changes | {"resume": task.resume and folder.is_dir()}

    autoencode(people, one, preset, **options(one))
    unknown = frozen_prior(denoiser, torch.zeros(BANDS))
    basis = picture_basis(people, preset, unknown.shape)
    pretrain(people, unknown, two, preset, basis=basis, encoder=one, **options(two))
    pretrained = load_surface(two).decoder
    _measured(pretrained, people[0], task.repeats)
    believed = frozen_prior(denoiser, pretrained.reliability)
    refine(people[0], believed, three, preset, start=two, **options(three))
    found = load_surface(three)
    return found.decoder, found.canvas.card()


def _measured(decoder: SurfaceDecoder, person: SurfacePerson, count: int | None) -> dict[str, Any]:
    """R2 of the guess on held-out pictures, kept with the decoder's weights."""
    items = surface_items([person], "validation", images=SIDE, count=count)
    rows = [items[row] for row in range(len(items))]
    cortex, images = (torch.stack([row[name] for row in rows]) for name in ("cortex", "image"))
    if not decoder.components:
        return {"held_out_stimuli": len(rows)}
    r2 = decoder.measure_reliability(cortex, images)
    return {
        "held_out_stimuli": len(rows),
        "reliability_mean": float(r2.mean()),
        "reliability_first_10": [float(value) for value in r2[:10]],
    }


def decode_surface_run(
    subject: Subject, card: ModelCard, task: "Decode", generator: NetworkDenoiser | None = None
) -> Decoded:
    """Pictures of a subject's stimuli by the cortex route; at --control-scale 0 the generator is told the guess alone.

    Args:
        subject: Who was refined.
        card: Of the run.
        task: Options of the verb; its generator is own or none.
        generator: The picture prior that it was trained with; None: the one that ships.

    Raises:
        InputError: a stimulus that the split has not, another generator than in training, a run without its weights.
    """
    if task.generator not in ("own", "none"):
        raise InputError(
            f"expected --generator own or none for the route surface; got {task.generator}. Its control fits its own only."
        )
    model = load_surface(card.folder / "surface.safetensors")
    regions = tuple(card.facts["rois"])
    found = responses_of(subject, card, task)
    responses = np.zeros((len(found.stimulus), len(subject.voxels)), np.float32)
    responses[:, card.voxels_of(subject)] = found.responses
    person = people_on_canvas([subject], canvas=model.canvas, rule=model.metadata["rule"], regions=regions)[0]
    device = device_of(task.device)
    decoder = model.decoder.to(device)
    draw = None
    if task.generator == "own":
        denoiser, checksum = _prior(generator)
        expected = card.facts.get("generator_sha256")
        if checksum is not None and expected is not None and checksum != expected:
            raise InputError(
                f"expected the picture prior of training ({expected[:12]}…); got {checksum[:12]}…. Train again."
            )
        draw = _drawing(frozen_prior(denoiser.to(device), decoder.reliability), decoder, task)
    arrays = _pictures(person, decoder, responses, found.stimulus, draw, task)
    return Decoded(found.stimulus, arrays, "surface", task.split)


Draw = Callable[[SurfacePrediction, list[str]], Tensor]


def _drawing(frozen: FrozenGenerator, decoder: SurfaceDecoder, task: "Decode") -> Draw:
    """Draws (n, draw, 3, y, x); the seeds are the names'."""

    def draw(said: SurfacePrediction, names: list[str]) -> Tensor:
        parts = [
            controlled_pictures(
                frozen, decoder.manipulation, said, seeds=seeds_of(names, task.seed, number),
                steps=task.steps or 12, scale=task.control_scale,
            )
            for number in range(task.draws)
        ]  # fmt: skip
        return torch.cat(parts, 1).cpu()

    return draw


@torch.no_grad()
def _pictures(
    person: SurfacePerson,
    decoder: SurfaceDecoder,
    responses: np.ndarray,
    names: list[str],
    draw: Draw | None,
    task: "Decode",
) -> dict[str, np.ndarray]:
    guesses, drawn = [], []
    device = next(decoder.parameters()).device
    for start in range(0, len(names), task.batch_size):
        rows = slice(start, start + task.batch_size)
        said = decoder(person.pictures(responses[rows]).to(device))
        if said.first is not None:
            guesses.append(said.first.cpu())
        if draw is not None:
            drawn.append(draw(said, names[rows]))
    arrays: dict[str, np.ndarray] = {}
    if guesses:
        arrays["low_level"] = bytes_of(torch.cat(guesses))
    if not drawn:
        if not guesses:
            raise InputError(
                "expected a decoder with a guess for --generator none; got one without. Use own."
            )
        return arrays | {"images": arrays["low_level"]}
    samples = torch.cat(drawn)
    arrays["images"] = bytes_of(samples.mean(1) if task.show == "mean" else samples[:, 0])
    if task.draws > 1:
        arrays["draws"] = np.stack([bytes_of(samples[:, number]) for number in range(task.draws)], 1)
        arrays["sd"] = samples.mean(2).std(1).numpy().astype(np.float32)
    return arrays
