r"""A law of time is a weight, and a weight is a law of time.

The expected loss of a target under times of density $\pi$ and weight c is one integral over the error of the noise,

$$\int \pi(t)\, c(t)\, J_t^2\, e(t)\, dt = -\int w_t\, \lambda'_t\, e(t)\, dt, \qquad
  w_t = \frac{\pi(t)\, c(t)\, J_t^2}{-\lambda'_t}, \qquad e(t) = E\|\varepsilon - \hat\varepsilon\|^2,$$

with $J_t$ the derivative of the target in $\varepsilon$ at fixed $x_t$ and $\lambda = \log(\alpha/\sigma)$. As a function of
$\lambda$, w does not depend on the path (Kingma & Gao 2023): two trainings with the same $w(\lambda)$ differ in the
variance of their gradients, not in what they ask for. On the linear path with velocities and c = 1 it is SD3's

$$w_t^\pi = \frac{t}{1-t}\,\pi(t).$$

- `effective_weight` is w of any law, weight, target and path: put two recipes side by side before training either.
- `LawWeight(law, sampler)` uses a law as a *weight*: times drawn from `sampler` with this weight have the expectation of
  times drawn from `law`. Draw where the loss is noisy, count as the paper says.
- `WeightLaw(weight, path, target)` uses a weight as a *law*: times drawn from it have, up to a constant, the expectation
  of the weighted loss. Every sample then counts alike.

References:
    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024,
        https://arxiv.org/abs/2403.03206, section 2 (weighted loss), section 3.1 and eq. 18.
    Kingma & Gao, "Understanding diffusion objectives as the ELBO with simple data augmentation", 2023,
        https://arxiv.org/abs/2303.00848, section 3.2.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.objectives import Constant, Weight
from radiata_core.paths import AnyTime, Path
from radiata_core.predictions import Prediction
from radiata_core.specs import buildable
from radiata_core.times import LogNormalSNR, TimeLaw, UniformSteps, UniformTime

__all__ = ["LawWeight", "WeightLaw", "density_on", "effective_weight"]

_CELLS = 4096
"""Cells of the table of a weight's distribution function, even in the probability of its base law."""


def density_on(law: TimeLaw, path: Path, t: AnyTime) -> AnyTime:
    r"""Probability density of the law's times *of this path*, float64; a law of the log-SNR is carried there.

    $\pi_{path}(t) = \pi(\tau)\,\tau(1-\tau)\,(-\lambda'_t)$ with $\tau = \mathrm{sigmoid}(-\lambda_t)$.

    Raises:
        InputError: the law is one of the nodes of a schedule, which have probabilities and no density.
    """
    if isinstance(law, UniformSteps):
        raise InputError(
            f"expected a law with a density; got {law}, which has nodes. Use UniformTime(), its limit."
        )
    if not isinstance(law, LogNormalSNR):
        return law.density(t)
    tau = torch.sigmoid(-path.log_snr(t))
    inside = law.density(tau) * tau * (1 - tau) * _fall(path, t)
    return torch.where((tau > 0) & (tau < 1), inside, 0.0)


def _fall(path: Path, t: Tensor) -> Tensor:
    """-lambda' = sigma'/sigma - alpha'/alpha > 0."""
    c = path.coefficients(t)
    return c.d_sigma / c.sigma - c.d_alpha / c.alpha


def _noise_error(path: Path, t: Tensor, target: Prediction) -> Tensor:
    """J²: squared error of the target per squared error of the noise, at the same state."""
    c = path.coefficients(t)
    match target:
        case Prediction.X0:
            ratio = c.sigma / c.alpha
        case Prediction.EPSILON:
            ratio = torch.ones_like(c.alpha)
        case Prediction.SCORE:
            ratio = 1 / c.sigma
        case Prediction.V:
            ratio = (c.alpha**2 + c.sigma**2) / c.alpha
        case Prediction.FLOW:
            ratio = (c.alpha + c.sigma) / c.alpha
        case Prediction.VELOCITY:
            ratio = (c.alpha * c.d_sigma - c.sigma * c.d_alpha) / c.alpha
    return ratio**2


