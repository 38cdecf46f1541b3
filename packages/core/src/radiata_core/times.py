r"""Times: from which law training draws them, and on which grid a solver walks.

**Laws.** A law lives on t in [0, 1] with 1 the noise. `density` is its density there and `quantile` the
inverse of its distribution function, through which it is sampled. The log-normal law of EDM and the
logit-normal law of SD3 are one:

$$\log\kappa \sim \mathcal N(m, s^2) \iff t = \frac{\kappa}{1+\kappa} = \mathrm{sigmoid}(m + s n),
  \quad n \sim \mathcal N(0, 1)$$

because $\kappa = \sigma/\alpha = t/(1-t)$ on the linear path, where $\mathrm{logit}\,t = -\lambda$.
`LogNormalSNR` is therefore a law of the log-SNR and `on(path, t)` carries it to any path; the other laws are
of the path's own time.

**Grids.** A grid makes n + 1 strictly falling times of a path, from its `t_max` to exactly 0.

**Shift.** $t \mapsto a t/(1 + (a-1) t)$ lowers the half log-SNR by $\log a$: more time in the noise, as
larger images need.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.paths import AnyTime, Path
from radiata_core.specs import buildable
from radiata_core.types import Times

__all__ = [
    "CosMap",
    "Grid",
    "KarrasGrid",
    "LinearGrid",
    "LogNormalSNR",
    "LogSNRGrid",
    "Mode",
    "TimeLaw",
    "UniformSteps",
    "UniformTime",
    "checked_grid",
    "resolution_shift",
    "shift_time",
]


class TimeLaw(ABC):
    """A law of the time at which a training sample is noised."""

    def sample(self, n: int, generator: Generator) -> Times:
        """`n` independent times in [0, 1], float64, on the generator's device."""
        return self.quantile(torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device))

    def on(self, path: Path, t: AnyTime) -> AnyTime:
        """Times of this law as times of `path`, float64: themselves, unless the law is one of the log-SNR."""
        return t.to(torch.float64)

    @abstractmethod
    def quantile(self, u: AnyTime) -> AnyTime:
        """Time, float64, below which the law has the probability `u` in [0, 1]; rises with `u`."""

    @abstractmethod
    def density(self, t: AnyTime) -> AnyTime:
        """Probability density at the times `t` in [0, 1], float64."""


@buildable("uniform-time")
@dataclass(frozen=True)
class UniformTime(TimeLaw):
    """Every time alike."""

    def quantile(self, u: AnyTime) -> AnyTime:
        return u.to(torch.float64)

    def density(self, t: AnyTime) -> AnyTime:
        return torch.ones_like(t, dtype=torch.float64)


