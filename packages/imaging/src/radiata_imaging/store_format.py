"""The words and numbers of a store's file, which its writer and its readers share.

stored = round((v + 1)/2 · 65535)        v = SCALE · stored + OFFSET
"""

from collections.abc import Sequence

import h5py
import numpy as np

__all__ = ["FORMAT", "OFFSET", "SCALE", "SPLITS", "TEXT", "create_images", "decode", "encode"]

FORMAT = "radiata-store/1"
SPLITS = ("train", "validation", "test")
SCALE, OFFSET = 2 / 65535, -1.0
TEXT = ("subjects", "sessions", "sources", "sha256", "split", "records")
"""Text columns, one entry an item."""


def encode(values: np.ndarray) -> np.ndarray:
    """Values in [−1, 1] as uint16: round((v + 1)/2 · 65535)."""
    values = np.asarray(values)
    stored = np.empty(values.shape, np.uint16)
    planes, kept = (a[None] if a.ndim < 2 else a for a in (values, stored))
    for index in range(len(planes)):  # a plane at a time stays in the processor's cache
        plane = np.asarray(planes[index], dtype=np.float64) + 1
        plane *= 65535 / 2
        np.rint(plane, out=plane)
        np.clip(plane, 0, 65535, out=plane)
        kept[index] = plane
    return stored


def decode(stored: np.ndarray) -> np.ndarray:
    """Stored uint16 as float32 values in [−1, 1]."""
    values = stored.astype(np.float32)
    values *= np.float32(SCALE)
    values += np.float32(OFFSET)
    return values


def create_images(file: h5py.File, count: int, shape: Sequence[int], compression: str | None) -> h5py.Dataset:
    """A new data set `images` of `count` heads, uint16, one compressed chunk a head."""
    return file.create_dataset(
        "images",
        shape=(count, *shape),
        dtype=np.uint16,
        chunks=(1, *shape),
        compression=compression,
        shuffle=compression is not None,
    )
