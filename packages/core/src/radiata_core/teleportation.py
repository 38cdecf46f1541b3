r"""Teleportation: the noisiest part of a trajectory in closed form, the rest by any solver.

Seen through much noise every data set is a Gaussian: the score of its noisy states is nearly that of a Gaussian of the same
mean and covariance. For a Gaussian the probability-flow ODE is solved (`analytic.gaussian_flow`):
along each principal component $u_k$ of variance $\lambda_k$

$$u_k^\top(x_s - \alpha_s\mu) = \sqrt{\frac{\alpha_s^2\lambda_k + \sigma_s^2}{\alpha_t^2\lambda_k + \sigma_t^2}}\;
  u_k^\top(x_t - \alpha_t\mu),$$

so a sampler may jump from t = 1 to a time t_skip without a single evaluation of the network, and only the other steps cost
anything. `Teleported(gaussian, t_skip, solve)` does that for any solver on any grid.

**How far.** Down to a noise of about the distance of a sample from the mean, sqrt(trace of the covariance): there the jump
was no worse than the solver's own steps, on small images and on whole heads (docs/painters.md). `skip_time` is the time of
that noise. The spread of a single voxel says nothing: 17 of its standard deviations are one such distance for 256 pixels,
and a twentieth of one for a head of 129,024 voxels. The covariance matters: an isotropic Gaussian is a bad guide there.

**What is painted when.** The estimate $\hat x_0$ moves away from the mean along $u_k$ like

$$\frac{u_k^\top(\hat x_0(x_t) - \mu)}{u_k^\top(x_0 - \mu)} = \frac{1}{\sqrt{1 + \kappa_t^2/\lambda_k}},
  \qquad \kappa = \sigma/\alpha,$$

so component k emerges when $\kappa^2$ falls to $\lambda_k$: layout first, texture last, as a painter works. `emergence` puts
the curves of a trajectory beside these.

The Gaussian may be a `covariances.LowRankFit`, one a class (`gaussian_fits.ClassGaussians`; a conditional model needs
conditional moments), or a network's own anchor (`anchors.PooledGaussian`), whose mean follows the covariates. For a latent
model it is that of the latents.

References:
    Wang & Vastola, "Diffusion models generate images like painters", 2023, https://arxiv.org/abs/2303.02490, eqs. 6-9.
    Wang & Vastola, "The unreasonable effectiveness of Gaussian score approximation for diffusion models", 2024,
        https://arxiv.org/abs/2412.09726, section 5 (teleportation).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.analytic import gaussian_flow
from radiata_core.covariances import LowRankFit
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import euler_jump
from radiata_core.gaussian_fits import ClassGaussians
from radiata_core.kernels import require_gaussian
from radiata_core.paths import Path
from radiata_core.solvers import Step
from radiata_core.times import checked_grid
from radiata_core.types import Batch, Time, Times

__all__ = ["Emergence", "Gaussian", "Solve", "Teleported", "emergence", "skip_time", "teleport"]

Gaussian = LowRankFit | ClassGaussians | nn.Module
"""What the data look like through much noise; a module is an anchor `(x, alpha, sigma, destination=..., **conditions)`."""

Solve = Callable[..., Tensor]
"""A solver `solve(denoiser, x, times, **conditions) -> x` from the first to the last of the times."""


def teleport(
    x: Batch, path: Path, gaussian: Gaussian, t_from: Time, t_skip: Time, **conditions: Any
) -> Batch:
    """The state at t_skip, (batch, *event), if the data were Gaussian: no evaluation of any network.

    Args:
        x: State at t_from, (batch, *event).
        path: alpha and sigma of t.
        gaussian: Mean and covariance of the data, of each class, or an anchor.
        t_from: Time of x, () or (batch,); usually 1.
        t_skip: Time asked for, () or (batch,); either direction.
        conditions: What the denoiser is told; classes and covariates are read from it.

    Raises:
        InputError: a class that the Gaussians do not have.

    References:
        Wang & Vastola 2023, eq. 6.
    """
    if isinstance(gaussian, LowRankFit):
        return gaussian_flow(x, t_from, t_skip, gaussian.mean, gaussian.covariance, path)
    if isinstance(gaussian, ClassGaussians):
        result = torch.empty_like(x)
        for fit, rows in gaussian.groups(conditions.get(gaussian.condition), len(x)):
            start, end = (t if t.ndim == 0 else t[rows.to(t.device)] for t in (t_from, t_skip))
            where = rows.to(x.device)
            result[where] = gaussian_flow(x[where], start, end, fit.mean, fit.covariance, path)
        return result
    at, to = path.coefficients(t_from), path.coefficients(t_skip)
    g = gaussian(x, at.alpha, at.sigma, destination=(to.alpha, to.sigma), **conditions)
    return euler_jump(x, g, t_from, t_skip, path)


def skip_time(gaussian: LowRankFit | ClassGaussians, path: Path, ratio: float = 1.0) -> float:
    """The time at which sigma/alpha is `ratio` root mean square distances of the data from their mean, sqrt(trace).

    Args:
        gaussian: Of the data; of everyone where there are classes.
        path: alpha and sigma of t.
        ratio: > 0; 1 was free of charge on the data of docs/painters.md, 0.6 was not.

    Raises:
        InputError: the ratio is not positive.
    """
    if not 0 < ratio < math.inf:
        raise InputError(f"expected a ratio > 0; got {ratio}. 1 is safe, less skips more.")
    fit = gaussian.everyone if isinstance(gaussian, ClassGaussians) else gaussian
    variance = fit.covariance.total(lambda value: value).sum()
    return float(path.time_of_log_snr(-math.log(ratio) - 0.5 * variance.log().cpu()))


@dataclass(frozen=True, eq=False)
class Teleported:
    """A sampler that starts in closed form: `sampler(denoiser, x, times, **conditions)`.

    Attributes:
        gaussian: What to jump with.
        t_skip: How far to jump at most, in (0, 1]: to the last time of the grid that is not below it, so that the grid
            stays as it is. 1, or any time above the grid's second, skips nothing.
        solve: Solver of the rest, for example `lambda d, x, times, **c: integrate(d, x, unipc_2(times, d.path), **c)`.
    """

    gaussian: Gaussian
    t_skip: float
    solve: Solve

    def __post_init__(self) -> None:
        if not 0 < self.t_skip <= 1:
            raise InputError(f"expected t_skip in (0, 1]; got {self.t_skip}. See skip_time; 1 skips nothing.")

    def remaining(self, times: Times) -> Float[Tensor, "left"]:
        """The times of a grid that are left to the solver, (left,), float64: at least its last step."""
        grid = checked_grid(times)
        return grid[max(int((grid >= self.t_skip).sum()) - 1, 0) :]

    def __call__(self, denoiser: Denoiser, x: Batch, times: Times, **conditions: Any) -> Batch:
        """The state at the last time, (batch, *event).

        Args:
            denoiser: E[x_0 | x_t].
            x: State at the first time of the grid.
            times: A grid for the whole way.
            conditions: Passed to the Gaussian, the solver and its denoiser.

        Raises:
            InputError: the denoiser's noise is not Gaussian.
        """
        require_gaussian(denoiser, "a jump by the flow of a Gaussian")
        left = self.remaining(times)
        start = torch.as_tensor(times, dtype=torch.float64)[0]
        if left[0] < start:
            x = teleport(x, denoiser.path, self.gaussian, start, left[0], **conditions)
        return self.solve(denoiser, x, left, **conditions)


@dataclass(frozen=True, eq=False)
class Emergence:
    """How each principal component came to be along a trajectory.

    Attributes:
        times: Of the evaluations, (times,).
        kappa: sigma/alpha there, (times,).
        projections: u_k^T (x0hat - mu) of every row, (times, batch, components).
        share: Least-squares share of the last projections that the earlier ones have, (times, components): 0 to 1.
        predicted: The same for Gaussian data, 1 / sqrt(1 + kappa² / variance), (times, components).
        variance: lambda_k, (components,).
        commit: Noise kappa at which the share passed 1/sqrt(2), (components,), NaN where it was above from the start.
    """

    times: Times
    kappa: Times
    projections: Float[Tensor, "times batch components"]
    share: Float[Tensor, "times components"]
    predicted: Float[Tensor, "times components"]
    variance: Float[Tensor, "components"]
    commit: Float[Tensor, "components"]

    @property
    def predicted_commit(self) -> Float[Tensor, "components"]:
        """Noise kappa = sqrt(lambda_k) at which component k of Gaussian data emerges, (components,)."""
        return self.variance.sqrt()


def emergence(trajectory: Sequence[Step], gaussian: LowRankFit, path: Path, components: int = 8) -> Emergence:
    """The leading principal components of the estimate x0hat along a trajectory, and what a Gaussian predicts.

    Args:
        trajectory: What a solver's callback saw: `steps = []; integrate(..., callback=steps.append)`.
        gaussian: Of the data: its mean and principal components.
        path: alpha and sigma of t.
        components: How many, 1 to the rank of the Gaussian.

    Raises:
        InputError: fewer than two steps, or more components than there are.

    References:
        Wang & Vastola 2023, eqs. 8-9.
    """
    basis = gaussian.covariance.basis.flatten(1)
    if len(trajectory) < 2 or not 1 <= components <= len(basis):
        raise InputError(
            f"expected at least 2 steps and 1 to {len(basis)} components; got {len(trajectory)} and {components}. "
            "Collect the steps with callback=steps.append."
        )
    times = torch.tensor([step.t for step in trajectory], dtype=torch.float64)
    kappa = torch.exp(-path.log_snr(times))
    rows, mean = basis[:components].double(), gaussian.mean.flatten().double()
    seen = [(step.x0.flatten(1).cpu().double() - mean.cpu()) @ rows.cpu().mT for step in trajectory]
    projections = torch.stack(seen)
    last = projections[-1]
    share = (projections * last).sum(1) / last.square().sum(0).clamp_min(1e-300)
    variance = gaussian.covariance.eigenvalues[:components].double().cpu()
    predicted = (1 + kappa[:, None].square() / variance).rsqrt()
    return Emergence(times, kappa, projections, share, predicted, variance, _crossing(kappa, share))


def _crossing(kappa: Tensor, share: Tensor) -> Tensor:
    """kappa, interpolated in its logarithm, at which each column first reaches 1/sqrt(2) on the way to the data."""
    level, found = 0.5**0.5, []
    logs = kappa.log()
    for column in share.unbind(1):
        above = (column >= level).nonzero()[:, 0]
        index = int(above[0]) if len(above) else 0
        if index == 0 or not bool(torch.isfinite(logs[index - 1])):
            found.append(torch.full((), torch.nan, dtype=torch.float64))
            continue
        weight = (level - column[index - 1]) / (column[index] - column[index - 1])
        found.append(torch.lerp(logs[index - 1], logs[index], weight).exp())
    return torch.stack(found)
