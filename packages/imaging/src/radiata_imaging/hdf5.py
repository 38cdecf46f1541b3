"""HDF5 that somebody else made, opened with care.

A set in an HDF5 file can declare a petabyte without holding a byte, keep its values in any other file of the machine
(external storage, virtual sets), or be a link into another file. What is read whole is therefore sized first, and what
points out of the file is refused: a file is read as what it holds.

References:
    HDF5 file format specification, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html (links, layouts).
"""

import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared

__all__ = ["declared_bytes", "open_hdf5", "whole_array"]

_SEARCHED = 2**28


def declared_bytes(dataset: h5py.Dataset) -> int:
    """Bytes that the values of a set take once they are read; 0 for one without values."""
    return (
        int(np.prod(dataset.shape or (), dtype=object)) * dataset.dtype.itemsize
        if dataset.shape is not None
        else 0
    )


def open_hdf5(path: Path | str, *, whole: bool = False) -> h5py.File:
    """An HDF5 file, open for reading, that holds what it names.

    Args:
        path: Of the file.
        whole: All of it is going to be read: its sets together may declare no more than a file may.

    Raises:
        InputError: it points at other files, or declares too much.
        OSError: it is no HDF5 file; the caller knows what it should have been.
    """
    _check_heaps(Path(path))
    file = h5py.File(path, "r")
    try:
        total = _declared_by(file, path)
        if whole:
            check_declared(total, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_heaps(path: Path) -> None:
    """Nothing, if the collections of words in a file (global heaps) end: libhdf5 walks over one that does not for ever.

    A collection is a row of objects, the last of them number 0, the free space; where that is 0 bytes long, the next one is
    itself. Files of more than `_SEARCHED` bytes are not searched.
    """
    size = path.stat().st_size
    if not 8 <= size <= _SEARCHED:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"GCOL\x01")
        while start >= 0:
            end = min(size, start + int.from_bytes(content[start + 8 : start + 16], "little"))
            place = start + 16
            while place + 16 <= end:
                number = int.from_bytes(content[place : place + 2], "little")
                length = int.from_bytes(content[place + 8 : place + 16], "little")
                if not number and not length:
                    raise OSError(f"a heap at byte {start} that does not end")
                place += 16 + -(-length // 8) * 8 if number else length
            start = content.find(b"GCOL\x01", start + 5)


def _declared_by(file: h5py.File, path: Path | str) -> int:
    """Bytes of all sets together, none of which lies elsewhere."""
    links: list[tuple[str, Any]] = []
    try:
        file.visititems_links(
            lambda name, link: links.append((name, link))
        )  # h5py loses what is raised in here
    except SystemError as error:
        raise OSError(f"a tree that cannot be walked ({error})") from None
    total = 0
    for name, link in links:
        if isinstance(link, h5py.ExternalLink):
            raise _points(path, name, link.filename)
        item = None if isinstance(link, h5py.SoftLink) else file[name]
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise _points(path, name, item.external[0][0] if item.external else "a virtual set")
            total += declared_bytes(item)
    return total


def whole_array(dataset: Any) -> Any:
    """All values of a set, if they are no more than a file may declare.

    Raises:
        InputError: they are more.
        TypeError: it is no set.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"a group where a set should be: {getattr(dataset, 'name', dataset)}")
    check_declared(declared_bytes(dataset), dataset.file.filename, f"values of {dataset.name}")
    return dataset[()]


def _points(path: Path | str, name: str, where: str) -> InputError:
    return InputError(
        f"expected a file that holds its own values; {name} in {path} points at another ({where}). Copy it into one file "
        "(h5repack, or h5py with expand_external)."
    )
