"""Scores of restored images: how near they are to the references, and whether a predicted error is the error.

A standard deviation beside a result (`_sd`) is compared with what went wrong, over the voxels that count:

    sd_error_correlation    correlation (Pearson) of the sd with the absolute error
    coverage90              share of voxels whose true value is within 1.645 sd; 0.9 for a normal error of that sd
    variance_error_ratio    mean of sd² over mean squared error; 1 is calibrated, below 1 too sure
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.calibration import Reliability
from radiata_imaging.foreground import find_head
from radiata_imaging.image_quality import Encoder, image_quality, perceptual_distance
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.volume import Volume
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.pairing import Named, Pair, named_files, sibling
from radiata_medical.data.scans import read_mask, read_scan, same_grid

if TYPE_CHECKING:
    from radiata_medical.experiment.evaluate import Evaluate

__all__ = ["ImageScorer", "Scored", "encoder_of", "spread_scores"]

_INTERVAL90 = 1.6448536269514722
"""Standard deviations on either side that hold 90 % of a normal."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What became of one case.

    Attributes:
        rows: Scores, one row a case, or a case and structure.
        reliability: Of its probabilities; None without.
        encoder: Name of the features of the perceptual distance.
    """

    rows: list[dict[str, Any]]
    reliability: Reliability | None = None
    encoder: str = "none"


@dataclass(frozen=True, eq=False)
class ImageScorer:
    """From a pair of files to a row of scores.

    Attributes:
        task: The options.
        files: All files of the results, among which a case's sd is looked for.
        masks: Masks by name; empty unless a folder of them was given.
        encoder: Of the perceptual distance.
    """

    task: "Evaluate"
    files: tuple[Named, ...]
    masks: tuple[Named, ...] = field(init=False)
    encoder: Encoder | None = field(init=False)

    def __post_init__(self) -> None:
        given = self.task.mask
        folder = given is not None and given != "head" and Path(given).is_dir()
        object.__setattr__(self, "masks", named_files(Path(str(given)), "masks") if folder else ())
        object.__setattr__(self, "encoder", encoder_of(self.task.encoder))

    def __call__(self, pair: Pair) -> Scored:
        axcodes = self.task.assume_axcodes
        x = read_scan(pair.result.path, assume_axcodes=axcodes)
        y = read_scan(pair.reference.path, assume_axcodes=axcodes)
        same_grid(y, x, (f"the reference {pair.reference.path.name}", f"the result {pair.result.path.name}"))
        mask = self._mask(pair, y)
        scale = IntensityScale.of(y.array)
        flat = [np.squeeze(one) for one in (x.array, y.array)]
        quality = image_quality(
            flat[0], flat[1], data_range=self.task.data_range or scale.white,
            mask=None if mask is None else mask.reshape(flat[1].shape),
        )  # fmt: skip
        if self.encoder is not None:
            seen = (scale.to_prior(x.array), scale.to_prior(y.array))
            quality = replace(quality, perceptual=perceptual_distance(self.encoder, *seen))
        row = {"case": pair.reference.key, "person": pair.reference.person, **asdict(quality)}
        spread = sibling(pair.result, self.files, "sd")
        if spread is not None:
            sd = read_volume(spread, assume_axcodes=axcodes, allow_constant=True, min_axis=1)
            same_grid(y, sd, ("the reference", f"the sd {spread.name}"))
            row |= spread_scores(sd.array, x.array - y.array, mask)
        return Scored([row], encoder=self.encoder.name if self.encoder else "none")

    def _mask(self, pair: Pair, reference: Volume) -> np.ndarray | None:
        given = self.task.mask
        if given is None:
            return None
        if given == "head":
            head = find_head(reference)
            coarse = Volume(head.mask.astype(np.float32), head.affine)
            grid = Grid(reference.shape, reference.affine)
            return resample(coarse, grid, interpolation=Interpolation.LINEAR).array > 0.5
        if not self.masks:
            return read_mask(Path(given), reference, assume_axcodes=self.task.assume_axcodes)
        return read_mask(_one_mask(self.masks, pair), reference, assume_axcodes=self.task.assume_axcodes)


def _one_mask(masks: Sequence[Named], pair: Pair) -> Path:
    found = [one.path for one in masks if one.key == pair.reference.key]
    if len(found) != 1:
        raise InputError(
            f"expected one mask for {pair.reference.path.name}; got {len(found) or 'none'}. Name it after the reference."
        )
    return found[0]


def spread_scores(sd: np.ndarray, error: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """How a predicted standard deviation compares with the error made; NaN where it cannot be said.

    Args:
        sd: Predicted, >= 0, units of the file.
        error: Result minus reference, the same shape and units.
        mask: Voxels that count; None: all.

    Raises:
        InputError: a negative sd.
    """
    if sd.min() < 0:
        raise InputError(f"expected standard deviations >= 0; got {sd.min():.4g}. Is it another map?")
    kept = np.ones(sd.shape, bool) if mask is None else mask
    s, e = sd[kept].astype(np.float64), np.abs(error[kept].astype(np.float64))
    varies = s.std() > 0 and e.std() > 0
    square = float(np.mean(e**2))
    return {
        "sd_error_correlation": float(np.corrcoef(s, e)[0, 1]) if varies else float("nan"),
        "coverage90": float((e <= _INTERVAL90 * s).mean()),
        "variance_error_ratio": float(np.mean(s**2) / square) if square > 0 else float("nan"),
    }


def encoder_of(name: str) -> Encoder | None:
    """The encoder of a name.

    Raises:
        InputError: no such encoder and no such model.
    """
    if name == "none":
        return None
    if name == "random":
        from radiata_imaging.features import RandomConvFeatures

        return RandomConvFeatures()
    from radiata_medical.experiment.prior_encoder import PriorEncoder

    return PriorEncoder.of(name)
