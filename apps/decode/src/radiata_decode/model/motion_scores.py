r"""How well motion was decoded: endpoint error against zero flow, directions, correlation, identification.

For true flow w and decoded $\hat w$ of a film, over its steps and cells u:

    EPE           mean $\lVert \hat w - w \rVert$, cells a frame step; no motion has EPE mean $\lVert w \rVert$
    EPE skill     1 - EPE / EPE of zero flow, of means over films: above 0 is better than predicting nothing
    EPE moving    EPE of cells with $\lVert w \rVert \ge$ threshold (the threshold stands in the table)
    cosine        mean $\cos(\hat w, w)$ of moving cells; 0 where nothing is predicted
    angle         mean angle of moving cells, degrees; 90 where nothing is predicted
    correlation   Pearson's r of all numbers of $\hat w$ and w; 0 for a constant prediction
    field cosine  $\sum \hat w \cdot w / (\lVert \hat w \rVert \lVert w \rVert)$ over the whole film
    2-way         share of other films whose true flow has a smaller field cosine with $\hat w$; ties are lost

Pearson's r is what is usually printed, but it subtracts a mean taken over x and y together: of two uniform motions it only
sees which component is larger, and is ±1 for both. Zero is a meaningful origin of motion, so identification uses the
field cosine, which for uniform motions is the cosine of the angle between them.

A confident hallucination can look like motion and has an EPE *above* zero flow; a decoder that predicts nothing has the
EPE of zero flow, and cosine, correlation 0. None is enough alone. Which cells are moving is known from the truth only to
score; a decoder never sees it.

References:
    S. Baker, D. Scharstein, J. Lewis, S. Roth, M. Black, R. Szeliski (2011). A database and evaluation methodology for
    optical flow. IJCV 92, section on error measures (endpoint error).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr, stdtrit
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.bootstrap_scores import (
    MeanInterval,
    mean_interval,
    pair_interval,
    paired_difference,
)
from radiata_decode.model.flow_grids import check_flow
from radiata_decode.model.identification import correlation_matrix, cosine_matrix, two_way, wins
from radiata_decode.model.motion_masks import masked_flow
from radiata_decode.model.permutation import permutation_test
from radiata_decode.model.score_table import ScoredRows, ScoreRow

__all__ = [
    "MotionScores",
    "endpoint_errors",
    "motion_rows",
    "motion_scores",
    "motion_table",
    "skill_interval",
    "zero_flow_margin",
]

MOVING = 0.25
"""Default threshold, cells a frame step."""


@dataclass(frozen=True)
class MotionScores:
    """One value a film, (n,), and what the table's tests need.

    Attributes:
        epe: Mean endpoint error, cells a frame step.
        epe_zero: That of zero flow.
        epe_moving: Of moving cells; NaN for a film without any.
        cosine: Of moving cells, -1 to 1.
        angle: Of moving cells, degrees.
        correlation: -1 to 1.
        field_cosine: -1 to 1.
        two_way: 0 to 1; NaN for a single film.
        similarity: Field cosine of true (rows) and decoded flow, (n, n).
        correlations: Correlation of true (rows) and decoded flow, (n, n).
        threshold: That makes a cell moving, cells a frame step.
    """

    epe: np.ndarray
    epe_zero: np.ndarray
    epe_moving: np.ndarray
    cosine: np.ndarray
    angle: np.ndarray
    correlation: np.ndarray
    field_cosine: np.ndarray
    two_way: np.ndarray
    similarity: np.ndarray
    correlations: np.ndarray
    threshold: float


def motion_scores(
    truth: Tensor, predicted: Tensor, threshold: float = MOVING, *, mask: Tensor | None = None
) -> MotionScores:
    """Scores of each film.

    Args:
        truth: (n, step, 2, y, x), cells a frame step.
        predicted: The same.
        threshold: Least speed of a moving cell, cells a frame step, >= 0.
        mask: Cells that count, (n, y, x) bool, of `motion_masks`: never cut from the truth. None: all.

    Raises:
        InputError: not flow, other shapes, or a negative threshold.
    """
    check_flow(truth, "true flow")
    check_flow(predicted, "decoded flow")
    if truth.shape != predicted.shape or not threshold >= 0:
        raise InputError(
            f"expected decoded flow of {tuple(truth.shape)} and a threshold >= 0; got {tuple(predicted.shape)} and "
            f"{threshold}. Bring both to one grid."
        )
    if mask is None:
        mask = torch.ones(len(truth), *truth.shape[3:], dtype=torch.bool, device=truth.device)
    w, p = (masked_flow(part.double(), mask) for part in (truth, predicted))
    counted = mask[:, None].expand(-1, truth.shape[1], -1, -1)
    speed, error = w.norm(dim=2), (p - w).norm(dim=2)
    moving = (speed >= threshold) & (speed > 0) & counted
    lengths = (speed * p.norm(dim=2)).clamp(min=1e-12)
    cosine = ((w * p).sum(2) / lengths).clamp(-1, 1)
    angle = torch.rad2deg(torch.arccos(cosine))
    true, decoded = (part.flatten(1).cpu().numpy() for part in (w, p))
    similarity = np.nan_to_num(cosine_matrix(true, decoded), nan=0.0)
    correlations = np.nan_to_num(correlation_matrix(true, decoded), nan=0.0)
    identified = two_way(similarity) if len(w) > 1 else np.full(len(w), np.nan)
    return MotionScores(
        _mean_where(counted, error),
        _mean_where(counted, speed),
        _mean_where(moving, error),
        _mean_where(moving, cosine),
        _mean_where(moving, angle),
        np.diagonal(correlations).copy(),
        np.diagonal(similarity).copy(),
        identified,
        similarity,
        correlations,
        float(threshold),
    )


def endpoint_errors(truth: Tensor, predicted: Tensor) -> np.ndarray:
    """EPE of every pairing, (true, decoded) float64: what permutations of the pairing would score."""
    w, p = (part.float().movedim(2, 0).flatten(2).cpu() for part in (truth, predicted))
    # The norm of an axis of two takes ten times as long.
    rows = [(p - w[:, row, None]).square().sum(0).sqrt().mean(1) for row in range(w.shape[1])]
    return torch.stack(rows).double().numpy()


def motion_table(
    truth: Tensor,
    predictions: Mapping[str, Tensor],
    rng: np.random.Generator,
    *,
    controls: Mapping[str, Tensor] | None = None,
    runs: Sequence[Hashable] | np.ndarray | None = None,
    threshold: float = MOVING,
    draws: int = 1000,
) -> list[ScoreRow]:
    """Decoders and controls by the same metrics, with intervals over films and p from permuted pairings.

    Args:
        truth: (n, step, 2, y, x), two films or more.
        predictions: Decoder → flow.
        rng: Of intervals and permutations.
        controls: Control → flow: zero, mean, random training flow, permuted brain, image only.
        runs: Run of each film; permutations stay within.
        threshold: See `motion_scores`.
        draws: Permutations; twice as many bootstrap draws.

    Raises:
        InputError: no predictions, a name twice, one film, shapes that do not fit.
    """
    known = dict(controls or {})
    if not predictions or set(known) & set(predictions) or len(truth) < 2:
        raise InputError(
            "expected two films or more and a decoder named unlike any control; got fewer, or one name twice."
        )
    rows: list[ScoreRow] = []
    for name, flow in {**predictions, **known}.items():
        scores = motion_scores(truth, flow, threshold)
        errors = endpoint_errors(truth, flow)
        rows += motion_rows(name, scores, errors, rng, runs=runs, draws=draws, control=name in known).rows
    return rows


def motion_rows(
    name: str,
    scores: MotionScores,
    errors: np.ndarray,
    rng: np.random.Generator,
    *,
    runs: Sequence[Hashable] | np.ndarray | None = None,
    draws: int = 1000,
    control: bool = False,
) -> ScoredRows:
    """Rows of the table for one decoder or control; a single film is scored, and not tested.

    Args:
        name: Whose flow.
        scores: Of `motion_scores`.
        errors: EPE of every pairing, of `endpoint_errors`.
        rng: Of intervals and permutations.
        runs: Run of each film; permutations stay within.
        draws: Permutations; twice as many bootstrap draws.
        control: The flow knows less than a decoder does.
    """
    moving = f">= {scores.threshold:g} cells"
    nan = float("nan")
    tests = {}
    if len(scores.epe) > 1 and (runs is None or len(set(runs)) < len(scores.epe)):
        tests = {
            "epe": permutation_test(-errors, rng, runs, draws),
            "flow correlation": permutation_test(scores.correlations, rng, runs, draws),
            "field cosine": permutation_test(scores.similarity, rng, runs, draws),
            "flow 2-way": permutation_test(wins(scores.similarity), rng, runs, draws),
        }
    measured: list[tuple[str, MeanInterval, float]] = [
        ("epe", _mean(scores.epe, rng, draws), nan),
        ("epe skill", skill_interval(scores, rng, draws=2 * draws), 0.0),
        (f"epe {moving}", _mean(scores.epe_moving, rng, draws), nan),
        (f"cosine {moving}", _mean(scores.cosine, rng, draws), 0.0),
        (f"angle {moving}", _mean(scores.angle, rng, draws), 90.0),
        ("flow correlation", _mean(scores.correlation, rng, draws), 0.0),
        ("field cosine", _mean(scores.field_cosine, rng, draws), 0.0),
    ]
    if len(scores.epe) > 1:
        measured.append(("flow 2-way", pair_interval(scores.similarity, rng, draws=2 * draws), 0.5))
    rows = []
    for metric, value, chance in measured:
        test = tests.get("epe" if metric == "epe skill" else metric)
        p = nan if test is None else test.p
        ends = (value.mean, value.low, value.high, p, chance, value.cases, value.left_out)
        rows.append(ScoreRow(name, metric, *ends, control))
    return ScoredRows(rows, tests)


def zero_flow_margin(scores: MotionScores, rng: np.random.Generator) -> MeanInterval:
    """EPE of zero flow minus EPE, film by film, with its interval: above 0 where motion was decoded."""
    return paired_difference(scores.epe_zero, scores.epe, None, rng).difference


def skill_interval(
    scores: MotionScores, rng: np.random.Generator, level: float = 0.95, draws: int = 2000
) -> MeanInterval:
    """1 - ΣEPE/ΣEPE_zero with its interval over films: numerator and denominator are drawn together."""
    n = len(scores.epe)
    skill = 1 - scores.epe.sum() / scores.epe_zero.sum() if scores.epe_zero.sum() > 0 else float("nan")
    if n < 3 or not np.isfinite(skill):
        return MeanInterval(float(skill), float("nan"), float("nan"), n, n, 0)
    weights = rng.multinomial(n, np.full(n, 1 / n), draws)
    values = 1 - (weights @ scores.epe) / np.maximum(weights @ scores.epe_zero, 1e-12)
    share = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))  # expanded, as for means
    low, high = np.quantile(values, [share, 1 - share])
    return MeanInterval(float(skill), float(low), float(high), n, n, 0)


def _mean(values: np.ndarray, rng: np.random.Generator, draws: int) -> MeanInterval:
    return mean_interval(values, None, rng, draws=2 * draws)


def _mean_where(chosen: Tensor, values: Tensor) -> np.ndarray:
    count = chosen.flatten(1).sum(1)
    total = torch.where(chosen, values, 0.0).flatten(1).sum(1)
    return torch.where(count > 0, total / count, torch.nan).cpu().numpy()
