r"""One response a trial from a time series: least squares all, least squares separate, and ridge, from one projection.

The series y (time × voxel) of a run is a sum of the trials' haemodynamic responses x_i, of nuisances N (drift, motion, a
constant) and of noise. Nuisances are projected out of both sides once, from one QR factorisation of N,

$$ \tilde X = X - QQ^\top X, \quad \tilde Y = Y - QQ^\top Y, \quad G = \tilde X^\top\tilde X, \quad P = \tilde
X^\top\tilde Y, $$

and everything else happens in numbers of trials:

    all        β = G⁻¹ P                       one model with a regressor a trial
    ridge      β = (G + λ ḡ I)⁻¹ P             the same, shrunk; ḡ is the mean of G's diagonal
    separate   one model a trial: its own regressor beside one for all other trials (of each condition)

For `separate` with memberships T (trial × condition) the sums S = X̃T span, together with x_i, the same space as x_i and the
sums without it, and the whole family of models needs the one small inverse A = (TᵀGT)⁻¹:

$$ b_i = \frac{P_i - g_i A T^\top P}{G_{ii} - g_i A g_i^\top}, \quad g_i = (GT)_i, \qquad
   \beta_i = b_i + \left[A(T^\top P - g_i^\top b_i)\right]_{c(i)} . $$

So a run of 60 trials costs one factorisation in place of 60 fits. Trials that follow one another closely make G nearly
singular: `all` then has large variance, `separate` and `ridge` trade it for bias.

References:
    J. Mumford, B. Turner, F. Ashby, R. Poldrack (2012). Deconvolving BOLD activation in event-related designs for multivoxel
    pattern classification analyses. NeuroImage 59, section "Models" (LS-A, LS-S).
    R. Frisch, F. Waugh (1933), M. Lovell (1963): regression after projecting out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["ESTIMATORS", "TrialBetas", "nuisances", "trial_betas", "trial_regressors"]

ESTIMATORS = ("all", "separate", "ridge")
Response = str | Callable[..., np.ndarray]


@dataclass(frozen=True)
class TrialBetas:
    """Responses of the trials of a run.

    Attributes:
        betas: (trial, voxel) float32, in units of the series a unit of the regressor.
        baseline: Mean of the series, (voxel,) float32; 100 β / baseline is percent signal change.
        efficiency: (trial,), variance of the trial's estimate in units of the noise's if its regressor stood alone, divided
            by that in the model `all`: 1 where no other regressor overlaps, near 0 where it cannot be told apart.
    """

    betas: np.ndarray
    baseline: np.ndarray
    efficiency: np.ndarray


def trial_regressors(
    onsets: np.ndarray, durations: np.ndarray, frame_times: np.ndarray, response: Response = "glover"
) -> np.ndarray:
    """What each trial is expected to do to the series, (time, trial).

    Args:
        onsets: Seconds.
        durations: Seconds, >= 0.
        frame_times: When each volume was taken, in seconds, on the same clock.
        response: Haemodynamic response of nilearn, `glover` or `spm`, or a function as nilearn takes it.

    Raises:
        InputError: no trials, an unknown response, or a trial that the series does not see.
    """
    from nilearn.glm.first_level import compute_regressor

    if isinstance(response, str) and response not in ("glover", "spm"):
        raise InputError(f"expected a haemodynamic response glover or spm; got {response}.")
    starts, lengths = np.asarray(onsets, float), np.asarray(durations, float)
    if (
        not len(starts)
        or starts.shape != lengths.shape
        or not np.isfinite(starts).all()
        or not (lengths >= 0).all()
    ):
        raise InputError(
            f"expected trials with an onset and a duration >= 0; got {starts.shape} onsets and {lengths.shape} durations. "
            "Drop rows without them."
        )
    columns = [
        compute_regressor(np.array([[start], [length], [1.0]]), response, frame_times)[0][:, 0]
        for start, length in zip(starts, lengths, strict=True)
    ]
    unseen = [number for number, column in enumerate(columns) if not np.abs(column).max() > 1e-6]
    if unseen:
        raise InputError(
            f"expected trials within the series ({frame_times[0]:g} to {frame_times[-1]:g} s); got trial {unseen[0]} at "
            f"{starts[unseen[0]]:g} s, which it does not see. Drop it, or check the repetition time."
        )
    return np.stack(columns, 1)


def nuisances(
    frame_times: np.ndarray, confounds: np.ndarray | None = None, high_pass_hz: float | None = 0.01
) -> np.ndarray:
    """Drift (cosines below `high_pass_hz`), a constant, and the confounds, (time, nuisance).

    Args:
        frame_times: Seconds.
        confounds: (time, confound); NaN, as in the first row of a derivative, becomes the column's mean.
        high_pass_hz: None: no drift, where the confounds have cosines already.

    Raises:
        InputError: confounds of another length.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    added = None
    if confounds is not None and np.size(confounds):
        added = np.array(confounds, float).reshape(len(confounds), -1)
        if len(added) != len(frame_times):
            raise InputError(
                f"expected one row of confounds for each of {len(frame_times)} volumes; got {len(added)}. "
                "Are they of this run?"
            )
        gaps = ~np.isfinite(added)
        added[gaps] = np.broadcast_to(np.nanmean(np.where(gaps, np.nan, added), 0), added.shape)[gaps]
    drift = make_first_level_design_matrix(
        frame_times, drift_model=None if high_pass_hz is None else "cosine", high_pass=high_pass_hz or 0.01
    ).to_numpy()
    return drift if added is None else np.column_stack([drift, added])


