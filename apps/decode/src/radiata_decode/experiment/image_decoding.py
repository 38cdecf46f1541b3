"""From responses to pictures: the ridge's latents and embeddings, then a generator that is told them.

    responses -> latents, R2, embeddings -> Condition -> generator -> draws -> mean, spread

Each stimulus has its own seeds, from its name: neither the batch nor the order of the stimuli changes a picture.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.runs import Progress
from radiata_core.seeds import seed_of
from radiata_core.weights import read_tensors
from radiata_decode.data.decoded import Decoded
from radiata_decode.data.loading import unit_images
from radiata_decode.data.repeats import Averaged
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.image_codecs import codec_of
from radiata_decode.experiment.picture_decoding import joined_latents
from radiata_decode.experiment.trained_models import ModelCard, standardised
from radiata_decode.model.conditions import Condition
from radiata_decode.model.controls import retrieved
from radiata_decode.model.image_decoder import DecodedLatents, ImageDecoder
from radiata_decode.model.latents import ImageCodec, PcaCodec
from radiata_decode.model.posterior_mean import PosteriorMean
from radiata_decode.model.ridge import RidgeDecoder

if TYPE_CHECKING:
    from radiata_decode.experiment.decode import Decode

__all__ = [
    "Drawing",
    "bytes_of",
    "decode_categories",
    "decode_images",
    "draw_pictures",
    "guessed_latents",
    "responses_of",
    "seeds_of",
]


def decode_images(subject: Subject, card: ModelCard, task: "Decode") -> Decoded:
    """Pictures of a subject's stimuli by the image route.

    Raises:
        InputError: see `responses_of`; a generator that asks for what the decoder does not give.
    """
    found = responses_of(subject, card, task)
    decoder, codec = ImageDecoder.load(card.folder), codec_of(card)
    guess = guessed_latents(card, decoder, found.responses, task)
    arrays = {"low_level": bytes_of(codec.decode(guess.low_level))}
    if task.generator == "none":
        arrays["images"] = arrays["low_level"]
    elif task.generator == "retrieval":
        arrays["images"] = bytes_of(_nearest(subject, card, found))
    else:
        told = (
            guess
            if not task.sharpness
            else guessed_latents(card, decoder, found.responses, task, sharpness=0.0)
        )
        arrays |= draw_pictures(condition_of(told, codec), found.stimulus, Drawing.of(task))
    return Decoded(found.stimulus, arrays, "image", task.split)


def guessed_latents(
    card: ModelCard,
    decoder: ImageDecoder,
    responses: np.ndarray,
    task: "Decode",
    sharpness: float | None = None,
) -> DecodedLatents:
    """What the decoders say of standardised responses: the ridge, joined with the posterior mean where the model has one.

    Args:
        card: Of the model.
        decoder: Its ridge.
        responses: (n, voxel), of the model's voxels.
        task: Options; with `posterior` off the ridge alone.
        sharpness: Of the ridge's part; None: the task's. Generators are told that of 0.
    """
    how = task.sharpness if sharpness is None else sharpness
    found = decoder.decode(responses, sharpness=how)
    path = card.folder / "posterior.safetensors"
    if not task.posterior or not path.is_file():
        return found
    learnt = PosteriorMean.load(path).predict(responses)
    return replace(found, low_level=joined_latents(found.low_level, learnt))


def responses_of(subject: Subject, card: ModelCard, task: "Decode") -> Averaged:
    """Standardised mean responses of the stimuli that are to be decoded.

    Raises:
        InputError: a stimulus that the split has not, or a split without trials.
    """
    voxels = card.voxels_of(subject)
    found = standardised(subject, task.split, card.standardiser(), voxels, task.repeats)
    if not task.stimuli:
        return found
    rows = {name: row for row, name in enumerate(found.stimulus)}
    for name in task.stimuli:
        if name not in rows:
            raise InputError(
                f"expected a stimulus of the {task.split} trials, such as {found.stimulus[0]}; got {name}. "
                "Look into trials.tsv."
            )
    index = np.array([rows[name] for name in task.stimuli])
    return Averaged(list(task.stimuli), found.responses[index], found.repeats[index])


def condition_of(found: DecodedLatents, codec: ImageCodec) -> Condition:
    """What a generator is told: first guess, latents with their reliability, embeddings by what they are called.

    An embedding named text becomes `prompt_embeds`, any other `image_embeds` (one of them).
    """
    given: dict[str, Any] = {
        "init_image": codec.decode(found.low_level),
        "init_latents": found.low_level,
    }
    if isinstance(codec, PcaCodec):  # in falling order of variance, as a reliability is told
        given["reliability"] = found.loo_r2.clamp(0, 1)
    for name, value in found.embeddings.items():
        given["prompt_embeds" if name.startswith("text") else "image_embeds"] = value
    return Condition(**given)


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn; the options of these names of `decode` and `synthesize`."""

    generator: str = "own"
    draws: int = 8
    show: str = "mean"
    strength: float = 0.75
    guidance: float | None = None
    mix: float = 0.4
    control_scale: float = 1.0
    steps: int | None = None
    online: bool = False
    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"

    @classmethod
    def of(cls, task: object) -> "Drawing":
        """The options that a command has; the others as they are by default."""
        names = [each.name for each in fields(cls) if hasattr(task, each.name)]
        return cls(**{name: getattr(task, name) for name in names})


