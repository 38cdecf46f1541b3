r"""Flow maps: one call from the state at t to the state at s.

A denoiser says where the probability-flow ODE goes *now*; its flow map $G(x, t, s)$ says where it will be at s, so that a
sample costs as many evaluations as jumps. Every flow map can be written as one DDIM step with a value g in place of the
posterior mean (Kim et al.'s Euler form, for any path):

$$G(x_t, t, s) = \rho\, x_t + (\alpha_s - \alpha_t\rho)\, g(x_t, t, s), \qquad \rho = \sigma_s/\sigma_t ,$$

where g is the average of $E[x_0\mid x_u]$ over the way, weighted as the ODE weighs it. Three facts come free of this form:

- boundary: $G(x, t, t) = x$, whatever g;
- diagonal: $g(x, t, t) = E[x_0 \mid x_t]$, so a flow map *is* a denoiser and every solver of this library runs on it;
- s = 0: $G(x, t, 0) = g(x, t, 0)$ is the consistency function (Song et al. 2023).

On the linear path a network that predicts velocities gives the average velocity h of MeanFlow:
$g = x_t - t h$ and $G = x_t + (s - t)\, h$. CTM, consistency models and MeanFlow are one object; what differs is how it is
trained (`flowmap_objectives`, `consistency`, `average_velocity`). Two jumps are one: $G(G(x, t, u), u, s) = G(x, t, s)$.

With an anchor (`anchors.PooledGaussian`) the linear part of the map, which is known in closed form, is not learned:
for Gaussian data each eigenvalue l has $g = \mu + k_l (x_t - \alpha_t\mu)$ with

$$k_l = \frac{l\,(\alpha_s + \alpha_t\rho)}{v_t\,(r + \rho)}, \quad v = \alpha^2 l + \sigma^2, \quad r = \sqrt{v_s/v_t}.$$

References:
    Kim et al., "Consistency trajectory models", 2023, https://arxiv.org/abs/2310.02279, eqs. 4-6 and algorithm 3.
    Song, Dhariwal, Chen & Sutskever, "Consistency models", 2023, https://arxiv.org/abs/2303.01469, eq. 5.
    Geng et al., "Mean flows for one-step generative modeling", 2025, https://arxiv.org/abs/2505.13447, eq. 3.
    Wang & Vastola, 2023, https://arxiv.org/abs/2303.02490, eq. 6 (flow of a Gaussian).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from radiata_core.analytic import gaussian_flow
from radiata_core.covariances import Covariance
from radiata_core.denoisers import Denoiser, Scaling, UnitVariance
from radiata_core.errors import InputError
from radiata_core.paths import Path, expand
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import noise_of
from radiata_core.specs import buildable
from radiata_core.types import Batch, Event, Time, Times

__all__ = [
    "FlowMap",
    "GaussianFlowMap",
    "NetworkFlowMap",
    "SolvedFlowMap",
    "euler_jump",
    "sample_flow_map",
    "trapezoid_step",
]


@runtime_checkable
class FlowMap(Protocol):
    """The state at s as a function of the state at t."""

    path: Path

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """Solution at s, (batch, *event), of the probability-flow ODE through x at t; s <= t."""
        ...


def euler_jump(x: Batch, g: Batch, t: Time, s: Time, path: Path) -> Batch:
    """x_s = rho x_t + (alpha_s - alpha_t rho) g with rho = sigma_s / sigma_t: the Euler form of every flow map.

    With g = E[x_0 | x_t] it is one step of DDIM. At t = s it is x, exactly, also where sigma is 0.

    Args:
        x: State at t, (batch, *event).
        g: What stands for the data, like x.
        t: Time of x, () or (batch,).
        s: Time asked for, () or (batch,).
        path: alpha and sigma of t.

    References:
        Kim et al. 2023, eq. 5; Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502, eq. 12 (sigma = 0).
    """
    at, to = path.coefficients(t), path.coefficients(s)
    ratio = torch.where(at.sigma > 0, to.sigma / at.sigma, torch.ones_like(at.sigma))
    rest = to.alpha - at.alpha * ratio
    return expand(ratio, x).to(x) * x + expand(rest, x).to(x) * g


def trapezoid_step(denoiser: Denoiser, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
    """x_s by Heun's rule on the posterior mean: the Euler form with g = (D(x_t, t) + D(x'_s, s)) / 2, x' an Euler step.

    Second order, two evaluations, finite at t = 1. Where sigma_s is 0 it is the Euler step itself, since D(x, 0) = x; such
    rows are not evaluated at s, where a network that predicts velocities may say nothing.
    """
    path = denoiser.path
    first = denoiser(x, t, **conditions)
    guess = euler_jump(x, first, t, s, path)
    clean = path.coefficients(s).sigma == 0
    if bool(clean.all()):
        return guess
    second = denoiser(guess, torch.where(clean, t, s), **conditions)
    second = torch.where(expand(clean.to(torch.float64), x) > 0, first, second)
    return euler_jump(x, 0.5 * (first + second), t, s, path)


@buildable("network-flow-map")
class NetworkFlowMap(nn.Module):
    """A network with two times as the flow map of a path; called without s it is a denoiser.

    Args:
        network: `network(x, noise_level, target_level=level_of_s, **conditions) ->` prediction, (batch, *event).
        path: The path whose ODE it follows.
        prediction: What the network's output means: X0 gives g, VELOCITY on the linear path the average velocity.
        scaling: How state and times enter the network.
        anchor: Closed-form Gaussian `anchor(x, alpha, sigma, destination=(alpha_s, sigma_s), **conditions)`; the network
            then takes twice the channels and predicts the difference.
    """

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        prediction: Prediction | str,
        scaling: Scaling | None = None,
        anchor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.anchor = network, anchor
        self.path = path
        self.prediction = Prediction(prediction)
        self.scaling = UnitVariance() if scaling is None else scaling

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this flow map."""
        return {
            "network": self.network,
            "path": self.path,
            "prediction": self.prediction,
            "scaling": self.scaling,
            "anchor": self.anchor,
        }

    def predict(self, x: Batch, t: Time, s: Time | None = None, **conditions: Any) -> Batch:
        """The network's output at (t, s) in units of `prediction`, with the anchor's part added; s = None is s = t."""
        s = t if s is None else s
        scaled, level = self.scaling(x, t, self.path)
        target = self.scaling(x, s, self.path)[1]
        fine = torch.promote_types(x.dtype, torch.float32)
        level, target = level.to(x.device, fine), target.to(x.device, fine)
        sign = self.scaling.sign
        if self.anchor is None:
            return sign * self.network(scaled, level, target_level=target, **conditions)
        at, to = self.path.coefficients(t), self.path.coefficients(s)
        linear = self.anchor(x, at.alpha, at.sigma, destination=(to.alpha, to.sigma), **conditions)
        raw = self.network(torch.cat([scaled, linear], 1), level, target_level=target, **conditions)
        return convert(linear, x, t, self.path, Prediction.X0, self.prediction) + sign * raw

    def forward(self, x: Batch, t: Time, s: Time | None = None, **conditions: Any) -> Batch:
        """g(x, t, s), (batch, *event); at s = t (or None) E[x_0 | x_t].

        Args:
            x: State at t, (batch, *event).
            t: Its time, () or (batch,), in [0, 1].
            s: Time of the destination, () or (batch,), 0 <= s <= t; None for s = t.
            conditions: Passed to the network and the anchor.

        Raises:
            InputError: s is later than t.
        """
        if s is not None:
            _towards_data(t, s)
        return convert(self.predict(x, t, s, **conditions), x, t, self.path, self.prediction, Prediction.X0)

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """The state at s, (batch, *event), from the state at t: one evaluation; from t = 0 the state itself.

        Raises:
            InputError: s is later than t.
        """
        _towards_data(t, s)
        clean = self.path.coefficients(t).sigma == 0
        if bool(clean.all()):
            return x
        # A row that is data already is asked for at another time, and what it says is not used.
        g = self(x, torch.where(clean, torch.full_like(t, 0.5), t), s, **conditions)
        return euler_jump(x, g, t, s, self.path)