def trial_betas(
    series: np.ndarray,
    regressors: np.ndarray,
    nuisance: np.ndarray,
    estimator: str = "separate",
    *,
    conditions: Sequence[str] | None = None,
    shrinkage: float = 0.1,
) -> TrialBetas:
    """Responses of all trials of one run; see the module.

    Args:
        series: (time, voxel), any unit.
        regressors: (time, trial).
        nuisance: (time, nuisance), with a constant.
        estimator: One of `ESTIMATORS`.
        conditions: Of each trial, for `separate`: the others of each condition get a regressor; None: one for all others.
        shrinkage: λ of `ridge`, in units of the mean of G's diagonal, > 0.

    Raises:
        InputError: lengths that do not agree, more regressors than volumes, trials that cannot be told apart in `all`.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"expected an estimator of {', '.join(ESTIMATORS)}; got {estimator}.")
    if not len(series) == len(regressors) == len(nuisance):
        raise InputError(
            f"expected a series, regressors and nuisances of one length; got {len(series)}, {len(regressors)} and "
            f"{len(nuisance)} volumes."
        )
    if conditions is not None and len(conditions) != regressors.shape[1]:
        raise InputError(
            f"expected a condition of each of {regressors.shape[1]} trials; got {len(conditions)}."
        )
    basis = _orthonormal(nuisance)
    if len(series) <= basis.shape[1] + (regressors.shape[1] if estimator == "all" else 2):
        raise InputError(
            f"expected more volumes than regressors; got {len(series)} volumes, {regressors.shape[1]} trials and "
            f"{basis.shape[1]} nuisances. Use fewer confounds, or the estimator ridge."
        )
    clean = regressors - basis @ (basis.T @ regressors)
    gram = clean.T @ clean
    # X̃ᵀỸ = X̃ᵀY: the projection is idempotent, so the series itself need not be cleaned or copied.
    moments = (clean.T.astype(series.dtype) @ series).astype(np.float64)
    if estimator == "separate":
        betas = _separate(gram, moments, conditions)
    else:
        load = shrinkage * np.trace(gram) / len(gram) if estimator == "ridge" else 0.0
        betas = _solve(gram + load * np.eye(len(gram)), moments)
    alone = np.diag(np.linalg.pinv(gram)) * np.diag(gram)
    return TrialBetas(
        betas.astype(np.float32),
        series.mean(0, dtype=np.float64).astype(np.float32),
        1 / np.maximum(alone, 1.0),
    )


def _orthonormal(nuisance: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the nuisances, without those that others make already."""
    scale = np.linalg.norm(nuisance, axis=0)
    kept = nuisance[:, scale > 0] / scale[scale > 0]
    left, values, _ = np.linalg.svd(kept, full_matrices=False)
    return left[:, values > 1e-10 * values[0]]


def _solve(gram: np.ndarray, moments: np.ndarray) -> np.ndarray:
    values = np.linalg.eigvalsh(gram)
    if values[0] <= 1e-10 * values[-1]:
        raise InputError(
            f"expected trials whose responses can be told apart; got {len(gram)} that cannot (condition number above 1e10). "
            "Use the estimator separate or ridge."
        )
    return np.linalg.solve(gram, moments)


def _separate(gram: np.ndarray, moments: np.ndarray, conditions: Sequence[str] | None) -> np.ndarray:
    words = np.array(["all"] * len(gram) if conditions is None else [str(c) for c in conditions])
    _, group = np.unique(words, return_inverse=True)
    member = np.eye(int(group.max()) + 1)[group]
    inner = np.linalg.pinv(member.T @ gram @ member)
    g, sums = gram @ member, member.T @ moments
    single = np.bincount(group)[group] == 1  # its condition's sum is the trial itself
    gap = np.diag(gram) - np.einsum("ic,cd,id->i", g, inner, g)
    blind = ~single & (gap <= 1e-10 * np.diag(gram))
    if blind.any():
        raise InputError(
            "expected trials whose responses can be told apart from the others'; got trial "
            f"{int(np.flatnonzero(blind)[0])}, which cannot. Are two onsets the same?"
        )
    projected = g @ inner
    b = np.where(single[:, None], 0.0, (moments - projected @ sums) / np.where(single, 1.0, gap)[:, None])
    # The coefficient of the own condition's sum, of which the trial is a part.
    own = (inner @ sums)[group] - np.einsum("ic,ic->i", g, inner[group])[:, None] * b
    return b + own
