r"""The Gaussian of a data set, in one pass: mean, leading principal components, an even floor for the rest; a class each.

A cohort does not fit into memory, and its covariance never would. Of N rows that have passed only the mean $\bar x$, the
sum of squares, and at most q orthogonal rows R are kept, with $R^\top R \approx \sum (x - \bar x)(x - \bar x)^\top$. A new
batch of b rows X adds itself and the shift of the mean,

$$\begin{pmatrix} R \\ X - \bar x_b \\ \sqrt{Nb/(N+b)}\,(\bar x_b - \bar x) \end{pmatrix} = V \Lambda^{1/2} W^\top,
  \qquad R \leftarrow (V^\top\,\cdot\,)_{1 \dots q},$$

where V comes from a Gram matrix of q + b + 1 rows: one pass, and no matrix of elements times elements, whatever the event.
While no more than q directions have been seen nothing is lost and the result is `covariances.fit_low_rank`'s; afterwards the
smallest directions are forgotten, and their variance, which is counted exactly, goes to the floor.

**Noise floor.** A diffusion model is run down to some noise sigma_min, not to 0, and images carry noise of their own. A
direction that 100 training images do not show is no direction without variance. `noise` is the standard deviation that is
added in quadrature to every direction; without it the closed-form flow freezes what it has not seen.

References:
    Ross, Lim, Lin & Yang, *Incremental learning for robust visual tracking*, 2008, figure 1 (merging subspaces).
    Chan, Golub & LeVeque, *Algorithms for computing the sample variance*, 1983, eq. 2.1.
    Wang & Vastola, *The unreasonable effectiveness of Gaussian score approximation*, 2024, https://arxiv.org/abs/2412.09726.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from radiata_core.covariances import LowRank, LowRankFit
from radiata_core.errors import InputError
from radiata_core.types import Batch

__all__ = ["ClassGaussians", "StreamingGaussian", "fit_classes", "fit_gaussian", "isotropic"]


class StreamingGaussian:
    """Mean and principal components of rows that pass by in batches.

    Args:
        kept: Directions q kept on the way, >= 1. Twice the rank that will be asked for is plenty.
    """

    def __init__(self, kept: int) -> None:
        if kept < 1:
            raise InputError(f"expected at least 1 direction to keep; got {kept}. Keep twice the rank.")
        self.kept, self.count, self.squares = kept, 0, 0.0
        self._mean: Tensor | None = None
        self._rows: Tensor | None = None
        self._shape: torch.Size | None = None

    def update(self, batch: Batch) -> None:
        """Take in a batch, (batch, *event).

        Raises:
            InputError: events of another shape than before, or a value that is not finite.
        """
        if self._shape is not None and batch.shape[1:] != self._shape:
            raise InputError(
                f"expected events of shape {tuple(self._shape)}, as before; got {tuple(batch.shape[1:])}. Use one grid."
            )
        if not len(batch):
            return
        flat = batch.detach().flatten(1)
        mean = flat.mean(0, dtype=torch.float64)
        if not bool(torch.isfinite(mean).all()):
            raise InputError("expected finite samples; got NaN or infinity. Drop the broken ones.")
        centred = flat - mean.to(flat.dtype)
        parts, before, new = [centred], self.count, len(flat)
        if self._mean is None or self._rows is None:
            self._shape, self._mean = batch.shape[1:], mean
        else:
            weight = before * new / (before + new)
            shift = mean - self._mean
            parts = [self._rows, centred, (weight**0.5 * shift).to(flat.dtype)[None]]
            self.squares += weight * float(shift.square().sum())
            self._mean = self._mean + shift * (new / (before + new))
        self.squares += float(centred.square().sum(dtype=torch.float64))
        self.count += new
        self._rows = _leading(torch.cat(parts), self.kept)

    def fit(self, rank: int, noise: float = 0.0, shrinkage: float = 0.0) -> LowRankFit:
        """Mean and covariance of all rows so far.

        Args:
            rank: Components kept, 0 <= rank <= min(kept, rows - 1, elements).
            noise: Standard deviation added in quadrature in every direction, in units of the data, >= 0.
            shrinkage: Linear shrinkage of the eigenvalues towards their mean, in [0, 1], before the noise.

        Raises:
            InputError: fewer than two rows, or an argument out of range.
        """
        if self._mean is None or self._rows is None or self._shape is None or self.count < 2:
            raise InputError(f"expected at least 2 samples; got {self.count}. Give more data.")
        elements = self._mean.numel()
        largest = min(self.kept, self.count - 1, elements)
        if not (0 <= rank <= largest and 0 <= shrinkage <= 1 and 0 <= noise < float("inf")):
            raise InputError(
                f"expected a rank from 0 to {largest} ({self.count} samples of {elements} elements, {self.kept} directions "
                f"kept), noise >= 0 and shrinkage in [0, 1]; got {rank}, {noise} and {shrinkage}. Lower the rank."
            )
        rows = self._rows.double()
        padded = torch.cat([rows, rows.new_zeros(max(0, rank - len(rows)), elements)])[:rank]
        values = padded.square().sum(1) / (self.count - 1)
        trace = self.squares / (self.count - 1)
        floor = max(trace - float(values.sum()), 0.0) / (elements - rank) if elements > rank else 0.0
        average = trace / elements
        basis = torch.linalg.qr(padded.mT).Q.mT.contiguous()
        covariance = LowRank(
            basis.to(self._rows.dtype).view(rank, *self._shape),
            (1 - shrinkage) * values + shrinkage * average + noise**2,
            (1 - shrinkage) * floor + shrinkage * average + noise**2,
        )
        return LowRankFit(self._mean.to(self._rows.dtype).view(self._shape), covariance)


def _leading(rows: Tensor, kept: int) -> Tensor:
    """At most `kept` orthogonal rows with (almost) the same scatter, largest first."""
    gram = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(max(1, 2**24 // len(rows)), dim=1):
        gram.addmm_(part.double(), part.double().mT)
    values, vectors = torch.linalg.eigh(gram)
    count = min(kept, int((values > 1e-13 * values[-1].clamp_min(1e-300)).sum()), rows.shape[1])
    return vectors[:, -max(count, 1) :].flip(1).mT.to(rows.dtype) @ rows


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """A Gaussian for every class, and one of everyone for rows whose class is not given.

    Attributes:
        classes: Class -> its Gaussian.
        everyone: Gaussian of all classes together.
        condition: Name of the condition that holds the class of each row, (batch,); NaN or a negative number: not given.
    """

    classes: Mapping[int, LowRankFit]
    everyone: LowRankFit
    condition: str = "labels"

    def of(self, label: int | None) -> LowRankFit:
        """The Gaussian of a class, of everyone for None.

        Raises:
            InputError: a class that was not in the data.
        """
        if label is None:
            return self.everyone
        if label not in self.classes:
            known = ", ".join(map(str, sorted(self.classes)))
            raise InputError(f"expected one of the classes {known}; got {label}. Fit it, or give none.")
        return self.classes[label]

    def groups(self, labels: Tensor | None, rows: int) -> list[tuple[LowRankFit, Tensor]]:
        """Each Gaussian that is needed with the rows it is for.

        Raises:
            InputError: a class that was not in the data, or not one label a row.
        """
        if labels is None:
            return [(self.everyone, torch.arange(rows))]
        if labels.shape != (rows,):
            raise InputError(
                f"expected one class a row, shape ({rows},); got {tuple(labels.shape)}. Give NaN for none."
            )
        known = torch.nan_to_num(labels.double().cpu(), nan=-1.0).long()
        found = known.unique().tolist()
        return [(self.of(None if k < 0 else k), (known == k).nonzero()[:, 0]) for k in found]


def fit_gaussian(
    batches: Iterable[Tensor], rank: int, noise: float = 0.0, shrinkage: float = 0.0
) -> LowRankFit:
    """Mean and low-rank covariance of a data set in one pass; see `StreamingGaussian`.

    Args:
        batches: Batches (batch, *event).
        rank: Components kept; twice as many on the way.
        noise: Standard deviation added in every direction, >= 0.
        shrinkage: Towards a multiple of the identity, in [0, 1].

    Raises:
        InputError: too few or non-finite samples, or an argument out of range.
    """
    stream = StreamingGaussian(2 * rank + 1)
    for batch in batches:
        stream.update(batch)
    return stream.fit(rank, noise, shrinkage)


def fit_classes(
    batches: Iterable[tuple[Tensor, Int[Tensor, "batch"]]],
    rank: int,
    noise: float = 0.0,
    shrinkage: float = 0.0,
    condition: str = "labels",
) -> ClassGaussians:
    """A Gaussian for every class, in one pass: conditional models need conditional means and covariances.

    Args:
        batches: Pairs of (batch, *event) and classes (batch,), integers >= 0.
        rank: Components kept, at most one less than a class has samples: fewer where a class is small.
        noise: Standard deviation added in every direction, >= 0.
        shrinkage: Towards a multiple of the identity, in [0, 1].
        condition: Name under which a denoiser is told the class.

    Raises:
        InputError: a class of fewer than two samples, non-finite samples, or an argument out of range.
    """
    streams: dict[int, StreamingGaussian] = {}
    everyone = StreamingGaussian(2 * rank + 1)
    for batch, labels in batches:
        everyone.update(batch)
        for label in labels.unique().tolist():
            streams.setdefault(label, StreamingGaussian(2 * rank + 1)).update(batch[labels == label])
    small = [label for label, stream in streams.items() if stream.count < 2]
    if small or not streams:
        raise InputError(
            f"expected at least 2 samples of every class; got fewer of {small[:5]}. Merge or drop classes."
        )
    fits = {k: s.fit(min(rank, s.count - 1), noise, shrinkage) for k, s in sorted(streams.items())}
    return ClassGaussians(fits, everyone.fit(rank, noise, shrinkage), condition)


def isotropic(fit: LowRankFit) -> LowRankFit:
    """The Gaussian of the same mean and the same total variance, even in all directions: the baseline to beat."""
    elements = fit.mean.numel()
    variance = float(fit.covariance.total(lambda value: value)) / elements
    empty = LowRank(fit.covariance.basis[:0], fit.covariance.eigenvalues[:0], variance)
    return LowRankFit(fit.mean, empty)
