r"""Which layer, at which noise: chosen on validation, and on nothing else.

The best place (layer, level) depends on the task: coarse labels are read best in deep layers at moderate noise, fine ones
late and at little. To look for it on the test set inflates the result, by the more the more places are tried. So

    train       fits a probe at every place, by every way of fitting it
    validation  scores them; the best is the choice
    test        is not an argument

and what comes back has the whole table, not only its best row. The score of the chosen one on validation is itself too good,
being the best of many: report the test.

    places = gathered(features, images, seeds)                                    # (layer, level) -> (rows, features)
    selection = select(places.rows(a), y[a], places.rows(b), y[b], fits, accuracy)  # a: train, b: validation
    accuracy(selection(places.rows(c)), y[c])                                     # c: test, once

References:
    Mukhopadhyay et al. 2023, https://arxiv.org/abs/2311.17921 (block and time searched by data set).
    Cawley & Talbot, "On over-fitting in model selection", 2010, JMLR 11:2079-2107.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from radiata_core.denoiser_features import DenoiserFeatures, Place
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_core.types import Batch

__all__ = ["Places", "Scored", "Selection", "accuracy", "explained", "gathered", "select"]

Fit = Callable[[Tensor, Tensor], Any]
Score = Callable[[Tensor, Tensor], float]


class Places(dict[Place, Tensor]):
    """(layer, level) → features, a row an example; indexed by rows with `rows`."""

    def rows(self, chosen: Tensor | slice) -> "Places":
        """The same places, some of the rows."""
        return Places({place: values[chosen] for place, values in self.items()})


class Scored(NamedTuple):
    """A row of the table: the place, the way of fitting, and its score on validation (higher is better)."""

    layer: str
    level: float
    fit: str
    score: float


@dataclass(frozen=True, eq=False)
class Selection:
    """The best of a table, and the table.

    Attributes:
        best: The row that was chosen; of equals, the first.
        probe: Its probe, fitted on the training rows.
        table: All rows, in the order in which they were tried.
    """

    best: Scored
    probe: Any
    table: tuple[Scored, ...]

    @property
    def place(self) -> Place:
        """(layer, level) of the choice."""
        return self.best.layer, self.best.level

    def __call__(self, places: Mapping[Place, Tensor]) -> Tensor:
        """What the chosen probe says of other examples' features."""
        said: Tensor = self.probe(places[self.place])
        return said

    def by_level(self) -> dict[float, float]:
        """Noise level → the best score of it on validation."""
        return {
            level: max(row.score for row in self.table if row.level == level)
            for level in sorted({row.level for row in self.table})
        }


def gathered(
    features: DenoiserFeatures,
    images: Batch,
    seeds: Sequence[int],
    cells: int = 1,
    batch_size: int = 64,
    **conditions: Tensor,
) -> Places:
    """Pooled features of many images, a few at a time; each place `(rows, channels * cells^n)`.

    Args:
        features: Of which denoiser, layers and levels.
        images: `(rows, channels, *grid)`, units of the denoiser.
        seeds: One a row, of its noise; a seed that repeats gives those rows one noise.
        cells: Along each axis.
        batch_size: Rows at once; it changes nothing.
        conditions: A row a row, for the denoiser; better none.

    Raises:
        InputError: not one seed a row.
    """
    if len(seeds) != len(images):
        raise InputError(f"expected one seed a row, {len(images)}; got {len(seeds)}. Use range(len(images)).")
    parts = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        given = {name: values[rows] for name, values in conditions.items()}
        parts.append(features.vectors(images[rows], generators_of(seeds[rows], _NOISE), cells, **given))
    return Places({place: torch.cat([part[place] for part in parts]) for place in parts[0]})


_NOISE = 61  # purpose of the seed


def select(
    train: Mapping[Place, Tensor],
    targets: Tensor,
    validation: Mapping[Place, Tensor],
    validation_targets: Tensor,
    fits: Mapping[str, Fit],
    score: Score,
) -> Selection:
    """The place and the way of fitting that score best on validation.

    Args:
        train: (layer, level) → features of the labelled examples.
        targets: Theirs, a row each.
        validation: The same places of other examples (other people, where people are what is to be generalised over).
        validation_targets: Theirs.
        fits: Name → `fit(features, targets)`, a probe `features -> values`; a few penalties, say.
        score: `score(values, targets)`, higher is better: `accuracy`, `explained`.

    Raises:
        InputError: nothing to choose from, other places in validation, or no score that is a number.
    """
    if not train or not fits or set(train) != set(validation):
        raise InputError(
            f"expected places and fits, the same places in both; got {len(train)} and {len(validation)} places, "
            f"{len(fits)} fits. Gather both alike."
        )
    table, best, kept = [], None, None
    for (layer, level), values in train.items():
        for name, fit in fits.items():
            probe = fit(values, targets)
            row = Scored(
                layer, level, name, float(score(probe(validation[layer, level]), validation_targets))
            )
            table.append(row)
            if row.score == row.score and (best is None or row.score > best.score):
                best, kept = row, probe
    if best is None:
        raise InputError("expected a score that is a number; got none. Look at the features and the targets.")
    return Selection(best, kept, tuple(table))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose greatest logit is the label's."""
    return float((logits.argmax(1) == labels.to(logits.device)).double().mean())


def explained(values: Tensor, targets: Tensor) -> float:
    """R^2: 1 - squared error over the targets' variance; 0 for their mean, below for worse."""
    wanted = targets.reshape(values.shape).to(values).double()
    error = (values.double() - wanted).square().mean()
    return float(1 - error / (wanted - wanted.mean(0)).square().mean())
