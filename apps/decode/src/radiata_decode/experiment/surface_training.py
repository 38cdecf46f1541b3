"""Training of the cortex route in three stages, each a run folder of its own that can be stopped and resumed.

    1 autoencode   all people       the encoder learns to say a whole map in one token          (no pictures needed)
    2 pretrain     all people       encoder + context + control + guess with a frozen generator, context emptied in 5 %
    3 refine       one person       the same at a smaller step, with the extra semantic branch and the semantic loss

A stage writes `model.safetensors` (averaged weights) and its card: canvas, stage, whose (`surface_models`). People differ in
nothing but their matrix of the canvas, so a refined model starts from all of them.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (the stages; learning rate 1e-4, weight decay
    0.01, semantic weight 0.1 in refining).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.seeds import seed_of
from radiata_core.train import Trained, TrainOptions, train
from radiata_decode.data.flat_map import Canvas
from radiata_decode.experiment.surface_models import load_surface
from radiata_decode.experiment.surface_people import SurfacePerson, surface_items
from radiata_decode.experiment.surface_presets import SurfacePreset, stage_options
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulated_generator import FrozenGenerator
from radiata_decode.model.manipulation_network import ManipulationNetwork
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_autoencoder import Autoencoding, SurfaceAutoencoder
from radiata_decode.model.surface_decoder import SurfaceDecoder
from radiata_decode.model.surface_encoder import SIZES, SurfaceEncoder
from radiata_decode.model.surface_objectives import SurfaceObjective

__all__ = ["autoencode", "picture_basis", "pretrain", "refine"]

_BUILD = 11
"""Key of the initial weights."""


def picture_basis(
    people: Sequence[SurfacePerson], preset: SurfacePreset, shape: Sequence[int]
) -> PcaCodec | None:
    """Principal components of the pictures that anybody saw in training; None for a preset without a guess."""
    if not preset.components:
        return None
    items = surface_items(people, "train", images=int(shape[-1]))
    seen = {
        name: picture
        for average, pictures in zip(items.averages, items.seen or [], strict=True)
        for name, picture in zip(average.stimulus, pictures, strict=True)
    }
    return PcaCodec.fit(torch.stack(list(seen.values())), preset.components)


def autoencode(
    people: Sequence[SurfacePerson], folder: Path, preset: SurfacePreset, **changes: Any
) -> Trained:
    """Stage 1: the encoder, on training responses of all people, who count alike.

    Args:
        people: On one canvas.
        folder: Of the run.
        preset: Sizes.
        changes: Of the training options.

    Raises:
        InputError: a canvas of another size, options that do not fit.
    """
    options = stage_options(preset, 1, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.seed, _BUILD, 1))
        network = SurfaceAutoencoder(
            _encoder(people, preset), preset.bottleneck, SIZES[preset.encoder]["width"]
        )
    items = surface_items(people, "train")
    card = _card(people, "autoencode")
    return train(network, Autoencoding(), items, folder, options, metadata=card, groups=items.group)


def pretrain(
    people: Sequence[SurfacePerson],
    generator: FrozenGenerator,
    folder: Path,
    preset: SurfacePreset,
    *,
    basis: PcaCodec | None = None,
    encoder: Path | None = None,
    **changes: Any,
) -> Trained:
    """Stage 2: encoder and heads on all people, who count alike.

    Args:
        people: On one canvas.
        generator: Frozen.
        folder: Of the run.
        preset: Sizes.
        basis: Of pictures; None: no guess.
        encoder: Folder of stage 1; None: from random weights (an ablation).
        changes: Of the training options.

    Raises:
        InputError: an encoder of another canvas, options that do not fit.
    """
    options = stage_options(preset, 2, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.seed, _BUILD, 2))
        network = _decoder(_encoder(people, preset), generator, preset, basis)
    if encoder is not None:
        network.encoder.load_state_dict(_first_stage(encoder, people, preset).state_dict())
    return _fit(
        people,
        generator,
        network,
        folder,
        SurfaceObjective(generator, semantic=0.0),
        options,
        "pretrain",
    )


def refine(
    person: SurfacePerson,
    generator: FrozenGenerator,
    folder: Path,
    preset: SurfacePreset,
    *,
    start: Path,
    embeddings: Mapping[str, Tensor] | None = None,
    **changes: Any,
) -> Trained:
    """Stage 3: one person, from the weights of all.

    Args:
        person: On the canvas of stage 2.
        generator: The same as there.
        folder: Of the run.
        preset: Sizes of the stage.
        start: Folder of stage 2.
        embeddings: Stimulus → (T, D) or (D,) of its text or picture, for the semantic loss; None: without.
        changes: Of the training options.

    Raises:
        InputError: another canvas, a stimulus without an embedding.
    """
    options = stage_options(preset, 3, **changes)
    loaded = load_surface(start)
    if loaded.canvas != person.cortex.canvas:
        raise InputError(
            f"expected a person on the canvas of {start}; got another. Use canvas= of that model."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.seed, _BUILD, 3))
        network = loaded.decoder.refined()
    network.requires_grad_(True)
    objective = SurfaceObjective(generator)
    extras = {} if embeddings is None else {"embedding": embeddings}
    return _fit([person], generator, network, folder, objective, options, "refine", extras)


def _fit(
    people: Sequence[SurfacePerson],
    generator: FrozenGenerator,
    network: SurfaceDecoder,
    folder: Path,
    objective: SurfaceObjective,
    options: TrainOptions,
    stage: str,
    extras: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Trained:
    items = surface_items(people, "train", images=generator.shape[-1], extras=extras)
    for key, values in items.extras.items():
        missing = {name for average in items.averages for name in average.stimulus} - set(values)
        if missing:
            raise InputError(f"expected an {key} of every training stimulus; {len(missing)} have none.")
    card = _card(people, stage) | {"picture": list(generator.shape)}
    return train(network, objective, items, folder, options, metadata=card, groups=items.group)


def _encoder(people: Sequence[SurfacePerson], preset: SurfacePreset) -> SurfaceEncoder:
    size = people[0].cortex.canvas.size
    return SurfaceEncoder(size, preset.patch, dropout=preset.dropout, **SIZES[preset.encoder])


def _decoder(
    encoder: SurfaceEncoder, generator: FrozenGenerator, preset: SurfacePreset, basis: PcaCodec | None
) -> SurfaceDecoder:
    count, dim = preset.context
    semantic = SemanticTokens(encoder.tokens, encoder.width, count, dim)
    hint = 0 if basis is None else generator.shape[0]
    control = ManipulationNetwork.of(
        generator.denoiser, generator.shape[1:], encoder.tokens, encoder.width, dim, hint
    )
    if basis is None:
        return SurfaceDecoder(encoder, semantic, control)
    network = SurfaceDecoder(encoder, semantic, control, basis.dimensions, generator.shape)
    network.set_basis(basis)
    return network


def _card(people: Sequence[SurfacePerson], stage: str) -> dict[str, Any]:
    """What a model must know beside its weights."""
    return {
        "stage": stage,
        "canvas": people[0].cortex.canvas.card(),
        "rule": people[0].rule,
        "subjects": [person.subject.sha256 for person in people],
    }


def _first_stage(folder: Path, people: Sequence[SurfacePerson], preset: SurfacePreset) -> SurfaceEncoder:
    loaded = load_model(folder)
    network = loaded.denoiser
    if not isinstance(network, SurfaceAutoencoder):
        raise InputError(f"expected the run of stage 1 in {folder}; got a {type(network).__name__}.")
    if Canvas.from_card(loaded.metadata.get("canvas", {})) != people[0].cortex.canvas:
        raise InputError(
            f"expected people on the canvas of {folder}; got another. Use canvas= of that model."
        )
    sizes, options = SIZES[preset.encoder], network.encoder.options
    if any(options[name] != value for name, value in (*sizes.items(), ("patch", preset.patch))):
        raise InputError(f"expected an encoder of size {preset.encoder} in {folder}; got {options}.")
    return network.encoder
