r"""Stochastic interpolants: a bridge between any two sets of data, with its own noise on the way.

$$x_t = a_t\, x_0 + b_t\, x_1 + \gamma_t\, z, \qquad (x_0, x_1) \sim \nu, \quad z \sim \mathcal N(0, I)$$

with $a_0 = b_1 = 1$ and $a_1 = b_0 = \gamma_0 = \gamma_1 = 0$. The law of $x_t$ runs from that of $x_0$ to that of $x_1$;
neither has to be a Gaussian. Three posterior means say everything about it,

$$\eta_0 = E[x_0 \mid x_t], \quad \eta_1 = E[x_1 \mid x_t], \quad \eta_z = E[z \mid x_t], \qquad
  a\,\eta_0 + b\,\eta_1 + \gamma\,\eta_z = x, \quad a'\eta_0 + b'\eta_1 + \gamma'\eta_z = u,$$

so two of them suffice: the velocity u that carries the law, and $\eta_z$, whose score is $s = -\eta_z/\gamma$. With these
the ODE $\dot X = u$ and, for all $\epsilon_t \ge 0$, the diffusions $dX = (u \pm \epsilon s)\,dt + \sqrt{2\epsilon}\,dW$
have the same law at every time (`interpolant_samplers`).

Time: t = 0 is the first set, t = 1 the second, and every sampler runs both ways. With x_0 the data and x_1 unit noise this
is the house's direction, and a one-sided interpolant is a `paths.Path` (`OfPath`). The paper writes the velocity b; here b
is the coefficient of x_1 and the velocity is u.

References:
    Albergo, Boffi & Vanden-Eijnden, "Stochastic interpolants", 2023, https://arxiv.org/abs/2303.08797, definitions 2.1
        and 2.9, eqs. 2.10-2.18, section 4.2 and table 8.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from radiata_core.coefficients import checked_times, expand
from radiata_core.errors import InputError
from radiata_core.paths import AnyTime, Path
from radiata_core.specs import buildable
from radiata_core.types import Batch, Time

__all__ = [
    "Bridge",
    "EncoderDecoder",
    "Gamma",
    "Interpolant",
    "InterpolantCoefficients",
    "LinearSchedule",
    "MirrorSchedule",
    "NetworkBridge",
    "NoGamma",
    "OfPath",
    "QuadraticGamma",
    "Schedule",
    "SigmoidGamma",
    "SineSquaredGamma",
    "SquareRootGamma",
    "TrigonometricSchedule",
    "VariancePreservingSchedule",
]

Value = tuple[Tensor, Tensor]


class Schedule(ABC):
    """Coefficients a on x_0 and b on x_1."""

    @abstractmethod
    def a(self, t: AnyTime) -> Value:
        """a and its derivative, float64."""

    @abstractmethod
    def b(self, t: AnyTime) -> Value:
        """b and its derivative, float64."""


@buildable("linear-schedule")
@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """a = 1 - t, b = t."""

    def a(self, t: AnyTime) -> Value:
        return 1 - t, -torch.ones_like(t)

    def b(self, t: AnyTime) -> Value:
        return t.clone(), torch.ones_like(t)


@buildable("trigonometric-schedule")
@dataclass(frozen=True)
class TrigonometricSchedule(Schedule):
    """a = cos(pi t / 2), b = sin(pi t / 2): keeps the variance of *whitened, independent* ends, and only of those."""

    def a(self, t: AnyTime) -> Value:
        return torch.sin(math.pi / 2 * (1 - t)), -math.pi / 2 * torch.sin(math.pi / 2 * t)

    def b(self, t: AnyTime) -> Value:
        return torch.sin(math.pi / 2 * t), math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))


@buildable("encoder-decoder-schedule")
@dataclass(frozen=True)
class EncoderDecoder(Schedule):
    """a = cos^2(pi t) before t = 1/2 and 0 after, b the mirror image: x_0 is encoded in noise, which is decoded to x_1.

    With gamma = sin^2(pi t) the state at t = 1/2 is pure noise, so no mode appears that belongs to neither set.
    """

    def a(self, t: AnyTime) -> Value:
        inside = t < 0.5
        return _where(inside, torch.cos(math.pi * t) ** 2), _where(inside, _d_cos_squared(t))

    def b(self, t: AnyTime) -> Value:
        inside = t > 0.5
        return _where(inside, torch.cos(math.pi * t) ** 2), _where(inside, _d_cos_squared(t))


def _d_cos_squared(t: Tensor) -> Tensor:
    return -math.pi * torch.sin(2 * math.pi * t)


def _where(condition: Tensor, value: Tensor) -> Tensor:
    return torch.where(condition, value, torch.zeros_like(value))


@buildable("variance-preserving-schedule")
@dataclass(frozen=True)
class VariancePreservingSchedule(Schedule):
    """a = sqrt(1 - t^2), b = t: the score-based diffusion as a one-sided interpolant with x_0 unit noise, gamma = 0.

    a' is infinite at t = 1: keep a cap on times.
    """

    def a(self, t: AnyTime) -> Value:
        root = ((1 - t) * (1 + t)).sqrt()
        return root, -t / root

    def b(self, t: AnyTime) -> Value:
        return t.clone(), torch.ones_like(t)


@buildable("mirror-schedule")
@dataclass(frozen=True)
class MirrorSchedule(Schedule):
    """a = 0, b = 1: x_t = x_1 + gamma z, from a set to itself. Its ODE moves nothing; its diffusions draw new samples."""

    def a(self, t: AnyTime) -> Value:
        return torch.zeros_like(t), torch.zeros_like(t)

    def b(self, t: AnyTime) -> Value:
        return torch.ones_like(t), torch.zeros_like(t)


@buildable("schedule-of-path")
@dataclass(frozen=True)
class OfPath(Schedule):
    """a = alpha, b = sigma of a house path: one-sided, with x_0 the data and x_1 unit noise; gamma = 0."""

    path: Path

    def a(self, t: AnyTime) -> Value:
        c = self.path.coefficients(t)
        return c.alpha, c.d_alpha

    def b(self, t: AnyTime) -> Value:
        c = self.path.coefficients(t)
        return c.sigma, c.d_sigma


class Gamma(ABC):
    """Coefficient of the interpolant's own noise: positive inside, 0 at both ends."""

    @abstractmethod
    def of(self, t: AnyTime) -> Value:
        """gamma and its derivative, float64; the derivative may be infinite at the ends."""


