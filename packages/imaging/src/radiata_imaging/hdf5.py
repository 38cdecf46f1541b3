"""HDF5 that somebody else made, opened with care; and new files, written so that a full disk is an error and no crash.

A set in an HDF5 file can declare a petabyte without holding a byte, keep its values in any other file of the machine
(external storage, virtual sets), or be a link into another file. What is read whole is therefore sized first, and what
points out of the file is refused: a file is read as what it holds.

libhdf5 2.0 may end the process (a segmentation fault) where one of its own writes meets a full disk. `new_hdf5` does not
tell it: the bytes go through Python, the first error is kept, and raised when the file is closed.

References:
    HDF5 file format specification, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html (links, layouts).
"""

import contextlib
import io
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared

__all__ = ["declared_bytes", "new_hdf5", "open_hdf5", "unfailing", "whole_array"]

_SEARCHED = 2**28


def declared_bytes(dataset: h5py.Dataset) -> int:
    """Bytes that the values of a set take once they are read; 0 for one without values."""
    return (
        int(np.prod(dataset.shape or (), dtype=object)) * dataset.dtype.itemsize
        if dataset.shape is not None
        else 0
    )


class _Unfailing(io.RawIOBase):
    """A file whose writes never fail; what the first one failed of is `error`. What was not written reads as zeros."""

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "w+")
        self._place = self._size = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._file.seek(self._place)
        got = self._file.readinto(view) or 0
        count = max(got, min(len(view), max(0, self._size - self._place)))
        self._place += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self._file.seek(self._place)
                left = view
                while left:
                    left = left[self._file.write(left) or 0 :]
            except OSError as error:
                self.error = error
        self._place += len(view)
        self._size = max(self._size, self._place)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._place if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def unfailing(path: Path | str) -> Iterator[io.RawIOBase]:
    """A new file for a library that cannot bear a failing write: it is told of none, and the first is raised at the end.

    Raises:
        OSError: the disk is full, or whatever else writing met.
    """
    with _Unfailing(Path(path)) as file:
        try:
            yield file
        finally:
            if file.error is not None:
                raise file.error


@contextlib.contextmanager
def new_hdf5(path: Path | str, **options: Any) -> Iterator[h5py.File]:
    """A new HDF5 file, open for writing.

    Args:
        path: Of the file.
        options: Of `h5py.File`.

    Raises:
        OSError: the disk is full, or whatever else writing met.
    """
    with unfailing(path) as bytes_of_it, h5py.File(bytes_of_it, "w", **options) as file:
        yield file


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
