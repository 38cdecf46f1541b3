"""What the header of an image file declares, checked before a byte of its voxels is read.

A gzip stream cannot hold more than 1032 times its own size, and a file that is not compressed no more than itself. So a
header that declares more voxels than the file can hold lies, whatever the voxels are, and is refused without making room
for them; what could be held may still be more than a file may declare. The same goes for extensions and for the place where
voxels begin, up to which a compressed file would have to be unpacked.

GIFTI is XML: its arrays are checked where they stand, and one that lies in another file is refused.

References:
    NIfTI-1.1 and NIfTI-2 headers, https://nifti.nimh.nih.gov; FreeSurfer's MGH format; GIFTI 1.0, section on DataArray.
"""

import base64
import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

from radiata_core.foreign_files import DEFLATE, check_declared

__all__ = ["check_gifti", "check_image"]

_BITS = {1: 1, 2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1536: 128,
         1792: 128, 2048: 256, 2304: 32}  # fmt: skip
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2}
_FARTHEST = 2**28
"""Bytes of extensions before the voxels; CIFTI's XML takes some 3 MB."""


def check_image(path: Path) -> None:
    """Nothing, if a NIfTI or MGH file can hold what it declares; other formats are not looked at.

    Args:
        path: Of the file.

    Raises:
        InputError: it declares more than a file may.
        ValueError, OSError, EOFError, …: it is cut short, or its header contradicts itself; see `foreign`.
    """
    name, size = path.name.lower(), path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    most = size * DEFLATE if packed else size
    with gzip.open(path) if packed else path.open("rb") as stream:
        if name.endswith((".mgh", ".mgz")):
            start, declared = _mgh(stream.read(284))
        elif name.endswith((".nii", ".nii.gz")):
            head = stream.read(548)
            start, declared = _nifti(head)
            _check_extensions(head, stream, start)
        else:
            return
    if start + declared > most:
        raise ValueError(
            f"it declares {declared:,} bytes of voxels, which a file of {size:,} bytes cannot hold"
        )
    check_declared(declared, path, "voxels")


def _nifti(head: bytes) -> tuple[int, int]:
    """Where voxels begin, and their bytes."""
    for order in "<>":
        length = struct.unpack(order + "i", head[:4])[0]
        if length == 348:
            dim = struct.unpack(order + "8h", head[40:56])
            kind = struct.unpack(order + "h", head[70:72])[0]
            start = struct.unpack(order + "f", head[108:112])[0]
            least = 348
            break
        if length == 540:
            dim = struct.unpack(order + "8q", head[16:80])
            kind = struct.unpack(order + "h", head[12:14])[0]
            start = struct.unpack(order + "q", head[168:176])[0]
            least = 540
            break
    else:
        raise ValueError(f"a header of {struct.unpack('<i', head[:4])[0]} bytes, not 348 or 540")
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 0:
        raise ValueError(f"dimensions {dim}")
    if kind not in _BITS:
        raise ValueError(f"voxels of type {kind}")
    if not math.isfinite(start) or start < 0 or start > _FARTHEST:
        raise ValueError(f"voxels that begin at byte {start:g}")
    return max(int(start), least), math.prod(dim[1 : dim[0] + 1]) * _BITS[kind] // 8


def _check_extensions(head: bytes, stream: Any, start: int) -> None:
    """Extensions lie between the header and the voxels, each as long as it says."""
    second = head[0] in (0x1C, 0) and 540 in (
        struct.unpack("<i", head[:4])[0],
        struct.unpack(">i", head[:4])[0],
    )
    place = 540 if second else 348
    order = "<" if struct.unpack("<i", head[:4])[0] in (348, 540) else ">"
    stream.seek(place)
    flags = stream.read(4)
    if len(flags) < 4 or not flags[0]:
        return
    place += 4
    while place + 16 <= start:
        stream.seek(place)
        said = stream.read(8)
        if len(said) < 8:
            raise EOFError("it ends within its extensions")
        length = struct.unpack(order + "i", said[:4])[0]
        if length < 16 or length % 16 or place + length > start:
            raise ValueError(f"an extension of {length} bytes, {start - place} before the voxels")
        place += length


def _mgh(head: bytes) -> tuple[int, int]:
    """Where voxels begin, and their bytes."""
    version, *dims, kind = struct.unpack(">6i", head[:24])
    if version != 1 or min(dims) < 0 or kind not in _MGH_BYTES:
        raise ValueError(f"version {version}, dimensions {dims}, voxels of type {kind}")
    return 284, math.prod(max(1, n) for n in dims) * _MGH_BYTES[kind]


def check_gifti(path: Path) -> None:
    """Nothing, if a GIFTI file holds its own arrays and they are what it declares.

    Args:
        path: Of the file.

    Raises:
        InputError: its arrays are more than a file may declare.
        ValueError, …: an array in another file, or of another size than declared; see `foreign`.
    """
    check_declared(path.stat().st_size, path)
    content = path.read_bytes()
    if b"<!ENTITY" in content:
        raise ValueError("entities, which no GIFTI file needs")
    if b"ExternalFileBinary" in content:
        raise ValueError("an array in another file")
    declared = [_gifti_bytes(tag) for tag in re.findall(rb"<DataArray\b([^>]*)>", content)]
    check_declared(sum(declared), path)
    if len(content) * DEFLATE > 2**28:  # smaller ones cannot unpack to much
        for tag, size in zip(re.finditer(rb"<DataArray\b[^>]*>", content), declared, strict=True):
            if b"GZipBase64Binary" in tag[0]:
                start = content.index(b"<Data>", tag.end()) + 6
                _check_packed(content[start : content.index(b"</Data>", start)], size)


def _gifti_bytes(tag: bytes) -> int:
    attributes = dict(re.findall(rb"""(\w+)\s*=\s*["']([^"']*)["']""", tag))
    dims = [int(attributes[b"Dim%d" % n]) for n in range(int(attributes[b"Dimensionality"]))]
    if any(n < 0 for n in dims):
        raise ValueError(f"dimensions {dims}")
    return 8 * math.prod(dims)


def _check_packed(text: bytes, size: int) -> None:
    machine = zlib.decompressobj()
    if len(machine.decompress(base64.b64decode(text), size + 1)) > size:
        raise ValueError(f"an array that unpacks to more than {size:,} bytes")