@buildable("no-gamma")
@dataclass(frozen=True)
class NoGamma(Gamma):
    """gamma = 0: a deterministic interpolant, whose velocity may be as rough as the data."""

    def of(self, t: AnyTime) -> Value:
        return torch.zeros_like(t), torch.zeros_like(t)


@buildable("square-root-gamma")
@dataclass(frozen=True)
class SquareRootGamma(Gamma):
    """gamma = sqrt(scale t (1 - t)), a Brownian bridge. gamma' is infinite at the ends, gamma gamma' is not.

    Args:
        scale: > 0; 2 in the paper's examples.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _positive(self.scale, "scale")

    def of(self, t: AnyTime) -> Value:
        value = (self.scale * t * (1 - t)).sqrt()
        return value, self.scale * (1 - 2 * t) / (2 * value)


@buildable("quadratic-gamma")
@dataclass(frozen=True)
class QuadraticGamma(Gamma):
    """gamma = t (1 - t)."""

    def of(self, t: AnyTime) -> Value:
        return t * (1 - t), 1 - 2 * t


@buildable("sine-squared-gamma")
@dataclass(frozen=True)
class SineSquaredGamma(Gamma):
    """gamma = sin^2(pi t)."""

    def of(self, t: AnyTime) -> Value:
        return torch.sin(math.pi * t) ** 2, math.pi * torch.sin(2 * math.pi * t)


@buildable("sigmoid-gamma")
@dataclass(frozen=True)
class SigmoidGamma(Gamma):
    r"""$\gamma = \varsigma(fu + 1) - \varsigma(fu - 1) - \varsigma(1 - f/2) + \varsigma(-1 - f/2)$, $u = t - 1/2$.

    Args:
        steepness: f > 0.
    """

    steepness: float = 10.0

    def __post_init__(self) -> None:
        _positive(self.steepness, "steepness")

    def of(self, t: AnyTime) -> Value:
        f = self.steepness
        up, down = torch.sigmoid(f * (t - 0.5) + 1), torch.sigmoid(f * (t - 0.5) - 1)
        rest = 1 / (1 + math.exp(f / 2 - 1)) - 1 / (1 + math.exp(f / 2 + 1))
        return (up - down - rest).clamp_min(0.0), f * (up * (1 - up) - down * (1 - down))


def _positive(value: float, name: str) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"expected {name} > 0; got {value}. NoGamma() is the interpolant without noise.")


@dataclass(frozen=True)
class InterpolantCoefficients:
    """a, b, gamma and their derivatives at some times, float64, each of the shape of the times."""

    a: Tensor
    b: Tensor
    gamma: Tensor
    d_a: Tensor
    d_b: Tensor
    d_gamma: Tensor


@buildable("interpolant")
@dataclass(frozen=True)
class Interpolant:
    """x_t = a x_0 + b x_1 + gamma z.

    Attributes:
        schedule: a and b.
        gamma: The coefficient of z.
    """

    schedule: Schedule = field(default_factory=LinearSchedule)
    gamma: Gamma = field(default_factory=SquareRootGamma)

    def coefficients(self, t: AnyTime) -> InterpolantCoefficients:
        """All coefficients at times in [0, 1] of any shape.

        Raises:
            InputError: a time outside [0, 1] or not a number.
        """
        t = checked_times(t)
        (a, d_a), (b, d_b), (gamma, d_gamma) = self.schedule.a(t), self.schedule.b(t), self.gamma.of(t)
        return InterpolantCoefficients(a, b, gamma, d_a, d_b, d_gamma)

    def state(self, x0: Batch, x1: Batch, z: Batch, t: Time) -> Batch:
        """x_t, (batch, *event)."""
        c = self.coefficients(t)
        return _combined(x0, (c.a, x0), (c.b, x1), (c.gamma, z))

    def velocity(self, x0: Batch, x1: Batch, z: Batch, t: Time) -> Batch:
        """dx_t/dt of one draw, (batch, *event): what the velocity's network is regressed on."""
        c = self.coefficients(t)
        return _combined(x0, (c.d_a, x0), (c.d_b, x1), (c.d_gamma, z))

    def ends(self, x: Batch, velocity: Batch, eta: Batch, t: Time) -> tuple[Batch, Batch]:
        """E[x_0 | x_t] and E[x_1 | x_t] from the velocity and E[z | x_t], by the two identities above.

        Where one coefficient stays 0 (mirror, encoder and decoder) that end says nothing of the state; 0 is returned for it.

        Raises:
            InputError: the coefficients do not determine the ends at this time.
        """
        c = self.coefficients(t)
        along = _combined(x, (torch.ones_like(c.a), x), (-c.gamma, eta))
        across = _combined(x, (torch.ones_like(c.a), velocity), (-c.d_gamma, eta))
        determinant = c.a * c.d_b - c.b * c.d_a
        one_sided = (determinant == 0) & ((c.a == 0) | (c.b == 0)) & (c.a + c.b > 0)
        if bool(((determinant == 0) & ~one_sided).any()):
            raise InputError(
                f"expected a time at which x_0 and x_1 can be told apart; got t = {t.flatten().tolist()}, where neither or "
                "both leave no trace. Take another time."
            )
        safe = torch.where(determinant == 0, torch.ones_like(determinant), determinant)
        zero = torch.zeros_like(safe)
        first = [c.d_b / safe, -c.b / safe], [torch.where(c.a > 0, 1 / c.a, zero), zero]
        second = [-c.d_a / safe, c.a / safe], [torch.where(c.b > 0, 1 / c.b, zero), zero]
        found = []
        for whole, single in (first, second):
            along_by, across_by = (torch.where(one_sided, s, w) for w, s in zip(whole, single, strict=True))
            found.append(_combined(x, (along_by, along), (across_by, across)))
        return found[0], found[1]


