r"""Which features explain what alone, and what they share: variance partitioned between two or three spaces.

For every subset S of the spaces one model is fitted and its held-out R²(S) is measured. What only the subset T shares, and
nothing outside of it explains, follows by inclusion and exclusion,

$$ U(T) = -\sum_{S \supseteq T^c,\; S \subseteq \text{all}} (-1)^{|S \cap T|}\, R^2(S), $$

$T^c$ the other spaces: for A and B, unique A = R²(AB) - R²(B), shared = R²(A) + R²(B) - R²(AB). By construction the parts
add up to R² of all. Parts can be negative: held-out R² of a larger model may be lower, and suppression is real.

A unique part is tested by the full model's squared errors against those of the model without the space, stimulus by
stimulus, averaged over a region's voxels: signs flipped, false discovery rate over regions.

References:
    M. Lescroart, D. Stansbury, J. Gallant (2015). Fourier power, subjective distance, and object categories all provide
    plausible models of BOLD responses in scene-selective visual areas. Frontiers in Computational Neuroscience 9,
    variance partitioning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.model.bootstrap_scores import MeanInterval, paired_difference
from radiata_decode.model.encoding_model import fit_encoding
from radiata_decode.model.permutation import false_discovery_rates

__all__ = ["RegionTest", "VariancePartition", "partitioned", "unique_tests", "variance_partition"]


@dataclass(frozen=True)
class VariancePartition:
    """Parts of the explained variance.

    Attributes:
        r2: Names of a subset of spaces → held-out R² of the model on it, (voxel,).
        parts: Names of a subset → what exactly those spaces share, (voxel,); of one name: unique.
        predicted: Names of a subset → held-out predictions, (sample, voxel).
    """

    r2: Mapping[tuple[str, ...], np.ndarray]
    parts: Mapping[tuple[str, ...], np.ndarray]
    predicted: Mapping[tuple[str, ...], np.ndarray]

    @property
    def full(self) -> tuple[str, ...]:
        """All names."""
        return max(self.r2, key=len)


@dataclass(frozen=True)
class RegionTest:
    """Whether a space explains something alone in a region.

    Attributes:
        region: Its name.
        space: The space.
        gain: Mean unique R² of its voxels, with the interval over stimuli of the drop in error that stands behind it.
        p: Two-sided, of "no difference in error"; with a gain below 0 the space only added weights to estimate.
        q: False discovery rate over regions and spaces.
    """

    region: str
    space: str
    gain: MeanInterval
    p: float
    q: float


def partitioned(r2: Mapping[tuple[str, ...], np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """Parts from R² of all subsets.

    Args:
        r2: Names of a subset → R²; every nonempty subset of the largest, in its order.

    Raises:
        InputError: a subset is missing.
    """
    full = max(r2, key=len)
    subsets = _subsets(full)
    missing = [subset for subset in subsets if subset not in r2]
    if missing:
        raise InputError(
            f"expected R² of every subset of {', '.join(full)}; got none of {'+'.join(missing[0])}."
        )
    zero = np.zeros_like(np.asarray(r2[full], np.float64))
    parts = {}
    for shared in subsets:
        outside = {name for name in full if name not in shared}
        total = zero.copy()
        for chosen in [(), *_subsets(shared)]:
            subset = tuple(name for name in full if name in outside or name in chosen)
            sign = -((-1) ** len(chosen))
            total += sign * (r2[subset] if subset else zero)
        parts[shared] = total
    return parts


def variance_partition(
    spaces: Mapping[str, np.ndarray],
    responses: np.ndarray,
    new_spaces: Mapping[str, np.ndarray],
    new_responses: np.ndarray,
    *,
    sample_weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> VariancePartition:
    """Models on every subset of two or three spaces of features, and the parts.

    Spaces are standardised and weigh alike: each feature is divided by the root of the number of features in its space.

    Args:
        spaces: Name → training features (sample, feature), lagged where there is time.
        responses: (sample, voxel), training.
        new_spaces: The same of held-out samples.
        new_responses: (sample, voxel), held out.
        sample_weights: Of training samples.
        groups: Voxels that share a penalty; None: each its own.

    Raises:
        InputError: one space or more than three, features that do not fit.
    """
    if len(spaces) not in (2, 3) or set(spaces) != set(new_spaces):
        raise InputError(
            f"expected two or three spaces of features, the same for training and held-out samples; got {len(spaces)}."
        )
    widths = {name: np.asarray(values).shape[1] for name, values in spaces.items()}
    r2, predicted = {}, {}
    spread = ((new_responses - new_responses.mean(0)) ** 2).sum(0)
    for subset in _subsets(tuple(spaces)):
        weights = np.concatenate([np.full(widths[name], widths[name] ** -0.5) for name in subset])
        train = np.concatenate([np.asarray(spaces[name], np.float32) for name in subset], 1)
        test = np.concatenate([np.asarray(new_spaces[name], np.float32) for name in subset], 1)
        fit = fit_encoding(
            train, responses, groups=groups, sample_weights=sample_weights, feature_weights=weights
        )
        predicted[subset] = fit.predict(test)
        error = ((new_responses - predicted[subset]) ** 2).sum(0)
        r2[subset] = np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1), 0.0)
    return VariancePartition(r2, partitioned(r2), predicted)


def unique_tests(
    partition: VariancePartition,
    measured: np.ndarray,
    regions: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> list[RegionTest]:
    """Does a space explain anything alone? In every region, for every space.

    Args:
        partition: Of these held-out samples.
        measured: (sample, voxel).
        regions: Name → which voxels, (voxel,) bool; empty ones are left out.
        rng: Of flips and intervals.

    Raises:
        InputError: no region with voxels.
    """
    full = partition.full
    spread = ((measured - measured.mean(0)) ** 2).mean(0)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0)
    found = {}
    for region, members in regions.items():
        if not members.any():
            continue
        for space in full:
            rest = tuple(name for name in full if name != space)
            with_it, without = (
                (((measured - partition.predicted[subset]) ** 2 * scale)[:, members]).mean(1)
                for subset in (full, rest)
            )
            found[region, space] = paired_difference(without, with_it, None, rng)
    if not found:
        raise InputError("expected a region with voxels; got none.")
    rates = false_discovery_rates({f"{region} {space}": one.p for (region, space), one in found.items()})
    return [
        RegionTest(region, space, one.difference, one.p, rates[f"{region} {space}"])
        for (region, space), one in found.items()
    ]


def _subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [chosen for count in range(1, len(names) + 1) for chosen in combinations(names, count)]