def effective_weight(
    law: TimeLaw,
    path: Path,
    t: AnyTime,
    target: Prediction = Prediction.VELOCITY,
    weight: Weight | None = None,
) -> AnyTime:
    r"""$w_t$ of a training recipe, float64, shaped like `t`: what it asks for, whatever its law, weight and target.

    Args:
        law: Law of the times.
        path: The path trained on.
        t: Times of the path, strictly between 0 and 1.
        target: In which units the loss is taken.
        weight: Weight of the loss; None for 1.

    Raises:
        InputError: a time is 0 or 1, or the law has no density.

    References:
        Esser et al. 2024, section 2 and eq. 18: on the linear path t/(1 - t) pi(t).
    """
    if not bool(((t > 0) & (t < 1)).all()):
        raise InputError(
            "expected times strictly between 0 and 1, where the log-SNR is finite; got an end. Leave the ends out."
        )
    counted = (weight or Constant())(t, path, target) * _noise_error(path, t, target)
    return density_on(law, path, t) * counted / _fall(path, t)


@buildable("law-weight")
@dataclass(frozen=True)
class LawWeight:
    r"""$c(t)\,\pi_{law}(t)/\pi_{sampler}(t)$: draw from `sampler`, have the expectation of `law`.

    Its mean under the sampler is that of `weight` under the law. Where the sampler hardly ever goes and the law does, the
    ratio is large and the gradient noisy. A logit-normal law from uniform times has a second moment of at most its largest
    density; uniform times from a logit-normal sampler have an infinite one.

    Args:
        law: The law that the expectation is to have.
        sampler: The law that the times are drawn from; positive wherever `law` is.
        weight: A further weight c.

    References:
        Esser et al. 2024, section 3.1 (a density is a weight).
    """

    law: TimeLaw
    sampler: TimeLaw = field(default_factory=UniformTime)
    weight: Weight = field(default_factory=Constant)

    def __call__(self, t: AnyTime, path: Path, target: Prediction = Prediction.X0) -> AnyTime:
        """Weights >= 0, float64, shaped like `t`; 0 where the law never goes."""
        wanted, drawn = density_on(self.law, path, t), density_on(self.sampler, path, t)
        ratio = torch.where(wanted > 0, wanted / drawn, 0.0)
        return ratio * self.weight(t, path, target)


@buildable("weight-law")
@dataclass(frozen=True)
class WeightLaw(TimeLaw):
    r"""The law of density proportional to $c(t)\,\pi_{base}(t)$ on a path: a weighted loss, by drawing.

    The expectation of a loss under this law, times `mean`, is that of the weighted loss under `base`. The distribution
    function is a table of 4096 cells, even in the probability of the base law.

    Args:
        weight: c, integrable under the base law.
        path: The path trained on. The law is of this path's time.
        target: The target that the weight is for.
        base: Law of the times before weighting.

    Raises:
        InputError: the weight is not finite, nowhere positive, or not integrable.
    """

    weight: Weight
    path: Path
    target: Prediction | str = Prediction.X0
    base: TimeLaw = field(default_factory=UniformTime)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self._target)
        mass = self._mass
        if not bool((torch.isfinite(mass) & (mass >= 0)).all()) or not bool(mass.sum() > 0):
            raise InputError(
                f"expected finite weights >= 0, somewhere positive; got others of {self.weight} for {self._target.value}. "
                "Use another target or weight."
            )
        share = float(torch.maximum(mass[0], mass[-1]) / mass.sum())
        if share > 0.1:
            raise InputError(
                f"expected a weight that is integrable under {self.base}; got {share:.0%} of the mass of "
                f"{self.weight} at an end. Use another target or base law, or bound the weight (MinSNR)."
            )

    @property
    def _target(self) -> Prediction:
        return Prediction(self.target)

    def _at(self, u: Tensor) -> Tensor:
        return self.base.on(self.path, self.base.quantile(u))

    @cached_property
    def _mass(self) -> Tensor:
        """Weight in the middle of each cell of the base law's probability."""
        middle = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
        return self.weight(self._at(middle), self.path, self._target)

    @property
    def mean(self) -> float:
        """The mean weight under the base law."""
        return float(self._mass.mean())

    def quantile(self, u: AnyTime) -> AnyTime:
        """Time, float64, below which the law has the probability `u` in [0, 1]."""
        mass = self._mass.to(u.device)
        upper = mass.cumsum(0) / mass.sum()
        cell = torch.searchsorted(upper, u.to(torch.float64).contiguous()).clamp(max=_CELLS - 1)
        share = mass[cell] / mass.sum()
        inside = ((u - (upper[cell] - share)) / share.clamp_min(1e-300)).clamp(0.0, 1.0)
        return self._at((cell + inside) / _CELLS)

    def density(self, t: AnyTime) -> AnyTime:
        """Probability density at times of the path, float64."""
        return density_on(self.base, self.path, t) * self.weight(t, self.path, self._target) / self.mean