def draw_pictures(condition: Condition, names: list[str], task: Drawing) -> dict[str, np.ndarray]:
    """Draws of the generator: the reconstruction, all draws, and their spread.

    Args:
        condition: What the generator is told.
        names: Of the stimuli, a row each: their draws come from them.
        task: How.

    Raises:
        InputError: a generator that cannot be loaded or lacks a condition.
    """
    from radiata_decode.model.generators import generator

    made = generator(task.generator, device=device_of(task.device), online=task.online)
    options: dict[str, Any] = {"strength": task.strength, "guidance": task.guidance, "mix": task.mix}
    options |= {"control_scale": task.control_scale, "steps": task.steps}
    parts: list[Tensor] = []
    with Progress(len(names) * task.draws, "draw", unit="picture") as bar:
        for rows in _batches(len(names), task.batch_size):
            part = condition.rows(rows)
            draws = []
            for draw in range(task.draws):
                seeds = seeds_of(names[rows], task.seed, draw)
                draws.append(made(part, seeds=seeds, **options).float().cpu())
                bar.update(len(seeds))
            parts.append(torch.stack(draws, 1))
    drawn = torch.cat(parts)
    if task.show == "mean" and hasattr(made, "expected"):  # the mean of all draws, not of a few
        best = torch.cat(
            [made.expected(condition.rows(rows)) for rows in _batches(len(names), task.batch_size)]
        )
    else:
        best = drawn.mean(1) if task.show == "mean" else drawn[:, 0]
    arrays = {"images": bytes_of(best)}
    if task.draws > 1:
        arrays["draws"] = bytes_of(drawn.flatten(0, 1)).reshape(*drawn.shape[:2], *drawn.shape[3:], 3)
        arrays["sd"] = drawn.mean(2).std(1).numpy().astype(np.float32)
    return arrays


def _batches(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def seeds_of(names: list[str], seed: int, draw: int) -> list[int]:
    """A seed for each stimulus, from its name: < 2^31."""
    numbers = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") for name in names]
    return [seed_of(seed, draw, number) % 2**31 for number in numbers]


def bytes_of(pictures: Tensor) -> np.ndarray:
    """Pictures (n, 3, y, x) in [0, 1] as files keep them, uint8 (n, y, x, 3)."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()


def device_of(word: str) -> str:
    """cpu, or the accelerator that is there."""
    if word == "cpu":
        return "cpu"
    from accelerate import Accelerator

    return str(Accelerator().device)


def decode_categories(subject: Subject, card: ModelCard, task: "Decode") -> Decoded:
    """Probabilities of categories for each stimulus, and with a generator of classes a picture of the likeliest.

    Raises:
        InputError: see `responses_of`.
    """
    found = responses_of(subject, card, task)
    ridge = RidgeDecoder.load(card.folder / "ridge.safetensors")
    scores = ridge.predict(found.responses).double() * float(card.facts["temperature"])
    probabilities = scores.softmax(1).float()
    arrays = {"probabilities": probabilities.numpy()}
    names = tuple(card.facts["categories"])
    if task.generator not in ("none", "retrieval"):
        from radiata_decode.model.generators import class_weights

        condition = Condition(class_weights=class_weights(names, probabilities))
        arrays |= draw_pictures(condition, found.stimulus, Drawing.of(task))
    return Decoded(found.stimulus, arrays, "category", task.split, names)


def _nearest(subject: Subject, card: ModelCard, found: Averaged) -> Tensor:
    """Training picture with the most similar response."""
    stimuli = read_stimuli(subject.folder)
    pictures = unit_images(stimuli.images(card.facts["training_stimuli"]), int(card.facts["size"]))
    training = read_tensors(card.folder / "training.safetensors")["responses"].numpy()
    return retrieved(pictures, training, found.responses)
