"""Files that are either whole or absent: atomic writes, JSON, checksums.

A file is written beside its final place, flushed to the disk, and renamed: a reader, a crash or a full disk never meets
half of it, and an earlier version stays until the new one is complete. The same holds for folders (checkpoints).

A file with a card (weights, volumes, stores: NAME.json beside them) gets the card first. So a file under its name has its
card whenever the process is killed, and a card alone is of a file that never came. What a killed process left unfinished
is removed when a later one of the same machine first writes into that folder.

JSON here is strict: numbers that are not finite become `null`, paths become strings, dataclasses become objects.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError

__all__ = [
    "atomic_folder",
    "atomic_path",
    "is_unfinished",
    "plain",
    "read_json",
    "remove_folder",
    "remove_left",
    "sha256",
    "sync",
    "write_json",
]

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
_UNFINISHED = re.compile(r"\..*\.(?P<host>[0-9a-f]{4})-(?P<process>\d+)-[0-9a-f]{8}\.tmp(\.\w+)*", re.DOTALL)
_LOOKED: set[Path] = set()
"""Folders that this process has looked through for what others left."""


def _temporary(path: Path, suffix: str = "") -> Path:
    """A free name in the same folder that tells whose it is, on which machine."""
    stem = path.name.removesuffix(suffix)
    return path.with_name(f".{stem}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")


def _suffix(path: Path) -> str:
    """By which writers choose the format."""
    return "".join(path.suffixes[-2:] if path.suffix in _COMPRESSIONS else path.suffixes[-1:])


def is_unfinished(path: Path) -> bool:
    """Whether this is the name of a file or folder that is being written, or was when its process was killed."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_left(folder: Path) -> None:
    """Remove from a folder what processes of this machine that are no more left unfinished in it; looks once a process."""
    place = folder.absolute()
    if place in _LOOKED or not folder.is_dir():
        return
    _LOOKED.add(place)
    for entry in folder.iterdir():
        named = _UNFINISHED.fullmatch(entry.name)
        if named is None or named["host"] != _HOST or _runs(int(named["process"])):
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, whose name goes at once: what a kill leaves of it is removed by `remove_left` later."""
    hidden = _temporary(folder)
    if folder.is_dir():
        folder.replace(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether there is a process of this number; yes where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename is never seen before the content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if path.is_file():  # some file systems cannot flush a folder, all can flush a file
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_path(path: str | Path, card: tuple[Path, Callable[[Path], Any]] | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix; on success it becomes `path`, on any error it is removed.

    Args:
        path: The final name.
        card: Where the card of the file goes, and what makes its content (see `plain`) of the finished temporary file. An
            earlier file goes before the card changes: no file is ever seen beside the card of another.

    Example:
        with atomic_path("head.nii.gz") as part:
            nibabel.save(image, part)
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected a file name to write; got the folder {path}. Name a file inside it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent)
    part = _temporary(path, _suffix(path))
    told: Path | None = None
    try:
        yield part
        _readable(part)
        sync(part)
        if card is not None:
            told = _temporary(card[0])
            told.write_text(_json(card[1](part)), encoding="utf-8")
            sync(told)
            path.unlink(missing_ok=True)
            told.replace(card[0])
        part.replace(path)
        sync(path.parent)
    finally:
        for left in (part, told):
            if left is not None:
                left.unlink(missing_ok=True)


def _readable(file: Path) -> None:
    """As readable as any new file: some writers (safetensors) make theirs for the owner alone."""
    mask = os.umask(0o022)  # can only be read by setting it
    os.umask(mask)
    file.chmod(0o666 & ~mask)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`; on success it becomes `path`, on any error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent)
    part, earlier = _temporary(path), _temporary(path)
    part.mkdir()
    try:
        yield part
        for entry in part.rglob("*"):
            if not entry.is_dir():
                _readable(entry)
            sync(entry)
        sync(part)
        if path.exists():  # a folder cannot be renamed over another; half-deleted it must not keep its name
            path.replace(earlier)
        part.replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def plain(thing: Any) -> Any:
    """The same thing in JSON's own types; what is not finite becomes None, what has no plain form becomes its `str`."""
    if isinstance(thing, Enum):
        return plain(thing.value)
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return float(thing) if math.isfinite(thing) else None
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: plain(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
    if isinstance(thing, Mapping):
        return {str(plain(key)): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(value) for value in thing]
    if isinstance(thing, set | frozenset):
        return sorted(plain(value) for value in thing)
    if hasattr(thing, "tolist"):  # numpy and torch, without importing either
        return plain(thing.tolist())
    return str(thing)


def _json(thing: Any) -> str:
    return json.dumps(plain(thing), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, thing: Any) -> None:
    """Write `thing` as indented JSON, atomically. See `plain` for what becomes of types JSON does not know."""
    text = _json(thing)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"expected the JSON file {path}; got nothing there. Check the path.") from None
    except (ValueError, RecursionError) as error:  # digits without end and brackets without end, too
        raise InputError(
            f"expected JSON in {path}; got something else ({error}). Write the file again or use another."
        ) from None


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