@dataclass(frozen=True)
class SolvedFlowMap:
    """The flow map of any denoiser by many small steps: slow and true, the oracle of the learned ones.

    Attributes:
        denoiser: E[x_0 | x_t].
        steps: Steps of `trapezoid_step` a jump, two evaluations each, evenly spaced in t.
    """

    denoiser: Denoiser
    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"expected at least 1 step a jump; got {self.steps}. The default is 50.")

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """The state at s, (batch, *event), with an error of O(1 / steps^2)."""
        start, end = torch.as_tensor(t, dtype=torch.float64), torch.as_tensor(s, dtype=torch.float64)
        for index in range(self.steps):
            here = torch.lerp(start, end, index / self.steps)
            there = torch.lerp(start, end, (index + 1) / self.steps)
            x = trapezoid_step(self.denoiser, x, here, there, **conditions)
        return x


@dataclass(frozen=True, eq=False)
class GaussianFlowMap:
    """The exact flow map of Gaussian data (`analytic.gaussian_flow`).

    Attributes:
        mean: Of the data, (*event).
        covariance: Of the data.
        path: alpha and sigma of t.
    """

    mean: Event
    covariance: Covariance
    path: Path

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """alpha_s mu + sqrt((alpha_s^2 S + sigma_s^2) / (alpha_t^2 S + sigma_t^2)) (x - alpha_t mu)."""
        return gaussian_flow(x, t, s, self.mean, self.covariance, self.path)


