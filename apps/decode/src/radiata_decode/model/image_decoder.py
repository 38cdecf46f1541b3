r"""From responses to everything that a generator of pictures is told: latents of a codec, and any number of embeddings.

The linear stages of Brain-Diffuser, all on one decomposition of the responses (`ridge`): latents of an autoencoder give a
first guess of the picture, embeddings of a vision model and of captions (tokens × dimensions each) give its content.
Three things differ from the published code:

- penalties are chosen by leave-one-out error, for each component, layer or token, in place of three constants;
- predictions are never z-scored over the test set: `sharpness` moves them from the posterior mean to full variance with
  factors from training, and embeddings can be brought to the length that training embeddings have; both act on one row at a
  time, so a single response decodes as it does in a thousand;
- what training returns for the training stimuli are leave-one-out predictions. A generator that is trained on
  predictions must be shown those: in-sample ones are much closer to the truth than it will ever see again.

References:
    F. Ozcelik, R. VanRullen (2023). Natural scene reconstruction from fMRI signals using generative latent diffusion.
    https://arxiv.org/abs/2303.05334, sections on the two stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256, write_json
from radiata_core.weights import read_tensors, write_tensors
from radiata_decode.model.ridge import RidgeDecoder, RidgeFit, SharedRidge
from radiata_decode.model.sharpness import sharpened

__all__ = ["DecodedLatents", "ImageDecoder", "ImageFit", "fit_image_decoder"]

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class DecodedLatents:
    """What responses say about pictures.

    Attributes:
        low_level: Codec latents, (m, d).
        loo_r2: Leave-one-out R² of each, (d,): how reliable a generator may take it.
        embeddings: Name → (m, tokens, dimensions).
        embedding_r2: Name → leave-one-out R², (tokens, dimensions).
    """

    low_level: Tensor
    loo_r2: Tensor
    embeddings: dict[str, Tensor]
    embedding_r2: dict[str, Tensor]


@dataclass(frozen=True)
class ImageDecoder:
    """A trained decoder of latents and embeddings.

    Attributes:
        ridge: Responses to all targets side by side: latents, then each embedding flattened.
        loo_r2: Leave-one-out R² of all targets, (t,).
        sd: Standard deviation of the training targets, (t,).
        alphas: Penalty of each target, (t,).
        latents: d, number of codec latents; 0 where there is no codec.
        embeddings: Name → (tokens, dimensions), in the order of the targets.
        lengths: Name → mean length of the training embedding's tokens, (tokens,).
    """

    ridge: RidgeDecoder
    loo_r2: Tensor
    sd: Tensor
    alphas: Tensor
    latents: int
    embeddings: dict[str, tuple[int, int]]
    lengths: dict[str, Tensor]

    def decode(
        self,
        responses: Array,
        *,
        sharpness: float = 0.0,
        embedding_sharpness: float | None = None,
        lengthen: bool = True,
    ) -> DecodedLatents:
        """Latents and embeddings of new responses (m, v), each row by itself.

        Args:
            responses: In the units of training.
            sharpness: Of the latents, 0 (posterior mean) to 1 (full variance).
            embedding_sharpness: Of the embeddings; None: as `sharpness`.
            lengthen: Bring each predicted token to the mean length of that token in training, since generators know
                embeddings of that length only.

        Raises:
            InputError: another number of voxels, NaN, or a sharpness outside of [0, 1].
        """
        other = sharpness if embedding_sharpness is None else embedding_sharpness
        predicted = self.ridge.predict(responses)
        values = torch.empty_like(predicted)
        for part, how in ((slice(0, self.latents), sharpness), (slice(self.latents, None), other)):
            mean = self.ridge.target_mean[part]
            values[:, part] = sharpened(predicted[:, part], mean, self.loo_r2[part], how)
        return self.split(values, lengthen=lengthen)

    def split(self, values: Tensor, *, lengthen: bool = False) -> DecodedLatents:
        """Targets side by side (m, t), by name and shape."""
        low, *parts = values.split([self.latents, *(a * b for a, b in self.embeddings.values())], 1)
        r2, *others = self.loo_r2.split([self.latents, *(a * b for a, b in self.embeddings.values())])
        embeddings, reliability = {}, {}
        for (name, shape), part, share in zip(self.embeddings.items(), parts, others, strict=True):
            tokens = part.unflatten(1, shape)
            if lengthen:
                own = tokens.norm(dim=2, keepdim=True).clamp(min=torch.finfo(tokens.dtype).tiny)
                tokens = tokens * (self.lengths[name][:, None] / own)
            embeddings[name], reliability[name] = tokens, share.unflatten(0, shape)
        return DecodedLatents(low, r2, embeddings, reliability)

    def save(self, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write `ridge.safetensors` and `targets.safetensors`, each with its .json, into a folder."""
        folder = Path(folder)
        self.ridge.save(folder / "ridge.safetensors", metadata=metadata)
        tensors = {"loo_r2": self.loo_r2, "sd": self.sd, "alphas": self.alphas}
        tensors |= {f"length.{name}": value for name, value in self.lengths.items()}
        with atomic_path(folder / "targets.safetensors") as part:
            write_tensors(part, tensors)
            checksum = sha256(part)
        shapes = [{"name": name, "shape": list(shape)} for name, shape in self.embeddings.items()]
        card = {"format": "radiata-image-decoder/1", "latents": self.latents, "embeddings": shapes}
        write_json(folder / "targets.json", card | {"sha256": checksum})

    @classmethod
    def load(cls, folder: str | Path) -> "ImageDecoder":
        """The decoder in a folder.

        Raises:
            InputError: a file is missing, truncated, changed, or of another kind.
        """
        folder = Path(folder)
        card = read_json(folder / "targets.json")
        path = folder / "targets.safetensors"
        tensors = read_tensors(path)
        if not isinstance(card, dict) or card.get("format") != "radiata-image-decoder/1":
            raise InputError(f"expected an image decoder in {folder}; got another kind of model.")
        if card.get("sha256") != sha256(path):
            raise InputError(f"expected the numbers targets.json was written for; got others in {path}.")
        shapes = {each["name"]: tuple(each["shape"]) for each in card["embeddings"]}
        lengths = {name: tensors[f"length.{name}"] for name in shapes}
        kept = (tensors["loo_r2"], tensors["sd"], tensors["alphas"])
        return cls(RidgeDecoder.load(folder / "ridge.safetensors"), *kept, card["latents"], shapes, lengths)


