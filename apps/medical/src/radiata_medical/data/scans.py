"""Scans in: which files a folder holds, what each is, where its results go.

A *case* is one scan: a file, a DICOM folder, or one image of a BIDS tree with any of the weighted contrasts. Cases keep
their place: the results of `sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz` go to the same folder below `--out`, named as BIDS
derivatives are (`..._desc-restored_FLAIR.nii.gz`); those of any other file beside it with a suffix (`head_restored.nii.gz`).

`read_scan` refuses what is no scan. A label map is told from an image by its neighbours: of neighbouring voxels that are not
0, more than six in seven are equal in label maps of whole heads (16 of them), and one in eight at most in 8-bit images (5 of
them), however few grey levels there are.

References:
    BIDS derivatives, https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html (names).
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener

from radiata_core.errors import InputError
from radiata_imaging.bids import find_scans, is_bids
from radiata_imaging.nifti import SUFFIXES, open_image, read_volume
from radiata_imaging.volume import Volume, axis_codes, times
from radiata_medical.data.label_reading import like_labels

__all__ = ["CONTRASTS", "Case", "case_of", "find_cases", "output_path", "read_mask", "read_scan", "same_grid"]

CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "PDT2", "inplaneT1", "inplaneT2", "UNIT1", "angio")
"""Suffixes of anatomical images in a BIDS tree."""

_LABEL_SUFFIXES = ("dseg", "probseg", "mask")
_SAME = 1e-3  # of a voxel: how far two grids that count as one may lie apart


@dataclass(frozen=True)
class Case:
    """One scan.

    Attributes:
        name: Its file's name without `.nii.gz`.
        path: The file, or the DICOM folder.
        relative: Folder of the file below the source, `.` for a single file; results go there below `--out`.
        bids: Whether results are named as BIDS derivatives.
    """

    name: str
    path: Path
    relative: Path
    bids: bool = False


def find_cases(source: Path | str) -> tuple[Case, ...]:
    """The scans of a file, a folder of volumes, a BIDS tree or DICOM folders, in the order of their paths.

    Raises:
        InputError: nothing there, or no scan in it.
    """
    source = Path(source)
    if source.is_file():
        if not source.name.lower().endswith(SUFFIXES):
            raise InputError(
                f"expected a scan ({' '.join(SUFFIXES)}), a folder, a BIDS tree or a DICOM folder; got {source}. "
                "Convert the file first."
            )
        return (case_of(source, source.parent),)
    if not source.exists():
        raise InputError(
            f"expected a scan, a folder, a BIDS tree or a DICOM folder; got nothing at {source}. "
            "Check the path."
        )
    bids = is_bids(source, CONTRASTS)
    cases = tuple(case_of(entry.path, source, bids) for entry in find_scans(source, CONTRASTS).entries)
    places = Counter((case.relative, _said(case)) for case in cases)
    for (relative, name), count in places.items():
        if count == 1:
            continue
        here = sorted({case.name for case in cases if (case.relative, _said(case)) == (relative, name)})
        if len(here) > 1:
            raise InputError(
                f"expected one scan of a name and contrast in a folder; got {' and '.join(here[:3])} in "
                f"{source / relative}, whose results would have one name. Give one file instead of the folder."
            )
        raise InputError(
            f"expected one file of a name in a folder; got {count} called {name} in {source / relative}, whose results "
            "would have one name. Rename or remove the copies."
        )
    return cases


def case_of(path: Path, source: Path, bids: bool = False) -> Case:
    """The case of one file below a source folder."""
    inside = path == source
    relative = Path() if inside else path.parent.relative_to(source)
    return Case(_stem(path), path, relative, bids)


def _said(case: Case) -> str:
    """Whose scan it is: in a BIDS tree without `desc`, which a result says anew and BIDS allows once."""
    return re.sub(r"_desc-[a-zA-Z0-9]+(?=_)", "", case.name) if case.bids else case.name


def output_path(out: Path | str, case: Case, suffix: str, extension: str = ".nii.gz") -> Path:
    """Where a result of a case goes below `out`.

    | suffix | plain folder | BIDS tree |
    |---|---|---|
    | `restored` | `head_restored.nii.gz` | `sub-01_desc-restored_T1w.nii.gz` |
    | `dseg` (`probseg`, `mask`) | `head_dseg.nii.gz` | `sub-01_desc-T1w_dseg.nii.gz` |

    A `desc` of the scan itself (`sub-01_desc-preproc_T1w`) is not kept: BIDS allows one.

    Args:
        out: Folder of the results.
        case: Whose result.
        suffix: What it is, one word.
        extension: Of the file, with its dot.
    """
    stem, contrast = case.name, ""
    if case.bids:
        stem, _, contrast = _said(case).rpartition("_")
    word = re.sub(r"[^a-zA-Z0-9]", "", suffix)
    if not (case.bids and stem):
        name = f"{case.name}_{suffix}"
    elif suffix in _LABEL_SUFFIXES:
        name = f"{stem}_desc-{contrast}_{suffix}"
    else:
        name = f"{stem}_desc-{word}_{contrast}"
    return Path(out) / case.relative / (name + extension)


def read_scan(path: Path | str, *, assume_axcodes: str | None = None) -> Volume:
    """The volume in a file or DICOM folder, known to be an image; a single slice has one voxel along an axis.

    Args:
        path: File or folder.
        assume_axcodes: Orientation to take when the header carries none, such as `RAS`.

    Raises:
        InputError: as `radiata_imaging.nifti.read_volume` (missing, truncated, 4-D, NaN, no orientation, all zero); a
            negative spacing; a label map.
    """
    path = Path(path)
    if path.is_file():
        _require_spacing(path)
    volume = read_volume(path, assume_axcodes=assume_axcodes, min_axis=1)
    if sum(n > 1 for n in volume.shape) < 2:
        raise InputError(
            f"expected an image of two axes or three; got {times(volume.shape)} in {path}. Is it a line?"
        )
    if like_labels(volume.array):
        raise InputError(
            f"expected an image; got whole numbers that are equal over regions, {np.unique(volume.array).size} of them, as "
            f"in a label map, in {path}. Give the scan it was made from."
        )
    return volume


def same_grid(
    first: Volume, second: Volume, names: tuple[str, str] = ("the scan", "the other volume")
) -> None:
    """Two volumes have the same voxels in the same places, to a thousandth of a voxel.

    Args:
        first: One.
        second: The other.
        names: What to call them in the message.

    Raises:
        InputError: their shapes or places differ.
    """
    corners = _corners(first.shape)
    apart = np.abs(corners @ (first.affine - second.affine).T).max()
    if first.shape != second.shape or apart > _SAME * min(first.spacing):
        raise InputError(
            f"expected {names[0]} and {names[1]} on one grid; got {_grid(first)} and {_grid(second)}"
            + (f", {apart:.3g} mm apart" if first.shape == second.shape else "")
            + ". Resample one to the other."
        )


def read_mask(path: Path | str, scan: Volume, *, assume_axcodes: str | None = None) -> np.ndarray:
    """A binary mask on the grid of a scan, bool (x, y, z).

    Args:
        path: Of the mask.
        scan: On whose grid it lies.
        assume_axcodes: As `read_scan`.

    Raises:
        InputError: it cannot be read, lies outside of the scan or on another grid, is empty, full, or not binary.
    """
    mask = read_volume(path, assume_axcodes=assume_axcodes, allow_constant=True, min_axis=1)
    values = np.unique(mask.array)
    if len(values) > 2 or (values[0] != 0 and len(values) == 2) or values[0] < 0:
        raise InputError(
            f"expected a mask of 0 and one other value; got {len(values)} values, {values[0]:g} to {values[-1]:g}, "
            f"in {path}. Threshold it, or choose one label."
        )
    inside = mask.array > 0
    if not inside.any():
        raise InputError(f"expected a mask that marks something; got an empty one: {path}. Check the label.")
    if not _meet(inside, mask.affine, scan):
        raise InputError(
            f"expected a mask within the scan; got one that lies outside of its field of view: {path}. "
            "It belongs to another scan, or its header is wrong."
        )
    same_grid(scan, mask, ("the scan", f"the mask {path}"))
    return inside


def _require_spacing(path: Path) -> None:
    """The header's own numbers: nibabel makes them positive when it loads a file."""
    kind = type(open_image(path, min_axis=1).header)
    if not issubclass(kind, nib.Nifti1Header):
        return
    with ImageOpener(path) as file:
        header = kind.from_fileobj(file, check=False)
    edges = [float(edge) for edge in header["pixdim"][1:4]]
    if not all(np.isfinite(edge) and edge > 0 for edge in edges):
        raise InputError(
            f"expected voxel spacings > 0; got {', '.join(f'{edge:g}' for edge in edges)} in the header of {path}. "
            "Repair its pixdim."
        )


def _meet(inside: np.ndarray, affine: np.ndarray, scan: Volume) -> bool:
    """Whether any marked voxel lies within the field of view of the scan."""
    marked = np.argwhere(inside)
    places = np.c_[marked, np.ones(len(marked))] @ (np.linalg.inv(scan.affine) @ affine).T
    within = (places[:, :3] > -0.5) & (places[:, :3] < np.asarray(scan.shape) - 0.5)
    return bool(within.all(1).any())


def _corners(shape: tuple[int, int, int]) -> np.ndarray:
    """Homogeneous indices of the eight corners, (8, 4)."""
    ends = [(0, n - 1) for n in shape]
    return np.array([(i, j, k, 1) for i in ends[0] for j in ends[1] for k in ends[2]], dtype=np.float64)


def _grid(volume: Volume) -> str:
    spacing = times(np.round(volume.spacing, 4))
    return f"{times(volume.shape)} voxels of {spacing} mm, {axis_codes(volume.affine)}"


def _stem(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name
