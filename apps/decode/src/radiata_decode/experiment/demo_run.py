"""The work of the demo: three subjects, three decoders, one page.

    images/, motion/         simulated subjects: real photographs, moving photographs with exact flow
    images-model/ ...        what was trained on them
    decoded-images.h5 ...    what was decoded from their test trials, each with its card
    scores.tsv               decoders and controls in one table
    report.html              all of it

The same seed gives the same numbers. Decoders never see the test trials that the table is about.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radiata_core.files import atomic_path
from radiata_core.runs import Run
from radiata_core.seeds import rng_of
from radiata_decode.data.decoded import Decoded, write_decoded
from radiata_decode.data.loading import unit_images
from radiata_decode.data.sidecar import write_sidecar
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject, read_subject
from radiata_decode.experiment.category_training import train_categories
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.demo import Demo
from radiata_decode.experiment.demo_pages import category_section, image_section, motion_section, write_page
from radiata_decode.experiment.image_decoding import decode_categories, decode_images, responses_of
from radiata_decode.experiment.image_training import ImageOptions, train_images
from radiata_decode.experiment.motion_stimuli import first_frames, stimulus_flow
from radiata_decode.experiment.motion_training import MotionOptions, load_motion, train_motion
from radiata_decode.experiment.simulating import noise_free, write_simulated_subject
from radiata_decode.experiment.trained_models import read_card
from radiata_decode.model.controls import mean_flow, mean_image, permuted_brain, zero_flow
from radiata_decode.model.image_decoder import ImageDecoder
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.motion_scores import motion_table
from radiata_decode.model.score_table import ScoreRow, score_table
from radiata_imaging.report import Section

__all__ = ["demonstrate"]

COMMAND = "radiata-decode demo"
_TEST_RUNS = ((1, 11), (1, 12))


def demonstrate(task: Demo) -> None:
    """Write the demo's folder and say what came out."""
    work = {"images": _images, "motion": _motion, "haxby": _haxby}
    with Run(task.out, COMMAND, task, seed=task.seed, overwrite=task.overwrite) as run:
        _clear(task.out)
        sections: list[Section] = []
        table: list[dict[str, Any]] = []
        for part in task.parts:
            section, rows = work[part](task)
            sections.append(section)
            table += [{"part": part, **row} for row in rows]
        _write_table(task.out / "scores.tsv", table)
        run.note(scores=table)
        write_page(task.out, sections)
    print(f"report and files in {task.out}")


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left."""
    for name in ("images", "motion", "haxby"):
        for entry in (folder / name, folder / f"{name}-model"):
            shutil.rmtree(entry, ignore_errors=True)
        for path in folder.glob(f"decoded-{name}.*"):
            path.unlink()


def _written(task: Demo, part: str, decoded: Decoded, subject: Subject, model: Path) -> None:
    path = write_decoded(task.out / f"decoded-{part}.h5", decoded)
    sources = {subject.folder.name: subject.sha256} | {
        f"model/{n}": s for n, s in read_card(model).sha256.items()
    }
    write_sidecar(
        path, sources, SyntheticData=True, SimulatedSubject=part != "haxby", Route=decoded.route, Seed=task.seed,
        Description="decoded from fMRI in a demonstration; outputs of a model, not for clinical use",
    )  # fmt: skip


def _images(task: Demo) -> tuple[Section, list[dict[str, Any]]]:
    """Photographs from a simulated cortex."""
    folder, model = task.out / "images", task.out / "images-model"
    subject = write_simulated_subject(
        folder, kind="image", train=task.train, test=task.test, voxels=task.voxels, seed=task.seed
    )
    options = ImageOptions(
        components=min(300, task.train - 1), basis="training" if task.generator == "none" else "shipped"
    )
    train_images(subject, options, model)
    card = read_card(model)
    asked = Decode(folder, model, task.out, generator=task.generator, draws=task.draws, seed=task.seed)
    decoded = decode_images(subject, card, asked)
    _written(task, "images", decoded, subject, model)
    stimuli = read_stimuli(folder)
    truth = unit_images(stimuli.images(decoded.stimulus))
    shown = {"ridge": unit_images(decoded.arrays["low_level"])}
    if task.generator != "none":
        shown |= {"generator, mean": unit_images(decoded.arrays["images"])}
        draws = decoded.arrays.get("draws", decoded.arrays["images"][:, None])
        shown |= {"generator, one draw": unit_images(draws[:, 0])}
    training = unit_images(stimuli.images(card.facts["training_stimuli"]))
    near = decode_images(subject, card, Decode(folder, model, task.out, generator="retrieval"))
    best = list(shown)[-2] if len(shown) > 1 else "ridge"
    controls = {
        "mean picture": mean_image(training, len(truth)),
        "retrieval": unit_images(near.arrays["images"]),
        "permuted brain": permuted_brain(shown[best], rng_of(task.seed, 61)),
    }
    codec, decoder = PcaCodec.load(model / "codec.safetensors"), ImageDecoder.load(model)
    clean = card.standardiser().apply(noise_free(subject, decoded.stimulus)[:, card.voxels_of(subject)])
    controls["ridge, noise-free responses"] = codec.decode(decoder.decode(clean).low_level)
    rows = score_table(truth, shown, rng_of(task.seed, 62), controls=controls, draws=task.permutations)
    return image_section(truth, shown, controls, rows, rng_of(task.seed, 63)), _plain(rows)


def _motion(task: Demo) -> tuple[Section, list[dict[str, Any]]]:
    """Flow from a simulated cortex."""
    folder, model = task.out / "motion", task.out / "motion-model"
    subject = write_simulated_subject(
        folder,
        kind="motion",
        train=max(40, task.train // 2),
        test=max(8, task.test // 2),
        voxels=task.voxels,
        seed=task.seed,
    )
    options = MotionOptions(components=min(100, max(40, task.train // 2) - 1))
    train_motion(subject, options, model)
    card = read_card(model)
    found = responses_of(subject, card, Decode(folder, model, task.out))
    flow = load_motion(card).predict(found.responses)
    decoded = Decoded(found.stimulus, {"flow": flow.numpy().astype(np.float32)}, "motion", "test")
    _written(task, "motion", decoded, subject, model)
    stimuli = read_stimuli(folder)
    truth = stimulus_flow(stimuli, found.stimulus, options.grid, options.steps, None)
    training = stimulus_flow(stimuli, card.facts["training_stimuli"], options.grid, options.steps, None)
    controls = {
        "no motion": zero_flow(truth),
        "mean motion": mean_flow(training, len(truth)),
        "permuted brain": permuted_brain(flow, rng_of(task.seed, 64)),
    }
    rows = motion_table(
        truth, {"ridge": flow}, rng_of(task.seed, 65), controls=controls, draws=task.permutations
    )
    frames = first_frames(stimuli, found.stimulus)
    return motion_section(truth, flow, controls, frames, rows, rng_of(task.seed, 66)), _plain(rows)


def _haxby(task: Demo) -> tuple[Section, list[dict[str, Any]]]:
    """Categories from real fMRI."""
    from radiata_decode.experiment.prepare import Prepare

    folder, model = task.out / "haxby", task.out / "haxby-model"
    words = tuple(f"{session}:{run}" for session, run in _TEST_RUNS)
    Prepare("from-haxby", folder, test_runs=words).run()
    subject = read_subject(folder)
    measured = train_categories(subject, (), "train", task.seed, model, permutations=task.permutations)
    asked = Decode(folder, model, task.out, generator=task.generator, draws=1, show="first", seed=task.seed)
    decoded = decode_categories(subject, read_card(model), asked)
    _written(task, "haxby", decoded, subject, model)
    trials = subject.trials.drop_duplicates("stimulus").set_index("stimulus")["category"].astype(str)
    truth = [trials[name] for name in decoded.stimulus]
    pictures = decoded.arrays.get("images")
    row = {
        "decoder": "ridge classifier", "metric": "8-way accuracy, leave one run out", "mean": measured["accuracy"],
        "low": measured["accuracy_interval"][0], "high": measured["accuracy_interval"][1], "p": measured["p"],
        "chance": measured["chance"],
    }  # fmt: skip
    section = category_section(
        truth,
        decoded.categories,
        decoded.arrays["probabilities"],
        None if pictures is None else torch.from_numpy(pictures),
        row,
    )
    return section, [row]


def _plain(rows: list[ScoreRow]) -> list[dict[str, Any]]:
    return [row.plain() for row in rows]


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """All scores, tab-separated."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as part:
        lines = ["\t".join(names)]
        lines += [
            "\t".join("" if row.get(name) is None else str(row[name]) for name in names) for row in rows
        ]
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
