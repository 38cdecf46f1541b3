"""The ceiling of a decoder: what it makes of responses without noise, which only a simulated subject has.

Noise-free responses are standardised with the model's own statistics and decoded by the same model with the options of the
decoding. What is then missing, the model loses; what the decoder falls short of it, the noise took.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_decode.data.stimuli import Stimuli
from radiata_decode.experiment.comparison import Comparison

__all__ = ["CEILING", "ceiling_flow", "ceiling_pictures", "has_signal", "signal_responses"]

CEILING = "noise-free ceiling"
NO_SESSION = -1


def has_signal(comparison: Comparison) -> bool:
    """Whether responses without noise are known."""
    return comparison.card is not None and _signal_file(comparison).is_file()


def signal_responses(comparison: Comparison) -> np.ndarray:
    """Standardised noise-free responses of the decoded stimuli, (n, voxel)."""
    from radiata_decode.experiment.simulating import noise_free

    statistics, voxels = comparison.standardiser()
    signal = noise_free(comparison.subject, comparison.names)[:, voxels]
    return statistics.apply(signal, np.full(len(signal), NO_SESSION))


def ceiling_pictures(comparison: Comparison, notes: list[str]) -> dict[str, Callable[[], Tensor]]:
    """Name → what makes the pictures (n, 3, y, x): of the model, and of its low level where a generator follows.

    Args:
        comparison: Of the image route.
        notes: To which is added why there is none.
    """
    if not has_signal(comparison) or comparison.card is None:
        if _signal_file(comparison).is_file():
            notes.append("No noise-free ceiling: pass --model, the run that decoded.")
        return {}
    if comparison.card.route != "image":
        notes.append(f"No noise-free ceiling for pictures of the route {comparison.card.route}.")
        return {}
    from radiata_decode.experiment.image_codecs import codec_of
    from radiata_decode.experiment.image_decoding import Drawing, condition_of, draw_pictures, guessed_latents
    from radiata_decode.model.image_decoder import ImageDecoder

    card, task = comparison.card, _decoding(comparison)
    responses = signal_responses(comparison)
    decoder, codec = ImageDecoder.load(card.folder), codec_of(card)

    def low_level() -> Tensor:
        return codec.decode(guessed_latents(card, decoder, responses, task).low_level).clamp(0, 1)

    def drawn() -> Tensor:
        condition = condition_of(guessed_latents(card, decoder, responses, task, sharpness=0.0), codec)
        images = draw_pictures(condition, comparison.names, Drawing.of(task))["images"]
        return torch.from_numpy(images).movedim(-1, 1).float() / 255

    plain = {f"{CEILING}, low level": low_level}
    if task.generator == "retrieval":
        return plain
    return {CEILING: low_level} if task.generator == "none" else {CEILING: drawn} | plain


def ceiling_flow(comparison: Comparison, stimuli: Stimuli, notes: list[str]) -> Tensor | None:
    """Flow that the model makes of noise-free responses, (n, step, 2, y, x); None where they are not known."""
    if not has_signal(comparison) or comparison.card is None:
        if _signal_file(comparison).is_file():
            notes.append("No noise-free ceiling: pass --model, the run that decoded.")
        return None
    from radiata_decode.experiment.motion_stimuli import first_frames
    from radiata_decode.experiment.motion_training import load_motion

    model = load_motion(comparison.card)
    frames = None if model.options.inputs == "brain" else first_frames(stimuli, comparison.names)
    return model.predict(signal_responses(comparison), frames)


def _signal_file(comparison: Comparison) -> Path:
    return comparison.subject.folder / "signal.h5"


def _decoding(comparison: Comparison) -> Any:
    """The options that decoded, as a task of `decode`; without its record, those of the decoder alone."""
    from radiata_decode.experiment.decode import Decode

    known = {one.name for one in fields(Decode)}
    options = {key: value for key, value in comparison.decoding.items() if key in known}
    options |= {"subject": comparison.subject.folder, "out": Path(), "stimuli": tuple(comparison.names)}
    options["model"] = comparison.card.folder if comparison.card is not None else Path()
    options.setdefault("generator", "none")
    task = Decode(**options)
    # The mean of our own generator's draws is known without drawing.
    return replace(task, draws=1) if task.generator == "own" or task.show == "first" else task
