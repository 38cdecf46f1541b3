r"""Runge–Kutta on the probability-flow ODE: Heun's method, EDM's sampler, and Dormand–Prince with error control.

These evaluate the velocity u(x, t) = alpha' x_0 + sigma' eps more than once a step, so they are no tables. They share
the treatment of the ends: from alpha = 0 and to sigma = 0, where a coordinate or a velocity is infinite, the step is
DDIM's, x' = sigma'/sigma x + (alpha' - alpha sigma'/sigma) m, which at sigma' = 0 returns the denoised m.

* `heun` steps in the path's own t. Good for flows (linear, trigonometric).
* `edm_heun` steps in y = x / alpha and kappa = sigma / alpha, where the velocity is (y - m) / kappa, with optional churn.
* `adaptive` is dopri5 with a proportional–integral step control *for every row on its own*: each row has its own time,
  step size and error, so a sample is the same alone and in a batch. It integrates in the time of the straight path.

References:
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022,
    https://arxiv.org/abs/2206.00364, algorithms 1 and 2.
    Dormand & Prince, *A family of embedded Runge–Kutta formulae*, 1980, table 2.
    Hairer, Nørsett, Wanner, *Solving Ordinary Differential Equations I*, sections II.4–II.5; Hairer & Wanner, *II*, IV.2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.kernels import require_gaussian
from radiata_core.paths import Path
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import noise_of
from radiata_core.solvers import Callback, Step
from radiata_core.tables import ddim
from radiata_core.types import Batch, Times

__all__ = ["Churn", "Result", "adaptive", "dormand_prince", "edm_heun", "heun"]

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (
        35 / 384,
        0.0,
        500 / 1113,
        125 / 192,
        -2187 / 6784,
        11 / 84,
    ),  # the solution of order 5: first same as last
)
_ERROR = (
    71 / 57600,
    0.0,
    -71 / 16695,
    71 / 1920,
    -17253 / 339200,
    22 / 525,
    -1 / 40,
)  # order 5 minus order 4


@dataclass(frozen=True)
class Churn:
    """EDM's noise injection: before a step kappa grows to (1 + gamma) kappa, gamma = min(amount / steps, sqrt(2) - 1).

    Args:
        amount: S_churn, >= 0.
        low: S_tmin: no churn at kappa below it.
        high: S_tmax: no churn at kappa above it.
        noise: S_noise, standard deviation of the noise.
    """

    amount: float
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0


@dataclass(frozen=True, eq=False)
class Result:
    """Outcome of `adaptive`.

    x: state at the end, shape (batch, *event). evaluations: calls of the denoiser. accepted, rejected: steps of each row.
    """

    x: Batch
    evaluations: int
    accepted: Int[Tensor, "batch"]
    rejected: Int[Tensor, "batch"]


def heun(
    denoiser: Callable[..., Tensor],
    x: Batch,
    times: Times,
    path: Path,
    *,
    callback: Callback | None = None,
    **conditions: Any,
) -> Batch:
    """State at the last time by Heun's method in t: x' = x + dt (u + u') / 2; second order, 2 evaluations a step.

    The step to sigma = 0 is DDIM's and takes one.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        x: State at times[0], shape (batch, *event).
        times: Strictly decreasing grid in [0, 1], shape (n + 1,).
        path: The denoiser's path.
        callback: Called with the first evaluation of each step.
        conditions: Passed on.

    Raises:
        InputError: times out of range, another path, or a non-finite value from the denoiser.

    References:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1, with sigma(t), s(t) of the path.
    """
    _same_path(denoiser, path)
    exact = ddim(times, path)
    clock, floats = exact.times.unbind(0), exact.times.tolist()
    ends_clean = exact.rows[-1].states == (0.0,)
    watch = FiniteWatch()
    for index, row in enumerate(exact.rows):
        x0 = denoiser(x, clock[index], **conditions)
        watch.see(x0, index, floats[index])
        if callback is not None:
            callback(Step(index, floats[index], x, x0))
        if ends_clean and index == len(exact.rows) - 1:
            x = torch.mul(x, row.states[0]).add_(x0, alpha=row.outputs[0])
            break
        step = floats[index + 1] - floats[index]
        velocity = convert(x0, x, clock[index], path, Prediction.X0, Prediction.VELOCITY)
        ahead = torch.add(x, velocity, alpha=step)
        x0 = denoiser(ahead, clock[index + 1], **conditions)
        watch.see(x0, index, floats[index + 1])
        velocity = velocity + convert(x0, ahead, clock[index + 1], path, Prediction.X0, Prediction.VELOCITY)
        x = torch.add(x, velocity, alpha=step / 2)
    watch.finish()
    return x


def edm_heun(
    denoiser: Callable[..., Tensor],
    x: Batch,
    times: Times,
    path: Path,
    *,
    churn: Churn | None = None,
    generators: Sequence[torch.Generator] | None = None,
    callback: Callback | None = None,
    **conditions: Any,
) -> Batch:
    """State at the last time by EDM's sampler: Heun's method in kappa = sigma / alpha for y = x / alpha, with churn.

    d = (y - m) / kappa;  y' = y + (kappa' - kappa) d;  y' <- y + (kappa' - kappa)(d + d') / 2. The step from alpha = 0 and
    that to sigma = 0 are DDIM's.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        x: State at times[0], shape (batch, *event), in the scale of the path.
        times: Strictly decreasing grid in [0, 1], shape (n + 1,); `KarrasGrid` is EDM's.
        path: The denoiser's path.
        churn: Noise injection; needs generators. kappa is not raised beyond the path's end.
        generators: One a row.
        callback: Called with the first evaluation of each step.
        conditions: Passed on.

    Raises:
        InputError: times out of range, another path, churn of noise that is not Gaussian, missing generators, or a
            non-finite value from the denoiser.

    References:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 2.
    """
    _same_path(denoiser, path)
    if churn is not None:
        require_gaussian(denoiser, "churn")
    if churn is not None and len(generators or ()) != x.shape[0]:
        raise InputError(
            f"expected one generator a row for churn, {x.shape[0]} here; got {len(generators or ())}. "
            "Use generators_of(seeds)."
        )
    exact = ddim(times, path)
    floats, c = exact.times.tolist(), path.coefficients(exact.times)
    alphas = c.alpha.tolist()
    kappas = [
        sigma / alpha if alpha else math.inf for sigma, alpha in zip(c.sigma.tolist(), alphas, strict=True)
    ]
    watch = FiniteWatch()
    for index, row in enumerate(exact.rows):
        t, kappa, kappa_next, alpha = exact.times[index], kappas[index], kappas[index + 1], alphas[index]
        raised = _raised(kappa, churn, len(exact.rows), path)
        if raised > kappa and churn is not None:
            t = path.time_of_log_snr(torch.tensor(-math.log(raised), dtype=torch.float64))
            noise = noise_of(generators or (), x.shape[1:], x.dtype, x.device)
            x = torch.add(x / alpha, noise, alpha=churn.noise * math.sqrt(raised**2 - kappa**2))
            kappa, alpha = raised, float(path.coefficients(t).alpha)
            x = x * alpha
        x0 = denoiser(x, t, **conditions)
        watch.see(x0, index, float(t))
        if callback is not None:
            callback(Step(index, float(t), x, x0))
        if math.isinf(kappa) or kappa_next == 0:
            x = torch.mul(x, row.states[0]).add_(x0, alpha=row.outputs[0])
            continue
        y, step = x / alpha, kappa_next - kappa
        slope = (y - x0) / kappa
        ahead = torch.add(y, slope, alpha=step) * alphas[index + 1]
        x0 = denoiser(ahead, exact.times[index + 1], **conditions)
        watch.see(x0, index, floats[index + 1])
        slope = slope + (ahead / alphas[index + 1] - x0) / kappa_next
        x = torch.add(y, slope, alpha=step / 2) * alphas[index + 1]
    watch.finish()
    return x


def adaptive(
    denoiser: Callable[..., Tensor],
    x: Batch,
    path: Path,
    *,
    t_start: float = 1.0,
    t_end: float = 0.0,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    kappa_end: float = 1e-4,
    max_evaluations: int = 10_000,
    **conditions: Any,
) -> Result:
    """State at t_end of the probability-flow ODE, to a tolerance: Dormand–Prince 5(4), each row by itself.

    A step of a row is accepted if the root mean square over its elements of error / (atol + rtol max(|X|, |X'|)) is at most
    1; its next step is h min(10, max(0.2, 0.9 err^-0.14 err_before^0.08)). All rows are evaluated together, with times
    of shape (batch,), until the slowest is done; rows that are done wait.

    The ODE is that of the straight path, whatever the path: X = x / (alpha + sigma), tau = sigma / (alpha + sigma),
    dX/dtau = (X - m) / tau, which is smooth up to alpha = 0 and has no kinks where the path's own time has (measured on a
    Gaussian at 1e-6: 75, 75, 81, 69 and 87 evaluations on the linear, trigonometric, VP, VE and discrete path; in the
    paths' own times 75, 93, 105, 237 and 1467).

    Where sigma(t_end) = 0 the flow is integrated to kappa = sigma/alpha = kappa_end and finished by DDIM, which returns
    the denoised state: the relative error is kappa_end² / (2 sd²) along a direction of standard deviation sd.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]` that takes t of shape (batch,).
        x: State at t_start, shape (batch, *event).
        path: The denoiser's path.
        t_start: In (0, 1].
        t_end: In [0, 1]; above t_start it integrates towards the noise.
        rtol: Relative tolerance a step, > 0.
        atol: Absolute tolerance a step in units of x / (alpha + sigma), > 0.
        kappa_end: Noise level of the last step, > 0.
        max_evaluations: Give up after so many.
        conditions: Passed on.

    Raises:
        InputError: times or tolerances out of range, another path, a non-finite value from the denoiser, or no end within
            max_evaluations.
    """
    _same_path(denoiser, path)
    if not (0 < t_start <= 1 and 0 <= t_end <= 1 and min(rtol, atol, kappa_end) > 0):
        raise InputError(
            f"expected t_start in (0, 1], t_end in [0, 1] and tolerances > 0; got t_start={t_start}, t_end={t_end}, "
            f"rtol={rtol}, atol={atol}, kappa_end={kappa_end}. Data at t = 0 have no velocity: start a little above."
        )
    ends = path.coefficients(torch.tensor([t_start, t_end], dtype=torch.float64))
    scales, taus = (ends.alpha + ends.sigma).tolist(), (ends.sigma / (ends.alpha + ends.sigma)).tolist()
    clean = taus[1] == 0
    stop = min(taus[0], kappa_end / (1 + kappa_end)) if clean else taus[1]
    calls = 0
    watch = FiniteWatch(deferred=False)  # the step control waits for the device in any case

    def denoised(state: Tensor, tau: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        t = path.time_of_log_snr(torch.log1p(-tau) - torch.log(tau))
        if calls > max_evaluations:
            raise InputError(
                f"expected an end within {max_evaluations} evaluations; got to t={float(t.min()):.6g} … "
                f"{float(t.max()):.6g}. Loosen rtol and atol, or use a table solver."
            )
        c = path.coefficients(t)
        x0 = denoiser(state * _rows(c.alpha + c.sigma, state), t, **conditions)
        watch.see(x0, calls - 1, float(t.min()))
        return x0

    def velocity(state: Tensor, tau: Tensor) -> Tensor:
        return (state - denoised(state, tau)) / _rows(tau, state)

    state, accepted, rejected = dormand_prince(velocity, x / scales[0], taus[0], stop, rtol, atol)
    if clean:
        state = denoised(state, torch.full((x.shape[0],), stop, dtype=torch.float64))
    return Result(state * scales[1], calls, accepted, rejected)


def dormand_prince(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    start: float,
    stop: float,
    rtol: float | Tensor,
    atol: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """State at stop of dx/dt = velocity(x, t), and the accepted and rejected steps of each row.

    The solver of `adaptive` without its coordinates. Row bookkeeping is float64 on the CPU.

    Args:
        velocity: `(x, t)` with t of shape (batch,).
        x: State at start, shape (batch, *event).
        start: First time.
        stop: Last time, above or below.
        rtol: Relative tolerance a step, > 0, for all elements or each, (*event).
        atol: Absolute tolerance a step, > 0, likewise.
    """
    batch = x.shape[0]
    t = torch.full((batch,), start, dtype=torch.float64)
    accepted, rejected = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    if start == stop or not batch:
        return x, accepted, rejected
    first = velocity(x, t)
    step = _first_step(velocity, x, first, t, stop - start, rtol, atol)
    error_before = torch.full((batch,), 1e-4, dtype=torch.float64)
    while bool((t != stop).any()):
        lasts = (t + step * 1.000001 - stop) * math.copysign(1, stop - start) >= 0
        h = torch.where(lasts, stop - t, step)
        stages = [first]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            ahead = x + _rows(h, x) * sum(w * k for w, k in zip(weights, stages, strict=True) if w)
            stages.append(velocity(ahead, torch.where(lasts & (node == 1.0), stop, t + node * h)))
        raw = _rows(h, x) * sum(w * k for w, k in zip(_ERROR, stages, strict=True) if w)
        error = _norm(raw / (atol + rtol * torch.maximum(x.abs(), ahead.abs()))).clamp_min(1e-10)
        going = t != stop
        good = going & (error <= 1)
        accepted += good
        rejected += going & ~good
        keep = good.to(x.device)
        x = torch.where(_rows(keep, x), ahead, x)
        first = torch.where(_rows(keep, x), stages[-1], first)
        t = torch.where(good, torch.where(lasts, stop, t + h), t)
        grow = (0.9 * error**-0.14 * error_before**0.08).clamp(0.2, 10)
        shrink = (0.9 * error**-0.2).clamp(0.2, 1)
        step = torch.where(good, h * grow, torch.where(going, h * shrink, step))
        error_before = torch.where(good, error.clamp_min(1e-4), error_before)
    return x, accepted, rejected


def _first_step(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    first: Tensor,
    t: Tensor,
    span: float,
    rtol: float | Tensor,
    atol: float | Tensor,
) -> Tensor:
    """Hairer, Nørsett, Wanner I, section II.4, "starting step size", each row by itself."""
    scale = atol + rtol * x.abs()
    size, slope = _norm(x / scale), _norm(first / scale)
    guess = (0.01 * size / slope.clamp_min(1e-12)).clamp(1e-6 * abs(span), 0.1 * abs(span))
    signed = guess * math.copysign(1, span)
    bend = _norm((velocity(x + _rows(signed, x) * first, t + signed) - first) / scale) / guess
    better = (0.01 / torch.maximum(slope, bend).clamp_min(1e-12)) ** 0.2
    return torch.minimum(torch.minimum(100 * guess, better), torch.tensor(abs(span))) * math.copysign(1, span)


def _norm(values: Tensor) -> Tensor:
    """Root mean square of each row, float64 on the CPU."""
    return values.flatten(1).square().mean(1, dtype=torch.float64).sqrt().cpu()


def _rows(values: Tensor, like: Tensor) -> Tensor:
    values = values if values.dtype == torch.bool else values.to(like.device, like.dtype)
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _raised(kappa: float, churn: Churn | None, steps: int, path: Path) -> float:
    """kappa after the churn of one step."""
    if churn is None or not churn.low <= kappa <= churn.high or math.isinf(kappa):
        return kappa
    gamma = min(churn.amount / steps, math.sqrt(2) - 1)
    highest = math.exp(-float(path.log_snr(torch.tensor(1.0, dtype=torch.float64))))
    return max(kappa, min(kappa * (1 + gamma), highest))


def _same_path(denoiser: object, path: Path) -> None:
    if getattr(denoiser, "path", path) != path:
        raise InputError(
            f"expected the denoiser's path {getattr(denoiser, 'path', path)}; got {path}. Pass denoiser.path."
        )
