r"""How large the evidence is in healthy scans: residuals become z-scores, and every score a common scale.

A residual of .1 is nothing at the border of a sulcus and much in the middle of the white matter. So its mean and standard
deviation are tabled from healthy scans over two things that both are known everywhere without registration, the intensity of
the pseudo-healthy image and the size of its gradient:

    z = (x - h - m(bin)) / s(bin).

A lesion is larger than a voxel, healthy errors mostly are not: `smooth` is z averaged over a Gaussian window within the
mask, in healthy standard deviations. To add scores of different kinds, each becomes the normal score of its healthy
quantile, Phi^-1(F(score)), and `combined` is their mean. Thresholds are healthy quantiles: the share of voxels above them.

Without healthy scans, a scan is its own reference (`robust`): medians and median absolute deviations, and quantiles up to
90 % only, continued straight in normal scores, since the tail may be the lesion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import read_json, write_json
from radiata_medical.model.pseudo_healthy import Evidence

__all__ = ["SCORES", "AnomalyCalibration", "fit_calibration", "load_calibration", "save_calibration"]

SCORES = ("residual", "z", "smooth", "features", "tissue", "combined")
"""Names of scores, from the plainest to the sum."""

FORMAT = "radiata-anomaly-calibration/1"
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
_COMBINED = ("smooth", "features", "tissue")
_BINS = (8, 5)  # of intensity and of gradient
_FEWEST = 30  # voxels that make a bin of its own


@dataclass(frozen=True)
class AnomalyCalibration:
    """Tables from healthy scans.

    Attributes:
        intensities: Inner limits of the bins of healthy intensity, rising.
        gradients: Inner limits of the bins of its gradient, rising.
        means: Mean residual, a row a bin of intensity.
        sds: Sd of the residual.
        window: Sd of the smoothing in voxels.
        smooth_sd: Sd of the smoothed z in healthy scans.
        levels: Probabilities of the quantiles.
        quantiles: Score -> its healthy quantiles at the levels, not falling.
        voxels: Healthy voxels seen.
        robust: Whether it was made from the scans that it is to judge.
        about: Model, level and draws it holds for, and whatever else.
    """

    intensities: tuple[float, ...]
    gradients: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    sds: tuple[tuple[float, ...], ...]
    window: float
    smooth_sd: float
    levels: tuple[float, ...]
    quantiles: Mapping[str, tuple[float, ...]]
    voxels: int
    robust: bool
    about: Mapping[str, Any]

    def z(self, evidence: Evidence) -> np.ndarray:
        """Healthy z-scores of the residual, 0 outside of the mask."""
        bins = _bins(evidence, self.intensities, self.gradients)
        means, sds = np.asarray(self.means), np.asarray(self.sds)
        return np.where(evidence.mask, (evidence.residual - means[bins]) / sds[bins], 0.0).astype(np.float32)

    def scores(self, evidence: Evidence) -> dict[str, np.ndarray]:
        """Score -> map, larger is stranger, 0 outside of the mask; those that the evidence allows and healthy scans had."""
        z = self.z(evidence)
        smooth = np.abs(_smoothed(z, evidence.mask, self.window)) / self.smooth_sd
        found = {"residual": np.abs(evidence.residual), "z": np.abs(z), "smooth": smooth}
        for name in ("features", "tissue"):
            values = getattr(evidence, name)
            if values is not None and (not self.quantiles or name in self.quantiles):
                found[name] = values
        if self.quantiles:
            parts = [self.normal_score(name, found[name]) for name in _COMBINED if name in found]
            found["combined"] = np.mean(parts, axis=0)
        return {
            name: np.where(evidence.mask, values, 0.0).astype(np.float32) for name, values in found.items()
        }

    def normal_score(self, name: str, values: np.ndarray) -> np.ndarray:
        """Phi^-1 of the healthy quantile of a score, straight between the levels and beyond the last."""
        knots, scale = np.maximum.accumulate(np.asarray(self.quantiles[name])), _normal(self.levels)
        knots = knots + 1e-9 * np.arange(len(knots))
        inner = np.interp(values, knots, scale)
        middle = len(knots) // 2
        slope = (scale[-1] - scale[middle]) / (knots[-1] - knots[middle])
        return np.where(values > knots[-1], scale[-1] + slope * (values - knots[-1]), inner)

    def threshold(self, name: str, false_positives: float) -> float:
        """The value that this share of healthy voxels exceeds.

        Args:
            name: Of the score.
            false_positives: Share in (0, 0.5]. Beyond the tables (1e-4) the tail is continued.

        Raises:
            InputError: a share out of range, or a score the calibration has not.
        """
        if not 0 < false_positives <= 0.5:
            raise InputError(
                f"expected a share of false positives in (0, 0.5]; got {false_positives}. Try 0.001."
            )
        if name not in self.quantiles:
            raise InputError(f"expected a score out of {', '.join(self.quantiles)}; got {name!r}.")
        knots, scale = np.asarray(self.quantiles[name]), _normal(self.levels)
        wanted = NormalDist().inv_cdf(1 - false_positives)
        if wanted <= scale[-1]:
            return float(np.interp(wanted, scale, knots))
        middle = len(knots) // 2
        slope = (knots[-1] - knots[middle]) / (scale[-1] - scale[middle])
        return float(knots[-1] + slope * (wanted - scale[-1]))


def fit_calibration(
    healthy: Sequence[Evidence],
    *,
    window: float = 1.5,
    robust: bool = False,
    about: Mapping[str, Any] | None = None,
) -> AnomalyCalibration:
    """Tables from the evidence of healthy images (or, `robust`, of the images to be judged).

    Args:
        healthy: Some images, all with the same kinds of evidence.
        window: Sd of the smoothing, voxels, > 0.
        robust: See the head of the module.
        about: What it holds for.

    Raises:
        InputError: no voxel within the masks.
    """
    residual = np.concatenate([e.residual[e.mask] for e in healthy]) if healthy else np.zeros(0)
    if len(residual) < _FEWEST:
        raise InputError(
            f"expected healthy images with a brain; got {len(healthy)} with {len(residual)} voxels. Check the masks."
        )
    intensities = _limits(np.concatenate([e.healthy[e.mask] for e in healthy]), _BINS[0])
    gradients = _limits(np.concatenate([_gradient(e.healthy)[e.mask] for e in healthy]), _BINS[1])
    bins = [_bins(e, intensities, gradients) for e in healthy]
    index = np.concatenate([(b[0] * _BINS[1] + b[1])[e.mask] for b, e in zip(bins, healthy, strict=True)])
    centre, spread = (_median, _mad) if robust else (np.mean, np.std)
    whole = float(centre(residual)), max(float(spread(residual)), 1e-6)
    means, sds = np.full(_BINS, whole[0]), np.full(_BINS, whole[1])
    for number in range(_BINS[0] * _BINS[1]):
        part = residual[index == number]
        if len(part) >= _FEWEST:
            place = divmod(number, _BINS[1])
            means[place], sds[place] = centre(part), max(float(spread(part)), 0.1 * whole[1])
    table = AnomalyCalibration(
        intensities,
        gradients,
        _rows(means),
        _rows(sds),
        window,
        1.0,
        tuple(level for level in _LEVELS if not robust or level <= 0.9),
        {},
        len(residual),
        robust,
        dict(about or {}),
    )
    smooth = np.concatenate([_smoothed(table.z(e), e.mask, window)[e.mask] for e in healthy])
    table = _with(table, smooth_sd=max(float(spread(smooth)), 1e-6))
    table = _with(table, quantiles=_quantiles(table, healthy))
    return _with(table, quantiles=_quantiles(table, healthy))  # once more: now there is a sum


def save_calibration(path: Path | str, calibration: AnomalyCalibration) -> None:
    """Write it as JSON."""
    write_json(path, {"format": FORMAT, **asdict(calibration)})


def load_calibration(path: Path | str) -> AnomalyCalibration:
    """Read what `save_calibration` wrote.

    Raises:
        InputError: no such file, or another one.
    """
    card = read_json(path)
    if not isinstance(card, dict) or card.pop("format", None) != FORMAT:
        raise InputError(
            f"expected a calibration ({FORMAT}); got another file, {path}. Make one with --healthy."
        )
    try:
        card["quantiles"] = {name: tuple(values) for name, values in card["quantiles"].items()}
        for name in ("means", "sds"):
            card[name] = tuple(tuple(row) for row in card[name])
        for name in ("intensities", "gradients", "levels"):
            card[name] = tuple(card[name])
        return AnomalyCalibration(**card)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"expected a calibration ({FORMAT}); got one that lacks or adds something ({error}) in {path}. Make it again."
        ) from None


def _quantiles(table: AnomalyCalibration, healthy: Sequence[Evidence]) -> dict[str, tuple[float, ...]]:
    values: dict[str, list[np.ndarray]] = {}
    for evidence in healthy:
        for name, score in table.scores(evidence).items():
            values.setdefault(name, []).append(score[evidence.mask])
    return {
        name: tuple(np.quantile(np.concatenate(parts), table.levels).tolist())
        for name, parts in values.items()
    }


def _with(table: AnomalyCalibration, **changes: Any) -> AnomalyCalibration:
    import dataclasses

    return dataclasses.replace(table, **changes)


def _bins(
    evidence: Evidence, intensities: Sequence[float], gradients: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    first = np.searchsorted(np.asarray(intensities), evidence.healthy)
    second = np.searchsorted(np.asarray(gradients), _gradient(evidence.healthy))
    return first, second


def _limits(values: np.ndarray, count: int) -> tuple[float, ...]:
    return tuple(np.quantile(values, np.arange(1, count) / count).tolist())


def _gradient(image: np.ndarray) -> np.ndarray:
    axes = [axis for axis, size in enumerate(image.shape) if size > 1]
    slopes = np.gradient(image, axis=tuple(axes))
    parts = slopes if isinstance(slopes, list | tuple) else [slopes]
    return np.sqrt(sum(part**2 for part in parts))


def _smoothed(values: np.ndarray, mask: np.ndarray, window: float) -> np.ndarray:
    """Gaussian mean over the voxels of the mask."""
    from scipy.ndimage import gaussian_filter

    inside = mask.astype(np.float32)
    weight = gaussian_filter(inside, window)
    return gaussian_filter(values * inside, window) / np.maximum(weight, 1e-3)


def _normal(levels: Sequence[float]) -> np.ndarray:
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def _rows(table: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def _mad(values: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
