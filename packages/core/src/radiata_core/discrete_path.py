r"""The path of a DDPM schedule, made continuous: its N steps are nodes in time, data is the node before the first.

$$\bar\alpha_i = \prod_{j \le i}(1 - \beta_j) \ \text{at}\ t = (i+1)/N, \qquad
  \log\bar\alpha\ \text{linear in}\ t\ \text{between nodes}$$

So networks trained on step indices (MedForJ's) are denoisers of a path like any other.

References:
    Ho, Jain, Abbeel, 2020, Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, section 4.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from radiata_core.coefficients import AnyTime, Coefficients, Path, checked_times, variance_preserving
from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["DiscreteVPPath"]


@buildable("discrete-vp-path")
@dataclass(frozen=True)
class DiscreteVPPath(Path):
    r"""The linear-beta DDPM schedule of MedForJ, made continuous.

    $$\beta_i = \mathrm{linspace}(\beta_{start}, \beta_{end}, N)_i, \quad
      \bar\alpha_i = \prod_{j \le i}(1 - \beta_j), \quad
      \alpha = \sqrt{\bar\alpha}, \quad \sigma = \sqrt{1-\bar\alpha}$$

    The step of index i = 0 … N-1 sits at t = (i+1)/N, so that t = 0 is exactly data; between two nodes
    $\log\bar\alpha$ is linear in t. Derivatives at a node are those of the interval below it.

    Args:
        beta_start: Variance added by the first step, in (0, 1).
        beta_end: Variance added by the last step, in [`beta_start`, 1).
        steps: Number of steps N.

    References:
        Ho, Jain, Abbeel, 2020, Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239,
        section 4.
    """

    beta_start: float = 1e-4
    beta_end: float = 2e-2
    steps: int = 1000

    def __post_init__(self) -> None:
        if not (0 < self.beta_start <= self.beta_end < 1 and self.steps >= 1):
            raise InputError(
                f"expected 0 < beta_start <= beta_end < 1 and steps >= 1; got beta_start={self.beta_start}, "
                f"beta_end={self.beta_end}, steps={self.steps}. The usual values are 1e-4, 2e-2 and 1000."
            )

    def time_of_index(self, index: Tensor | int) -> AnyTime:
        """Time (i+1)/N, float64, of the step of index `index` (0 … N-1; -1 is data, t = 0).

        Raises:
            InputError: an index lies outside -1 … N-1.
        """
        index = torch.as_tensor(index, dtype=torch.float64)
        if not bool(((index >= -1) & (index <= self.steps - 1)).all()):
            raise InputError(
                f"expected step indices in -1 (data) … {self.steps - 1}; got {index.tolist()}. Count from 0."
            )
        return (index + 1) / self.steps

    def model_time(self, t: AnyTime) -> AnyTime:
        """What a network of this schedule is given for time `t`: the fractional index N t - 1, float64.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self.steps * checked_times(t) - 1

    def _nodes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        times, logs = _discrete_nodes(self.beta_start, self.beta_end, self.steps)
        return times.to(like.device), logs.to(like.device)

    def _log_mean(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The log of alpha-bar and its slope in time."""
        times, logs = self._nodes(t)
        upper = torch.searchsorted(times, t.detach().contiguous()).clamp(1, self.steps)
        width = times[upper] - times[upper - 1]
        slope = (logs[upper] - logs[upper - 1]) / width
        to_go = (times[upper] - t) / width
        return logs[upper] - to_go * (logs[upper] - logs[upper - 1]), slope

    def _coefficients(self, t: Tensor) -> Coefficients:
        return variance_preserving(*self._log_mean(t))

    def _log_snr(self, t: Tensor) -> Tensor:
        return -0.5 * torch.log(torch.expm1(-self._log_mean(t)[0]))

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        times, logs = self._nodes(lam)
        decay = torch.logaddexp(torch.zeros_like(lam), -2 * lam).clamp(max=-logs[-1].item())
        upper = torch.searchsorted(-logs, decay.detach().contiguous()).clamp(1, self.steps)
        to_go = (logs[upper] + decay) / (logs[upper] - logs[upper - 1])
        return times[upper] - to_go * (times[upper] - times[upper - 1])


@lru_cache(maxsize=8)
def _discrete_nodes(beta_start: float, beta_end: float, steps: int) -> tuple[Tensor, Tensor]:
    """Times 0, 1/N … 1 and log alpha-bar there, float64."""
    betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    logs = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
    return torch.arange(steps + 1, dtype=torch.float64) / steps, logs
