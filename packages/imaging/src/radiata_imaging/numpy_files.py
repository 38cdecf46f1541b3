"""Arrays of NumPy's files, `.npy` and `.npz`: numbers, sized before they are made, and never a pickle.

The header of a `.npy` says type and shape in words. numpy makes an array of that size before it reads a byte of it; here the
file has to be long enough first. An archive says how large each member becomes, which the header of the member has to fit.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.foreign_files import DEFLATE, check_declared

__all__ = ["npy_array", "npz_arrays", "npz_shapes"]

_LONGEST_HEADER = 10_000


def npy_array(path: Path, *, lazy: bool = False) -> np.ndarray:
    """The array in a `.npy` file.

    Args:
        path: Of the file.
        lazy: Map it: only what is used is read.

    Raises:
        InputError: it declares more than a file may.
        ValueError, OSError, EOFError, …: it is no such file, is cut short, or holds objects; see `foreign`.
    """
    with path.open("rb") as stream:
        shape, dtype, fortran = _header(stream)
        size = _size(shape, dtype)
        start = stream.tell()
        held = path.stat().st_size - start
        if held < size:
            raise ValueError(f"it declares {size:,} bytes and holds {held:,}")
        if lazy:
            return (
                np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
                if size
                else np.empty(shape, dtype)
            )
        check_declared(size, path)
        return np.frombuffer(stream.read(size), dtype).reshape(shape, order="F" if fortran else "C").copy()


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the arrays in a `.npz` file; none is read."""
    with zipfile.ZipFile(path) as archive:
        found = {}
        for member in archive.infolist():
            with archive.open(member) as stream:
                found[member.filename.removesuffix(".npy")] = _header(stream)[0]
        return found


def npz_arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Name → array of a `.npz` file.

    Args:
        path: Of the file.
        names: Those wanted; None: all.

    Raises:
        InputError: they declare more than a file may.
        ValueError, OSError, zipfile.BadZipFile, …: it is no such file, or holds objects; see `foreign`.
    """
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if names is None or m.filename.removesuffix(".npy") in names]
        check_declared(sum(member.file_size for member in members), path)
        found: dict[str, np.ndarray] = {}
        for member in members:
            if member.file_size > DEFLATE * (member.compress_size + 64):
                raise ValueError(f"{member.filename} claims to unpack to {member.file_size:,} bytes")
            content = archive.read(member)
            stream = io.BytesIO(content)
            shape, dtype, fortran = _header(stream)
            size, start = _size(shape, dtype), stream.tell()
            if len(content) - start < size:
                raise ValueError(
                    f"{member.filename} declares {size:,} bytes and holds {len(content) - start:,}"
                )
            values = (
                np.frombuffer(content, dtype, int(np.prod(shape, dtype=object)), start)
                if size
                else np.empty(shape, dtype)
            )
            found[member.filename.removesuffix(".npy")] = values.reshape(
                shape, order="F" if fortran else "C"
            ).copy()
        return found


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type and order; the stream then stands at the values."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream, _LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError("objects, which only unpickling would read")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"a shape of {shape}")
    return shape, dtype, fortran


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=object)) * dtype.itemsize
