"""MATLAB's `.mat` files of versions 5 to 7, walked through before scipy reads them.

A file is a tree of elements, each a type, a length and bytes; an array is an element of elements: flags, dimensions, name,
and then numbers, cells or fields by its class. scipy trusts types and dimensions: a number of a type that does not exist
ends the process, and dimensions are allocated as they stand. So every element is checked first to be of a type that its
place allows, to lie inside its parent, and to be as long as its dimensions say.

References:
    MathWorks, MAT-File Format, R2024a, chapter 1 (level 5 MAT-files).
"""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radiata_core.foreign_files import check_declared

__all__ = ["load_mat", "mat_shapes"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXT = {1, 2, 3, 4, 16, 17, 18}
_MATRIX, _PACKED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_DEEPEST = 64


def load_mat(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Name → value, as `scipy.io.loadmat` gives them.

    Args:
        path: Of the file.
        names: Variables wanted; None: all.

    Raises:
        InputError: it unpacks to more than a file may declare.
        NotImplementedError: version 7.3, which is HDF5.
        ValueError, …: no such file, or a damaged one; see `foreign`.
    """
    from scipy.io import loadmat

    _check(path)
    return loadmat(path, squeeze_me=False, variable_names=None if names is None else list(names))


def mat_shapes(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and class of each variable, as `scipy.io.whosmat` gives them.

    Raises:
        As `load_mat`.
    """
    from scipy.io import whosmat

    _check(path)
    return whosmat(path)


def _check(path: Path) -> None:
    """Nothing, if the whole tree is sound."""
    check_declared(path.stat().st_size, path)
    content = path.read_bytes()
    if len(content) < 136 or 0 in content[:4] or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("no MAT-file of version 5 to 7")
    order = "<" if content[126:128] == b"IM" else ">"
    version = struct.unpack(order + "H", content[124:126])[0]
    if version == 0x0200:
        raise NotImplementedError("a MAT-file of version 7.3 is HDF5")
    if version != 0x0100:
        raise ValueError(f"version {version:#x}")
    place, unpacked = 128, 0
    while place < len(content):
        kind, start, stop, place = _element(content, place, len(content), order, packed=True)
        if kind == _PACKED:
            body = _inflated(content[start:stop], path, unpacked)
            unpacked += len(body)
            inner = _element(body, 0, len(body), order)
            _matrix(body, inner, order, 0)
        else:
            _matrix(content, (kind, start, stop, place), order, 0)


def _inflated(body: bytes, path: Path, before: int) -> bytes:
    """What is packed in an element, measured while it is unpacked."""
    machine, parts, size = zlib.decompressobj(), [], before
    while body and not machine.eof:
        parts.append(machine.decompress(body, 2**20))
        size += len(parts[-1])
        check_declared(size, path)
        body = machine.unconsumed_tail
    return b"".join(parts)


def _element(
    content: bytes, place: int, end: int, order: str, packed: bool = False
) -> tuple[int, int, int, int]:
    """Type, first and past-the-last byte of the values, and where the next element begins."""
    if place + 8 > end:
        raise ValueError(f"it ends within an element at byte {place}")
    first, second = struct.unpack(order + "II", content[place : place + 8])
    if first >> 16 and not packed:  # small: length and type share four bytes, the values follow in four
        kind, length, start = first & 0xFFFF, first >> 16, place + 4
        if length > 4:
            raise ValueError(f"a small element of {length} bytes")
        return kind, start, start + length, place + 8
    start, stop = place + 8, place + 8 + second
    if stop > end:
        raise ValueError(f"an element at byte {place} is longer than what holds it")
    padded = stop if first == _PACKED else start + -(-second // 8) * 8
    return first, start, stop, min(padded, end)


def _matrix(content: bytes, element: tuple[int, int, int, int], order: str, depth: int) -> None:
    kind, place, end, _ = element
    if kind != _MATRIX:
        raise ValueError(f"type {kind} where an array should be")
    if depth > _DEEPEST:
        raise ValueError(f"arrays within arrays, {depth} deep")
    if place == end:  # an empty array, as MATLAB writes it in cells
        return
    parts = [place]

    def following(allowed: set[int] | frozenset[int], what: str) -> tuple[int, int, int]:
        found, start, stop, parts[0] = _element(content, parts[0], end, order)
        if found not in allowed:
            raise ValueError(f"{what} of type {found}")
        return found, start, stop

    _, start, stop = following({6}, "flags")
    if stop - start != 8:
        raise ValueError(f"flags of {stop - start} bytes")
    flags = struct.unpack(order + "I", content[start : start + 4])[0]
    _, start, stop = following({5}, "dimensions")
    if (stop - start) % 4 or not 8 <= stop - start <= 4 * 32:
        raise ValueError(f"dimensions of {stop - start} bytes")
    dimensions = struct.unpack(f"{order}{(stop - start) // 4}i", content[start:stop])
    if min(dimensions) < 0:
        raise ValueError(f"dimensions {dimensions}")
    following({1, 2}, "a name")
    count, what = math.prod(dimensions), flags & 0xFF
    values = 2 if flags & 0x800 else 1
    if what in _NUMERIC:
        for _ in range(values):
            found, start, stop = following(set(_SIZES), "numbers")
            if (stop - start) != count * _SIZES[found]:
                raise ValueError(f"{stop - start} bytes for {count} numbers")
    elif what == _CHAR:
        found, start, stop = following(_TEXT, "text")
        if count > stop - start:
            raise ValueError(f"{stop - start} bytes for {count} characters")
    elif what in (_CELL, _STRUCT):
        fields = 1 if what == _CELL else _fields(content, following, order)
        if count * fields > (end - parts[0]) // 8:
            raise ValueError(f"{count * fields} cells in {end - parts[0]} bytes")
        for _ in range(count * fields):
            inner = _element(content, parts[0], end, order)
            _matrix(content, inner, order, depth + 1)
            parts[0] = inner[3]
    else:
        raise ValueError(f"an array of class {what}, which holds no numbers, words, cells or fields")


def _fields(content: bytes, following: Any, order: str) -> int:
    """Number of the fields of a struct."""
    _, start, stop = following({5}, "the length of field names")
    if stop - start != 4:
        raise ValueError("no length of field names")
    length = struct.unpack(order + "i", content[start:stop])[0]
    _, start, stop = following({1}, "field names")
    if length < 1 or (stop - start) % length:
        raise ValueError(f"{stop - start} bytes of field names of {length}")
    return (stop - start) // length
