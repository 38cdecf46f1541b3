"""Volumes in files: NIfTI, MGZ and DICOM folders in; NIfTI-1 with an honest header out.

Reading applies the file's slope and intercept and gives float32. What cannot be read faithfully is refused in one
line: a header without an orientation, intensities that float32 cannot hold, a series where one volume is expected.

Writing puts a network's value v on a **fixed** scale, the same for every file, so that volumes stay comparable:

    intensity = 1000 (v − low)/(high − low),    stored = round(intensity / slope),
    slope = 1/32 (int16), 1/64 (uint16).

The slopes are powers of two, so `stored · slope` is exact in float32: reading a file gives k/32 (or k/64) to the bit,
and writing what was read gives the same bytes. The error is at most slope/2, 1/64 (or 1/128) on the scale of 1000.
float32 files hold the intensity itself, unquantised.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from radiata_core.errors import InputError
from radiata_core.runs import atomic_path
from radiata_imaging.declared_images import check_image
from radiata_imaging.volume import Volume, centred_affine, check_affine, times

__all__ = [
    "SUFFIXES",
    "Intensity",
    "image_affine",
    "is_volume_path",
    "open_image",
    "read_volume",
    "sidecar_path",
    "write_volume",
]

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
MAX_VOXELS = 2**30
MIN_AXIS = 4
EXACT_INTEGER = 2**24  # beyond it float32 skips integers
_SLOPES = {"int16": 1 / 32, "uint16": 1 / 64}
_BROKEN = (EOFError, OSError, zlib.error, ValueError, OverflowError, KeyError, MemoryError)


@dataclass(frozen=True)
class Intensity:
    """The fixed scale of exported intensities: `low` becomes 0 and `high` becomes `top`.

    Attributes:
        low: Network value of background.
        high: Network value of the brightest tissue.
        top: Intensity written for `high`; at most 1000, so that the integer types keep their headroom.
    """

    low: float = -1.0
    high: float = 1.0
    top: float = 1000.0

    def to_file(self, values: np.ndarray) -> np.ndarray:
        """Network values as file intensities: top (v − low)/(high − low)."""
        return (np.asarray(values, dtype=np.float64) - self.low) * (self.top / (self.high - self.low))

    def from_file(self, intensities: np.ndarray) -> np.ndarray:
        """File intensities as network values, float32."""
        values = np.asarray(intensities, dtype=np.float64) * ((self.high - self.low) / self.top) + self.low
        return values.astype(np.float32)


def is_volume_path(path: Path) -> bool:
    """Whether the name ends like a volume that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def sidecar_path(path: Path) -> Path:
    """The `.json` beside an exported volume."""
    name = path.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return path.with_name(name[: -len(suffix)] + ".json")
    return path.with_suffix(".json")


def read_volume(
    path: Path | str,
    *,
    assume_axcodes: str | None = None,
    allow_constant: bool = False,
    min_axis: int = MIN_AXIS,
) -> Volume:
    """The volume in a `.nii`, `.nii.gz`, `.mgz`, `.mgh` file or in a folder with one DICOM series.

    Args:
        path: File or folder.
        assume_axcodes: Orientation (such as `RAS`) to take when the header carries none; the origin is then
            the middle of the grid. Left out, such a file is refused: left and right would be a guess.
        allow_constant: Accept a volume with one single intensity (an empty mask); an image of that kind is
            refused.
        min_axis: Fewest voxels along each axis; 1 accepts a single slice, also one that is stored with two axes.

    Raises:
        InputError: missing, empty, truncated or not the format its name says; not 3-D (a trailing axis of
            length 1 is accepted); NaN, Inf or beyond float32; no orientation or a singular affine; constant;
            absurd size.
    """
    path = Path(path)
    if path.is_dir():
        from radiata_imaging.dcm2niix import is_asked_for, read_with_dcm2niix
        from radiata_imaging.dicom import read_dicom_folder

        volume = read_with_dcm2niix(path).volume if is_asked_for() else read_dicom_folder(path)
    else:
        image = open_image(path, min_axis=min_axis)
        affine = image_affine(image, path, assume_axcodes)
        array = _intensities(image, path)
        array = array.reshape((*array.shape, 1)[:3], order="A")
        nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nan or infinite:
            raise InputError(
                f"expected finite intensities within float32; got {nan} NaN and {infinite} infinite or "
                "overflowing "
                f"voxels in {path}. Replace or rescale them first."
            )
        volume = Volume(array, affine)
    if not allow_constant and volume.array.max() == volume.array.min():
        raise InputError(
            f"expected an image; got the constant {volume.array.flat[0]:g} in every voxel of {path}. Export "
            "it again."
        )
    return volume


