r"""Can probabilities be believed: of the voxels a segmenter calls 80 % sure, are 80 % right?

Voxels are sorted into bins by what was promised; in each bin the share that is right is set against the mean promise,

$$\mathrm{ECE} = \sum_m \frac{|B_m|}{n}\, \bigl|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\bigr| .$$

*Top-label*: the promise is the probability of the class that was chosen. *Class-wise*: one diagram a class, of its
probability everywhere, averaged over classes; it sees structures that a large background hides in the first.

A network that is too sure is repaired by one number: softmax(z / T), with T fitted to the labels of validation cases. The
likelihood is convex in 1/T, so golden-section search finds its maximum; the order of the classes, and so the segmentation,
does not change. `spread_error_correlation` asks whether the voxels called unsure are the wrong ones.

References:
    Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599 (both measures and T).
    Kull et al., "Beyond temperature scaling", 2019, https://arxiv.org/abs/1910.12656 (class-wise error).
"""

import math
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = [
    "ErrorCorrelation",
    "Reliability",
    "TemperatureFit",
    "class_wise_reliability",
    "fit_temperature",
    "spread_error_correlation",
    "tempered",
    "top_label_reliability",
]

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram and what it sums up to.

    Attributes:
        confidence: Mean promise of each bin, NaN where it is empty, (bins,).
        accuracy: Share that was right, NaN where it is empty, (bins,).
        counts: Voxels of each bin, (bins,), int64.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """|accuracy - confidence|, 0 where a bin is empty, (bins,)."""
        return np.nan_to_num(np.abs(self.accuracy - self.confidence))

    @property
    def expected_error(self) -> float:
        """ECE: the mean gap over voxels, in [0, 1]."""
        return float(self.counts @ self.gaps / max(1, self.counts.sum()))

    @property
    def largest_error(self) -> float:
        """MCE: the largest gap of a bin."""
        return float(self.gaps.max(initial=0.0))


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature and what it changed, on the voxels it was fitted to.

    Attributes:
        temperature: T; above 1 for a network that was too sure.
        nll_before: Mean -log p(label), nats a voxel, at T = 1.
        nll_after: The same at T.
        ece_before: Top-label expected calibration error at T = 1.
        ece_after: The same at T.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class ErrorCorrelation:
    """How well a spread tells where errors are.

    Attributes:
        pearson: Linear correlation of spread and error.
        spearman: Correlation of their ranks.
    """

    pearson: float
    spearman: float


def top_label_reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, mask: np.ndarray | None = None
) -> Reliability:
    """The diagram of the chosen class.

    Args:
        probabilities: (class, *grid), summing to 1.
        labels: True class of every voxel, (*grid), whole; negative where it is not known.
        bins: Of equal width over [0, 1], the right end belongs to a bin.
        mask: Voxels that count, (*grid).

    Raises:
        InputError: shapes, classes or bins that do not fit.
    """
    p, true = _columns(probabilities, labels, mask)
    chosen = p.argmax(0)
    return _diagram(p.max(0), chosen == true, bins)


def class_wise_reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, mask: np.ndarray | None = None
) -> tuple[Reliability, ...]:
    """One diagram a class: of its probability in every voxel. The class-wise error is the mean of their expected errors.

    Args: as `top_label_reliability`.
    """
    p, true = _columns(probabilities, labels, mask)
    return tuple(_diagram(row, true == index, bins) for index, row in enumerate(p))


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / T) over the first axis, float32; logarithms of probabilities will do as logits.

    Args:
        logits: (class, *grid), finite.
        temperature: T > 0.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    p = np.exp(scaled - scaled.max(0, keepdims=True))
    return (p / p.sum(0, keepdims=True)).astype(np.float32)


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray | None = None, bins: int = 15
) -> TemperatureFit:
    """The T under which the true labels are likeliest, in [1/20, 20].

    Args:
        logits: (class, *grid), finite, of validation cases (join cases along an axis of the grid).
        labels: True class of every voxel, (*grid); negative where it is not known.
        mask: Voxels that count, (*grid).
        bins: Of the errors before and after.

    Raises:
        InputError: shapes or classes that do not fit, or logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise InputError("expected finite logits; got NaN or infinity. Clip log-probabilities at -30, say.")
    z, true = _columns(logits, labels, mask)
    z = z - z.max(0)
    of_true = z[true, np.arange(z.shape[1])]

    def nll(log_inverse: float) -> float:
        scaled = z * math.exp(log_inverse)
        return float((np.log(np.exp(scaled).sum(0)) - of_true * math.exp(log_inverse)).mean())

    best = _golden(nll, -math.log(20.0), math.log(20.0))
    value = math.exp(-best)
    before, after = (
        _diagram(p.max(0), p.argmax(0) == true, bins) for p in (tempered(z, 1), tempered(z, value))
    )
    return TemperatureFit(value, nll(0.0), nll(best), before.expected_error, after.expected_error)


def spread_error_correlation(
    spread: np.ndarray, error: np.ndarray, mask: np.ndarray | None = None
) -> ErrorCorrelation:
    """Correlation over voxels of a spread (entropy, sd) and the error made (0 or 1, or a size); NaN if one is constant.

    Args:
        spread: Any shape.
        error: The same shape.
        mask: Voxels that count.

    Raises:
        InputError: shapes differ, or fewer than 2 voxels count.
    """
    from scipy.stats import rankdata

    inside = np.ones(spread.shape, bool) if mask is None else np.asarray(mask, bool)
    if not spread.shape == error.shape == inside.shape or inside.sum() < 2:
        raise InputError(
            f"expected spread, error and mask of one shape with at least 2 voxels; got {spread.shape}, {error.shape}, "
            f"{inside.shape}. Compare maps of one grid."
        )
    a, b = (np.asarray(values[inside], np.float64) for values in (spread, error))
    return ErrorCorrelation(_pearson(a, b), _pearson(rankdata(a), rankdata(b)))


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else math.nan


def _golden(function, low: float, high: float, tolerance: float = 1e-6) -> float:
    """Where a function with one minimum between low and high has it."""
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    values = [function(x) for x in inner]
    while high - low > tolerance:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - _GOLDEN * (high - low)
            values[0] = function(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + _GOLDEN * (high - low)
            values[1] = function(inner[1])
    return 0.5 * (low + high)


def _diagram(promise: np.ndarray, right: np.ndarray, bins: int) -> Reliability:
    if bins < 1:
        raise InputError(f"expected at least 1 bin; got {bins}. 15 is usual.")
    place = np.clip(np.ceil(promise.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, promise, bins) / counts
        accuracy = np.bincount(place, right, bins) / counts
    return Reliability(confidence, accuracy, counts)


def _columns(
    values: np.ndarray, labels: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(class, voxel) in float64 and the true class (voxel,) of the voxels that count."""
    inside = labels >= 0 if mask is None else np.asarray(mask, bool) & (labels >= 0)
    if (
        values.shape[1:] != labels.shape
        or inside.shape != labels.shape
        or len(values) < 2
        or not inside.any()
    ):
        raise InputError(
            f"expected (class, *grid) beside labels (*grid), at least 2 classes and one voxel that counts; "
            f"got {values.shape} and {labels.shape}. Put the class axis first."
        )
    true = labels[inside].astype(np.int64)
    if int(true.max()) >= len(values):
        raise InputError(
            f"expected labels below {len(values)}; got {int(true.max())}. Group the codes into the network's classes."
        )
    return values[:, inside].astype(np.float64), true
