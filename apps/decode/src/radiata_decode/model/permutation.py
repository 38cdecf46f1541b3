r"""Could the pairing be chance? Decoded pictures are paired with the wrong truths, within runs, many times.

A pair score $S_{ij}$ says how well decoded picture j fits true picture i (a correlation; a share of wins). The statistic is
the mean of $S_{jj}$; under "responses say nothing about which stimulus of the run was seen" it is exchangeable with the
mean of $S_{\pi(j) j}$ for any permutation π that keeps runs (or sessions) apart, since trials of one run share drifts that
would otherwise pass for information.

$$ p = (1 + b)/(1 + n) $$

with b of the n random permutations scoring at least as high: never 0, and valid for any n. Over several regions or
metrics the p-values are turned into false discovery rates by Benjamini and Hochberg.

References:
    B. Phipson, G. Smyth (2010). Permutation p-values should never be zero. SAGMB 9(1), equation 2.
    Y. Benjamini, Y. Hochberg (1995). Controlling the false discovery rate. JRSS B 57(1), equation 1.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["PermutationTest", "false_discovery_rates", "permutation_test", "permuted_rows"]


@dataclass(frozen=True)
class PermutationTest:
    """A statistic and what it is by chance.

    Attributes:
        observed: Mean score of the true pairing.
        null: (draw,), of the permuted ones.
        p: One-sided, of "no better than chance"; NaN where nothing could be observed.
    """

    observed: float
    null: np.ndarray
    p: float


def permuted_rows(
    count: int, groups: Sequence[Hashable] | np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """A random permutation of 0 … count - 1 that keeps every number within its group, (count,).

    Args:
        count: How many.
        groups: Run of each; None: all in one.
        rng: Of the permutation.

    Raises:
        InputError: another number of groups.
    """
    return _shuffled(_codes(groups, count), rng)


def permutation_test(
    scores: np.ndarray,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    draws: int = 1000,
) -> PermutationTest:
    """Mean score of the pairs against permuted pairs.

    Args:
        scores: (true, decoded), pairs on the diagonal, larger is better; NaN pairs are left out of each mean.
        rng: Of the permutations.
        groups: Run of each stimulus; permuted within runs.
        draws: Permutations, at least 1.

    Raises:
        InputError: scores that are not square, or runs of one stimulus each, which cannot be permuted.
    """
    s = np.asarray(scores, np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or draws < 1:
        raise InputError(f"expected scores of n by n pairs and at least one draw; got {s.shape} and {draws}.")
    codes = _codes(groups, len(s))
    runs = len(np.unique(codes))
    if len(s) < 2 or runs == len(s):
        raise InputError(
            f"expected a run of at least two stimuli to permute; got {len(s)} in {runs} runs. Permute within "
            "sessions, or not within groups."
        )
    columns = np.arange(len(s))
    observed = _mean(s[columns, columns])
    null = np.array([_mean(s[_shuffled(codes, rng), columns]) for _ in range(draws)])
    if not np.isfinite(observed):
        return PermutationTest(observed, null, float("nan"))
    # Equal sums in another order differ by rounding.
    larger = int((null >= observed - 1e-12 * max(1.0, abs(observed))).sum())
    return PermutationTest(observed, null, (1 + larger) / (1 + draws))


def false_discovery_rates(p: Mapping[str, float]) -> dict[str, float]:
    """Benjamini and Hochberg's adjusted p-value of each; NaN stays NaN and is not counted as a test.

    Args:
        p: Name (region, metric) → p-value in [0, 1].

    Raises:
        InputError: a p-value outside [0, 1].
    """
    from scipy.stats import false_discovery_control

    known = {name: value for name, value in p.items() if np.isfinite(value)}
    if any(not 0 <= value <= 1 for value in known.values()):
        raise InputError("expected p-values from 0 to 1; got others.")
    adjusted = false_discovery_control(list(known.values())) if known else []
    found = dict(zip(known, map(float, adjusted), strict=True))
    return {name: found.get(name, float("nan")) for name in p}


def _codes(groups: Sequence[Hashable] | np.ndarray | None, count: int) -> np.ndarray:
    """Group of each as whole numbers from 0."""
    if groups is None:
        return np.zeros(count, np.int64)
    labels = list(groups)
    if len(labels) != count:
        raise InputError(f"expected the run of each of {count} stimuli; got {len(labels)}.")
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return np.array([places[label] for label in labels], dtype=np.int64)


def _shuffled(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.empty(len(codes), np.int64)
    order[np.argsort(codes, kind="stable")] = np.lexsort((rng.random(len(codes)), codes))
    return order


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
