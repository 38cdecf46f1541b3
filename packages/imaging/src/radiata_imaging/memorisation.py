r"""Does a generator copy its training set? Nearest training neighbour against nearest held-out neighbour.

For each synthetic volume, in some feature space,

$$ r_i = \frac{\min_{j \in \mathrm{train}} \|x_i - y_j\|}{\min_{j \in \mathrm{held\ out}} \|x_i - y_j\|} $$

A copy has $r \to 0$. Because there are more training than held-out volumes, honest samples have $r$ somewhat below
one; so the ratio is judged against what *real held-out people* show: each against the training set and against the
other held-out people. A volume is flagged when its $\log r$ lies below the one-sided prediction limit of those,
$m + t_{\alpha, n-1}\, s \sqrt{1 + 1/n}$, which a new real person crosses with probability $\alpha$. As a second figure
that needs no threshold, the share of volumes that are nearer to a training person than to a held-out one when as many
of the former as of the latter are looked at: one half for a generator that does not know whom it was trained on.

**Positive control.** Training volumes with slight noise go through the same pipe and must be flagged; if they are not, the
features cannot see copies and the result says nothing. With few people in training (a cohort of warped copies) the
heads of any generator are nearer to training people than to others; the figures say so, rightly.

Distances are made a block at a time: what is held grows with the number of volumes, never with its square, and `nearest`
takes the second set as a stream.

References:
    N. Carlini et al. (2023). Extracting training data from diffusion models. arXiv:2301.13188, section 4 (distance ratios).
    S. Dar et al. (2024). Unconditional latent diffusion models memorize patient imaging data. arXiv:2402.01054.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

from radiata_core.errors import InputError

__all__ = ["Memorisation", "memorisation", "nearest", "squared_distances"]

Rows = Float[np.ndarray, "_ _"]

_BLOCK = 256
"""Rows of the second set whose distances are made together."""


@dataclass(frozen=True)
class Memorisation:
    """What the nearest neighbours say.

    Attributes:
        ratio: Of each synthetic volume, nearest training over nearest held-out distance.
        nearest_train: Index of its nearest training volume.
        threshold: Ratios below are flagged.
        flagged: True for suspected copies.
        real_ratio: The same ratio of the held-out people, which the threshold is made from.
        control_ratio: Of the positive control.
        control_detected: Share of the positive control that is flagged; below 0.95 the result is not to be used.
        nearer_to_train: Share nearer to a training than to a held-out volume at equal numbers of people; 0.5 if honest.
        alpha: Probability that a new real person is flagged.
    """

    ratio: np.ndarray
    nearest_train: np.ndarray
    threshold: float
    flagged: np.ndarray
    real_ratio: np.ndarray
    control_ratio: np.ndarray
    control_detected: float
    nearer_to_train: float
    alpha: float

    @property
    def usable(self) -> bool:
        """Whether the positive control was found."""
        return self.control_detected >= 0.95


def squared_distances(x: Rows, y: Rows) -> np.ndarray:
    """Squared Euclidean distances `(n, m)` by one matrix product, in the dtype of the rows, never negative."""
    centre = y.mean(0)  # cancels the common part, which would cost digits
    x, y = x - centre, y - centre
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2.0 * (x @ y.T)
    return np.maximum(squared, 0.0)


def _blocks(rows: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Matrices of at most `size` rows, one at a time."""
    several = iter(rows)
    while block := list(islice(several, size)):
        matrix = np.stack(block)
        del block  # the rows themselves are let go before the next are read
        yield matrix


