r"""Networks of the published tables, where the user has their files: nothing is downloaded, everything says what it needs.

    alexnet     torchvision's state dict alexnet-owt-7be5be79.pth (AlexNet_Weights.IMAGENET1K_V1); layers 2 and 5
    clip, dino  a folder written by `save_pretrained` of transformers: openai/clip-vit-large-patch14, facebook/dinov2-base
    others      Inception-v3, EfficientNet-B1, SwAV's ResNet-50 … as an exported program (.pt2), made once with

        network = torchvision.models.inception_v3(weights="IMAGENET1K_V1").eval()
        network.fc = torch.nn.Identity()
        n = torch.export.Dim("n")
        program = torch.export.export(network, (torch.zeros(2, 3, 342, 342),), dynamic_shapes=({0: n},))
        torch.export.save(program, "inception.pt2")

Pictures are resized here and normalised here, from [0, 1] – never a second time by a processor that divides by 255 again.

References:
    A. Krizhevsky (2014). One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997 (this AlexNet).
    A. Radford et al. (2021). Learning transferable visual models from natural language supervision. arXiv:2103.00020.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.model.image_scores import resized

__all__ = ["AlexNetFeatures", "ExportedFeatures", "TransformerFeatures", "normalised"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
ALEXNET_LAYERS = {2: 4, 5: 11}  # convolution → last module of torchvision's `features` that counts, its ReLU


def normalised(
    images: Tensor, side: int, mean: tuple[float, ...], sd: tuple[float, ...], interpolation: str = "bicubic"
) -> Tensor:
    """Pictures as a network wants them: side × side, (x - mean)/sd a channel.

    Args:
        images: (n, 3, y, x) in [0, 1].
        side: Pixels.
        mean: A channel.
        sd: A channel.
        interpolation: bicubic or bilinear.
    """
    small = resized(images, (side, side), interpolation)
    centre, scale = (torch.tensor(values, dtype=small.dtype, device=small.device) for values in (mean, sd))
    return (small - centre[:, None, None]) / scale[:, None, None]


def _alexnet() -> nn.Sequential:
    """The convolutions, numbered as in torchvision."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


@dataclass(frozen=True)
class AlexNetFeatures:
    """Maps of AlexNet's second or fifth convolution, after its ReLU.

    Attributes:
        network: The convolutions up to that layer.
        layer: 2 or 5.
        side: Of the input, pixels: 224 in Brain-Diffuser, 256 in MindEye.
    """

    network: nn.Module
    layer: int
    side: int = 224

    @property
    def name(self) -> str:
        return f"alexnet({self.layer})"

    def __call__(self, images: Tensor) -> np.ndarray:
        with torch.no_grad():
            return self.network(normalised(images, self.side, *IMAGENET)).flatten(1).cpu().numpy()

    @classmethod
    def from_file(cls, path: Path, layer: int = 5, side: int = 224) -> "AlexNetFeatures":
        """From torchvision's state dict.

        Raises:
            InputError: no such file, of another network, or another layer.
        """
        if layer not in ALEXNET_LAYERS:
            raise InputError(f"expected layer 2 or 5 of AlexNet; got {layer}.")
        stored = _state(Path(path), "alexnet-owt-7be5be79.pth of torchvision's AlexNet")
        wanted = {
            name.removeprefix("features."): value
            for name, value in stored.items()
            if name.startswith("features.")
        }
        with torch.device("meta"):  # no random weights are drawn that would be replaced at once
            network = _alexnet()
        try:
            network.load_state_dict(wanted, assign=True)
        except RuntimeError as error:
            raise InputError(
                f"expected the state dict of torchvision's AlexNet; got {path}, of another network "
                f"({' '.join(str(error).split())[:120]}). Use alexnet-owt-7be5be79.pth."
            ) from None
        kept = nn.Sequential(*list(network)[: ALEXNET_LAYERS[layer] + 1])
        return cls(kept.eval().requires_grad_(False), layer, side)


@dataclass(frozen=True)
class TransformerFeatures:
    """Image embedding of a model of the `transformers` library: CLIP's projection, DINO's or a ResNet's pooled output.

    Attributes:
        model: Loaded, in evaluation mode.
        name: For the table.
        side: Of the input, pixels.
        mean: A channel.
        sd: A channel.
    """

    model: Any
    name: str
    side: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def __call__(self, images: Tensor) -> np.ndarray:
        pixels = normalised(images.to(self.model.device), self.side, self.mean, self.sd)
        with torch.no_grad():
            if hasattr(self.model, "get_image_features"):
                found = self.model.get_image_features(pixel_values=pixels)
            else:
                found = self.model(pixel_values=pixels)
        pooled = getattr(found, "pooler_output", found)
        if pooled is None:
            pooled = found.last_hidden_state[:, 0]
        return pooled.flatten(1).float().cpu().numpy()

    @classmethod
    def from_folder(cls, folder: Path, name: str | None = None) -> "TransformerFeatures":
        """From a local folder of `save_pretrained`; nothing is downloaded.

        Raises:
            InputError: transformers is missing, or no such folder, or not a model of pictures.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"expected a folder with config.json and model.safetensors, as `save_pretrained` writes it; got {folder}. "
                "Download the model (openai/clip-vit-large-patch14 for CLIP) and give its folder."
            )
        try:
            from transformers import AutoModel
        except ImportError:
            raise InputError(
                'expected the library transformers for this encoder. pip install "radiata-decode[diffusers]".'
            ) from None
        try:
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"expected a model in safetensors in {folder}; got none that loads ({' '.join(str(error).split())[:160]})."
            ) from None
        config = getattr(model.config, "vision_config", model.config)
        processor = folder / "preprocessor_config.json"
        about = read_json(processor) if processor.is_file() else {}
        clip = hasattr(model, "get_image_features")
        mean, sd = CLIP if clip else IMAGENET
        side = getattr(config, "image_size", None) or 224
        return cls(
            model.eval().requires_grad_(False),
            name or str(model.config.model_type),
            int(side if isinstance(side, int) else side[0]),
            tuple(about.get("image_mean", mean)),
            tuple(about.get("image_std", sd)),
        )


@dataclass(frozen=True)
class ExportedFeatures:
    """What an exported program (.pt2) makes of a picture, flattened.

    Attributes:
        program: The module of the program.
        name: For the table.
        side: Of the input it was exported with, pixels.
        mean: A channel; ImageNet's unless the network is CLIP.
        sd: A channel.
    """

    program: nn.Module
    name: str
    side: int
    mean: tuple[float, ...] = IMAGENET[0]
    sd: tuple[float, ...] = IMAGENET[1]

    def __call__(self, images: Tensor) -> np.ndarray:
        with torch.no_grad():
            found = self.program(normalised(images, self.side, self.mean, self.sd))
        return found.flatten(1).float().cpu().numpy()

    @classmethod
    def from_file(cls, path: Path, name: str, side: int) -> "ExportedFeatures":
        """From a file of `torch.export.save`; see the module for how to make one.

        Raises:
            InputError: no such file, or not an exported program.
        """
        path = Path(path)
        if not path.is_file() or path.suffix != ".pt2":
            raise InputError(
                f"expected an exported program (.pt2); got {path}. Make one with torch.export.save, where torchvision is "
                "installed."
            )
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(
                f"expected an exported program in {path}; it cannot be read ({' '.join(str(error).split())[:120]})."
            ) from None
        return cls(program.module(), name, side)


def _state(path: Path, what: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(
            f"expected {what}; got no such file: {path}. Download it where torchvision is installed."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"expected {what}; got {path}, which cannot be read ({' '.join(str(error).split())[:120]})."
        ) from None
