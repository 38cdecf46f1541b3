r"""Ranges of noise for experts: cut evenly in the log SNR, and visited alike.

What changes along a path is $\lambda = \log(\alpha/\sigma)$; t is bookkeeping. Ranges cut evenly in t are therefore other
ranges on another path; cut evenly in lambda within [-limit, limit] they are the same everywhere:

    lambda_n = limit - 2 limit n / N,      e_n = t(lambda_n),      n = 1 ... N - 1,

the first range holding all that is cleaner and the last all that is noisier. Under `UniformTime` narrow ranges in t would
seldom be seen; `EvenRanges` visits each with probability 1/N, uniformly within it, so that N experts learn from equally
many images.

References:
    Go et al. 2023, https://arxiv.org/abs/2212.05973, section 4 (experts over ranges of the steps, even in t there).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.times import TimeLaw

__all__ = ["EvenRanges", "even_edges"]


def even_edges(path: Path, ranges: int, limit: float = 3.0) -> tuple[float, ...]:
    """Inner limits of the ranges, times rising within (0, 1), `ranges` - 1 of them.

    Args:
        path: Whose times they are.
        ranges: N >= 1.
        limit: lambda at which the first range would begin and -lambda at which the last would end if all were of one width,
            > 0; 3 is sigma/alpha from 1/20 to 20.

    Raises:
        InputError: ranges or limit out of range, or a path that does not go so far.
    """
    if ranges < 1 or not 0 < limit < math.inf:
        raise InputError(f"expected ranges >= 1 and limit > 0; got {ranges} and {limit}. 5 and 3 are usual.")
    steps = torch.linspace(limit, -limit, ranges + 1, dtype=torch.float64)[1:-1]
    edges = tuple(path.time_of_log_snr(steps).tolist())
    if any(not low < high for low, high in itertools.pairwise((0.0, *edges, 1.0))):
        raise InputError(
            f"expected a path that passes log SNRs of {limit:g} to {-limit:g}; got {path}, edges {edges}. "
            "Lower the limit."
        )
    return edges


@dataclass(frozen=True)
class EvenRanges(TimeLaw):
    """Each range with the same probability, every time of a range alike.

    Attributes:
        edges: Inner limits, times rising within (0, 1), such as `even_edges`; none for one range.

    Raises:
        InputError: limits that do not rise within (0, 1).
    """

    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(not low < high for low, high in itertools.pairwise((0.0, *self.edges, 1.0))):
            raise InputError(
                f"expected limits of ranges that rise within (0, 1); got {self.edges}. Sort them."
            )

    @property
    def _limits(self) -> Tensor:
        return torch.tensor((0.0, *self.edges, 1.0), dtype=torch.float64)

    def quantile(self, u: Tensor) -> Tensor:
        limits = self._limits.to(u.device)
        place = u.to(torch.float64) * (len(limits) - 1)
        index = place.floor().long().clamp(0, len(limits) - 2)
        return torch.lerp(limits[index], limits[index + 1], place - index)

    def density(self, t: Tensor) -> Tensor:
        limits = self._limits.to(t.device)
        t = t.to(torch.float64)
        index = torch.bucketize(t.contiguous(), limits[1:-1], right=True)
        inside = 1.0 / ((limits[index + 1] - limits[index]) * (len(limits) - 1))
        return torch.where((t >= 0) & (t <= 1), inside, 0.0)
