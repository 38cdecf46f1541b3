"""HDF5 files whose tree is whole and whose content is not what a reader hopes for.

Sets and groups go, change place or type, declare a petabyte without holding a byte, or point at other files: an external
link, storage outside the file, a virtual set, a link to itself. Attributes become other types.
"""

import io
import random
from typing import Any

import h5py
import numpy as np

__all__ = ["MUTATORS"]

_ATTRIBUTES: tuple[Any, ...] = (
    0,
    -1,
    2**40,
    float("nan"),
    "",
    "x",
    "../../x",
    "[1, 2",
    '{"kind": "unet"}',
    "null",
    "[" * 5000,
    b"\xff\xfe",
    np.zeros(0),
    np.zeros((2, 2)),
    np.array([2**40, 2**40]),
    np.array([-1, 0, 3]),
    True,
    np.array(["a", "b"], dtype=object),
    "9" * 5000,
)


def _names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def _replace(parent: h5py.File, name: str, rng: random.Random) -> None:
    """A set of another type or shape, or a group, under the same name."""
    old = parent[name]
    attributes = dict(old.attrs)
    whole = np.asarray(old[()]) if isinstance(old, h5py.Dataset) and old.dtype.kind in "fiu" else np.zeros(3)
    del parent[name]
    change = rng.randrange(12)
    if change == 0:
        parent.create_group(name)
    elif change == 1:
        parent.create_dataset(name, shape=(2 ** rng.choice((30, 40, 50)),), chunks=(1024,), dtype="f8")
    elif change == 2:
        shape = whole.shape or (1,)
        parent.create_dataset(
            name, shape=(2**33, *shape[1:]), chunks=(1, *[max(1, n) for n in shape[1:]]), dtype=whole.dtype
        )
    elif change == 3:
        parent.create_dataset(
            name, data=["a", "b\0c", "é"] if rng.random() < 0.5 else "word", dtype=h5py.string_dtype()
        )
    elif change == 4:
        parent.create_dataset(name, data=np.zeros(3, [("a", "f4"), ("b", "i8")]))
    elif change == 5:
        parent[name] = h5py.Empty("f4")
    elif change == 6:
        parent[name] = float(rng.choice((0, -1, np.nan, 1e300)))
    elif change == 7:
        parent.create_dataset(name, data=whole.T if whole.ndim > 1 else whole[:-1])
    elif change == 8:
        filled = np.full(whole.shape, rng.choice((np.nan, np.inf, -1.0, 1e300)), dtype="f8")
        parent.create_dataset(name, data=filled)
    elif change == 9:
        parent.create_dataset(
            name, data=rng.choice((2**62, -(2**62), -1, 10**9)) * np.ones(whole.shape, "i8")
        )
    elif change == 10:
        parent.create_dataset(
            name, data=np.array([np.zeros(2), np.zeros(3)], object), dtype=h5py.vlen_dtype("f8")
        )
    else:
        parent.create_dataset(name, data=whole[..., :0])
    for key, value in attributes.items():
        if name in parent and rng.random() < 0.8 and key not in ("DIMENSION_LIST", "REFERENCE_LIST"):
            parent[name].attrs[key] = value


def _pointed(parent: h5py.File, name: str, rng: random.Random) -> None:
    """Something that lies elsewhere, under the same name."""
    old = parent[name]
    shape = old.shape if isinstance(old, h5py.Dataset) and old.shape else (4,)
    del parent[name]
    change = rng.randrange(6)
    if change == 0:
        parent[name] = h5py.ExternalLink(rng.choice(("/etc/passwd", "../secret.h5", "missing.h5")), "/x")
    elif change == 1:
        parent[name] = h5py.SoftLink("/" + name)
    elif change == 2:
        parent[name] = h5py.SoftLink("/")
    elif change == 3:
        parent.create_dataset(
            name, shape=shape, dtype="u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )
    elif change == 4:
        layout = h5py.VirtualLayout(shape=shape, dtype="f4")
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape=shape)
        parent.create_virtual_dataset(name, layout)
    else:
        parent[name] = parent["/"]


def _tree(content: bytes, rng: random.Random) -> bytes:
    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        for _ in range(rng.choice((1, 1, 2))):
            names = _names(file)
            if not names:
                break
            name = rng.choice(names)
            change = rng.randrange(6)
            try:
                if change == 0:
                    del file[name]
                elif change < 4:
                    _replace(file, name, rng)
                else:
                    _pointed(file, name, rng)
            except (LookupError, ValueError, TypeError, RuntimeError, OSError, AttributeError):
                continue
    return stream.getvalue()


def _attributes(content: bytes, rng: random.Random) -> bytes:
    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        owners = [file, *(file[name] for name in _names(file))]
        owners = [owner for owner in owners if len(owner.attrs)] or [file]
        owner = rng.choice(owners)
        try:
            key = rng.choice(list(owner.attrs) or ["format"])
            if key in owner.attrs:
                del owner.attrs[key]
            if rng.random() < 0.8:
                owner.attrs[key] = rng.choice(_ATTRIBUTES)
        except (LookupError, ValueError, TypeError, RuntimeError, OSError):
            pass
    return stream.getvalue()


MUTATORS = {"hdf5": (_tree, _tree, _attributes)}
