r"""Linear Langevin steps in closed form: free particles and damped oscillators in a heat bath, one 2 x 2 block a coordinate.

Between two kicks of a force the dynamics are linear, and position q and velocity v of a coordinate with mass m, friction
gamma, frequency omega and temperature T obey

$$dq = v\,dt, \qquad dv = -\omega^2 q\,dt - \gamma v\,dt + \sqrt{2\gamma T/m}\;dW .$$

The solution over a time h is Gaussian, $(q, v)' = E\,(q, v) + L\,\xi$, so a step is six numbers, made once. With
S the response of q to a unit push of v,

$$S(h) = e^{-\gamma h/2}\,\frac{\sin \nu h}{\nu}, \quad \nu^2 = \omega^2 - \tfrac{\gamma^2}{4}, \qquad
  E = \begin{pmatrix} \dot S + \gamma S & S \\ -\omega^2 S & \dot S \end{pmatrix}, \qquad
  LL^\top = \frac{2\gamma T}{m}\int_0^h \begin{pmatrix} S^2 & S\dot S\\ S\dot S & \dot S^2\end{pmatrix} ds .$$

S has three faces, sin (underdamped), h (critical) and sinh (overdamped); near the critical point it is a power series, so
that values and derivatives are smooth across it. The integral is Gauss' rule on a short time and doubled from there,
$Q_{2h} = Q_h + E_h Q_h E_h^\top$, sums of positive terms: no digits are lost at little friction or short steps.

| step | E, L | exact for |
|---|---|---|
| `oscillator` | as above | the linear dynamics, any h |
| `oscillator` with omega = 0 | as above | free particles |
| `baoab` | half a drift, the velocity's Ornstein-Uhlenbeck step, half a drift | v; with kicks, the law of q if harmonic |

In the velocity alone, $v' = e^{-\gamma h} v + \sqrt{(T/m)(1 - e^{-2\gamma h})}\,\xi$: the heat that the noise brings is what
friction takes, exactly, whatever h (fluctuation and dissipation). `langevin.simulate` adds the kicks of any force.

Time and units are the caller's: omega and gamma per unit of time, T as k_B T in units of energy. All parameters are numbers
or tensors that broadcast against (batch, *event), and are differentiable.

References:
    Leimkuhler & Matthews, "Rational construction of stochastic numerical methods for molecular sampling", 2013,
        https://arxiv.org/abs/1203.5428 (BAOAB and its exactness).
    Wang & Uhlenbeck, "On the theory of the Brownian motion II", 1945,
        https://doi.org/10.1103/RevModPhys.17.323 (the harmonically bound particle).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["Bath", "LinearStep", "autocovariance", "baoab", "oscillator"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_SMALL = 1e-2  # |(gamma²/4 - omega²) h²| below which five terms of the series have all digits of float64

Parameter = Tensor | float


def _checked(value: Parameter, name: str, positive: bool = False) -> Tensor:
    """The parameter in float64, with its graph; reads the device once."""
    given = torch.as_tensor(value, dtype=torch.float64)
    sound = given.isfinite() & ((given > 0) if positive else (given >= 0))
    if not bool(sound.all()):
        raise InputError(
            f"expected a {name} {'> 0' if positive else '>= 0'} and finite everywhere; got "
            f"{given.detach()[~sound].flatten()[0].item():g}. Parametrise it by softplus if it is learnt."
        )
    return given


@dataclass(frozen=True, eq=False)
class Bath:
    """Friction, temperature and mass of each coordinate.

    Args:
        friction: gamma >= 0, per unit of time; 0: no bath at all.
        temperature: k_B T >= 0, energy; 0: friction alone.
        mass: m > 0.

    Raises:
        InputError: a value out of range.
    """

    friction: Parameter
    temperature: Parameter = 1.0
    mass: Parameter = 1.0

    def __post_init__(self) -> None:
        _checked(self.friction, "friction")
        _checked(self.temperature, "temperature")
        _checked(self.mass, "mass", positive=True)

    @property
    def values(self) -> tuple[Tensor, Tensor]:
        """Friction and T / m, the variance of the velocity at rest, float64."""
        friction = _checked(self.friction, "friction")
        heat = _checked(self.temperature, "temperature") / _checked(self.mass, "mass", positive=True)
        return friction, heat.to(friction.device)


@dataclass(frozen=True, eq=False)
class LinearStep:
    """(q, v) -> E (q, v) + L xi, the same for all rows; float64.

    Args:
        duration: h, > 0.
        mass: m, that forces are divided by.
        transition: E, shape (2, 2, *parameters).
        noise: L, shape (2, draws, *parameters), one column a standard normal number: 0, 1 or 2 of them.
    """

    duration: float
    mass: Tensor
    transition: Float[Tensor, "2 2 *parameters"]
    noise: Float[Tensor, "2 draws *parameters"]

    @property
    def draws(self) -> int:
        """Standard normal numbers a coordinate and step."""
        return self.noise.shape[1]

    def like(self, x: Tensor) -> "LinearStep":
        """The same on the device and in the dtype of x."""
        return LinearStep(self.duration, self.mass.to(x), self.transition.to(x), self.noise.to(x))

    def __call__(self, q: Tensor, v: Tensor, xi: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Position and velocity after the step, (batch, *event) each.

        Args:
            q: Position.
            v: Velocity.
            xi: Standard normal numbers, (batch, draws, *event).
        """
        (qq, qv), (vq, vv) = self.transition
        new_q, new_v = qq * q + qv * v, vq * q + vv * v
        if xi is not None:
            for k in range(self.draws):
                new_q = new_q + self.noise[0, k] * xi[:, k]
                new_v = new_v + self.noise[1, k] * xi[:, k]
        return new_q, new_v