@buildable("uniform-steps")
@dataclass(frozen=True)
class UniformSteps(TimeLaw):
    """Every step of a discrete schedule alike: t = (i+1)/`steps`, i uniform in 0 … `steps`-1 (DDPM, MedForJ).

    Its `density` is the probability of the nodes: 1/`steps` on them and 0 elsewhere.

    Args:
        steps: Number of steps, >= 1.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"expected steps >= 1; got {self.steps}. Use the number of the schedule's steps."
            )

    def quantile(self, u: AnyTime) -> AnyTime:
        return (torch.floor(u.to(torch.float64) * self.steps) + 1).clamp(max=self.steps) / self.steps

    def density(self, t: AnyTime) -> AnyTime:
        index = t.to(torch.float64) * self.steps
        on_node = (index - index.round()).abs() < 1e-6
        return (on_node & (index > 0.5)).to(torch.float64) / self.steps


@buildable("log-normal-snr")
@dataclass(frozen=True)
class LogNormalSNR(TimeLaw):
    r"""Normal log noise-to-signal ratio, $\log\kappa = -\lambda \sim \mathcal N(m + \log a, s^2)$.

    As a law of t on the linear path this is SD3's logit-normal(m, s) shifted by a; as a law of $\kappa$ it
    is EDM's log-normal(P_mean = m, P_std = s) for data of unit variance. For other data subtract the log of
    their standard deviation: EDM's (-1.2, 1.2) at sigma_data 0.5 is `LogNormalSNR(-0.507, 1.2)`. The density
    vanishes at both ends.

    Args:
        mean: m, mean of log(sigma/alpha) before the shift.
        std: s > 0.
        shift: a > 0, see `shift_time` and `resolution_shift`.

    References:
        Esser et al., 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis,
        https://arxiv.org/abs/2403.03206, eq. 19 (logit-normal) and 23 (shift).
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, table 1 (noise distribution).
    """

    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise InputError(
                f"expected a finite mean and std > 0; got {self.mean}, {self.std}. SD3 uses 0 and 1."
            )
        _check_shift(self.shift)

    @property
    def _center(self) -> float:
        return self.mean + math.log(self.shift)

    def on(self, path: Path, t: AnyTime) -> AnyTime:
        return path.time_of_log_snr(-torch.logit(t.to(torch.float64)))

    def quantile(self, u: AnyTime) -> AnyTime:
        return torch.sigmoid(self._center + self.std * torch.special.ndtri(u.to(torch.float64)))

    def density(self, t: AnyTime) -> AnyTime:
        t = t.to(torch.float64)
        z = (torch.logit(t) - self._center) / self.std
        inside = torch.exp(-0.5 * z**2) / (self.std * math.sqrt(2 * math.pi) * t * (1 - t))
        return torch.where((t > 0) & (t < 1), inside, 0.0)


@buildable("mode-time")
@dataclass(frozen=True)
class Mode(TimeLaw):
    r"""SD3's law with heavy tails: $t = q(u) = u - s\,(\sin^2(\pi u/2) - u)$, u uniform.

    Positive scales favour the middle, negative ones the ends; 0 is uniform. q rises for
    $-1 \le s \le 2/(\pi - 2) \approx 1.7519$ only.

    Args:
        scale: s, in [-1, 2/(pi - 2)].

    References:
        Esser et al., 2024, https://arxiv.org/abs/2403.03206, eq. 20 (there with 1 - u for u).
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        largest = 2 / (math.pi - 2)
        if not -1 <= self.scale <= largest:
            raise InputError(
                f"expected a scale in [-1, {largest:.6f}], where the law exists; got {self.scale}. SD3 uses 1.29."
            )

    def quantile(self, u: AnyTime) -> AnyTime:
        u = u.to(torch.float64)
        return (u - self.scale * (torch.sin(0.5 * math.pi * u) ** 2 - u)).clamp(0.0, 1.0)

    def density(self, t: AnyTime) -> AnyTime:
        u = self._probability(t.to(torch.float64))
        return 1 / (1 + self.scale - 0.5 * math.pi * self.scale * torch.sin(math.pi * u))

    def _probability(self, t: Tensor) -> Tensor:
        """The distribution function, by bisection to the last bit."""
        low, high = torch.zeros_like(t), torch.ones_like(t)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = self.quantile(middle) < t
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)


@buildable("cosmap-time")
@dataclass(frozen=True)
class CosMap(TimeLaw):
    r"""The law under which the linear path's log-SNR is distributed as the cosine schedule's.

    $$t = 1 - \frac{1}{\tan(\pi u/2) + 1}, \qquad \pi(t) = \frac{2}{\pi - 2\pi t + 2\pi t^2}$$

    References:
        Esser et al., 2024, https://arxiv.org/abs/2403.03206, eq. 21 and 22.
    """

    def quantile(self, u: AnyTime) -> AnyTime:
        angle = 0.5 * math.pi * u.to(torch.float64)
        return torch.sin(angle) / (torch.sin(angle) + torch.cos(angle))

    def density(self, t: AnyTime) -> AnyTime:
        t = t.to(torch.float64)
        return 2 / (math.pi * (1 - 2 * t + 2 * t**2))


