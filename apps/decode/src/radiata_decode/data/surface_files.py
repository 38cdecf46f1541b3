"""Values on the vertices of a hemisphere: GIFTI, FreeSurfer's MGH, and NumPy arrays, each as (time or trial, vertex).

    lh.betas_session01.mgh                          (vertex, 1, 1, trial)
    sub-01_hemi-L_space-fsaverage5_bold.func.gii    one array a volume
    lh_training_fmri.npy                            (trial, vertex)

Vertices keep the numbers of the surface; `fsaverage5` has 10 242 a hemisphere, `fsaverage` 163 842, `fsLR` 32 492.

References:
    GIFTI surface data format, https://www.nitrc.org/projects/gifti. FreeSurfer's MGH format,
    https://surfer.nmr.mgh.harvard.edu.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_decode.data.reading import existing_file
from radiata_imaging.declared_images import check_gifti, check_image
from radiata_imaging.numpy_files import npy_array

__all__ = ["SURFACES", "load_array", "surface_length", "surface_series", "surface_values", "volume_interval"]

SURFACES: Mapping[str, str] = {"lh": "left", "rh": "right"}
"""FreeSurfer's word → the column `hemisphere` of a voxels table."""


def _open(path: Path) -> Any:
    import nibabel

    existing_file(path, "values on a surface")
    with foreign(f"expected values on a surface in {path}; got what cannot be read"):
        check_image(path)
        if path.name.lower().endswith(".gii"):
            check_gifti(path)
        return nibabel.load(path)


def surface_length(path: Path) -> tuple[int, int]:
    """Vertices and times of a file.

    Raises:
        InputError: not such a file.
    """
    if path.suffix == ".npy":
        shape = load_array(path, lazy=True).shape
        if len(shape) != 2:
            raise InputError(f"expected (trial, vertex) in {path}; got {shape}.")
        return int(shape[1]), int(shape[0])
    if path.name.endswith(".gii"):
        series = _gifti(_open(path), path)
        return series.shape[1], series.shape[0]
    shape = _mgh(path)[0]
    return int(np.prod(shape[:3])), int(shape[3]) if len(shape) > 3 else 1


def surface_series(path: Path) -> np.ndarray:
    """(time, vertex) float32.

    Raises:
        InputError: not such a file, or one that is cut short.
    """
    if path.suffix == ".npy":
        return np.asarray(load_array(path), np.float32)
    if path.name.endswith(".gii"):
        return _gifti(_open(path), path)
    vertices, count = surface_length(path)
    return np.ascontiguousarray(_mgh(path, values=True)[1].reshape(vertices, count, order="F").T, np.float32)


def _mgh(path: Path, values: bool = False) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape, and the values if asked for, of an MGH file; nibabel's own reader leaves the file open."""
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.openers import ImageOpener

    existing_file(path, "values on a surface")
    try:
        check_image(path)
        with ImageOpener(str(path), "rb") as stream:
            header = MGHHeader.from_fileobj(stream)
            shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
            if not values:
                return shape, np.empty(0, np.float32)
            size = int(np.prod(shape)) * dtype.itemsize
            stream.seek(header.get_data_offset())
            content = stream.read(size)
    except InputError:
        raise
    except Exception as error:  # a broken header raises what its bytes happen to mean
        raise InputError(
            f"expected values on a surface in {path}; got what cannot be read ({' '.join(str(error).split())[:120]}). "
            "Copy it again."
        ) from None
    if len(content) < size:
        raise InputError(
            f"expected {size} bytes of values in {path}; got {len(content)}. It is cut short: copy it again."
        )
    return shape, np.frombuffer(content, dtype)


def surface_values(path: Path, vertices: int) -> np.ndarray:
    """One value a vertex, (vertex,) float32.

    Raises:
        InputError: another surface, or more than one time.
    """
    series = surface_series(path)
    if series.shape != (1, vertices):
        raise InputError(
            f"expected one value for each of {vertices} vertices in {path}; got {series.shape[0]} × "
            f"{series.shape[1]}. Is it of another surface?"
        )
    return series[0]


def volume_interval(path: Path) -> float:
    """Seconds between the arrays of a GIFTI file, 0 if it does not say."""
    image = _open(path)
    with foreign(f"expected a TimeStep in ms, or none, in {path}; got something else"):
        return _step(image)


def _step(image: Any) -> float:
    step = (
        dict(getattr(image.darrays[0], "meta", {}) or {}).get("TimeStep")
        if getattr(image, "darrays", None)
        else None
    )
    return float(step) / 1000 if step else 0.0  # GIFTI counts milliseconds


def _gifti(image: Any, path: Path) -> np.ndarray:
    arrays = [array.data for array in getattr(image, "darrays", [])]
    if not arrays or any(
        array is None or array.ndim < 1 or array.dtype.kind not in "fiu" or array.shape != arrays[0].shape
        for array in arrays
    ):
        raise InputError(
            f"expected arrays of one length in {path}; got {len(arrays)}. Is it a surface, not its data?"
        )
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return np.ascontiguousarray(arrays[0].T, np.float32)
    return np.stack(arrays).astype(np.float32)


def load_array(path: Path, lazy: bool = False) -> np.ndarray:
    """The array of a .npy file; lazily, only what is used of it is read.

    Raises:
        InputError: no such file, not numbers, or one that is cut short.
    """
    existing_file(path, "an array")
    with foreign(f"expected an array of numbers in {path}; got what cannot be read", "Save it again."):
        found = npy_array(path, lazy=lazy)
    if not isinstance(found, np.ndarray) or not np.issubdtype(found.dtype, np.number):
        raise InputError(
            f"expected an array of numbers in {path}; got {getattr(found, 'dtype', 'an archive')}."
        )
    return found