def open_image(path: Path, *, min_axis: int = MIN_AXIS) -> Any:
    """The nibabel image with a checked header; intensities are not read yet.

    Args:
        path: Of the file.
        min_axis: Fewest voxels along each axis; 1 accepts a slice of two axes as well.

    Raises:
        InputError: missing, empty, not the format its name says, a header that lies about size, or not 3-D.
    """
    if not path.exists():
        raise InputError(f"expected a volume file; got no such file: {path}. Check the path.")
    if not is_volume_path(path):
        raise InputError(
            f"expected one of {' '.join(SUFFIXES)}, or a DICOM folder; got {path}. Convert the file first."
        )
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"expected a volume; got an empty (0-byte) file {path}. Copy it again.")
    compressed = path.name.lower().endswith(("gz",))
    with path.open("rb") as file:
        head = file.read(2)
    if compressed and head != b"\x1f\x8b":
        raise InputError(
            f"expected gzip data; got a file that begins with {head!r} in {path}. It is not compressed "
            "(rename it to "
            ".nii) or not an image at all."
        )
    try:
        check_image(path)
        if path.name.lower().endswith(
            ".mgh"
        ):  # nibabel leaves the uncompressed file open; bytes have nothing to close
            image: Any = nib.MGHImage.from_bytes(path.read_bytes())
        else:
            image = nib.load(path)
        shape = tuple(int(n) for n in image.shape)
        itemsize = image.header.get_data_dtype().itemsize
    except InputError:
        raise
    except Exception as error:  # nibabel raises many kinds on broken headers; the user needs one line
        raise InputError(_broken(path, error)) from None
    if min_axis == 1 and len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise InputError(
            f"expected one 3-D volume; got {times(shape)} in {path}. Take one volume of the series (fslroi, "
            "nib-roi)."
        )
    if min(shape[:3]) < min_axis or int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise InputError(
            f"expected {min_axis} or more voxels an axis and at most {MAX_VOXELS:,} in all; got "
            f"{times(shape)} in {path}. "
            "The header is broken or the file is not a head."
        )
    needed = int(np.prod(shape, dtype=object)) * itemsize
    if not compressed and size < needed:
        raise InputError(
            f"expected {needed:,} bytes of voxels; got a file of {size:,} in {path}. It is truncated: copy "
            "it again."
        )
    return image


def _broken(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:140] or type(error).__name__
    return f"expected a readable volume; got {reason} in {path}. It is truncated or damaged."


def image_affine(image: Any, path: Path, assume_axcodes: str | None = None) -> np.ndarray:
    """Voxel index to world (RAS, mm), float64 (4, 4), from the header of an opened image.

    Raises:
        InputError: the header carries no orientation (and none is assumed), or a singular affine.
    """
    header = image.header
    if isinstance(image, nib.Nifti1Pair):
        known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    else:
        known = _mgh_orientation(path)
    if not known:
        if assume_axcodes is None:
            raise InputError(
                f"expected an orientation; got a header without sform and qform in {path}. If you know it, "
                "name it: "
                "--assume-axcodes RAS (or LPS …), assume_axcodes='RAS' in Python."
            )
        zooms = [float(zoom) for zoom in header.get_zooms()[:3]]
        zooms = [*zooms, 1.0][:3]
        return centred_affine((*image.shape, 1)[:3], zooms, assume_axcodes)
    affine = np.asarray(image.affine, dtype=np.float64)
    if isinstance(image, nib.Nifti1Pair):
        affine = np.diag([_millimetres(header)] * 3 + [1.0]) @ affine
    return check_affine(affine, str(path))


def _mgh_orientation(path: Path) -> bool:
    """goodRASFlag, big-endian int16 at byte 28; nibabel fills in a default and sets it, so it is read from the file."""
    with gzip.open(path) if path.name.lower().endswith("gz") else path.open("rb") as file:
        return int.from_bytes(file.read(30)[28:], "big", signed=True) > 0


def _millimetres(header: Any) -> float:
    """Millimetres in one unit of length of a NIfTI header; unknown is taken for mm, as every tool does."""
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    return {"meter": 1000.0, "micron": 1e-3}.get(unit, 1.0)