def _combined(like: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    total = torch.zeros_like(like)
    for factor, value in terms:
        total = total + expand(factor, like).to(like) * value
    return total


@runtime_checkable
class Bridge(Protocol):
    """The two fields of an interpolant: what samplers need."""

    interpolant: Interpolant

    def velocity(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """u(x, t), (batch, *event)."""
        ...

    def eta(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[z | x_t = x], (batch, *event)."""
        ...


@buildable("network-bridge")
class NetworkBridge(nn.Module):
    """Two networks of any kind as the fields of an interpolant: net(x, t, **conditions) with t one time a row.

    Learn the velocity and eta: the drift without gamma' z loses at the ends, and a network of the score divides by gamma.

    Args:
        velocity: Predicts u, (batch, *event).
        eta: Predicts E[z | x_t]; None for the ODE alone.
        interpolant: Which interpolant they were trained on.
    """

    def __init__(self, velocity: nn.Module, eta: nn.Module | None, interpolant: Interpolant) -> None:
        super().__init__()
        self.velocity_network, self.eta_network, self.interpolant = velocity, eta, interpolant

    @property
    def options(self) -> dict[str, Any]:
        return {
            "velocity": self.velocity_network,
            "eta": self.eta_network,
            "interpolant": self.interpolant,
        }

    def velocity(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """u(x, t)."""
        return self.velocity_network(x, t.to(x).expand(len(x)), **conditions)

    def eta(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[z | x_t = x].

        Raises:
            InputError: there is no network for it.
        """
        if self.eta_network is None:
            raise InputError(
                "expected a network of the noise for a diffusion; got a bridge with a velocity alone. Use the ODE, or "
                "train eta too."
            )
        return self.eta_network(x, t.to(x).expand(len(x)), **conditions)

    def forward(self, x: Batch, t: Time, **conditions: Any) -> tuple[Batch, Batch | None]:
        """Both fields, (velocity, eta or None)."""
        eta = None if self.eta_network is None else self.eta(x, t, **conditions)
        return self.velocity(x, t, **conditions), eta