def baoab(duration: float, bath: Bath) -> LinearStep:
    """The middle of BAOAB: half a drift, the exact Ornstein-Uhlenbeck step of the velocity, half a drift.

    With the half kicks of `simulate` around it, the law of q is exact for a harmonic force at any stable step (omega h < 2),
    and its error is of order h² for any force, h⁴ at high friction.

    Args:
        duration: h, > 0.
        bath: Friction, temperature, mass. Without friction this is the leapfrog method.

    Raises:
        InputError: the duration is not positive.

    References:
        Leimkuhler & Matthews, 2013, https://arxiv.org/abs/1203.5428.
    """
    h = _duration(duration)
    friction, heat = bath.values
    keep = torch.exp(-friction * h)
    gain = _root(-heat * torch.expm1(-2 * friction * h))
    one, zero = torch.ones_like(keep), torch.zeros_like(keep)
    noise = _blocks([[h / 2 * gain], [gain]])
    return _step(h, bath, _blocks([[one, h / 2 * (1 + keep)], [zero, keep]]), noise)


def oscillator(duration: float, frequency: Parameter, bath: Bath) -> LinearStep:
    """The exact step of damped oscillators in a heat bath: underdamped, critical, overdamped or free, any duration.

    Args:
        duration: h, > 0.
        frequency: omega >= 0, radians per unit of time: the undamped one. It oscillates where omega > gamma / 2.
        bath: Friction, temperature, mass.

    Raises:
        InputError: the duration is not positive, a frequency is negative or not finite.

    References:
        Wang & Uhlenbeck, 1945.
    """
    h = _duration(duration)
    friction, heat = bath.values
    omega = _checked(frequency, "frequency").to(friction.device)
    omega, friction, heat = torch.broadcast_tensors(omega, friction, heat)
    qq, qv, vv = _covariance(h, omega, friction, heat)
    # The Cholesky factor of a 2 x 2 block; zero where there is no noise.
    first = _root(qq)
    second = torch.where(first > 0, qv / torch.where(first > 0, first, 1.0), 0.0)
    noise = _blocks([[first, torch.zeros_like(first)], [second, _root(vv - second.square())]])
    return _step(h, bath, _blocks(_transition(h, omega, friction)), noise)


def autocovariance(lag: Parameter, frequency: Parameter, bath: Bath) -> Tensor:
    r"""Stationary covariance of q(t) and q(t + lag), $\frac{T}{m\omega^2}(\dot S + \gamma S)(|lag|)$, float64.

    Args:
        lag: In units of time; broadcasts against the parameters.
        frequency: omega > 0: a free particle is nowhere at rest.
        bath: Friction, temperature, mass.

    Raises:
        InputError: a frequency is not positive.

    References:
        Wang & Uhlenbeck, 1945.
    """
    omega = _checked(frequency, "frequency", positive=True)
    friction, heat = bath.values
    lag = torch.as_tensor(lag, dtype=torch.float64).abs()
    lag, omega, friction, heat = torch.broadcast_tensors(lag, omega, friction, heat)
    return heat / omega.square() * _transition(lag, omega, friction)[0][0]