def sample_flow_map(
    flow_map: FlowMap,
    x: Batch,
    times: Times,
    *,
    gamma: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
    noise: Callable[[int], Batch] | None = None,
    **conditions: Any,
) -> Batch:
    r"""A sample by gamma-sampling: one evaluation a step, with a share of the noise replaced between the steps.

    From $t_n$ jump to the noise level $\kappa = \sqrt{1-\gamma^2}\,\kappa_{n+1}$, then add fresh noise up to
    $\kappa_{n+1} = \sigma_{n+1}/\alpha_{n+1}$. gamma = 0 is deterministic, gamma = 1 the multistep sampler of consistency
    models; with the exact map every gamma has the same law.

    Args:
        flow_map: The map.
        x: State at the first time, (batch, *event).
        times: Decreasing, (steps + 1,), in [0, 1], usually from 1 to 0.
        gamma: Share of fresh noise, in [0, 1].
        generators: One a row; for gamma > 0 these or `noise` are needed.
        noise: `step -> standard normal noise, like x`, for noise that belongs to a place.
        conditions: Passed to the map.

    Raises:
        InputError: times that do not decrease within [0, 1], gamma outside [0, 1], missing generators, a value that is
            not finite (step and t are named).

    References:
        Kim et al. 2023, algorithm 3.
    """
    grid = torch.as_tensor(times, dtype=torch.float64).cpu()
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid.diff() < 0).all()) or grid[0] > 1 or grid[-1] < 0:
        raise InputError(
            f"expected decreasing times in [0, 1], at least two; got {[round(float(v), 4) for v in grid.flatten()[:8]]}. "
            "Make them with a grid of radiata_core.times."
        )
    if not 0 <= gamma <= 1:
        raise InputError(
            f"expected gamma in [0, 1]; got {gamma}. 0 is deterministic, 1 draws all noise anew."
        )
    if gamma > 0 and noise is None and len(generators or ()) != len(x):
        raise InputError(
            f"expected one generator a row for gamma > 0, {len(x)}; got {len(generators or ())}. Use generators_of(seeds)."
        )
    path = flow_map.path
    for index, (here, there) in enumerate(itertools.pairwise(grid)):
        c = path.coefficients(there)
        kept = there
        if gamma > 0 and c.sigma > 0:
            kept = _time_of(path, (1 - gamma**2) ** 0.5 * c.sigma / c.alpha)
        x = flow_map.jump(x, here, kept, **conditions)
        if not bool(x.isfinite().all()):
            raise InputError(
                f"expected finite values from the flow map; got NaN or infinity at step {index}, t={float(here):.6g}. "
                "Check the weights, the conditions, or use float32."
            )
        if kept is not there:
            scale = float(c.alpha / path.coefficients(kept).alpha)
            drawn = (
                noise_of(generators or (), x.shape[1:], x.dtype, x.device) if noise is None else noise(index)
            )
            fresh = drawn.to(x)
            x = scale * x + gamma * float(c.sigma) * fresh
    return x


def _towards_data(t: Tensor, s: Tensor) -> None:
    """A jump goes from noise towards data."""
    if bool((torch.as_tensor(s).cpu() > torch.as_tensor(t).cpu()).any()):
        raise InputError(
            f"expected a destination s <= t; got s up to {float(torch.as_tensor(s).max()):.4g} from t "
            f"{float(torch.as_tensor(t).min()):.4g}. A flow map is trained towards the data: swap them."
        )


def _time_of(path: Path, kappa: Tensor) -> Tensor:
    """The time whose sigma / alpha is kappa; 0 for no noise."""
    if kappa <= path.coefficients(torch.zeros((), dtype=torch.float64)).sigma:
        return torch.zeros((), dtype=torch.float64)
    return path.time_of_log_snr(-kappa.log())
