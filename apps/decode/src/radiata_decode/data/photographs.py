"""Real photographs that come with scikit-image and scikit-learn, cut into small pictures without a download.

Fourteen photographs give thousands of pictures: squares of random place and scale, averaged down to the size asked for.
Training pictures come from the left 70 % of the columns of every photograph, test pictures from the right 30 %, and no
pixel is in both: a decoder that only remembers its training pictures finds none of them in the test. The scene is the same,
however – the same lawn, the same sky – which is easier than a new scene. For a split by scenes hold whole photographs
out (`photographs=`) and cut both parts from `split="all"`; the name of the photograph is the group of a picture.

Left out of the two packages: drawings and charts, documents, microscope slides and star fields, and the second half of the
stereo pair, which shows the first one again. Squares of hardly any contrast within the three colours are drawn again:
an evenly orange picture has a high "correlation" with any other orange one, and nothing to decode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from radiata_core.errors import InputError

__all__ = ["PHOTOGRAPHS", "SPLITS", "PhotographCrops", "columns_of", "photograph", "photograph_crops"]

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "china",
    "coffee",
    "coins",
    "flower",
    "grass",
    "gravel",
    "moon",
    "motorcycle_left",
    "retina",
    "rocket",
)
SPLITS = ("train", "test", "all")
TRAIN_SHARE = 0.7
LEAST_CONTRAST = (
    0.03  # mean standard deviation of the three colours in a square, of 1; the moon's median is .04
)
ATTEMPTS = 1000


@dataclass(frozen=True)
class PhotographCrops:
    """Small pictures and where they are from.

    Attributes:
        pictures: (n, y, x, 3) uint8 RGB.
        photograph: Name of the photograph of each.
        boxes: Top, left and side of each square, (n, 3), pixels of the photograph.
    """

    pictures: np.ndarray
    photograph: list[str]
    boxes: np.ndarray


@cache
def photograph(name: str) -> np.ndarray:
    """A whole photograph, (y, x, 3) uint8 RGB; grey ones have three equal channels. Not to be written into.

    Raises:
        InputError: not one of `PHOTOGRAPHS`, or an installation without it.
    """
    if name not in PHOTOGRAPHS:
        raise InputError(f"expected a photograph of {', '.join(PHOTOGRAPHS)}; got {name}.")
    for file in (folder / f"{name}{suffix}" for folder in _folders() for suffix in (".png", ".jpg")):
        if file.is_file():
            with Image.open(file) as opened:
                pixels = np.array(opened.convert("RGB"))
            pixels.setflags(write=False)
            return pixels
    raise InputError(
        f"expected the photograph {name} inside scikit-image or scikit-learn; got none. Install their wheels again."
    )


def _folders() -> list[Path]:
    """Where the two packages keep their pictures, without importing them."""
    found = []
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = find_spec(package)
        found += [Path(place) / folder for place in (spec.submodule_search_locations or ())] if spec else []
    return found


def columns_of(width: int, split: str) -> tuple[int, int]:
    """First and past-the-last column that a split may use of a photograph of this width.

    Raises:
        InputError: not a split.
    """
    if split not in SPLITS:
        raise InputError(f"expected a split of {', '.join(SPLITS)}; got {split}.")
    border = int(width * TRAIN_SHARE)
    return {"train": (0, border), "test": (border, width), "all": (0, width)}[split]


def photograph_crops(
    count: int,
    split: str,
    size: int,
    rng: np.random.Generator,
    *,
    photographs: Sequence[str] = PHOTOGRAPHS,
) -> PhotographCrops:
    """Squares of random photograph, place and scale, averaged down to `size`.

    Photographs are equally likely. Sides are log-uniform from `size` to the largest square that fits into a test part, in
    both splits: else training pictures would show wider views than test pictures. The first k of n squares are
    those that k alone would give.

    Args:
        count: How many, >= 1.
        split: train (left 70 %), test (right 30 %) or all.
        size: Side of the pictures, pixels, 4 to 90.
        rng: Where from.
        photographs: Names to cut from.

    Raises:
        InputError: a name, split, count or size that does not go.
    """
    sources = {name: photograph(name) for name in photographs}
    _check(count, size, sources)
    columns = {name: columns_of(pixels.shape[1], split) for name, pixels in sources.items()}
    pictures = np.empty((count, size, size, 3), np.uint8)
    boxes, names = np.empty((count, 3), np.int64), []
    for row in range(count):
        for _ in range(ATTEMPTS):
            name = photographs[int(rng.integers(len(photographs)))]
            top, left, side = _square(sources[name].shape, columns[name], size, rng)
            square = sources[name][top : top + side, left : left + side]
            picture = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
            if picture.std((0, 1)).mean() >= 255 * LEAST_CONTRAST:
                break
        else:
            raise InputError(
                f"expected photographs with contrast; got {ATTEMPTS} uniform squares in a row. Name others."
            )
        pictures[row], boxes[row] = picture, (top, left, side)
        names.append(name)
    return PhotographCrops(pictures, names, boxes)


def _square(
    shape: tuple[int, ...], columns: tuple[int, int], size: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Top, left, side."""
    first, end = columns_of(shape[1], "test")
    largest = min(shape[0], end - first)
    side = round(float(np.exp(rng.uniform(np.log(size), np.log(largest)))))
    top = int(rng.integers(shape[0] - side + 1))
    return top, int(rng.integers(columns[0], columns[1] - side + 1)), side


def _check(count: int, size: int, sources: dict[str, np.ndarray]) -> None:
    if count < 1 or not sources:
        raise InputError(f"expected at least one picture and one photograph; got {count} of {len(sources)}.")
    smallest = min(min(p.shape[0], p.shape[1] - int(p.shape[1] * TRAIN_SHARE)) for p in sources.values())
    if not 4 <= size <= smallest:
        raise InputError(
            f"expected pictures of 4 to {smallest} pixels, the narrowest test part; got {size}. Name larger photographs."
        )
