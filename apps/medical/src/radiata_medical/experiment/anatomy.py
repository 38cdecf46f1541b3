"""Where the tissues of a scan are: from a label map beside it, or from the segmenter.

Verbs that need an anatomy (translate, anomaly) take `--labels`: a label map of the scan, or a folder that `radiata-medical
segment` wrote for the same scans. Without it the shipped segmenter is run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.scans import Case, output_path, same_grid
from radiata_medical.data.structures import TISSUES, channels_of, tissue_channels

__all__ = ["BRAIN", "TISSUE_COUNT", "Anatomist", "Anatomy"]

TISSUE_COUNT = len(TISSUES) + 2
"""Background, the tissues of `data.structures.TISSUES` from 1 on, and what else is of the head."""

BRAIN = tuple(range(1, len(TISSUES) + 1))
"""Tissues of the brain and its fluid."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The structures of a scan, on its grid.

    Attributes:
        channels: Channel of `data.structures.STRUCTURES`, uint8 (x, y, z).
        checksums: What they came from: name -> SHA-256.
    """

    channels: np.ndarray
    checksums: dict[str, str]

    @property
    def tissues(self) -> np.ndarray:
        """0 .. TISSUE_COUNT - 1, uint8."""
        return tissue_channels()[self.channels]

    def brain(self) -> np.ndarray:
        """The brain with its fluid, holes filled (a lesion may look like anything), bool.

        Raises:
            InputError: there is none.
        """
        from scipy.ndimage import binary_fill_holes

        inside = np.isin(self.tissues, BRAIN)
        if not inside.any():
            raise InputError(
                "expected a brain in the scan; got none. Check the segmentation, or give --labels."
            )
        return binary_fill_holes(inside)


@dataclass(eq=False)
class Anatomist:
    """Finds the anatomy of scans.

    Attributes:
        labels: Label map, or a folder of them; None for the segmenter.
        segmenter: Its name, file or run.
        device: Where it runs.
    """

    labels: Path | None
    segmenter: str = "segmenter"
    device: str = "cpu"
    _network: Any = field(default=None, repr=False)
    _checksum: str = ""

    def of(self, case: Case, scan: Volume, scale: IntensityScale) -> Anatomy:
        """The anatomy of a scan.

        Args:
            case: Whose.
            scan: Intensities of its file.
            scale: Of the scan.

        Raises:
            InputError: no label map of this scan, one on another grid or with unknown codes, or no segmenter.
        """
        if self.labels is not None:
            return self._read(case, scan)
        from radiata_core.checkpoint import load_model
        from radiata_medical.experiment.segmenting_tables import structures
        from radiata_medical.model.segmenter import SegmenterOptions, segment_volume
        from radiata_medical.model.weights import find_model

        if self._network is None:
            loaded = load_model(find_model(self.segmenter))
            self._network, self._checksum = loaded.denoiser.to(self.device), loaded.sha256
        volume = Volume(scale.to_prior(scan.array), scan.affine)
        found = segment_volume(
            self._network, volume, structures().labelling, SegmenterOptions(device=self.device)
        )
        return Anatomy(channels_of(found.codes, case.name), {self.segmenter: self._checksum})

    def checksums(self, case: Case) -> dict[str, str]:
        """What the anatomy of a scan would come from: name -> SHA-256.

        Raises:
            InputError: no label map of this scan, or no segmenter.
        """
        from radiata_imaging.headers import checksum
        from radiata_medical.model.weights import find_model

        if self.labels is None:
            return {self.segmenter: checksum(find_model(self.segmenter))}
        path = self._map_of(case)
        return {path.name: checksum(path)}

    def _map_of(self, case: Case) -> Path:
        assert self.labels is not None
        path = self.labels
        if path.is_dir():
            path = output_path(self.labels, case, "dseg")
            if not path.is_file():
                raise InputError(
                    f"expected a label map {path} of the scan {case.name}; got none. Run radiata-medical segment first."
                )
        return path

    def _read(self, case: Case, scan: Volume) -> Anatomy:
        from radiata_imaging.headers import checksum
        from radiata_imaging.nifti import read_volume

        path = self._map_of(case)
        volume = read_volume(path, allow_constant=True, min_axis=1)
        same_grid(scan, volume, ("the scan", f"the label map {path}"))
        if not np.array_equal(volume.array, np.rint(volume.array)):
            raise InputError(
                f"expected whole codes in {path}; got fractions. Give the label map, not the scan."
            )
        channels = channels_of(volume.array.astype(np.int64), str(path)).astype(np.uint8)
        return Anatomy(channels, {path.name: checksum(path)})
