"""The motion route as the verbs call it: a run folder from a subject of films, and flow and films from a run folder.

    train    responses, flow of what was shown -> ridge on flow components, codebook network -> run folder
    decode   responses -> flow;  true first frame, decoded flow -> film

Of a decoded film the first frame is the *true* one: what is decoded is how it moves. A generator that is not told the flow
(image to film) shows what a still alone suggests, and a film warped by no flow at all is the control that stands beside
both in an evaluation. A film is one draw: the mean of several would be a blur that moves.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.runs import Progress
from radiata_decode.data.decoded import Decoded
from radiata_decode.data.stimuli import Stimuli, read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.image_decoding import device_of, responses_of, seeds_of
from radiata_decode.experiment.motion_stimuli import first_frames
from radiata_decode.experiment.motion_training import MotionOptions, load_motion, train_motion
from radiata_decode.experiment.trained_models import ModelCard
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.generators import generator

if TYPE_CHECKING:
    from radiata_decode.experiment.decode import Decode
    from radiata_decode.experiment.train import Train

__all__ = ["decode_motion_run", "train_motion_run"]


def train_motion_run(subject: Subject, task: "Train") -> dict[str, Any]:
    """Fit decoders of motion into the run's folder; returns what was measured on training films, each left out once.

    Raises:
        InputError: no films, too few of them, regions or options that do not fit.
    """
    if task.steps is not None and task.steps < 1:
        raise InputError(f"expected --steps of 1 or more; got {task.steps}.")
    chosen: dict[str, Any] = {} if task.steps is None else {"optimiser_steps": task.steps}
    options = MotionOptions(
        method=task.method, zscore=task.zscore, rois=task.rois, count=task.repeats, weighted=task.weighted,
        seed=task.seed, device=task.device, resume=task.resume, **chosen,
    )  # fmt: skip
    if not task.resume:  # what an earlier run left would be taken for a part of this one
        for path in [*task.out.glob("*.safetensors"), task.out / "model.json"]:
            path.unlink(missing_ok=True)
    return train_motion(subject, options, task.out)


def decode_motion_run(subject: Subject, card: ModelCard, task: "Decode") -> Decoded:
    """Flow of a subject's films, and unless the generator is none, films that begin with the true first frame.

    Raises:
        InputError: a stimulus that the split has not, first frames that are needed and not there, a generator of pictures.
    """
    found = responses_of(subject, card, task)
    model = load_motion(card)
    first: Tensor | None = None
    frames: int | None = None
    if task.generator != "none" or model.options.inputs != "brain":
        stimuli = _stimuli(subject)
        first = first_frames(stimuli, found.stimulus)
        frames = stimuli.shapes["movies"][1] if "movies" in stimuli.shapes else None
    made = None if task.generator == "none" else _film_generator(task, frames)
    flow = model.predict(found.responses, first).float()
    arrays = {"flow": np.ascontiguousarray(flow.numpy(), np.float32)}
    if made is not None:
        condition = Condition(first_frame=first, flow=flow)
        arrays["movies"] = _films(made, condition, found.stimulus, task)
    return Decoded(found.stimulus, arrays, "motion", task.split)


def _stimuli(subject: Subject) -> Stimuli:
    """Of the subject, with films or pictures to begin from."""
    stimuli = read_stimuli(subject.folder)
    if not {"movies", "images"} & set(stimuli.shapes):
        raise InputError(
            f"expected movies or images in {subject.folder / 'stimuli.h5'}, whose first frames are moved; got "
            f"{', '.join(stimuli.shapes) or 'nothing'}. Pass --generator none for the flow alone."
        )
    return stimuli


def _film_generator(task: "Decode", frames: int | None) -> Generator:
    """Of films; what the verb calls own is the warp here."""
    if task.generator == "retrieval":
        raise InputError(
            "expected a generator of films (own, warp, none or diffusers:FOLDER_OR_ID) for motion; got retrieval. It is "
            "among the controls of `radiata-decode evaluate`."
        )
    name = "warp" if task.generator == "own" else task.generator
    made = generator(name, device=device_of(task.device), online=task.online, frames=frames)
    if made.provides != "video":
        raise InputError(
            f"expected a generator of films for motion; got {task.generator}, which makes pictures. Take warp, or a folder "
            "of Stable Video Diffusion."
        )
    return made


def _films(made: Generator, condition: Condition, names: list[str], task: "Decode") -> np.ndarray:
    """Films as files keep them, (n, frame, y, x, 3) uint8, one draw each."""
    options: dict[str, Any] = {"strength": task.strength, "guidance": task.guidance, "mix": task.mix}
    options |= {"control_scale": task.control_scale, "steps": task.steps}
    parts: list[Tensor] = []
    with Progress(len(names), "film", unit="film") as bar:
        for start in range(0, len(names), task.batch_size):
            rows = slice(start, min(start + task.batch_size, len(names)))
            seeds = seeds_of(names[rows], task.seed, 0)
            film = made(condition.rows(rows), seeds=seeds, **options).float().cpu().clamp(0, 1)
            parts.append((film * 255).round().to(torch.uint8))
            bar.update(len(seeds))
    return torch.cat(parts).movedim(2, -1).contiguous().numpy()