def nearest(x: Rows, y: Iterable[np.ndarray], block: int = _BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Index and distance of the nearest row of y for each row of x; the distance is recomputed exactly for that pair.

    Args:
        x: One row a volume.
        y: A matrix, or anything that yields its rows one after another: they are read once, `block` are held.
        block: Rows of y that are held.

    Raises:
        InputError: y has no row.
    """
    index, least, first = np.zeros(len(x), int), np.full(len(x), np.inf), 0
    for rows in _blocks(y, block):
        best = squared_distances(x, rows).argmin(1)
        exact = np.linalg.norm(x.astype(np.float64) - rows[best], axis=1)
        nearer = exact < least
        index[nearer], least[nearer] = first + best[nearer], exact[nearer]
        first += len(rows)
    if first == 0:
        raise InputError(
            "expected rows to search for the nearest; got none. Give the features of one volume or more."
        )
    return index, least


def memorisation(
    synthetic: Rows,
    train: Rows,
    held_out: Rows,
    control: Rows,
    rng: np.random.Generator,
    *,
    train_people: Sequence[Hashable] | None = None,
    held_out_people: Sequence[Hashable] | None = None,
    alpha: float = 0.01,
    draws: int = 50,
) -> Memorisation:
    """Nearest-neighbour ratios of synthetic volumes with their threshold from real people and a positive control.

    Args:
        synthetic: Features of the generated volumes.
        train: Of the volumes the generator was trained on.
        held_out: Of volumes of people it never saw.
        control: Of near-copies of training volumes, made by the caller.
        rng: Draws the equal-number subsets of people.
        train_people: Person of each training volume; None: each its own.
        held_out_people: Person of each held-out volume; None: each its own.
        alpha: Share of new real people that may be flagged.
        draws: Subsets of training people.

    Raises:
        InputError: Fewer than two held-out people: then there is no "other person" to compare with.
    """
    train_names = np.array(
        [str(p) for p in (train_people if train_people is not None else range(len(train)))]
    )
    names = np.array(
        [str(p) for p in (held_out_people if held_out_people is not None else range(len(held_out)))]
    )
    people = np.unique(names)
    if len(people) < 2 or len(held_out) < 3:
        raise InputError(
            f"expected three held-out volumes of two people or more; got {len(held_out)} of {len(people)}. "
            "Prepare a store with a larger test set."
        )
    index, to_train = nearest(synthetic, train)
    to_held_out = nearest(synthetic, held_out)[1]
    ratio = _ratio(to_train, to_held_out)

    real = _ratio(nearest(held_out, train)[1], _to_other_people(held_out, names))
    logs = np.log(np.maximum(real, 1e-12))
    spread = logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))
    threshold = float(np.exp(logs.mean() + student_t.ppf(alpha, len(logs) - 1) * spread))

    control_ratio = _ratio(nearest(control, train)[1], nearest(control, held_out)[1])
    return Memorisation(
        ratio=ratio,
        nearest_train=index,
        threshold=threshold,
        flagged=ratio < threshold,
        real_ratio=real,
        control_ratio=control_ratio,
        control_detected=float((control_ratio < threshold).mean()),
        nearer_to_train=_nearer(synthetic, train, held_out, train_names, names, rng, draws),
        alpha=alpha,
    )


def _ratio(to_train: np.ndarray, to_held_out: np.ndarray) -> np.ndarray:
    return to_train / np.maximum(to_held_out, np.finfo(np.float64).tiny ** 0.5)


def _to_other_people(rows: Rows, names: np.ndarray, block: int = _BLOCK) -> np.ndarray:
    """Distance of each row to the nearest row of another name."""
    least = np.full(len(rows), np.inf)
    for first in range(0, len(rows), block):
        some = slice(first, first + block)
        squared = squared_distances(rows, rows[some])
        squared[names[:, None] == names[None, some]] = np.inf
        np.minimum(least, squared.min(1), out=least)
    return np.sqrt(least)


def _nearest_of_subsets(x: Rows, y: Rows, subsets: list[np.ndarray], block: int = _BLOCK) -> np.ndarray:
    """Least squared distance of each row of x to each of some subsets (indices) of the rows of y, `(subsets, n)`."""
    members = np.zeros((len(subsets), len(y)), bool)
    least = np.full((len(subsets), len(x)), np.inf)
    for row, subset in zip(members, subsets, strict=True):
        row[subset] = True
    for first in range(0, len(y), block):
        some = slice(first, first + block)
        squared = squared_distances(x, y[some])
        for best, row in zip(least, members[:, some], strict=True):
            np.minimum(best, squared[:, row].min(1, initial=np.inf), out=best)
    return least


def _nearer(
    x: np.ndarray, train: np.ndarray, held: np.ndarray, of_train: np.ndarray, of_held: np.ndarray,
    rng: np.random.Generator, draws: int,
) -> float:  # fmt: skip
    """Share of x nearer to train than to held, over random subsets with as many people and as many volumes on each side."""
    train_people, held_people = np.unique(of_train), np.unique(of_held)
    k = min(len(train_people), len(held_people))
    of_both: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for _ in range(draws):
        a = np.flatnonzero(np.isin(of_train, rng.choice(train_people, k, replace=False)))
        b = np.flatnonzero(np.isin(of_held, rng.choice(held_people, k, replace=False)))
        size = min(len(a), len(b))
        for subsets, side in zip(of_both, (a, b), strict=True):
            subsets.append(rng.choice(side, size, replace=False))
    to_train, to_held = (_nearest_of_subsets(x, y, s) for y, s in zip((train, held), of_both, strict=True))
    return float((to_train < to_held).mean())
