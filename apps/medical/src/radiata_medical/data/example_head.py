"""The head that comes with the package: what the demo restores and segments, and a scan to try a command on.

Colin27 is a mean of 27 scans of one man: real, with skull, less noisy than any single scan, in no training set here.
"""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume

__all__ = ["cut_block", "example_head", "lesion_mask"]

_LEAST_EDGE = 24  # mm
_HOLE = (-26.0, -18.0, 24.0)  # mm, RAS: white matter beside the left ventricle
_RADIUS = 12.0  # mm: 7.2 ml, near the median of strokes


def example_head() -> Path:
    """Colin27 at 1 mm, 181 x 217 x 181; NOTICE.md beside it."""
    with as_file(files("radiata_medical") / "example") as folder:
        return folder / "colin27.nii.gz"


def cut_block(head: Volume, edge: float) -> Volume:
    """A cube around the middle of the volume, every voxel left in its place in the world; the whole for an edge of 0.

    Args:
        head: The volume.
        edge: Of the cube, mm, 0 or at least 24.

    Raises:
        InputError: an edge that is too short.
    """
    if edge == 0:
        return head
    if not edge >= _LEAST_EDGE:
        raise InputError(
            f"expected a block of 0 (the whole head) or at least {_LEAST_EDGE} mm; got {edge:g}."
        )
    keep = [min(n, round(edge / size)) for n, size in zip(head.shape, head.spacing, strict=True)]
    start = [(n - k) // 2 for n, k in zip(head.shape, keep, strict=True)]
    box = tuple(slice(s, s + k) for s, k in zip(start, keep, strict=True))
    affine = head.affine.copy()
    affine[:3, 3] = (head.affine @ [*start, 1.0])[:3]
    return Volume(np.ascontiguousarray(head.array[box]), affine)


def lesion_mask(head: Volume) -> np.ndarray:
    """A ball of the size of a lesion in the left hemisphere (in the middle of a small block), bool (x, y, z)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in head.shape), indexing="ij"), -1).astype(np.float32)
    world = index @ head.affine[:3, :3].T.astype(np.float32) + head.affine[:3, 3].astype(np.float32)
    centre = np.array(_HOLE, np.float32)
    radius = min(_RADIUS, min(n * s for n, s in zip(head.shape, head.spacing, strict=True)) / 6)
    place = np.linalg.solve(head.affine, [*_HOLE, 1.0])[:3] * np.array(head.spacing)
    extent = np.array(head.shape) * np.array(head.spacing)
    if (place < radius).any() or (place > extent - radius).any():
        centre = world[tuple(n // 2 for n in head.shape)]
    return np.asarray(np.linalg.norm(world - centre, axis=-1) <= radius)
