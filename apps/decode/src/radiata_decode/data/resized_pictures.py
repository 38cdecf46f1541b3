"""Pictures of a large file or of a folder, made smaller as they are read, a block of rows at a time.

`ResizedRows` and `PictureFiles` look like an array (stimulus, y, x, 3) uint8 to what copies them, but read only the
rows that are being copied. Areas are averaged (OpenCV's INTER_AREA), which does not alias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_decode.data.reading import existing_folder, natural_order
from radiata_decode.data.stimuli import StimulusArrays
from radiata_imaging.hdf5 import open_hdf5

__all__ = ["PictureFiles", "ResizedRows", "named_pictures", "picture_files", "resized"]

SIZE = 425
"""Pixels of a side of NSD's pictures, and of others unless a size is asked for."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size, 3) uint8 of (n, y, x, 3) uint8; a picture that is not square is cropped to its middle.

    Raises:
        InputError: a size < 8.
    """
    import cv2

    if size < 8:
        raise InputError(f"expected pictures of at least 8 pixels; got {size}.")
    y, x = pictures.shape[1:3]
    side = min(y, x)
    top, left = (y - side) // 2, (x - side) // 2
    square = pictures[:, top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    made = [cv2.resize(np.ascontiguousarray(one), (size, size), interpolation=method) for one in square]
    return np.stack(made) if made else np.empty((0, size, size, 3), np.uint8)


@dataclass(frozen=True)
class ResizedRows:
    """Rows of a dataset (row, y, x, 3) uint8 of an HDF5 file, in a size of one's own.

    Attributes:
        file: The HDF5 file.
        dataset: Its name.
        rows: In the order wanted.
        size: Pixels of a side.
    """

    file: Path
    dataset: str
    rows: np.ndarray
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), self.size, self.size, 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __getitem__(self, which: slice) -> np.ndarray:
        unique, back = np.unique(np.asarray(self.rows)[which], return_inverse=True)
        try:
            with open_hdf5(self.file) as opened:
                stored = opened[self.dataset]
                found = np.concatenate(
                    [resized(stored[int(row) : int(row) + 1], self.size) for row in unique]
                    or [np.empty((0, self.size, self.size, 3), np.uint8)]
                )
        except InputError:
            raise
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"expected pictures {self.dataset} in {self.file}; got what cannot be read ({error}). Copy it again."
            ) from None
        return found[back]


@dataclass(frozen=True)
class PictureFiles:
    """Picture files as one array.

    Attributes:
        files: In the order wanted.
        size: Pixels of a side.
    """

    files: Sequence[Path]
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.files), self.size, self.size, 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __getitem__(self, which: slice) -> np.ndarray:
        return np.concatenate([resized(_read(path)[None], self.size) for path in self.files[which]])


def _read(path: Path) -> np.ndarray:
    import cv2
    from PIL import Image

    with foreign(f"expected a picture in {path}; got what cannot be read", "Replace it."):
        with Image.open(path) as opened:  # the header alone
            check_declared(3 * opened.width * opened.height, path, "pixels")
        found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise InputError(f"expected a picture in {path}; got what cannot be read. Replace it.")
    return np.ascontiguousarray(found[:, :, ::-1])


def picture_files(folder: Path) -> dict[str, Path]:
    """Name without suffix → file, in natural order.

    Raises:
        InputError: no such folder, no picture in it, or two of one name.
    """
    folder = existing_folder(folder, "a folder of pictures")
    files = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")),
        key=lambda p: natural_order(p.name),
    )
    if not files:
        raise InputError(f"expected pictures ({', '.join(SUFFIXES)}) in {folder}; got none.")
    found = {path.stem: path for path in files}
    if len(found) != len(files):
        raise InputError(
            f"expected pictures of different names in {folder}; got two of one name with other suffixes."
        )
    return found


def named_pictures(files: dict[str, Path], size: int | None, names: list[str]) -> StimulusArrays:
    """Pictures named after stimuli, in their order; 425 pixels a side without a size.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in names if name not in files]
    if missing:
        raise InputError(
            f"expected a picture of each stimulus; got none named {missing[0]} ({len(missing)} missing). "
            "Name the files after the stimuli."
        )
    return StimulusArrays(
        pd.DataFrame({"stimulus": names}), PictureFiles([files[name] for name in names], size or SIZE)
    )