@dataclass(frozen=True)
class ImageFit:
    """A decoder, and what it says about its training stimuli without having seen them.

    Attributes:
        decoder: For new responses.
        training: Leave-one-out predictions of the training stimuli; to condition generators on, never in-sample ones.
    """

    decoder: ImageDecoder
    training: DecodedLatents


def fit_image_decoder(
    shared: SharedRidge,
    latents: Array | None = None,
    embeddings: Mapping[str, Array] | None = None,
    *,
    latent_groups: Tensor | None = None,
    alphas: Any = None,
    generator: torch.Generator | None = None,
) -> ImageFit:
    """Regress codec latents and embeddings on decomposed responses.

    Args:
        shared: Of the training responses, one row a training stimulus.
        latents: Of the training pictures, (n, d), from a codec's `encode`.
        embeddings: Name → (n, tokens, dimensions); (n, dimensions) is one token.
        latent_groups: The codec's `groups`: latents that share a penalty; None: each its own. Tokens share one each.
        alphas: As in `SharedRidge.fit`.
        generator: As in `SharedRidge.fit`.

    Raises:
        InputError: neither latents nor embeddings, other rows than training stimuli, or NaN.
    """
    named = {name: _tokens(name, value) for name, value in (embeddings or {}).items()}
    fits: list[RidgeFit] = []
    deviations: list[Tensor] = []
    if latents is not None:
        fits.append(shared.fit(latents, latent_groups, alphas, generator=generator))
        deviations.append(_deviation(latents))
    for value in named.values():
        groups = torch.arange(value.shape[1]).repeat_interleave(value.shape[2])
        flat = value.reshape(len(value), -1)
        fits.append(shared.fit(flat, groups, alphas, generator=generator))
        deviations.append(_deviation(flat))
    if not fits:
        raise InputError("expected latents of a codec, or embeddings, to decode; got neither.")
    joined = RidgeFit(
        *(torch.cat([getattr(fit, name) for fit in fits], -1) for name in ("alphas", "dual", "loo")),
        *(torch.cat([getattr(fit, name) for fit in fits]) for name in ("loo_r2", "target_mean")),
    )
    decoder = ImageDecoder(
        shared.decoder(joined),
        joined.loo_r2.cpu(),
        torch.cat(deviations),
        joined.alphas.cpu(),
        0 if latents is None else int(latents.shape[1]),
        {name: (int(value.shape[1]), int(value.shape[2])) for name, value in named.items()},
        {name: _lengths(value) for name, value in named.items()},
    )
    return ImageFit(decoder, decoder.split(joined.loo.cpu()))


def _tokens(name: str, value: Array) -> Array:
    if len(value.shape) == 2:
        return value[:, None]
    if len(value.shape) != 3:
        raise InputError(
            f"expected the embedding {name} as (stimulus, token, dimension); got {tuple(value.shape)}."
        )
    return value


def _deviation(targets: Array) -> Tensor:
    return torch.tensor(np.asarray(targets)).float().std(0)


def _lengths(value: Array) -> Tensor:
    return torch.tensor(np.asarray(value)).float().norm(dim=2).mean(0)
