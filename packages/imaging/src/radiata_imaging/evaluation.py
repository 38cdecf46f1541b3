r"""A synthetic set against real people: every figure with its interval, its p-value and the floor that real sets reach.

Each volume is read once and turned into numbers (`measure`); comparisons then need no image. Three sets take part: the
synthetic one, the training people (features are fitted on them, copies are looked for in them) and held-out people, whom
neither the generator nor a feature has seen. The floor of a figure is what it reads between random halves of the held-out
people: a generator as good as the real thing reads about that. It is made from half as many people, so for figures that
cannot be negative it lies a little high.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.features import (
    HistogramFeatures,
    PCAFeatures,
    PooledVoxels,
    RandomConvFeatures,
    Standardised,
)
from radiata_imaging.intensity import HistogramBins, histogram_distance
from radiata_imaging.spectra import RadialBins, log_power
from radiata_imaging.two_sample import (
    Kernel,
    PolynomialKernel,
    RBFKernel,
    compare,
    median_length,
    people_means,
    permutation_p_value,
)

__all__ = ["Finding", "Instruments", "Measured", "compare_sets", "feature_tables", "measure"]

SPLITS = 40  # random halves of the held-out people for one floor
Statistic = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Instruments:
    """What is measured on each volume of one grid.

    Attributes:
        pooled: Voxels for distances, components and SSIM.
        network: Frozen random network.
        intensities: Bins of the intensity scale, [-1, 1].
        shells: Of k-space.
    """

    pooled: PooledVoxels
    network: RandomConvFeatures
    intensities: HistogramBins
    shells: RadialBins

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> "Instruments":
        """The instruments for one grid, spacing in mm."""
        return cls(PooledVoxels(shape), RandomConvFeatures(), HistogramBins(), RadialBins(shape, spacing))


@dataclass(frozen=True)
class Measured:
    """A set of volumes as numbers, one row a volume.

    Attributes:
        people: Who each volume is of; None when each stands for itself (synthetic).
        pooled: Averaged voxels, float32.
        network: Random-network features.
        intensities: Share of voxels in each intensity bin.
        spectrum: Power in dB in each shell that is shown.
        mean: Mean intensity of the whole volume (DC).
    """

    people: list[str] | None
    pooled: np.ndarray
    network: np.ndarray
    intensities: np.ndarray
    spectrum: np.ndarray
    mean: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def units(self) -> int:
        """People, or volumes where each stands for itself."""
        return len(self) if self.people is None else len(set(self.people))


def measure(
    volumes: Iterable[np.ndarray], people: Sequence[str] | None, instruments: Instruments
) -> Measured:
    """Numbers of each volume, float32 `(x, y, z)` in [-1, 1]; one volume is in memory at a time.

    Raises:
        InputError: No volume.
    """
    rows: list[tuple[np.ndarray, ...]] = []
    for array in volumes:
        power = instruments.shells.power(array)[instruments.shells.shown]
        rows.append(
            (
                instruments.pooled(array),
                instruments.network(array),
                instruments.intensities.fractions(array),
                log_power(power),
                np.array(array.mean(dtype=np.float64)),
            )
        )
    if not rows:
        raise InputError("expected at least one volume to measure; got none. Check the folder.")
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return Measured(None if people is None else list(people), *columns)


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        measure: What was compared and how.
        features: The full name of the features it rests on.
        value: Synthetic against held-out people.
        interval: 95 % bootstrap interval over units.
        p_value: Permutation test; small means the sets differ.
        floor: Mean over random halves of the held-out people.
        floor_interval: Its 2.5 and 97.5 %.
        n_synthetic: Synthetic volumes.
        n_people: Held-out people.
    """

    measure: str
    features: str
    value: float
    interval: tuple[float, float]
    p_value: float
    floor: float
    floor_interval: tuple[float, float]
    n_synthetic: int
    n_people: int


