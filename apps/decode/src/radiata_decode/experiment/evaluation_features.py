"""Features for identification by what they are called on the command line.

    pixels gabor pca efficientnet      offline
    alexnet-owt-7be5be79.pth           torchvision's AlexNet, its second and fifth convolution
    FOLDER of save_pretrained          CLIP, DINO and others through transformers
    NAME=FILE.pt2                      an exported program, at the side that the preset gives for NAME

Principal components are those of training pictures.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.extractor_networks import AlexNetFeatures, ExportedFeatures, TransformerFeatures
from radiata_decode.model.extractors import (
    EfficientNetFeatures,
    FeatureExtractor,
    GaborFeatures,
    PcaFeatures,
    PixelFeatures,
)
from radiata_decode.model.image_scores import MetricPreset

__all__ = ["NAMES", "check_words", "named_extractors"]

NAMES = ("pixels", "gabor", "pca", "efficientnet")
COMPONENTS = 100
SIDE = 224


def check_words(words: Sequence[str]) -> None:
    """Nothing, if each word is a name or something that exists.

    Raises:
        InputError: one that is neither.
    """
    for word in words:
        if word not in NAMES and not Path(word.rpartition("=")[2]).exists():
            raise InputError(
                f"expected extractors of {', '.join(NAMES)}, or the path of a network; got {word}, which is neither. "
                "Check the path."
            )


def named_extractors(
    words: Sequence[str], preset: MetricPreset, training: Tensor | None
) -> list[FeatureExtractor]:
    """One extractor a word, two for AlexNet.

    Args:
        words: See the module.
        preset: Whose sizes of inputs.
        training: Some training pictures (n, 3, y, x) in [0, 1], for pca; None where there are none.

    Raises:
        InputError: a word that is neither a name nor a file, a file of another kind, a library that is missing.
    """
    check_words(words)
    found: list[FeatureExtractor] = []
    for word in dict.fromkeys(words):
        found += _named(word, preset, training)
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise InputError(f"expected extractors of different names; got {', '.join(names)}. Leave one out.")
    return found


def _named(word: str, preset: MetricPreset, training: Tensor | None) -> list[FeatureExtractor]:
    if word == "pixels":
        return [PixelFeatures()]
    if word == "gabor":
        return [GaborFeatures()]
    if word == "efficientnet":
        return [EfficientNetFeatures.from_package()]
    if word == "pca":
        if training is None or len(training) < 3:
            raise InputError(
                "expected training pictures for the extractor pca; got fewer than three. Leave it out."
            )
        return [PcaFeatures.fit(training, min(COMPONENTS, len(training) - 1))]
    name, _, file = word.rpartition("=")
    path = Path(file)
    if path.is_dir():
        return [TransformerFeatures.from_folder(path, name or path.name)]
    if path.suffix in (".pth", ".pt"):
        side = preset.inputs.get("alexnet", SIDE)
        return [AlexNetFeatures.from_file(path, layer, side) for layer in (2, 5)]
    name = name or path.stem
    return [ExportedFeatures.from_file(path, name, preset.inputs.get(name, SIDE))]
