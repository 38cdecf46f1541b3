"""Files that are either whole or absent: atomic writes, JSON, checksums.

A file is written beside its final place, flushed to the disk, and renamed: a reader, a crash or a full disk never meets
half of it, and an earlier version stays until the new one is complete. The same holds for folders (checkpoints).

JSON here is strict: numbers that are not finite become `null`, paths become strings, dataclasses become objects.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError

__all__ = ["atomic_folder", "atomic_path", "plain", "read_json", "sha256", "sync", "write_json"]

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}


def _temporary(path: Path) -> Path:
    """A free name in the same folder with the same suffix, since writers choose the format by suffix."""
    suffixes = path.suffixes[-2:] if path.suffix in _COMPRESSIONS else path.suffixes[-1:]
    suffix = "".join(suffixes)
    stem = path.name.removesuffix(suffix)
    return path.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")


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
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix; on success it becomes `path`, on any error it is removed.

    Example:
        with atomic_path("head.nii.gz") as part:
            nibabel.save(image, part)
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected a file name to write; got the folder {path}. Name a file inside it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(path)
    try:
        yield part
        _readable(part)
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


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
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    part.mkdir()
    try:
        yield part
        for file in part.iterdir():
            _readable(file)
            sync(file)
        sync(part)
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


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


def write_json(path: str | Path, thing: Any) -> None:
    """Write `thing` as indented JSON, atomically. See `plain` for what becomes of types JSON does not know."""
    text = json.dumps(plain(thing), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
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