def shift_time(t: AnyTime, shift: float) -> AnyTime:
    r"""Shifted times $a t/(1 + (a-1) t)$, float64; on the linear path the half log-SNR falls by log a.

    Args:
        t: Times in [0, 1].
        shift: a > 0; 1 changes nothing, above 1 moves towards the noise.

    Raises:
        InputError: the shift is not a positive number.

    References:
        Esser et al., 2024, https://arxiv.org/abs/2403.03206, eq. 23.
    """
    _check_shift(shift)
    t = t.to(torch.float64)
    return shift * t / (1 + (shift - 1) * t)


def resolution_shift(n_elements: int, reference: int, exponent: float = 0.5) -> float:
    r"""The shift $a = (n / n_{ref})^{exponent}$ that keeps the uncertainty of a mean when elements are added.

    A constant image seen through n noisy elements is known up to $\kappa/\sqrt n$. To keep that, $\kappa$
    must grow like $\sqrt n$, where n counts *all* elements: pixels of an image, voxels of a volume. So the
    exponent is 1/2 in any dimension, and from 32³ to 96³ voxels a = 27^(1/2) = 5.196. MONAI takes the ratio
    to the power 1/dimension (3.0 in this example), which is the same in 2-D only; it can be had with
    `exponent=1/3`. Neighbouring voxels of smooth images are correlated, so fewer than n count, and the best
    exponent may lie below 1/2.

    Args:
        n_elements: Elements of one sample, >= 1.
        reference: Elements at which no shift is needed, >= 1.
        exponent: Finite, 1/2 for independent elements.

    Raises:
        InputError: a number of elements is below 1, or the exponent is not finite.

    References:
        Esser et al., 2024, https://arxiv.org/abs/2403.03206, section 5.3.2, eq. 23.
    """
    if n_elements < 1 or reference < 1 or not math.isfinite(exponent):
        raise InputError(
            f"expected numbers of elements >= 1 and a finite exponent; got {n_elements}, {reference}, {exponent}. "
            "Count all voxels of one sample."
        )
    return (n_elements / reference) ** exponent


class Grid(ABC):
    """A recipe for the times a solver visits."""

    def __call__(self, n: int, path: Path) -> Times:
        """Times of `path`, float64, (n+1,), strictly falling from the first to exactly 0.

        Args:
            n: Number of intervals, >= 1.
            path: The path the solver walks on.

        Raises:
            InputError: n < 1, or the path does not reach the noise the grid asks for.
        """
        if n < 1:
            raise InputError(f"expected at least 1 step; got {n}. Ask for 1 or more.")
        return checked_grid(self._times(n, path))

    @abstractmethod
    def _times(self, n: int, path: Path) -> Tensor:
        """The n + 1 times."""


@buildable("linear-grid")
@dataclass(frozen=True)
class LinearGrid(Grid):
    """Even steps in the path's own time from `t_max` to 0, then shifted (`shift_time`).

    Args:
        shift: > 0; the first time becomes the shifted `t_max`, which is 1 for `t_max` = 1.
        t_max: First time before the shift, in (0, 1].
    """

    shift: float = 1.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_shift(self.shift)
        if not 0 < self.t_max <= 1:
            raise InputError(f"expected t_max in (0, 1]; got {self.t_max}. 1 starts from pure noise.")

    def _times(self, n: int, path: Path) -> Tensor:
        return shift_time(torch.arange(n, -1, -1, dtype=torch.float64) / n * self.t_max, self.shift)


