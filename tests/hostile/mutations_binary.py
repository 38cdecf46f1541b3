"""Hostile headers and archives: NIfTI, MGH, NumPy, zip, safetensors, PNG, and pickles with a canary."""

import functools
import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from typing import Any

from mutations_text import hostile_tree

__all__ = ["CANARY", "MUTATORS", "canary_pickle"]

CANARY = "RADIATA_TEST_CANARY"
"""The variable that a pickle sets in the environment when it is executed."""

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    5,
    9,
    100,
    1024,
    32767,
    -32768,
    65535,
    2**31 - 1,
    -(2**31),
    2**40,
    2**62,
    -(2**62),
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    5.0,
    1e-40,
    1e-6,
    1e6,
    1e30,
    -1e30,
    3e38,
    float("nan"),
    float("inf"),
    float("-inf"),
    352.0,
    1e9,
    -352.0,
)

_NIFTI1 = (
    [
        (0, "i"),
        (68, "h"),
        (70, "h"),
        (70, "h"),
        (72, "h"),
        (108, "f"),
        (108, "f"),
        (112, "f"),
        (116, "f"),
        (123, "B"),
        (252, "h"),
        (254, "h"),
    ]
    + [(40 + 2 * n, "h") for n in range(8)] * 2
    + [(76 + 4 * n, "f") for n in range(8)]
    + [(256 + 4 * n, "f") for n in range(18)]
    + [(344, "i"), (348, "i")]
)
_NIFTI2 = (
    [
        (0, "i"),
        (4, "q"),
        (12, "h"),
        (14, "h"),
        (168, "q"),
        (168, "q"),
        (176, "d"),
        (184, "d"),
        (344, "i"),
        (348, "i"),
        (500, "i"),
        (504, "i"),
    ]
    + [(16 + 8 * n, "q") for n in range(8)] * 2
    + [(104 + 8 * n, "d") for n in range(8)]
    + [(352 + 8 * n, "d") for n in range(18)]
    + [(540, "i"), (544, "i"), (548, "i")]
)
_MGH = (
    [(0, "i"), (20, "i"), (24, "i"), (28, "h")]
    + [(4 * n, "i") for n in range(1, 5)] * 3
    + [(30 + 4 * n, "f") for n in range(15)]
)


class _Armed:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').environ.__setitem__('{CANARY}', 'executed')",)


def canary_pickle(protocol: int = 2) -> bytes:
    """A pickle that sets `CANARY` when it is executed."""
    assert os.environ.get(CANARY) is None
    return pickle.dumps({"tensor": _Armed()}, protocol)


