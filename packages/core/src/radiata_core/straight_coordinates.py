r"""The probability-flow ODE in one set of coordinates for all paths, and two ways to solve it with company.

Paths of one log-SNR differ by a scale and a clock. In the coordinates of the straight path,

$$X = \frac{x}{\alpha+\sigma}, \qquad \tau = \frac{\sigma}{\alpha+\sigma} \in [0, 1], \qquad
  \frac{dX}{d\tau} = \frac{X - D}{\tau},$$

everything is finite up to alpha = 0, and whatever follows from the flow cannot depend on the path. Near the data a
flow has structure at every scale, so the clock is $w = \tau^{1/\rho}$ with rho = 3: small noise gets its share of steps.

$$\frac{dX}{dw} = \frac{\rho}{w}\,\bigl(X - D(x, t)\bigr).$$

The same ODE carries passengers: a log-density (`likelihood`) or tangents (`intrinsic_dimension`). A solver here sees one
flat state (batch, columns) in float64, $[X \mid \text{passengers}]$; the network sees its own dtype.

| solver | steps | error |
|---|---|---|
| `Adaptive` | Dormand–Prince 5(4), each row its own | by tolerance |
| `FixedSteps` | classical Runge–Kutta of order 4, even in w | falls as steps⁻⁴ |

References:
    Karras et al., 2022, https://arxiv.org/abs/2206.00364, eq. 5 (the even power grid, there in sigma with rho = 7).
    Dormand & Prince, 1980; Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, table II.1.2.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.jacobians import Field
from radiata_core.paths import Path
from radiata_core.runge_kutta import dormand_prince
from radiata_core.types import Batch, Row

__all__ = ["POWER", "Adaptive", "FixedSteps", "FlowSolver", "Interval", "StraightFlow", "interval"]

POWER = 3.0
"""rho of the clock: 1 fails on data without width, 7 wastes steps on data with (docs/likelihood.md has the figures)."""

State = Float[Tensor, "batch columns"]
Derivative = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class FlowSolver(Protocol):
    """A way from one w to another."""

    def __call__(self, derivative: Derivative, state: State, start: float, stop: float, own: int) -> State:
        """The state at w = stop of d state / dw = derivative(state, w), w of shape (batch,); own: columns of X."""
        ...


@dataclass(frozen=True)
class Adaptive:
    """Dormand–Prince with a step control for every row; the number of evaluations follows from the tolerance.

    The error of a step is the root mean square over X plus that over the passengers, against atol + rtol |value|.

    Args:
        rtol: Relative tolerance a step, > 0.
        atol: Absolute tolerance a step, > 0, in units of X.
        max_evaluations: Give up after so many.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_evaluations: int = 10_000

    def __post_init__(self) -> None:
        if not min(self.rtol, self.atol, self.max_evaluations) > 0:
            raise InputError(
                f"expected tolerances and evaluations > 0; got rtol={self.rtol}, atol={self.atol}, "
                f"max_evaluations={self.max_evaluations}. 1e-5 is careful."
            )

    def __call__(self, derivative: Derivative, state: State, start: float, stop: float, own: int) -> State:
        """The state at w = stop."""
        left = self.max_evaluations

        def counted(state: Tensor, w: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            if left < 0:
                raise InputError(
                    f"expected an end within {self.max_evaluations} evaluations; got to w={float(w.min()):.6g} … "
                    f"{float(w.max()):.6g}. Loosen rtol and atol, raise t_min, or use FixedSteps."
                )
            return derivative(state, w)

        # The solver takes the mean over all columns: undo the dilution, and weigh X and its company alike.
        columns = state.shape[1]
        share = torch.full((columns,), (own / columns) ** 0.5, dtype=state.dtype, device=state.device)
        share[own:] *= ((columns - own) / own) ** 0.5
        return dormand_prince(counted, state, start, stop, self.rtol * share, self.atol * share)[0]


@dataclass(frozen=True)
class FixedSteps:
    """Classical Runge–Kutta of order 4 on steps that are even in w; four evaluations a step, the same for every row.

    Args:
        steps: >= 1.
    """

    steps: int = 32

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"expected at least 1 step; got {self.steps}. 32 is a good start.")

    def __call__(self, derivative: Derivative, state: State, start: float, stop: float, own: int) -> State:
        """The state at w = stop."""
        h = (stop - start) / self.steps

        def at(w: float) -> Tensor:
            return torch.full((len(state),), w, dtype=torch.float64)

        for index in range(self.steps):
            w = start + index * h
            last = stop if index == self.steps - 1 else w + h
            first = derivative(state, at(w))
            second = derivative(state + h / 2 * first, at(w + h / 2))
            third = derivative(state + h / 2 * second, at(w + h / 2))
            fourth = derivative(state + h * third, at(last))
            state = state + h / 6 * (first + 2 * second + 2 * third + fourth)
        return state


