"""What a file becomes in hostile hands: bytes changed blindly, and fields, cells and trees changed on purpose.

`mutated(kind, content, rng)` is one such file. Half of them are blind (flipped, cut, repeated, foreign bytes, absurd numbers
at aligned places), half know the format: a header that declares 10¹² voxels, a table whose path leaves the folder, a tree
nested a hundred thousand deep, an archive that unpacks a thousandfold, a pickle that sets `CANARY` in the environment when
somebody unpickles it.
"""

import gzip
import pickle
import random
import struct
from collections.abc import Callable

from mutations_binary import MUTATORS as BINARY
from mutations_hdf5 import MUTATORS as HDF5
from mutations_text import MUTATORS as TEXT

__all__ = ["KINDS", "Mutator", "mutated"]

Mutator = Callable[[bytes, random.Random], bytes]

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    7,
    127,
    128,
    255,
    256,
    32767,
    -32768,
    65535,
    2**24,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**40,
    2**62,
)
_FORMATS = ("b", "h", "i", "q")


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _hole(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.randrange(1, 64) :]


def _inserted(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    foreign = rng.choice(
        (
            rng.randbytes(rng.randrange(1, 64)),
            b"\0" * 16,
            b"\xff" * 16,
            content[start : start + 512],
            b"\n",
            b'"',
        )
    )
    return content[:start] + foreign + content[start:]


def _numbers(content: bytes, rng: random.Random) -> bytes:
    """Absurd whole or floating numbers at places where a header keeps its own."""
    changed = bytearray(content)
    reach = min(len(content), rng.choice((64, 400, 4096, len(content) + 1)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind, order = rng.choice((*_FORMATS, "f", "d")), rng.choice("<<>")
        size = struct.calcsize(kind)
        if reach < size:
            continue
        place = rng.randrange(0, reach - size + 1)
        place -= place % min(size, 4)
        if kind in "fd":
            value = struct.pack(
                order + kind, rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, -1e30, 1e-40))
            )
        else:
            value = (rng.choice(INTEGERS) % 256**size).to_bytes(size, "little" if order == "<" else "big")
        changed[place : place + size] = value
    return bytes(changed)


def _foreign(content: bytes, rng: random.Random) -> bytes:
    """Another file altogether."""
    from mutations_binary import canary_pickle

    return rng.choice(
        (
            b"",
            b"\0",
            b"\0" * 4096,
            rng.randbytes(2000),
            canary_pickle(),
            pickle.dumps({"a": 1}, 2),
            gzip.compress(b"\0" * 100_000),
            b"<!DOCTYPE html><html>404</html>",
            b"\x93NUMPY\x01\x00",
            b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
            b"PK\x03\x04" + b"\0" * 60,
            b"\xef\xbb\xbf" + content,
            content + content,
        )
    )


_BLIND: tuple[Mutator, ...] = (_flipped, _flipped, _cut, _hole, _inserted, _numbers, _numbers, _foreign)
KINDS: dict[str, tuple[Mutator, ...]] = {"binary": (), **BINARY, **HDF5, **TEXT}


def mutated(kind: str, content: bytes, rng: random.Random) -> bytes:
    """One hostile version of a valid file.

    Args:
        kind: What the file is: a key of `KINDS`.
        content: The valid file.
        rng: Says which version.
    """
    aware = KINDS[kind]
    chosen = rng.choice(aware) if aware and rng.random() < 0.6 else rng.choice(_BLIND)
    found = chosen(content, rng)
    return _flipped(found, rng) if rng.random() < 0.05 else found
