"""The codec of an image decoder: which, how it is kept beside the model, and how it comes back.

    shipped     principal components of natural photographs that come with the package
    training    those of the training pictures
    FOLDER      an autoencoder of diffusers (AutoencoderKL or AutoencoderTiny, as save_pretrained wrote it)

Components are kept in the run (codec.safetensors). An autoencoder stays where it is: the model's card has its folder and its
checksum, and a folder that has changed is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError
from radiata_core.files import read_json, sha256
from radiata_decode.model.latents import AutoencoderCodec, ImageCodec, PcaCodec

if TYPE_CHECKING:
    from torch import Tensor

    from radiata_decode.experiment.trained_models import ModelCard

__all__ = ["codec_of", "fitted_codec", "keep_codec"]

_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def fitted_codec(basis: str, components: int, pictures: "Tensor", seed: int) -> ImageCodec:
    """The codec that a basis names, for training pictures (n, 3, y, x) in [0, 1].

    Args:
        basis: shipped, training, or the folder of an autoencoder.
        components: Of principal components.
        pictures: Of training.
        seed: Of the components of many large pictures.

    Raises:
        InputError: another size than the shipped components have, more components than there are, or no such folder.
    """
    import torch

    from radiata_core.shipped_weights import find_weights

    if basis == "training":
        return PcaCodec.fit(pictures, components, generator=torch.Generator().manual_seed(seed))
    if basis != "shipped":
        return _autoencoder(Path(basis), tuple(pictures.shape[1:]))
    codec = PcaCodec.load(find_weights("radiata_decode", "picture-basis"))
    if codec.shape[1:] != tuple(pictures.shape[2:]) or components > codec.dimensions:
        raise InputError(
            f"expected pictures of {codec.shape[1]} pixels and at most {codec.dimensions} components for the shipped basis; "
            f"got {pictures.shape[2]} and {components}. Pass --basis training."
        )
    return PcaCodec(
        codec.mean,
        codec.components[:components].contiguous(),
        codec.sd[:components].contiguous(),
        codec.shape,
    )


def keep_codec(codec: ImageCodec, basis: str, folder: Path) -> dict[str, Any]:
    """Write what has to be kept into a run folder; returns what its card has to say."""
    if isinstance(codec, PcaCodec):
        codec.save(folder / "codec.safetensors")
        return {"kind": "components"}
    place = Path(basis).resolve()
    return {"kind": "autoencoder", "folder": str(place), "sha256": sha256(place / _WEIGHTS)}


def codec_of(card: "ModelCard") -> ImageCodec:
    """The codec of a trained image decoder.

    Raises:
        InputError: a file that is missing, or an autoencoder that is not the one of training.
    """
    kept = card.facts["codec"]
    if kept["kind"] == "components":
        return PcaCodec.load(card.folder / "codec.safetensors")
    place, size = Path(kept["folder"]), int(card.facts["size"])
    codec = _autoencoder(place, (3, size, size))
    if sha256(place / _WEIGHTS) != kept["sha256"]:
        raise InputError(
            f"expected the autoencoder that {card.folder} was trained with (sha256 {kept['sha256'][:12]}…); got another "
            f"one in {place}. Put it back, or train again."
        )
    return codec


def _autoencoder(folder: Path, shape: tuple[int, ...]) -> AutoencoderCodec:
    """An autoencoder of diffusers from its folder.

    Raises:
        InputError: no such folder, another class, or weights that are missing or cannot be read.
    """
    import torch

    from radiata_decode.model.pipeline_folders import diffusers_library

    if not (folder / "config.json").is_file() or not (folder / _WEIGHTS).is_file():
        raise InputError(
            f"expected a basis of shipped, training or the folder of an autoencoder with config.json and {_WEIGHTS}; got "
            f"{folder}. Save it with save_pretrained."
        )
    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in _CLASSES:
        raise InputError(f"expected an autoencoder of {', '.join(_CLASSES)}; got {kind} in {folder}.")
    try:
        with torch.random.fork_rng(devices=[]):
            module = getattr(diffusers_library(), kind).from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"expected an autoencoder in {folder}; it cannot be loaded ({first}).") from None
    return AutoencoderCodec(module, (shape[0], shape[1], shape[2]))
