r"""Real k-space: files in, coils, what was sampled, how noisy it is.

| file | content |
|---|---|
| `.npy` | complex (coil, i, j) or (coil, i, j, k); (i, j) is one coil |
| `.h5` | data set `kspace`, complex (coil, i, j), or (slice, coil, i, j) as in fastMRI; also `sensitivities` or `maps` |

Files have the zero frequency, and the origin of the image, in the middle, at n // 2. Operators have the origin at voxel 0
(`fourier_sampling`): k-space is multiplied by exp(-2 pi i k (n // 2)/n) once, here. A sample is one that is not 0.

k-space says nothing about where the head was: `axcodes` names the way the array's axes run.

References:
    Knoll et al., "fastMRI", 2020, https://doi.org/10.1148/ryai.2020190007 (the layout of the files).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.numpy_files import npy_array
from radiata_imaging.volume import times

__all__ = ["KSPACE_SUFFIXES", "KSpaceData", "find_kspace", "is_kspace", "read_kspace"]

KSPACE_SUFFIXES = (".npy", ".h5", ".hdf5")
_WORLD = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


@dataclass(frozen=True, eq=False)
class KSpaceData:
    """The k-space of one slice or volume.

    Attributes:
        kspace: complex64 (coil, *space), zero frequency in the middle, origin of the image at voxel 0; 0 where not measured.
        mask: True where measured, bool (*space).
        sensitivities: complex64 (coil, *space), or None: not known.
        codes: Which way each axis of space runs, such as "PL".
    """

    kspace: np.ndarray
    mask: np.ndarray
    sensitivities: np.ndarray | None
    codes: str

    @property
    def acceleration(self) -> float:
        """Voxels over samples."""
        return float(self.mask.size / self.mask.sum())


def is_kspace(path: Path) -> bool:
    """Whether the name ends like a file of k-space."""
    return path.suffix.lower() in KSPACE_SUFFIXES


def find_kspace(source: Path) -> tuple[Path, ...]:
    """The files of k-space of a folder, or the file itself; none if there is none."""
    if source.is_dir():
        return tuple(
            sorted(p for p in source.rglob("*") if p.is_file() and is_kspace(p) and p.name[0] != ".")
        )
    return (source,) if source.is_file() and is_kspace(source) else ()


def read_kspace(path: Path, axcodes: str = "", sensitivities: Path | None = None) -> tuple[KSpaceData, ...]:
    """The k-space of each slice (or of the volume) in a file.

    Args:
        path: Of the file.
        axcodes: Which way the axes of space run; empty: "PL" for slices, "LPS" for volumes.
        sensitivities: Complex (coil, *space) in a .npy or .h5 file; None: those of the file itself, if any.

    Raises:
        InputError: it cannot be read, is not complex, not finite, or 0; axes or coils do not fit.
    """
    found = _read(path, ("kspace",))
    stack = path.suffix.lower() != ".npy" and found.ndim == 4
    if found.ndim == 2:
        found = found[None]
    if found.ndim not in (3, 4):
        raise InputError(
            f"expected k-space of (coil, i, j) or (coil, i, j, k); got {times(found.shape)} in {path}. "
            "Reorder its axes, coils first."
        )
    maps = None
    if sensitivities is not None:
        maps = _read(sensitivities, ("sensitivities", "maps", "kspace"))
    elif path.suffix.lower() != ".npy":
        maps = _read(path, ("sensitivities", "maps"), required=False)
    items = list(found) if stack else [found]
    space = items[0].ndim - 1
    codes = (axcodes or {2: "PL", 3: "LPS"}[space]).upper()
    if (
        len(codes) != space
        or len({_WORLD.get(code, code) for code in codes}) != space
        or not set(codes) <= set(_WORLD)
    ):
        raise InputError(
            f"expected --axcodes of {space} different axes such as {'PL' if space == 2 else 'LPS'}; got {codes!r}. "
            "One letter out of L R A P S I for each axis."
        )
    return tuple(
        _checked(item, _of_slice(maps, index, stack), codes, path) for index, item in enumerate(items)
    )


def _checked(kspace: np.ndarray, maps: np.ndarray | None, codes: str, path: Path) -> KSpaceData:
    if not np.isfinite(kspace).all():
        raise InputError(
            f"expected finite k-space; got NaN or infinity in {path}. Write 0 where nothing was measured."
        )
    mask = np.abs(kspace).sum(0) > 0
    if not mask.any():
        raise InputError(f"expected k-space with samples; got zeros everywhere in {path}. Export it again.")
    if maps is not None and maps.shape != kspace.shape:
        raise InputError(
            f"expected sensitivities of the {len(kspace)} coils of the k-space, {times(kspace.shape)}; got "
            f"{len(maps)} coils, {times(maps.shape)}. Use the maps of this scan."
        )
    moved = kspace.astype(np.complex64)
    for axis in range(1, kspace.ndim):
        moved = moved * _phase(kspace.shape[axis], kspace.shape[axis] // 2, axis, kspace.ndim)
    return KSpaceData(
        moved.astype(np.complex64), mask, None if maps is None else maps.astype(np.complex64), codes
    )


def _phase(length: int, shift: int, axis: int, ndim: int) -> np.ndarray:
    """exp(-2 pi i k shift/n) along an axis, zero frequency in the middle."""
    k = np.arange(length) - length // 2
    return np.exp(-2j * np.pi * k * shift / length).reshape([length if i == axis else 1 for i in range(ndim)])


def _of_slice(maps: np.ndarray | None, index: int, stack: bool) -> np.ndarray | None:
    """The maps of one slice: of a stack of them, or the same for all."""
    return maps[index] if maps is not None and stack and maps.ndim == 4 and index < len(maps) else maps


def _read(path: Path, names: tuple[str, ...], required: bool = True) -> Any:
    """A complex array of a `.npy` or `.h5` file; real ones of a last axis of 2 are pairs of real and imaginary parts."""
    if not path.is_file():
        raise InputError(f"expected a file of k-space (.npy, .h5); got nothing at {path}. Check the path.")
    try:
        if path.suffix.lower() == ".npy":
            found = npy_array(path)
        else:
            from radiata_imaging.hdf5 import open_hdf5, whole_array

            with open_hdf5(path) as file:
                name = next((name for name in names if name in file), None)
                if name is None and not required:
                    return None
                if name is None:
                    raise InputError(
                        f"expected a data set {' or '.join(names)}; got {', '.join(sorted(file)) or 'none'} in {path}. "
                        "Convert raw ISMRMRD acquisitions to an array first."
                    )
                found = whole_array(file[name])
    except InputError:
        raise
    except Exception as error:  # a broken header raises what its bytes happen to mean
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"expected a file of k-space (.npy, .h5); got {reason} in {path}. Copy it again."
        ) from None
    found = np.asarray(found)
    if found.dtype.kind == "f" and found.ndim > 2 and found.shape[-1] == 2:
        found = found[..., 0] + 1j * found[..., 1]
    if found.dtype.kind != "c":
        raise InputError(
            f"expected complex k-space; got {found.dtype} of {times(found.shape)} in {path}. Is it an image?"
        )
    return found
