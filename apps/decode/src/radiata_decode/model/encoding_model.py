r"""Encoding models: each voxel's response as a weighted sum of features of what was shown.

$$ \hat y_v(t) = \bar y_v + \sum_{l \in \text{lags}} \sum_k w_{vlk}\, \phi_k(t - l) $$

Lags (a finite impulse response) are for time series; for betas of single trials the only lag is 0. A lagged feature never
comes from another segment (run, or clip between cuts): `complete` marks the samples whose window crosses no border; train
and score on those.

The fit is the shared ridge with features in the place of voxels and voxels in the place of targets. Penalties are chosen by
group of voxels (each voxel its own, a region, or all), by leaving one sample out, or, for time series whose neighbours are
alike, by leaving out segments.

Held-out scores: r, and R² of the prediction; over the noise ceiling of what was measured, $r/\sqrt{\text{NC}}$ and
$R^2/\text{NC}$. Significance is that of r by permuting the samples within runs; the largest r over all voxels in each
permutation is the null of every voxel, which controls the chance of a single false voxel.

References:
    T. Naselaris, K. Kay, S. Nishimoto, J. Gallant (2011). Encoding and decoding in fMRI. NeuroImage 56.
    T. Nichols, A. Holmes (2002). Nonparametric permutation tests for functional neuroimaging. Human Brain Mapping 15,
    section on the maximum statistic.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.permutation import permuted_rows
from radiata_decode.model.ridge import RidgeDecoder, SharedRidge

__all__ = ["EncodingFit", "EncodingScores", "Lagged", "encoding_scores", "fit_encoding", "lagged"]

LEAST_CEILING = 0.05
"""Voxels whose measured averages are noise to 95 % and more get no normalised score."""


@dataclass(frozen=True)
class Lagged:
    """Features with their past beside them.

    Attributes:
        features: (sample, lag · feature), lags outer.
        complete: Samples whose whole window lies in their own segment, (sample,) bool.
    """

    features: np.ndarray
    complete: np.ndarray


def lagged(
    features: np.ndarray, lags: Sequence[int] = (0,), segments: Sequence[Hashable] | np.ndarray | None = None
) -> Lagged:
    """Features at t - l for each lag l, never from another segment.

    Args:
        features: (sample, feature), in the order of time.
        lags: In samples, >= 0, each once; hrf of some seconds at TR 2 s: (1, 2, 3, 4).
        segments: Of each sample: run, or clip; None: all one.

    Raises:
        InputError: lags twice or negative, another number of segments, no sample that is complete.
    """
    values = np.asarray(features, np.float32)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"expected finite features (sample, feature); got {values.shape} or NaN.")
    if not lags or len(set(lags)) != len(lags) or min(lags) < 0:
        raise InputError(f"expected different lags of 0 samples or more; got {list(lags)}.")
    labels = [0] * len(values) if segments is None else list(segments)
    if len(labels) != len(values):
        raise InputError(f"expected the segment of each of {len(values)} samples; got {len(labels)}.")
    names = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    number = np.array([names[label] for label in labels])
    # A segment that comes again later is another stretch of time.
    stretch = np.concatenate([[0], np.cumsum(np.diff(number) != 0)])
    result = np.zeros((len(values), len(lags), values.shape[1]), np.float32)
    complete = np.ones(len(values), bool)
    for place, lag in enumerate(lags):
        source = np.arange(len(values)) - lag
        own = (source >= 0) & (stretch[np.maximum(source, 0)] == stretch)
        result[own, place] = values[source[own]]
        complete &= own
    if not complete.any():
        raise InputError(
            f"expected a segment longer than the largest lag, {max(lags)} samples; got none. Use shorter lags."
        )
    return Lagged(result.reshape(len(values), -1), complete)


@dataclass(frozen=True, eq=False)
class EncodingFit:
    """A fitted encoding model.

    Attributes:
        ridge: Features → responses, with what is needed to predict.
        alphas: Penalty of each voxel, (voxel,).
        chosen_r2: R² by leaving one sample (or segment) out, (voxel,), of the chosen penalty: optimistic only by the choice.
    """

    ridge: RidgeDecoder
    alphas: Tensor
    chosen_r2: Tensor

    def predict(self, features: Any) -> np.ndarray:
        """Responses (sample, voxel) float32 to (lagged) features (sample, feature)."""
        return self.ridge.predict(features).float().cpu().numpy()


def fit_encoding(
    features: Any,
    responses: Any,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    folds: Sequence[Hashable] | np.ndarray | None = None,
    sample_weights: np.ndarray | None = None,
    feature_weights: np.ndarray | None = None,
    alphas: Sequence[float] | None = None,
) -> EncodingFit:
    """Ridge from features to all voxels.

    Args:
        features: (sample, feature), lagged where there is time; each is standardised.
        responses: (sample, voxel).
        groups: Voxels of one number share a penalty, (voxel,); None: each its own.
        folds: Segment of each sample: penalties are chosen by leaving out segments. None: by leaving out samples.
        sample_weights: (sample,), > 0.
        feature_weights: (feature,), >= 0, e.g. of bands; None: 1.
        alphas: To choose from; None: 15 around the mean eigenvalue.

    Raises:
        InputError: shapes that do not fit, NaN, fewer than two folds.
    """
    shared = _shared(features, sample_weights, feature_weights)
    grid = shared.alphas.numpy() if alphas is None else np.asarray(alphas, np.float64)
    if folds is None:
        fit = shared.fit(responses, groups=groups, alphas=grid)
        return EncodingFit(shared.decoder(fit), fit.alphas, fit.loo_r2)
    errors, total = _fold_errors(features, responses, folds, sample_weights, feature_weights, grid)
    label = np.arange(errors.shape[1]) if groups is None else np.unique(groups, return_inverse=True)[1]
    summed = np.stack([np.bincount(label, row) for row in errors])
    best = summed.argmin(0)[label]
    # One penalty a group at a time would repeat the products: voxels of one penalty go together.
    chosen = torch.from_numpy(grid[best]).to(torch.float32)
    fits = {
        value: shared.fit(responses[:, best == value], alphas=float(grid[value])) for value in np.unique(best)
    }
    dual = torch.empty(shared.trials, errors.shape[1])
    mean = torch.empty(errors.shape[1])
    for value, fit in fits.items():
        members = torch.from_numpy(best == value)
        dual[:, members], mean[members] = fit.dual, fit.target_mean
    any_fit = next(iter(fits.values()))
    whole = type(any_fit)(chosen, dual, any_fit.loo, any_fit.loo_r2, mean)
    held = errors[best, np.arange(errors.shape[1])]
    r2 = np.where(total > 0, 1 - held / np.where(total > 0, total, 1), 0.0)
    return EncodingFit(shared.decoder(whole), chosen, torch.from_numpy(r2).float())


def _shared(features: Any, sample_weights: Any, feature_weights: Any) -> SharedRidge:
    return SharedRidge(
        features, sample_weights=sample_weights, voxel_weights=feature_weights, standardise=True
    )


def _fold_errors(
    features: Any, responses: Any, folds: Any, sample_weights: Any, feature_weights: Any, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of held-out segments, (alpha, voxel), and those of the training mean, (voxel,)."""
    labels = np.array([str(name) for name in folds])
    x, y = np.asarray(features, np.float32), np.asarray(responses, np.float32)
    names = np.unique(labels)
    if len(labels) != len(x) or len(names) < 2:
        raise InputError(
            f"expected the segment of each of {len(x)} samples, two segments or more; got {len(labels)} of {len(names)}."
        )
    errors, total = np.zeros((len(grid), y.shape[1])), np.zeros(y.shape[1])
    for name in names:
        held = labels == name
        weights = None if sample_weights is None else np.asarray(sample_weights)[~held]
        shared = _shared(x[~held], weights, feature_weights)
        centred, mean = shared.centred(y[~held])
        spectrum = shared.spectrum
        rows = shared.kernel_rows(x[held]) @ spectrum.basis
        coordinates = spectrum.basis.T @ centred
        rest = torch.from_numpy(y[held]) - mean
        total += rest.double().square().sum(0).numpy()
        for place, alpha in enumerate(grid):
            found = (rows / (spectrum.values + float(alpha))) @ coordinates
            errors[place] += (rest - found).double().square().sum(0).numpy()
    return errors, total