def _intensities(image: Any, path: Path) -> np.ndarray:
    dtype = image.header.get_data_dtype()
    if dtype.kind not in "iufb":
        raise InputError(
            f"expected grey levels; got voxels of type {dtype} in {path}. Convert colour or complex data."
        )
    try:
        raw = np.asanyarray(image.dataobj.get_unscaled())
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    except _BROKEN as error:
        raise InputError(_broken(path, error)) from None
    scaled = (slope, intercept) != (1.0, 0.0)
    if raw.dtype.kind in "iu" and raw.dtype.itemsize >= 4 and not scaled:
        extreme = max(abs(int(raw.min())), abs(int(raw.max())))
        if extreme > EXACT_INTEGER:
            raise InputError(
                f"expected integers up to {EXACT_INTEGER:,} (exact in float32); got {extreme:,} "
                f"({raw.dtype}) in {path}. "
                "Rescale the intensities or save them as float32."
            )
    with np.errstate(over="ignore", invalid="ignore"):
        if scaled:
            return (raw.astype(np.float64) * slope + intercept).astype(np.float32)
        return raw.astype(np.float32)


def write_volume(
    path: Path | str,
    volume: Volume,
    *,
    description: str = "",
    sidecar: Mapping[str, Any] | None = None,
    dtype: str = "int16",
    intensity: Intensity | None = None,
) -> Path:
    """The path of a NIfTI-1 file (`.nii` or `.nii.gz`) written whole or not at all, with its `.json` sidecar.

    The header says where it is twice (sform and qform, both code 1), in millimetres, and what it is
    (`descrip`).

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        volume: What is written. Its affine must be free of shear for the qform to agree with the sform.
        description: Up to 79 bytes for the header's `descrip`, such as `synthetic, radiata-t1, seed 7`.
        sidecar: More keys for the sidecar; None writes no sidecar.
        dtype: `int16`, `uint16` or `float32`.
        intensity: The fixed scale of network values (values outside [low, high] are clipped, the fraction is
            recorded); None writes the array's own values, for which an integer type needs whole numbers.

    Raises:
        InputError: unknown type or suffix, too long a description, values the type cannot hold.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"expected a name ending in .nii or .nii.gz; got {path.name}. Rename the output.")
    if dtype not in ("int16", "uint16", "float32"):
        raise InputError(f"expected dtype int16, uint16 or float32; got {dtype!r}. Choose one of them.")
    if len(description.encode()) > 79:
        raise InputError(
            f"expected a description of at most 79 bytes; got {len(description.encode())}. Shorten it."
        )
    stored, slope, clipped = _stored(volume, dtype, intensity)
    image = nib.Nifti1Image(stored, volume.affine)
    header: Any = image.header
    header.set_data_dtype(np.dtype(dtype))
    header.set_slope_inter(slope, 0.0)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = description.encode()
    header["cal_min"], header["cal_max"] = (0.0, intensity.top) if intensity else (stored.min(), stored.max())
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1, strip_shears=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "Description": description,
        "SpatialUnit": "mm",
        "VoxelSpacing": list(volume.spacing),
        "AxisCodes": volume.axcodes,
        "DataType": dtype,
    }
    if intensity is not None:
        facts["IntensityMap"] = asdict(intensity) | {
            "Formula": "intensity = top (value - low) / (high - low)",
            "StoredSlope": slope,
            "ClippedFraction": clipped,
        }
    card = None
    if sidecar is not None:
        told = json.loads(json.dumps(facts | dict(sidecar)))
        card = sidecar_path(path), lambda part: told
    with atomic_path(path, card) as temporary:
        _save(image, temporary, compressed=path.name.endswith(".gz"))
    return path


def _save(image: Any, path: Path, *, compressed: bool) -> None:
    """Bytes that depend on the image alone: no file name and no time stamp in the gzip header."""
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data, compresslevel=4, mtime=0) if compressed else data)


def _stored(volume: Volume, dtype: str, intensity: Intensity | None) -> tuple[np.ndarray, float, float]:
    kind = np.dtype(dtype)
    if intensity is None:
        if kind.kind == "f":
            return volume.array, 1.0, 0.0
        limits = np.iinfo(kind)
        low, high = float(volume.array.min()), float(volume.array.max())
        if low < limits.min or high > limits.max or not np.array_equal(volume.array, np.rint(volume.array)):
            raise InputError(
                f"expected whole numbers in {limits.min}..{limits.max} for {dtype}; got {low:g}..{high:g}, "
                "or fractions. "
                "Write float32, or give the intensity scale."
            )
        return volume.array.astype(kind), 1.0, 0.0
    outside = (volume.array < intensity.low) | (volume.array > intensity.high)
    values = intensity.to_file(np.clip(volume.array, intensity.low, intensity.high))
    slope = _SLOPES.get(dtype, 1.0)
    quantised = values if kind.kind == "f" else np.rint(values / slope)
    return quantised.astype(kind), slope, float(outside.mean())
