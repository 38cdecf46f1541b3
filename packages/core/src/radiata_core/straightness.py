r"""How straight a flow is, and how far it carries: what rectification changes, in numbers.

A trajectory that few steps can follow has a constant direction. For $\dot x = u$ on the linear path that is

$$S = \int_0^1 \mathbb E\,\big\|u_t(x_t) - (x_1 - x_0)\big\|^2\,dt ,$$

0 if and only if one Euler step is exact. On another path a first-order trajectory $\alpha_t x_0 + \sigma_t\varepsilon$ is
an arc, and still one step of DDIM is exact: straight is $z = x/(\alpha+\sigma)$ as a function of
$\tau = \sigma/(\alpha+\sigma)$, which is the linear path of the same log-SNR. `straightness` is S there, so it does not
depend on the path; `curvature` looks at x itself. `transport_cost` is how far data and noise of a pair are apart: a
rectified coupling never costs more than the one it came from, for any convex cost.

References:
    Liu, Gong & Liu, "Flow straight and fast", 2023, https://arxiv.org/abs/2209.03003, eq. 8 and theorem 3.5.
    Wang et al., "Rectified diffusion", 2024, https://arxiv.org/abs/2410.07303, section 3.2 (straight in other coordinates).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.predictions import Prediction, convert
from radiata_core.solvers import Step, integrate
from radiata_core.tables import MultistepTable, ddim
from radiata_core.types import Batch, Row, Times

__all__ = ["curvature", "even_times", "straightness", "transport_cost"]


def transport_cost(x0: Batch, noise: Batch) -> Row:
    """Squared distance of data and noise of each pair, summed over the event, (batch,).

    References:
        Liu et al., 2023, theorem 3.5 (with c the squared norm).
    """
    return (x0 - noise).to(torch.promote_types(x0.dtype, torch.float32)).flatten(1).square().sum(1)


def even_times(steps: int, path: Path) -> Times:
    """Times even in tau = sigma / (alpha + sigma), from 1 to 0, decreasing, (steps + 1,), float64.

    Raises:
        InputError: less than one step.
    """
    if steps < 1:
        raise InputError(f"expected at least 1 step; got {steps}. Take 100.")
    tau = (
        _tau(path, torch.ones((), dtype=torch.float64))
        * torch.arange(steps, -1, -1, dtype=torch.float64)
        / steps
    )
    times = path.time_of_log_snr(torch.log1p(-tau[1:-1]) - torch.log(tau[1:-1]))
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return torch.cat([ends[:1], times, ends[1:]])


def straightness(denoiser: Denoiser, x: Batch, steps: int = 100, **conditions: Any) -> Row:
    r"""S of the trajectory from each row of noise, summed over the event, >= 0, (batch,).

    $$S = \frac1{\tau_1}\int_0^{\tau_1} \Big\|\hat\varepsilon - \hat x_0 - \frac{z_1 - z_0}{\tau_1}\Big\|^2 d\tau, \qquad
      z = \frac{x}{\alpha+\sigma},\quad \tau = \frac{\sigma}{\alpha+\sigma}$$

    along steps of DDIM that are even in tau, as their Riemann sum. On the linear path it is the S of rectified flow.

    Args:
        denoiser: E[x_0 | x_t].
        x: States at t = 1, (batch, *event): sigma_1 times noise.
        steps: Of DDIM; the error falls as 1 / steps.
        conditions: Passed to the denoiser.

    References:
        Liu et al., 2023, eq. 8.
    """
    path = denoiser.path
    directions: list[Tensor] = []

    def note(step: Step) -> None:
        t = torch.tensor(step.t, dtype=torch.float64)
        noise = convert(step.x0, step.x, t, path, Prediction.X0, Prediction.EPSILON)
        directions.append((noise - step.x0).to(torch.float64))

    times = even_times(steps, path)
    end = integrate(denoiser, x, ddim(times, path), callback=note, **conditions)
    tau = _tau(path, times)
    first = path.coefficients(times[0])
    start = x.to(torch.float64) / float(first.alpha + first.sigma)
    chord = (start - end.to(torch.float64)) / float(tau[0])
    shares = (tau[:-1] - tau[1:]) / tau[0]
    rows = [
        float(w) * (u - chord).flatten(1).square().sum(1) for w, u in zip(shares, directions, strict=True)
    ]
    return torch.stack(rows).sum(0)


def curvature(
    denoiser: Denoiser,
    x: Batch,
    steps: int = 100,
    solver: Callable[[Tensor, Path], MultistepTable] = ddim,
    **conditions: Any,
) -> Row:
    """Length of each trajectory x_t over the distance of its ends, minus 1: >= 0, and 0 for a straight one, (batch,).

    Unlike `straightness` it depends on the path: a rectified diffusion on a variance-preserving path has curvature.

    Args:
        denoiser: E[x_0 | x_t].
        x: States at t = 1, (batch, *event).
        steps: Of the polygon.
        solver: Table that follows the trajectory.
        conditions: Passed to the denoiser.
    """
    states: list[Tensor] = []
    times = even_times(steps, denoiser.path)
    end = integrate(
        denoiser,
        x,
        solver(times, denoiser.path),
        callback=lambda step: states.append(step.x),
        **conditions,
    )
    points = torch.stack([*states, end]).to(torch.float64).flatten(2)
    length = points.diff(dim=0).norm(dim=2).sum(0)
    return (length / (points[-1] - points[0]).norm(dim=1) - 1).clamp_min(0)


def _tau(path: Path, t: Tensor) -> Tensor:
    c = path.coefficients(t)
    return c.sigma / (c.alpha + c.sigma)
