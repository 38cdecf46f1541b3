"""What a file's header says, and what a reader of the table should be warned of, before a single voxel is read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from radiata_imaging.nifti import image_affine, open_image
from radiata_imaging.volume import axis_codes, spacing_of, times

__all__ = ["HeaderFacts", "checksum", "header_table", "inspect_header"]

_COARSE = 1.2  # mm; MedForJ's limit for training data
_THICK = 2.0  # ratio of edges
_OBLIQUE = 15.0  # degrees
_DISAGREE = 1.0  # mm between sform and qform anywhere in the grid


@dataclass(frozen=True)
class HeaderFacts:
    """A header in one row of a table.

    Attributes:
        shape: Voxels along each axis.
        spacing: Voxel edges in mm.
        axcodes: Direction in which the indices grow.
        dtype: Type of the stored voxels.
        warnings: What deserves a look; the file can be used all the same.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axcodes: str
    dtype: str
    warnings: tuple[str, ...] = ()


def inspect_header(path: Path, *, assume_axcodes: str | None = None) -> HeaderFacts:
    """Facts of a volume file without reading its voxels; of a DICOM folder by reading it.

    Raises:
        InputError: see `read_volume`, as far as the header tells.
    """
    if path.is_dir():
        from radiata_imaging.dicom import read_dicom_folder

        volume = read_dicom_folder(path)
        return HeaderFacts(volume.shape, volume.spacing, volume.axcodes, "dicom", _warnings(volume.affine))
    image = open_image(path)
    affine = image_affine(image, path, assume_axcodes)
    warnings = list(_warnings(affine))
    if isinstance(image, nib.Nifti1Image):
        warnings += _disagreement(image)
    shape = tuple(int(n) for n in image.shape[:3])
    dtype = str(image.header.get_data_dtype())
    return HeaderFacts(shape, tuple(spacing_of(affine).tolist()), axis_codes(affine), dtype, tuple(warnings))


def _warnings(affine: np.ndarray) -> tuple[str, ...]:
    found = []
    spacing = spacing_of(affine)
    if spacing.max() > _COARSE:
        found.append(f"voxels coarser than {_COARSE:g} mm")
    if spacing.max() / spacing.min() > _THICK:
        found.append("anisotropic voxels")
    directions = affine[:3, :3] / spacing
    angle = np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), -1, 1))).max()
    if angle > _OBLIQUE:
        found.append(f"oblique by {angle:.0f}°")
    if np.abs(directions.T @ directions - np.eye(3)).max() > 1e-3:
        found.append("sheared axes")
    return tuple(found)


def _disagreement(image: nib.Nifti1Image) -> list[str]:
    """sform and qform that put the same voxel at different places: tools will disagree on left and right or on position."""
    sform, s_code = image.get_sform(coded=True)
    try:
        qform, q_code = image.get_qform(coded=True)
    except ValueError:  # quaternions of no rotation
        return ["qform that is no rotation (sform used)"]
    if not s_code or not q_code:
        return []
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.asarray(image.shape[:3]) - 1
    distance = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    return [f"sform and qform disagree by {distance:.1f} mm (sform used)"] if distance > _DISAGREE else []


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def header_table(rows: Sequence[tuple[str, str, HeaderFacts | str]]) -> str:
    """A table for people: subject, split and facts, or the reason why there are none.

    Args:
        rows: Subject, split, and facts or a message.
    """
    header = ("subject", "split", "shape", "spacing mm", "axes", "type", "warnings")
    cells = [header]
    for subject, split, facts in rows:
        if isinstance(facts, str):
            cells.append((subject, split, "–", "–", "–", "–", facts))
            continue
        spacing, warnings = times(np.round(facts.spacing, 3)), "; ".join(facts.warnings) or "–"
        cells.append((subject, split, times(facts.shape), spacing, facts.axcodes, facts.dtype, warnings))
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]])
        for row in cells
    )
