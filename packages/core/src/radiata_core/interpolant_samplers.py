r"""Sampling a bridge, either way: one ODE and a family of diffusions with the same law at every time.

$$\text{ODE } \dot X = u, \qquad
  \text{forward } dX = (u + \epsilon s)\,dt + \sqrt{2\epsilon}\,dW, \qquad
  \text{backward } dX = (u - \epsilon s)\,dt + \sqrt{2\epsilon}\,d\bar W, \qquad s = -\eta_z/\gamma,$$

for any $\epsilon_t \ge 0$, chosen after training. A grid that rises runs from the first set to the second, one that falls
runs back. For exact fields every epsilon gives the same law; for learnt ones some epsilon > 0 is usually best, and larger
ones need smaller steps: a bias that shrinks with the step is the solver's, not the network's.

$\epsilon s$ is infinite where gamma is 0. A diffusion therefore stays within [cap, 1 - cap] (`capped_times`) and ends with
one deterministic step, the posterior mean of the end it runs to; the state at the first time of a grid is taken to be a
sample of the law there, for which the end itself stands in.

The density follows the ODE: $\log\rho_1(X_1) = \log\rho_0(X_0) - \int_0^1 \nabla\cdot u\,dt$.

References:
    Albergo, Boffi & Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797, corollaries 2.10, 2.18 and 2.21, eqs. 2.28-2.33,
        algorithms 3 and 4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from radiata_core.coefficients import checked_times
from radiata_core.errors import InputError
from radiata_core.interpolants import Bridge
from radiata_core.kernels import GaussianKernel
from radiata_core.types import Batch, Row, Times

__all__ = ["capped_times", "diffuse", "flow", "flow_with_density"]

Epsilon = float | Callable[[Tensor], Tensor]


def capped_times(steps: int, cap: float = 1e-3, *, backward: bool = False) -> Times:
    """steps + 1 even times from cap to 1 - cap (or back), float64.

    Raises:
        InputError: no step, or a cap outside [0, 0.5).
    """
    if steps < 1 or not 0 <= cap < 0.5:
        raise InputError(f"expected 1 step or more and a cap in [0, 0.5); got {steps} and {cap}.")
    times = torch.linspace(cap, 1 - cap, steps + 1, dtype=torch.float64)
    return times.flip(0) if backward else times


def flow(bridge: Bridge, x: Batch, times: Times, **conditions: Any) -> Batch:
    """State at the last time of the ODE, by Heun's method: two evaluations a step, second order.

    Args:
        bridge: Its velocity is followed.
        x: State at times[0], (batch, *event).
        times: Strictly monotone in [0, 1], rising or falling, (steps + 1,).
        conditions: Passed on.

    Raises:
        InputError: times out of range or not monotone, a state that is not finite.
    """
    times = _monotone(times)
    for i in range(len(times) - 1):
        h = times[i + 1] - times[i]
        first = bridge.velocity(x, times[i], **conditions)
        second = bridge.velocity(x + float(h) * first, times[i + 1], **conditions)
        x = x + float(h) / 2 * (first + second)
    return _finite(x, times)


def flow_with_density(
    bridge: Bridge, x: Batch, times: Times, *, probes: Tensor | None = None, **conditions: Any
) -> tuple[Batch, Row]:
    """The ODE's end and log rho(end) - log rho(start) = -int div u dt, (batch,), by Heun's method on both.

    Args:
        bridge: Its velocity is followed and differentiated.
        x: State at times[0].
        times: As for `flow`.
        probes: Rademacher or Gaussian vectors (probes, batch, *event), kept along the whole trajectory, for Hutchinson's
            estimate; None for the exact trace, one backward pass a dimension.
        conditions: Passed on.

    Raises:
        InputError: as `flow`.
    """
    times = _monotone(times)
    change = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i in range(len(times) - 1):
        h = float(times[i + 1] - times[i])
        first, spread = _with_divergence(bridge, x, times[i], probes, conditions)
        second, spread2 = _with_divergence(bridge, x + h * first, times[i + 1], probes, conditions)
        x = x + h / 2 * (first + second)
        change = change - h / 2 * (spread + spread2)
    return _finite(x, times), change


def _with_divergence(
    bridge: Bridge, x: Tensor, t: Tensor, probes: Tensor | None, conditions: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        u = bridge.velocity(x, t, **conditions)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if probes is not None:
            for probe in probes:
                (pulled,) = torch.autograd.grad(u, x, probe.to(u), retain_graph=True)
                total += (pulled * probe.to(u)).flatten(1).sum(1).double() / len(probes)
        else:
            size = x[0].numel()
            for k in range(size):
                (pulled,) = torch.autograd.grad(u.flatten(1)[:, k].sum(), x, retain_graph=k < size - 1)
                total += pulled.flatten(1)[:, k].double()
    return u.detach(), total


def diffuse(
    bridge: Bridge,
    x: Batch,
    times: Times,
    epsilon: Epsilon,
    generators: Generator | Sequence[Generator],
    *,
    finish: bool = True,
    **conditions: Any,
) -> Batch:
    """A sample of the end that the grid runs to, by the Heun scheme of the diffusion; two evaluations of both fields a step.

    Args:
        bridge: Velocity and noise.
        x: State at times[0], (batch, *event).
        times: Strictly monotone within (0, 1), rising for the forward and falling for the backward diffusion.
        epsilon: epsilon >= 0, a number or a function of the time.
        generators: One, or one a row: row i then depends on generator i only.
        finish: Replace the last state by the posterior mean of the end beyond it.
        conditions: Passed on.

    Raises:
        InputError: times out of range or not monotone, epsilon < 0 or > 0 where gamma is 0, a state that is not finite.
    """
    times = _monotone(times)
    strength = [float(epsilon(t)) if callable(epsilon) else float(epsilon) for t in times]
    gamma = bridge.interpolant.coefficients(times).gamma
    for t, value, g in zip(times.tolist(), strength, gamma.tolist(), strict=True):
        if not value >= 0:
            raise InputError(f"expected epsilon >= 0; got {value} at t = {t:g}. 0 is the ODE.")
        if value > 0 and g == 0:
            raise InputError(
                f"expected gamma > 0 wherever epsilon is; got gamma = 0 and epsilon = {value:g} at t = {t:g}. Use "
                "capped_times, or an epsilon that vanishes at the ends."
            )
    forward = bool(times[1] > times[0])
    sign = 1.0 if forward else -1.0

    def drift(state: Tensor, i: int) -> Tensor:
        u = bridge.velocity(state, times[i], **conditions)
        if strength[i] == 0:
            return u
        return u - sign * strength[i] / float(gamma[i]) * bridge.eta(state, times[i], **conditions)

    for i in range(len(times) - 1):
        h = float(times[i + 1] - times[i])
        # The noise of a step has the mean of the two ends' epsilon: exact for one that is linear in t.
        size = ((strength[i] + strength[i + 1]) * abs(h)) ** 0.5
        noise = size * GaussianKernel().noise(x, generators) if size > 0 else torch.zeros_like(x)
        first = drift(x, i)
        second = drift(x + h * first + noise, i + 1)
        x = x + h / 2 * (first + second) + noise
    if finish:
        last = times[-1]
        u, eta = bridge.velocity(x, last, **conditions), torch.zeros_like(x)
        if float(gamma[-1]) > 0:
            eta = bridge.eta(x, last, **conditions)
        x = bridge.interpolant.ends(x, u, eta, last)[1 if forward else 0]
    return _finite(x, times)


def _monotone(times: Tensor) -> Tensor:
    if times.ndim != 1 or len(times) < 2:
        raise InputError(f"expected at least two times in a row; got shape {tuple(times.shape)}.")
    times = checked_times(times).cpu()
    steps = times.diff()
    if not bool((steps > 0).all() or (steps < 0).all()):
        raise InputError(
            f"expected times that rise or fall strictly; got {', '.join(f'{t:g}' for t in times.tolist()[:6])}. Sort them."
        )
    return times


def _finite(x: Tensor, times: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise InputError(
            f"expected finite values; got NaN or infinity between t = {float(times[0]):g} and t = {float(times[-1]):g}. "
            "Take smaller steps, a smaller epsilon, or a larger cap."
        )
    return x