@dataclass(frozen=True)
class EncodingScores:
    """Held-out scores, one a voxel.

    Attributes:
        r: Correlation of predicted and measured responses; 0 for a constant prediction.
        r2: 1 - squared error over variance; can be below 0.
        r_normalised: r/√NC; NaN where the ceiling is unknown or below 0.05.
        r2_normalised: R²/NC, likewise.
        p: Of r, corrected over all voxels by the maximum statistic; NaN without permutations.
        threshold: r above which p < .05, corrected.
    """

    r: np.ndarray
    r2: np.ndarray
    r_normalised: np.ndarray
    r2_normalised: np.ndarray
    p: np.ndarray
    threshold: float


def encoding_scores(
    measured: np.ndarray,
    predicted: np.ndarray,
    rng: np.random.Generator,
    *,
    ceiling: np.ndarray | None = None,
    runs: Sequence[Hashable] | np.ndarray | None = None,
    draws: int = 1000,
) -> EncodingScores:
    """Scores of held-out responses.

    Args:
        measured: (sample, voxel).
        predicted: (sample, voxel).
        rng: Of the permutations.
        ceiling: NC of what was measured (of averages, if they were averaged), (voxel,), 0 to 1; None: not known.
        runs: Of each sample; permuted within.
        draws: Permutations; 0: no p.

    Raises:
        InputError: shapes that do not fit, fewer than three samples, values that are not finite.
    """
    y, f = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    if y.ndim != 2 or y.shape != f.shape or len(y) < 3:
        raise InputError(
            f"expected measured and predicted (sample, voxel), three samples or more; got {y.shape}, {f.shape}."
        )
    if not (np.isfinite(y).all() and np.isfinite(f).all()):
        raise InputError("expected finite responses; got NaN or infinity. Mask those voxels.")
    units = _units(y), _units(f)
    r = (units[0] * units[1]).sum(0)
    spread = ((y - y.mean(0)) ** 2).sum(0)
    r2 = np.where(spread > 0, 1 - ((y - f) ** 2).sum(0) / np.where(spread > 0, spread, 1), 0.0)
    nc = np.full(y.shape[1], np.nan) if ceiling is None else np.asarray(ceiling, np.float64)
    if nc.shape != r.shape:
        raise InputError(f"expected a ceiling for each of {len(r)} voxels; got {nc.shape}.")
    nc = np.where(nc >= LEAST_CEILING, nc, np.nan)
    p, threshold = np.full(len(r), np.nan), float("nan")
    if draws > 0:
        a, b = (part.astype(np.float32) for part in units)
        largest = np.array([(a[permuted_rows(len(a), runs, rng)] * b).sum(0).max() for _ in range(draws)])
        p = (1 + (largest[None] >= r[:, None] - 1e-6).sum(1)) / (1 + draws)
        threshold = float(np.quantile(largest, 0.95))
    return EncodingScores(r, r2, r / np.sqrt(nc), r2 / nc, p, threshold)


def _units(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(0)
    norm = np.linalg.norm(centred, axis=0)
    scale = np.maximum(np.abs(values).max(0), 1e-30)
    return np.where(norm > 1e-9 * scale, centred / np.where(norm > 0, norm, 1), 0.0)