def feature_tables(
    train: Measured, others: Sequence[Measured], instruments: Instruments
) -> dict[str, list[np.ndarray]]:
    """Named features of the training set and of the others, in that order, scaled on the training set."""
    # Whitened components near the number of volumes are the training set's own noise: a quarter of it at most.
    components = PCAFeatures.fit(train.pooled, instruments.pooled, min(64, max(2, len(train) // 4)))
    histogram = HistogramFeatures(instruments.intensities)
    sets = [train, *others]
    tables = {components.name: [components.project(each.pooled) for each in sets]}
    for name, columns in (
        (f"{instruments.network.name}, scaled on the training set", [each.network for each in sets]),
        (f"{histogram.name}, scaled on the training set", [np.sqrt(each.intensities) for each in sets]),
    ):
        scale = Standardised.fit(columns[0])
        tables[name] = [scale(rows) for rows in columns]
    return tables


def compare_sets(
    synthetic: Measured,
    held_out: Measured,
    tables: dict[str, list[np.ndarray]],
    instruments: Instruments,
    rng: np.random.Generator,
    permutations: int = 999,
) -> list[Finding]:
    """All set distances. `tables` holds `[train, synthetic, held_out]` rows by feature name.

    Raises:
        InputError: Fewer than two held-out people or synthetic volumes.
    """
    if min(synthetic.units, held_out.units) < 2:
        raise InputError(
            f"expected two synthetic volumes and two held-out people or more; got {synthetic.units} and "
            f"{held_out.units}. Draw more seeds, or prepare a larger test split."
        )
    findings = []
    for name, (_, x, y) in tables.items():
        kernels: list[tuple[str, Kernel]] = [
            ("KID (cubic kernel, unbiased)", PolynomialKernel()),
            ("RBF-MMD² (median length, unbiased)", RBFKernel(median_length(np.concatenate([x, y])))),
        ]
        for title, kernel in kernels:
            result = compare(x, y, kernel, rng, blocks_y=held_out.people, permutations=permutations)
            floor, bounds = _kernel_floor(y, held_out.people, kernel, rng)
            findings.append(
                Finding(
                    title,
                    name,
                    result.value,
                    result.interval,
                    result.p_value,
                    floor,
                    bounds,
                    result.n_x,
                    result.n_y,
                )
            )
    width = instruments.intensities.width
    plain: list[tuple[str, str, np.ndarray, np.ndarray, Statistic]] = [
        ("Wasserstein-1 of intensities", "mean histogram, [-1, 1]", synthetic.intensities, held_out.intensities,
         lambda a, b: histogram_distance(a.mean(0), b.mean(0), width)),
        ("power spectrum, rms log ratio (dB)", "radial spectrum up to Nyquist", synthetic.spectrum, held_out.spectrum,
         lambda a, b: float(np.sqrt(((a.mean(0) - b.mean(0)) ** 2).mean()))),
        ("high frequencies, log ratio (dB)", "upper third of the spectrum", synthetic.spectrum, held_out.spectrum,
         lambda a, b: float((a.mean(0) - b.mean(0))[2 * a.shape[1] // 3 :].mean())),
        ("mean intensity (DC), difference", "whole volume", synthetic.mean[:, None], held_out.mean[:, None],
         lambda a, b: float(a.mean() - b.mean())),
        ("sd of the mean intensity, log ratio", "whole volume", synthetic.mean[:, None], held_out.mean[:, None],
         _log_sd_ratio),
    ]  # fmt: skip
    for title, name, x, y, statistic in plain:
        findings.append(
            _plain(title, name, x, people_means(y, held_out.people), statistic, rng, permutations)
        )
    return findings


def _log_sd_ratio(a: np.ndarray, b: np.ndarray) -> float:
    spread = [max(float(rows.std()), 1e-9) for rows in (a, b)]
    return float(np.log(spread[0] / spread[1]))


def _plain(
    title: str,
    features: str,
    x: np.ndarray,
    y: np.ndarray,
    statistic: Statistic,
    rng: np.random.Generator,
    draws: int,
) -> Finding:
    """A statistic of two sets of units with bootstrap interval, two-sided permutation p and floor."""
    value, both, n, m = statistic(x, y), np.concatenate([x, y]), len(x), len(y)
    permuted = np.empty(draws)
    drawn = np.empty(max(draws, 200))
    for draw in range(draws):
        order = rng.permutation(n + m)
        permuted[draw] = statistic(both[order[:n]], both[order[n:]])
    for draw in range(len(drawn)):
        drawn[draw] = statistic(x[rng.integers(n, size=n)], y[rng.integers(m, size=m)])
    p_value = permutation_p_value(abs(value), np.abs(permuted)) if draws else float("nan")
    halves = [y[rng.permutation(m)] for _ in range(SPLITS)] if m >= 4 else []
    floor, bounds = _summary([statistic(half[: m // 2], half[m // 2 :]) for half in halves])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Finding(title, features, value, (float(low), float(high)), p_value, floor, bounds, n, m)


def _kernel_floor(
    y: np.ndarray, people: list[str] | None, kernel: Kernel, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    names = np.array(people if people is not None else range(len(y)))
    units = np.unique(names)
    values = []
    for _ in range(SPLITS if len(units) >= 4 else 0):
        first = np.isin(names, rng.permutation(units)[: len(units) // 2])
        result = compare(
            y[first], y[~first], kernel, rng, blocks_x=names[first].tolist(), blocks_y=names[~first].tolist(),
            permutations=0, bootstraps=0,
        )  # fmt: skip
        values.append(result.value)
    return _summary(values)


def _summary(values: list[float]) -> tuple[float, tuple[float, float]]:
    if not values:
        return float("nan"), (float("nan"), float("nan"))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(np.mean(values)), (float(low), float(high))