def _fields(content: bytes, fields: list[tuple[int, str]], order: str, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, kind = rng.choice(fields)
        size = struct.calcsize(kind)
        if place + size > len(changed):
            continue
        if kind in "fd":
            value = struct.pack(order + kind, rng.choice(FLOATS))
        else:
            value = (rng.choice(INTEGERS) % 256**size).to_bytes(size, "little" if order == "<" else "big")
        changed[place : place + size] = value
    return bytes(changed)


def _nifti(content: bytes, rng: random.Random) -> bytes:
    second = content[:4] == struct.pack("<i", 540)
    found = _fields(content, _NIFTI2 if second else _NIFTI1, "<", rng)
    if rng.random() < 0.15:
        start = 540 if second else 348
        size = rng.choice((16, 17, 0, -16, 8, 2**31 - 16, 2**30))
        found = (
            found[:start]
            + b"\1\0\0\0"
            + struct.pack("<ii", size, rng.choice((0, 6, 32, -1)))
            + b"x" * 8
            + found[start + 4 :]
        )
    return found


def _nifti_big(content: bytes, rng: random.Random) -> bytes:
    """A header that declares far more than the file holds, in a consistent way."""
    changed = bytearray(content)
    n = rng.choice((500, 2000, 30000))
    changed[40:56] = struct.pack("<8h", 3, n, n, rng.choice((4, n)), 1, 1, 1, 1)
    changed[70:74] = struct.pack("<2h", *rng.choice(((64, 64), (4, 16), (1792, 128), (2304, 32))))
    return bytes(changed)


def _mgh(content: bytes, rng: random.Random) -> bytes:
    return _fields(content, _MGH, ">", rng)


def _unpacked(mutator: Any) -> Any:
    def change(content: bytes, rng: random.Random) -> bytes:
        return gzip.compress(mutator(gzip.decompress(content), rng), 1)

    return change


@functools.cache
def _zeros(size: int) -> bytes:
    return gzip.compress(b"\0" * size, 9)


def _bomb(content: bytes, rng: random.Random) -> bytes:
    """A megabyte of bytes that unpacks to a hundred, behind a header that declares all of them, or far fewer."""
    head = bytearray(gzip.decompress(content)[:352])
    if rng.random() < 0.7:
        head[40:56] = struct.pack("<8h", 3, 512, 512, rng.choice((50, 400)), 1, 1, 1, 1)
    if rng.random() < 0.3:
        head[108:112] = struct.pack("<f", rng.choice((1e8, 2e9)))
    return gzip.compress(bytes(head)) + _zeros(100 * 2**20)


def _npy(content: bytes, rng: random.Random) -> bytes:
    major = content[6] if len(content) > 6 else 1
    length = struct.unpack("<H", content[8:10])[0] if major == 1 else 118
    body = content[10 + length :]
    shape = rng.choice(
        (
            "()",
            "(0,)",
            "(-1,)",
            "(1,)",
            f"({2**40},)",
            f"({10**12}, {10**12})",
            "(2**40,)",
            str((1,) * 40),
            "(3, 4",
            "'x'",
            "(True,)",
            "(1.5,)",
            "[2, 3]",
            f"({2**29}, 2)",
            "(2, 3)",
            "(2, 3, 4)",
        )
    )
    kind = rng.choice(
        (
            "'|O'",
            "'<f8'",
            "'<f4'",
            "'>i8'",
            "'<c16'",
            "'|S5'",
            f"'<U{10**8}'",
            f"'|V{10**9}'",
            "'M8[s]'",
            "[('a', '|O')]",
            "[('a', '<f4'), ('a', '<f4')]",
            "'x'",
            "3",
            "'|b1'",
            "('f4', (10**9,))",
        )
    )
    fortran = rng.choice(("False", "True", "3", "None"))
    text = f"{{'descr': {kind}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    text = rng.choice((text, text, text, text[:-3], "(" * 500, "{" * 90, text + "\0", "__import__('os')"))
    header = (text.ljust(118) + "\n").encode()
    if "|O" in text:
        body = canary_pickle()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def _zip(content: bytes, rng: random.Random) -> bytes:
    """An archive of other members: hostile arrays, pickles, names that leave the folder, a bomb."""
    source = zipfile.ZipFile(io.BytesIO(content))
    stream = io.BytesIO()
    names = source.namelist()
    victim = rng.choice(names)
    change = rng.randrange(7)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name in names:
            member = source.read(name)
            if name == victim:
                if change == 0:
                    continue
                if change in (1, 2):
                    member = _npy(member, rng)
                elif change == 3:
                    member = canary_pickle()
                elif change == 4:
                    name = "../../" + name
                elif change == 5:
                    member = (
                        member[:128] + b"\0" * (100 * 2**20)
                        if rng.random() < 0.05
                        else member[: len(member) // 2]
                    )
                else:
                    member = rng.randbytes(40)
            target.writestr(name, member)
    return stream.getvalue()


def _torch(content: bytes, rng: random.Random) -> bytes:
    """Weights in which the pickle of names asks for code."""
    if rng.random() < 0.3:
        return rng.choice((canary_pickle(2), canary_pickle(4), b"\x80\x02" + rng.randbytes(30)))
    source = zipfile.ZipFile(io.BytesIO(content))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            member = source.read(name)
            if name.endswith("data.pkl"):
                change = rng.randrange(4)
                if change == 0:
                    member = canary_pickle()
                elif change == 1:
                    member = member.replace(b"ctorch._utils\n_rebuild_tensor_v2", b"cposix\nsystem", 1)
                elif change == 2:
                    place = rng.randrange(len(member))
                    member = member[:place] + bytes([rng.randrange(256)]) + member[place + 1 :]
                else:
                    member = member[: rng.randrange(len(member))]
            target.writestr(name, member)
    return stream.getvalue()


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    tree = json.loads(content[8 : 8 + length])
    header = json.dumps(hostile_tree(tree, rng)).encode("utf-8", "surrogatepass")
    declared = rng.choice(
        (len(header), len(header), len(header), len(header), 0, 2**63, 2**62, len(header) + 1, 100 * 2**20)
    )
    return struct.pack("<Q", declared) + header + content[8 + length :]


def _png(content: bytes, rng: random.Random) -> bytes:
    """Another size or kind of pixel, with a right checksum."""
    size = [rng.choice((0, 1, 8, 5000, 20_000, 60_000, 2**31 - 1)) for _ in range(2)]
    rest = rng.choice(
        (
            content[24:29],
            bytes([rng.choice((1, 8, 16, 7)), rng.choice((0, 2, 3, 4, 6, 9)), 0, 0, rng.randrange(2)]),
        )
    )
    chunk = b"IHDR" + struct.pack(">II", *size) + rest
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def _dicom(content: bytes, rng: random.Random) -> bytes:
    """Elements of a slice removed or given absurd values."""
    import warnings

    import pydicom

    values: tuple[Any, ...] = (
        0,
        1,
        7,
        65535,
        "",
        "x",
        "nan",
        "inf",
        [0, 0],
        [0.0] * 6,
        ["nan"] * 3,
        ["1e30"] * 3,
        10**6,
        b"",
        b"\0",
        None,
    )
    names = (
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "SamplesPerPixel",
        "NumberOfFrames",
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "RescaleSlope",
        "RescaleIntercept",
        "PixelData",
        "PhotometricInterpretation",
        "SeriesInstanceUID",
        "PlanarConfiguration",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            item = pydicom.dcmread(io.BytesIO(content))
            for _ in range(rng.choice((1, 1, 2))):
                name = rng.choice(names)
                if rng.random() < 0.2 and name in item:
                    delattr(item, name)
                else:
                    setattr(item, name, rng.choice(values))
            if rng.random() < 0.2:
                item.file_meta.TransferSyntaxUID = rng.choice(
                    (
                        "1.2.840.10008.1.2.5",
                        "1.2.840.10008.1.2.4.50",
                        "1.2.840.10008.1.2.4.90",
                        "1.2.3",
                        "1.2.840.10008.1.2.2",
                    )
                )
            stream = io.BytesIO()
            item.save_as(stream)
            return stream.getvalue()
        except Exception:  # values that pydicom cannot write
            return content[: rng.randrange(len(content))]


MUTATORS = {
    "nifti": (_nifti, _nifti, _nifti, _nifti_big),
    "nifti-gz": (_unpacked(_nifti), _unpacked(_nifti), _unpacked(_nifti_big), _bomb),
    "mgh": (_mgh,),
    "mgz": (_unpacked(_mgh),),
    "npy": (_npy,),
    "zip": (_zip,),
    "torch": (_torch,),
    "safetensors": (_safetensors,),
    "png": (_png,),
    "dicom": (_dicom,),
}
