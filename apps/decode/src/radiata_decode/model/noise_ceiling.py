r"""How much of a response any model could explain: noise ceilings from repeats.

A trial is signal plus noise, $x = s + \varepsilon$. Repeats of a stimulus share s; what differs between them is noise.
The noise ceiling signal-to-noise ratio is

$$ \text{ncsnr} = \sigma_\text{signal}/\sigma_\text{noise}, \qquad
   \text{NC}(n) = \frac{\text{ncsnr}^2}{\text{ncsnr}^2 + 1/n} $$

with $\sigma^2_\text{noise}$ the variance between repeats, pooled over stimuli, and $\sigma^2_\text{signal}$ what is
left of the total variance, not below 0. NC(n) is the share of variance of an average of n trials that the stimulus
explains; with unequal repeats 1/n is replaced by its mean over stimuli. The total variance of N trials, $n_i$ of
stimulus i, holds $(N - \sum n_i^2/N)/(N - 1)$ times the signal variance, which is undone here: the estimate is that of a
one-way analysis of variance with random effects, unbiased for any numbers of repeats, and NSD's for many stimuli.

A correlation with measured averages is bounded by $\sqrt{\text{NC}}$. The reliability of averages is also the correlation
of two halves, stepped up to the full length by Spearman and Brown: $r_{2n} = 2 r_n / (1 + r_n)$.

References:
    Natural Scenes Dataset, data manual, section on noise ceilings. http://naturalscenesdataset.org.
    E. Allen et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience and AI. Nature Neuroscience 25,
    Methods, "Noise ceiling estimation".
    W. Brown (1910), C. Spearman (1910). British Journal of Psychology 3 (stepping up reliability).
"""

from collections.abc import Hashable, Sequence

import numpy as np

from radiata_core.errors import InputError

__all__ = ["correlation_ceiling", "ncsnr", "noise_ceiling", "spearman_brown", "split_half"]

COLUMNS = 2048  # voxels at a time in float64


def ncsnr(responses: np.ndarray, stimuli: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Ratio of the signal's to the noise's standard deviation, (voxel,) float32, >= 0.

    0 where signal is not above noise; infinite where repeats agree exactly; NaN for a voxel that never changes.

    Args:
        responses: (trial, voxel), single trials, z-scored within sessions as in NSD, or not.
        stimuli: Which was shown in each trial; those shown once count for the total variance only.

    Raises:
        InputError: another number of stimuli than trials, none shown twice, or only one.
    """
    values, group = _grouped(responses, stimuli)
    counts = np.bincount(group)
    trials, degrees = len(group), len(group) - len(counts)
    if degrees < 1 or len(counts) < 2:
        raise InputError(
            f"expected at least two stimuli and one of them repeated; got {len(counts)} stimuli in {trials} trials. Noise "
            "cannot be told from signal without repeats."
        )
    factor = trials - (counts.astype(np.float64) ** 2).sum() / trials
    result = np.empty(values.shape[1], np.float32)
    for start in range(0, values.shape[1], COLUMNS):
        block = values[:, start : start + COLUMNS].astype(np.float64)
        block = block - block.mean(0)
        means = _means(block, group, counts)
        total = (block**2).sum(0)
        noise = ((block - means[group]) ** 2).sum(0) / degrees
        signal = np.maximum(0.0, total - (trials - 1) * noise) / factor
        with np.errstate(divide="ignore", invalid="ignore"):
            result[start : start + COLUMNS] = np.sqrt(signal / noise)
    return result


def noise_ceiling(ratio: np.ndarray | float, repeats: int | Sequence[int] | np.ndarray = 1) -> np.ndarray:
    """NC: share of the variance of averages that the stimulus explains, 0 to 1, in the shape of `ratio`.

    Args:
        ratio: ncsnr, >= 0; infinity gives 1.
        repeats: Trials in each average, >= 1; one number for all or one a stimulus.

    Raises:
        InputError: a number of repeats below 1.
    """
    counts = np.atleast_1d(np.asarray(repeats, np.float64))
    if not len(counts) or not (counts >= 1).all():
        raise InputError("expected at least one repeat of each stimulus; got fewer.")
    with np.errstate(divide="ignore"):
        inverse = 1.0 / np.asarray(ratio, np.float64) ** 2
    return 1.0 / (1.0 + inverse * float(np.mean(1.0 / counts)))


def correlation_ceiling(
    ratio: np.ndarray | float, repeats: int | Sequence[int] | np.ndarray = 1
) -> np.ndarray:
    """Highest correlation that predictions can have with measured averages: the root of NC."""
    return np.sqrt(noise_ceiling(ratio, repeats))


def spearman_brown(r: np.ndarray | float, factor: float | int = 2) -> np.ndarray:
    """Reliability of measurements `factor` times as long: $f r / (1 + (f - 1) r)$.

    Args:
        r: Reliability, -1 < r <= 1.
        factor: Ratio of the lengths, > 0.
    """
    value = np.asarray(r, np.float64)
    return factor * value / (1.0 + (factor - 1.0) * value)


def split_half(
    responses: np.ndarray, stimuli: Sequence[Hashable] | np.ndarray, rng: np.random.Generator, draws: int = 10
) -> np.ndarray:
    """Reliability of averages over all repeats, (voxel,) float32: halves correlated, stepped up, mean over draws.

    Args:
        responses: (trial, voxel).
        stimuli: Which was shown in each trial; those shown once are left out, of an odd number one trial is.
        rng: Which trials make a half.
        draws: Random halvings.

    Raises:
        InputError: fewer than three stimuli were repeated, or no draws.
    """
    values, group = _grouped(responses, stimuli)
    rows = [np.flatnonzero(group == number) for number in range(group.max() + 1 if len(group) else 0)]
    rows = [members for members in rows if len(members) > 1]
    if len(rows) < 3 or draws < 1:
        raise InputError(
            f"expected at least three repeated stimuli and one draw; got {len(rows)} and {draws}. "
            "Use ncsnr, or more repeats."
        )
    total = np.zeros(values.shape[1])
    for _ in range(draws):
        drawn = [rng.permutation(members) for members in rows]
        a = np.stack([values[d[: len(d) // 2]].mean(0, dtype=np.float64) for d in drawn])
        b = np.stack([values[d[len(d) // 2 : 2 * (len(d) // 2)]].mean(0, dtype=np.float64) for d in drawn])
        a, b = a - a.mean(0), b - b.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += spearman_brown((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)))
    return (total / draws).astype(np.float32)


def _grouped(
    responses: np.ndarray, stimuli: Sequence[Hashable] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(responses)
    names = list(stimuli)
    if values.ndim != 2 or len(names) != len(values):
        raise InputError(
            f"expected responses (trial, voxel) and a stimulus for each trial; got {values.shape} and {len(names)}."
        )
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return values, np.array([places[name] for name in names], dtype=np.int64)


def _means(block: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    order = np.argsort(group, kind="stable")
    sums = np.add.reduceat(block[order], np.cumsum(counts) - counts, axis=0)
    return sums / counts[:, None]