def _duration(duration: float) -> float:
    if not 0 < duration < math.inf:
        raise InputError(f"expected a step > 0; got {duration}. Take a tenth of the fastest period.")
    return float(duration)


def _step(h: float, bath: Bath, transition: Tensor, noise: Tensor) -> LinearStep:
    silent = not bool((noise != 0).any())
    mass = _checked(bath.mass, "mass", positive=True)
    return LinearStep(h, mass, transition, noise[:, :0] if silent else noise)


def _blocks(rows: list[list[Tensor]]) -> Tensor:
    shape = torch.broadcast_shapes(*(entry.shape for row in rows for entry in row))
    return torch.stack([torch.stack([entry.expand(shape) for entry in row]) for row in rows])


def _root(value: Tensor) -> Tensor:
    """Square root, with derivative 0 where there is nothing to take it of."""
    some = value > 0
    return torch.where(some, torch.where(some, value, 1.0).sqrt(), 0.0)


def _response(h: Tensor | float, omega: Tensor, friction: Tensor) -> tuple[Tensor, Tensor]:
    """S and its derivative at time h; each regime is evaluated on arguments that are its own."""
    half = friction / 2
    gap = half.square() - omega.square()  # > 0: overdamped
    z = gap * h * h
    over, under = z > _SMALL, z < -_SMALL
    mu, nu = torch.where(over, gap, 1.0).sqrt(), torch.where(under, -gap, 1.0).sqrt()
    slow, fast = omega.square() / (half + mu), half + mu
    calm = torch.exp(-half * h)
    near = torch.where(over | under, 0.0, z)
    even, odd = torch.ones_like(z), torch.ones_like(z)
    for k in range(4, 0, -1):
        even, odd = 1 + near / (2 * k * (2 * k - 1)) * even, 1 + near / (2 * k * (2 * k + 1)) * odd
    settled = torch.exp(-torch.where(over, slow, 0.0) * h)
    left = torch.exp(-torch.where(over, fast, 0.0) * h)
    cosine = torch.where(over, (settled + left) / 2, calm * torch.where(under, torch.cos(nu * h), even))
    sine = torch.where(
        over,
        settled * -torch.expm1(-2 * mu * h) / (2 * mu),
        calm * torch.where(under, torch.sin(nu * h) / nu, h * odd),
    )
    return sine, cosine - half * sine


def _transition(h: Tensor | float, omega: Tensor, friction: Tensor) -> list[list[Tensor]]:
    sine, slope = _response(h, omega, friction)
    return [[slope + friction * sine, sine], [-omega.square() * sine, slope]]


def _covariance(h: float, omega: Tensor, friction: Tensor, heat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance of the noise of a step: of q, of q with v, of v."""
    fastest = h * float(torch.maximum(omega, friction).detach().amax()) if omega.numel() else 0.0
    doublings = max(0, math.ceil(math.log2(2 * fastest))) if fastest > 0 else 0
    short = h / 2**doublings
    nodes, weights = (
        torch.as_tensor(row).to(omega)[(...,) + (None,) * omega.ndim] for row in (_NODES, _WEIGHTS)
    )
    sine, slope = _response(
        short * (1 + nodes) / 2, omega, friction
    )  # all nodes at once: a step is made every batch
    share = weights * short * friction * heat
    qq, qv, vv = ((share * one * two).sum(0) for one, two in ((sine, sine), (sine, slope), (slope, slope)))
    for k in range(doublings):
        (a, b), (c, d) = _transition(short * 2**k, omega, friction)
        qq, qv, vv = (
            qq + a * a * qq + 2 * a * b * qv + b * b * vv,
            qv + a * c * qq + (a * d + b * c) * qv + b * d * vv,
            vv + c * c * qq + 2 * c * d * qv + d * d * vv,
        )
    return qq, qv, vv
