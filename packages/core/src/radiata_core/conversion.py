r"""A denoiser of one path on another, and the grid that goes with it: interpolant conversion.

A network trained on straight lines can be sampled along a variance-preserving path, whose early steps are noisier and whose
stochastic trajectories therefore spread further – the second conversion of inference-time scaling for flows. With
$\bar x_s = c_s x_{t_s}$, where $t_s$ has the log-SNR of $s$ (`change_of_path.same_log_snr`),

$$\bar D(\bar x, s) = D(\bar x/c_s,\ t_s), \qquad
  \bar u_s(\bar x) = \tfrac{c_s'}{c_s}\bar x + c_s t_s'\, u_{t_s}(\bar x/c_s).$$

The first is all that is needed: the velocity of the new path follows from the denoiser by `predictions.convert`, and the
second identity holds of itself. No retraining, no further evaluation.

References:
    Kim et al., 2025, https://arxiv.org/abs/2503.19385 (conversion linear -> VP for search).
    Lipman et al., 2024, https://arxiv.org/abs/2412.06264, section 4.9 (scale-time).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.change_of_path import same_log_snr
from radiata_core.denoisers import Denoiser
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import Path, expand
from radiata_core.specs import buildable
from radiata_core.times import Grid
from radiata_core.types import Batch, Time

__all__ = ["OnPath", "QuarterCircleGrid"]


@dataclass(frozen=True, eq=False)
class OnPath:
    """The same posterior mean, asked on another path.

    Noise beyond the end of the denoiser's own path is taken at its end.

    Args:
        denoiser: A denoiser of any path.
        path: The path on which it is to be used.

    References:
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, appendix B; Lipman et al., 2024, section 4.9.
    """

    denoiser: Denoiser
    path: Path

    @property
    def kernel(self) -> object:
        """The law of the noise, that of the denoiser."""
        return getattr(self.denoiser, "kernel", GaussianKernel())

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t] of a state of `path`, like x; one evaluation of the denoiser."""
        moved = same_log_snr(t, self.path, self.denoiser.path)
        return self.denoiser(x / expand(moved.scale, x).to(x), moved.t, **conditions)


@buildable("quarter-circle-grid")
@dataclass(frozen=True)
class QuarterCircleGrid(Grid):
    r"""$t_i = \sqrt{1 - (i/n)^2}$: small steps in the noise, one long step to the data.

    The grid ("exp" in the authors' program) that goes with the VP path in search, where the choice is made early. Its last
    steps are long: with few of them the plain error of a solver is larger than on other grids.

    References:
        Kim et al., 2025, https://arxiv.org/abs/2503.19385, and the authors' program (time warp sqrt(1 - (1 - t)²)).
    """

    def _times(self, n: int, path: Path) -> Tensor:
        u = torch.arange(n + 1, dtype=torch.float64) / n
        return torch.sqrt(1 - u.square())