@dataclass(frozen=True)
class Interval:
    """The two ends of a flow. tau, kappa = sigma/alpha and the scale alpha + sigma at t_min and at t_max."""

    t_min: float
    t_max: float
    tau_min: float
    tau_max: float
    kappa_min: float
    kappa_max: float
    sigma_max: float
    scale_max: float

    @property
    def w_min(self) -> float:
        """The clock at t_min."""
        return float(self.tau_min ** (1 / POWER))

    @property
    def w_max(self) -> float:
        """The clock at t_max."""
        return float(self.tau_max ** (1 / POWER))


def interval(path: Path, t_min: float | None, t_max: float, kappa_min: float = 1e-3) -> Interval:
    """The ends of the flow in straight coordinates.

    Args:
        path: A path.
        t_min: Time with noise, > 0; None: where sigma / alpha = kappa_min, which is the same place on every path.
        t_max: Above t_min, at most 1.

    Raises:
        InputError: the times are out of range or in the wrong order.
    """
    if t_min is None:
        t_min = float(path.time_of_log_snr(-torch.tensor(kappa_min, dtype=torch.float64).log()))
    if not 0 < t_min < t_max <= 1:
        raise InputError(
            f"expected 0 < t_min < t_max <= 1; got t_min={t_min:g}, t_max={t_max:g}. Without noise the flow has no "
            "density; t_min=None takes sigma / alpha = 1e-3."
        )
    c = path.coefficients(torch.tensor([t_min, t_max], dtype=torch.float64))
    (low, high), sigma_max = (c.alpha + c.sigma).tolist(), float(c.sigma[1])
    alphas, sigmas = c.alpha.tolist(), c.sigma.tolist()
    return Interval(
        t_min=t_min,
        t_max=t_max,
        tau_min=sigmas[0] / low,
        tau_max=sigma_max / high,
        kappa_min=sigmas[0] / alphas[0],
        kappa_max=sigma_max / alphas[1] if alphas[1] else math.inf,
        sigma_max=sigma_max,
        scale_max=high,
    )


class StraightFlow:
    """The velocity dX/dw of a denoiser, and a count of how often it was asked.

    Args:
        denoiser: E[x_0 | x_t], taking t of shape (batch,).
        conditions: Passed on.
        dtype: What the network sees.
        event: Shape of one sample.
    """

    def __init__(
        self, denoiser: Denoiser, conditions: Mapping[str, Any], dtype: torch.dtype, event: torch.Size
    ) -> None:
        self.denoiser, self.conditions, self.dtype, self.event = denoiser, conditions, dtype, event
        self.fine = torch.promote_types(dtype, torch.float32)
        self.evaluations = 0
        self._watch = FiniteWatch()

    def field(self, w: Row) -> Field:
        """dX/dw at the clock w, (batch,), as a field of X (batch, *event) in float32 or finer."""
        path = self.denoiser.path
        tau = w**POWER
        t = path.time_of_log_snr(torch.log1p(-tau) - torch.log(tau))
        c = path.coefficients(t)
        scale, rate = c.alpha + c.sigma, POWER / w

        def velocity(state: Tensor) -> Tensor:
            x = _rows(scale, state) * state
            clean = self.denoiser(x.to(self.dtype), t, **self.conditions)
            if clean.shape != state.shape:
                raise InputError(
                    f"expected a denoiser that answers with the shape of x, {tuple(state.shape)}; got "
                    f"{tuple(clean.shape)}. It must be E[x_0 | x_t]: mind channels and dropped axes."
                )
            return _rows(rate, state) * (state - clean.to(state.dtype))

        return velocity

    def saw(self, value: Tensor, w: Row) -> None:
        """Count an evaluation and look at its value.

        Raises:
            InputError: it is not finite.
        """
        self._watch.see(value, self.evaluations, float(w[0] ** POWER) if len(w) else 0.0)
        self.evaluations += 1

    def finish(self) -> None:
        """Read what was put off.

        Raises:
            InputError: a value was not finite.
        """
        self._watch.finish()

    def unflat(self, columns: State) -> Batch:
        """X in the field's dtype from its columns."""
        return columns.to(self.fine).reshape(len(columns), *self.event)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
