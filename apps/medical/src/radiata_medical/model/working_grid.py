r"""The grid on which scans are segmented, and the way back: 1 mm, axes towards L, P, S, the box of the head.

Nothing is turned: the working grid has the scan's own axes, to the nearest letter, so that the way back is a permutation and
an interpolation along each axis (`label_resampling`), and the affine of the result is the scan's, to the bit.

The quality is a forecast of the Dice coefficient from the probabilities alone: with winners m and probabilities p,

    E[2 sum(t m) / (sum t + sum m)]  ~  2 sum(p m) / (sum p + sum m),

per structure, t the unknown truth; its mean is `quality`. It is as honest as the probabilities are calibrated (temperature).

References:
    Billot et al., "Robust machine learning segmentation for large-scale analysis of heterogeneous clinical brain MRI
        datasets", PNAS 2023, https://doi.org/10.1073/pnas.2216399120 (a score of quality beside each segmentation).
"""

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_imaging.foreground import find_head
from radiata_imaging.orientation import Grid, reorient, resample
from radiata_imaging.volume import Volume
from radiata_medical.model.kept_maps import KeptMaps
from radiata_medical.model.label_resampling import labels_on, parallel_axes, values_on
from radiata_medical.model.labelling import Labelling

__all__ = ["Segmentation", "WorkingScan"]

_MARGIN = 12.0  # mm around the head


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented scan.

    Attributes:
        codes: Code of each voxel of the scan, int16 (x, y, z).
        entropy: Of the mean probabilities, nats, on the scan's grid, float32.
        volumes_ml: Name -> millilitres of the labels on the scan's grid, background left out.
        expected_ml: Name -> millilitres by the probabilities, at 1 mm within the box of the head.
        intracranial_ml: Of the labels of the brain and its fluid.
        dice: Name -> expected Dice coefficient, 0 to 1.
        quality: Their mean over the structures of the brain (all, where none is named), 0 to 1.
        window: Edge of the windows that fitted into memory.
        evaluations: Calls of a network.
        probability: Code -> probabilities on the scan's grid, float32 (x, y, z), made when asked; None if not kept.
    """

    codes: np.ndarray
    entropy: np.ndarray
    volumes_ml: dict[str, float]
    expected_ml: dict[str, float]
    intracranial_ml: float
    dice: dict[str, float]
    quality: float
    window: int
    evaluations: int
    probability: Callable[[int], np.ndarray] | None = None


class WorkingScan:
    """A scan on the working grid, and what leads back.

    Args:
        volume: The scan, any grid.
        crop: Keep the box of the head only; False keeps the whole field of view.

    Attributes:
        image: `(x, y, z)`, 1 mm, LPS.
        affine: Of the image, (4, 4).
        voxel_ml: Millilitres of a voxel of it.
        axes: Of the scan's own grid, its axes towards L, P, S, in voxels of the image.

    Raises:
        InputError: one intensity everywhere.
    """

    def __init__(self, volume: Volume, crop: bool = True) -> None:
        if volume.array.max() == volume.array.min():
            raise InputError("expected a scan; got one intensity everywhere. Check the file.")
        self.volume = volume
        upright = reorient(volume, "LPS")
        work = resample(upright, 1.0)
        box = _head_box(work) if crop else tuple(slice(0, n) for n in work.shape)
        self.image = torch.from_numpy(np.ascontiguousarray(work.array[box]))
        self.affine = work.affine.copy()
        self.affine[:3, 3] = (work.affine @ np.array([*(side.start for side in box), 1.0]))[:3]
        self.voxel_ml = abs(float(np.linalg.det(work.affine[:3, :3]))) / 1000
        self.axes = parallel_axes(Grid(self.shape, self.affine), Grid(upright.shape, upright.affine))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the image."""
        x, y, z = self.image.shape
        return x, y, z

    def values_on_scan(self, values: np.ndarray) -> np.ndarray:
        """A map of the image's shape on the scan's grid, float32, linear between voxels."""
        return _turned_back(values_on(values, self.axes), self.volume)

    def segmentation(self, maps: KeptMaps, labelling: Labelling, window: int = 0) -> Segmentation:
        """The maps, of the shape of `image`, on the scan's grid, and the numbers."""
        codes = np.asarray(labelling.codes, np.int16)
        labels = codes[labels_on(maps.winner, maps.confidence, self.axes)]
        dice = maps.expected_dice
        scan_ml = abs(float(np.linalg.det(self.volume.affine[:3, :3]))) / 1000
        millilitres = {
            name: float((labels == code).sum()) * scan_ml
            for name, code in zip(labelling.names[1:], labelling.codes[1:], strict=True)
        }
        judged = labelling.brain or tuple(range(1, maps.classes))
        stored = maps.stored

        def probability(code: int) -> np.ndarray:
            assert stored is not None
            return self.values_on_scan(stored[labelling.codes.index(code)] / np.float32(255))

        return Segmentation(
            codes=_turned_back(labels, self.volume),
            entropy=self.values_on_scan(maps.entropy),
            volumes_ml=millilitres,
            expected_ml=dict(
                zip(labelling.names[1:], (maps.total[1:] * self.voxel_ml).tolist(), strict=True)
            ),
            intracranial_ml=sum(millilitres[labelling.names[channel]] for channel in labelling.brain),
            dice=dict(zip(labelling.names[1:], dice[1:].tolist(), strict=True)),
            quality=float(dice[list(judged)].mean()),
            window=window,
            evaluations=maps.evaluations,
            probability=probability if stored is not None else None,
        )


def _head_box(work: Volume) -> tuple[slice, slice, slice]:
    """Voxels around the head; the whole volume where none is found."""
    head = find_head(work)
    places = np.argwhere(head.mask)
    if not len(places):
        return slice(0, work.shape[0]), slice(0, work.shape[1]), slice(0, work.shape[2])
    corners = np.c_[np.stack([places.min(0), places.max(0)]), [1, 1]]
    inside = corners @ (np.linalg.inv(work.affine) @ head.affine).T
    low = np.floor(inside[:, :3].min(0) - _MARGIN).astype(int).clip(0)
    high = np.minimum(np.ceil(inside[:, :3].max(0) + _MARGIN).astype(int) + 1, work.shape)
    x, y, z = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return x, y, z


def _turned_back(array: np.ndarray, volume: Volume) -> np.ndarray:
    """An array with axes towards L, P, S as the scan has its own."""
    upright = nib.orientations.axcodes2ornt(tuple("LPS"))
    change = nib.orientations.ornt_transform(upright, nib.orientations.io_orientation(volume.affine))
    return np.ascontiguousarray(nib.orientations.apply_orientation(array, change))