@buildable("karras-grid")
@dataclass(frozen=True)
class KarrasGrid(Grid):
    r"""EDM's grid, even in the root of the noise-to-signal ratio for i < n, then 0.

    $$\kappa_i = \left(\kappa_{\max}^{1/\rho}
      + \tfrac{i}{n-1}(\kappa_{\min}^{1/\rho} - \kappa_{\max}^{1/\rho})\right)^\rho$$

    On any path $\kappa = \sigma/\alpha$ plays EDM's sigma; on the linear path the first time is
    $\sigma_{\max}/(1+\sigma_{\max})$, below 1.

    Args:
        rho: Exponent > 0; larger puts more steps at little noise.
        sigma_min: Last noise-to-signal ratio before 0, > 0.
        sigma_max: First noise-to-signal ratio, > `sigma_min`.

    References:
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, eq. 5.
    """

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            raise InputError(
                f"expected 0 < sigma_min < sigma_max and rho > 0; got {self.sigma_min}, {self.sigma_max}, "
                f"{self.rho}. EDM uses 0.002, 80 and 7."
            )

    def _times(self, n: int, path: Path) -> Tensor:
        largest = torch.exp(-path.log_snr(torch.ones((), dtype=torch.float64))).item()
        # The last digits may be lost on the way through the logarithm.
        if self.sigma_max > largest * (1 + 1e-9):
            raise InputError(
                f"expected sigma_max <= {largest:.6g}, the largest noise-to-signal ratio of {path}; got "
                f"{self.sigma_max}. Lower sigma_max."
            )
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        kappa = torch.linspace(first, last, n, dtype=torch.float64) ** self.rho
        return torch.cat([path.time_of_log_snr(-torch.log(kappa)), torch.zeros(1, dtype=torch.float64)])


@buildable("log-snr-grid")
@dataclass(frozen=True)
class LogSNRGrid(Grid):
    r"""Even steps in $\lambda = \log(\alpha/\sigma)$, clipped to [-`limit`, `limit`], with exact ends.

    The n + 1 values $\lambda_i = \lambda_{first} + \frac{i}{n}(limit - \lambda_{first})$ with
    $\lambda_{first} = \max(\lambda(1), -limit)$ become times, of which the first is then replaced by exactly 1
    and the last by exactly 0, where $\lambda$ may be infinite.

    Args:
        limit: Clip of the half log-SNR, > 0; 6 keeps sigma/alpha between 0.0025 and 400.

    References:
        Lu et al., 2022, DPM-Solver, https://arxiv.org/abs/2206.00927, section 3.3 (even steps in log-SNR).
    """

    limit: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise InputError(f"expected limit > 0; got {self.limit}. 6 suits images in [-1, 1].")

    def _times(self, n: int, path: Path) -> Tensor:
        first = max(path.log_snr(torch.ones((), dtype=torch.float64)).item(), -self.limit)
        if first >= self.limit:
            raise InputError(
                f"expected limit > {first:.4g}, the log-SNR of {path} at t = 1; got {self.limit}. Raise it."
            )
        inner = path.time_of_log_snr(torch.linspace(first, self.limit, n + 1, dtype=torch.float64)[1:-1])
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return torch.cat([ends[:1], inner, ends[1:]])


def checked_grid(times: Tensor) -> Times:
    """`times` as float64, once it is certain that a solver can walk on them.

    Args:
        times: At least two times in [0, 1], strictly falling, ending at exactly 0.

    Raises:
        InputError: they are not.
    """
    if times.ndim != 1 or times.numel() < 2:
        raise InputError(
            f"expected a row of at least 2 times; got shape {tuple(times.shape)}. Give n + 1 for n steps."
        )
    times = times.to(torch.float64)
    falling = bool((times[1:] < times[:-1]).all())
    if not (falling and bool(times[0] <= 1) and bool(times[-1] == 0)):
        raise InputError(
            f"expected times in [0, 1] that fall strictly and end at 0; got {_shown(times)}. "
            "Sort them from noise to data, or take fewer steps."
        )
    return times


def _shown(times: Tensor) -> str:
    values = [f"{value:.4g}" for value in times.tolist()]
    return ", ".join(values if len(values) <= 6 else [*values[:3], "…", *values[-2:]])


def _check_shift(shift: float) -> None:
    if not 0 < shift < math.inf:
        raise InputError(f"expected a shift > 0; got {shift}. 1 means none; see resolution_shift.")
