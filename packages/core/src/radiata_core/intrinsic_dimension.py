r"""How many dimensions the data have at a scale kappa, from what a denoiser knows: three estimators.

All ask the same: along how many directions do data near a point vary by more than kappa = sigma/alpha? For Gaussian data
with variances l_i each is a function of l_i and kappa² alone, and a direction counts where l_i > kappa² (the flow, whose
values across curved data are kappa times a factor of order 1, asks for l_i > 8 kappa²):

| | at the point x_0 | Gaussian data | counts |
|---|---|---|---|
| `flow_spectrum` | singular values of dx_0/d eps along the flow | $\sqrt{l_i + \kappa^2}$ | above $3\kappa$ |
| `normal_bundle` | singular values of sigma s(x_t) around it | $\kappa^2/(l_i + \kappa^2)$ | N less those above ½ |
| `flipd` | $N + \kappa^2(\operatorname{tr} J_s + \lvert s\rvert^2)$ | $\sum_i l_i/(l_i+\kappa^2)$ at the mean | sums |

(the first up to $1 + O(l_i/\kappa_T^2)$). They cost steps × N (or k) forward products, 2 N evaluations a round, and one
divergence. `gap` is the ratio of the two values on either side of the threshold: where it is small, the data have width at
every scale, or the network does not resolve kappa; show the spectrum then, not the number.

Valid where kappa is small against the widths and radii of curvature of the data, and not smaller than what the network
resolves. For data that are no manifold the answer depends on kappa (images: it grows as kappa falls); that is the data, not
a failure. All three are local: a point of a mixture has the dimension of its component. A gauge field, which a network may
contain, moves `normal_bundle` and `flipd` but not the singular values of the flow where its prior is isotropic.

References:
    Horvat & Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models", 2024,
        https://arxiv.org/abs/2402.03845 (flow Jacobian).
    Stanczuk, Batzolis, Deveney & Schönlieb, "Diffusion models encode the intrinsic dimension of data manifolds", 2024,
        https://arxiv.org/abs/2212.12611, algorithm 1 (normal bundle).
    Kamkari et al., "A geometric view of data complexity: efficient local intrinsic dimension estimation with diffusion
        models", 2024, https://arxiv.org/abs/2406.03537, section 3 (FLIPD).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.jacobians import Divergence, pushforward, score_field
from radiata_core.likelihood import log_density_rate
from radiata_core.seeds import noise_of
from radiata_core.straight_coordinates import FixedSteps, FlowSolver, StraightFlow, interval
from radiata_core.types import Batch, Row, Time, Times

__all__ = ["DimensionSpectrum", "Flipd", "flipd", "flow_spectrum", "normal_bundle"]

_CLEAR = 3.0  # radial values of the flow onto a sphere are up to 1.5 kappa


@dataclass(frozen=True, eq=False)
class DimensionSpectrum:
    """A spectrum about each point and what it counts.

    values: singular values, falling, (batch, values). dimension: directions in which the data vary by more than kappa,
    (batch,). gap: ratio of the values on either side of the threshold, (batch,); the threshold itself stands for one that
    is missing. x0: the points, (batch, *event). kappa: the scale.
    """

    values: Float[Tensor, "batch values"]
    dimension: Int[Tensor, "batch"]
    gap: Row
    x0: Batch
    kappa: float

    def above(self, threshold: float) -> Int[Tensor, "batch"]:
        """How many values of each row lie above a threshold of your own."""
        return (self.values > threshold).sum(1)


@dataclass(frozen=True, eq=False)
class Flipd:
    """FLIPD at several noise levels.

    values: (levels, batch), in dimensions; may lie outside 0 … N. standard_error: over probes, NaN for one probe or an exact
    divergence. kappa: the levels, sigma/alpha, (levels,).
    """

    values: Float[Tensor, "levels batch"]
    standard_error: Float[Tensor, "levels batch"]
    kappa: Float[Tensor, "levels"]

    @property
    def dimension(self) -> Row:
        """Median over the levels, (batch,): give levels on one plateau of the curve."""
        return self.values.quantile(0.5, 0)


def flow_spectrum(
    denoiser: Denoiser,
    noise: Batch,
    *,
    directions: int | None = None,
    generators: Sequence[torch.Generator] | None = None,
    t_min: float | None = None,
    t_max: float = 1.0,
    solver: FlowSolver | None = None,
    block: int = 1,
    **conditions: Any,
) -> DimensionSpectrum:
    r"""Singular values of the Jacobian of the flow, noise eps → data x_0, in units of the data.

    $$\frac{dY}{dw} = J_u(x)\,Y, \qquad Y = \frac{\partial x_0}{\partial\varepsilon}, \quad x_T = \sigma_T\varepsilon$$

    Along the data Y tends to their width, across them to kappa at t_min, so the gap grows as t_min falls.

    Args:
        denoiser: E[x_0 | x_t], taking t of shape (batch,), whose layers have a forward mode or two derivatives.
        noise: eps, unit normal, (batch, *event); for a given sample `log_likelihood(...).latent / sigma(t_max)`.
        directions: k random orthonormal tangents, above the dimension expected; their values interlace with the whole
            spectrum, and the dimension found is at most k. None: all N, exactly.
        generators: One a row, for the tangents.
        t_min: Where the flow ends, > 0; None: where sigma/alpha = 1e-3.
        t_max: Where it starts, at most 1.
        solver: None: `FixedSteps(32)`. An adaptive one must have atol far below kappa.
        block: Tangents in one vectorised product; 1 needs least memory.
        conditions: Passed on, one row a sample.

    Raises:
        InputError: a number or a time is out of range, or an answer is not finite or of another shape.

    References:
        Horvat & Pfister 2024, https://arxiv.org/abs/2402.03845.
    """
    ends = interval(denoiser.path, t_min, t_max)
    _require_finite(noise, "noise")
    if block < 1:
        raise InputError(f"expected a block >= 1; got {block}. 1 takes one tangent at a time.")
    tangents = _tangents(noise, directions, generators)
    flow = StraightFlow(denoiser, conditions, noise.dtype, noise.shape[1:])
    elements, count = noise[0].numel(), len(tangents)

    def derivative(state: Tensor, w: Tensor) -> Tensor:
        field, x = flow.field(w), flow.unflat(state[:, :elements])
        moved = state[:, elements:].reshape(len(state), count, *noise.shape[1:]).transpose(0, 1).to(x.dtype)
        with torch.no_grad():
            value = field(x)
        flow.saw(value, w)
        pushed = pushforward(field, x, moved, min(block, count))
        return torch.cat([value.flatten(1), pushed.transpose(0, 1).flatten(1)], 1).double()

    start = torch.cat([noise[:, None], tangents.transpose(0, 1)], 1).flatten(1).double()
    start = start * (ends.sigma_max / ends.scale_max)
    solved = (solver or FixedSteps())(derivative, start, ends.w_max, ends.w_min, elements)
    flow.finish()
    solved = solved / (1 - ends.tau_min)
    values = torch.linalg.svdvals(solved[:, elements:].reshape(len(noise), count, elements))
    dimension, gap = _counted(values, _CLEAR * ends.kappa_min)
    x0 = solved[:, :elements].reshape(noise.shape).to(noise.dtype)
    return DimensionSpectrum(values, dimension, gap, x0, ends.kappa_min)


def normal_bundle(
    denoiser: Denoiser,
    x0: Batch,
    t: Time,
    generators: Sequence[torch.Generator],
    *,
    rounds: int = 2,
    **conditions: Any,
) -> DimensionSpectrum:
    r"""Singular values of sigma times the score about each sample: 1 across the data, nearly 0 along them.

    A round asks at alpha x_0 ± sigma sqrt(N) q_i for an orthonormal basis q of random orientation: 2 N noises that have
    mean 0 and covariance 1 exactly, so that where the score is linear a round is the closed form, without the spread
    1 ± sqrt(N/K) of K independent noises. The mean score, which lies along the data, is taken out.

    Args:
        denoiser: E[x_0 | x_t] of Gaussian noise.
        x0: Samples, (batch, *event).
        t: A small time, > 0, one for all rows.
        generators: One a row.
        rounds: >= 1, of 2 N evaluations each. Two are the 4 N scores of the paper.
        conditions: Passed on, one row a sample.

    Raises:
        InputError: no round, a time at an end, or an answer that is not finite or of another shape.

    References:
        Stanczuk et al. 2024, https://arxiv.org/abs/2212.12611, algorithm 1 (independent noise, no centring, knee by eye).
    """
    _require_finite(x0, "x0")
    if rounds < 1 or t.ndim or len(generators) != len(x0):
        raise InputError(
            f"expected rounds >= 1, one time for all rows and {len(x0)} generators; got {rounds}, t of shape "
            f"{tuple(t.shape)} and {len(generators)}. Use torch.tensor(0.01) and generators_of(seeds)."
        )
    field, c, elements = score_field(denoiser, t, **conditions), denoiser.path.coefficients(t), x0[0].numel()
    alpha, sigma = float(c.alpha), float(c.sigma)
    if alpha == 0:
        raise InputError("expected a time with data; got alpha = 0. Take a small t.")
    second = torch.zeros(len(x0), elements, elements, dtype=torch.float64, device=x0.device)
    first, watch = second[:, 0].clone(), FiniteWatch("the score")
    for number in range(rounds):
        for direction in _tangents(x0, elements, generators):
            for sign in (-1, 1):
                with torch.no_grad():
                    score = field(alpha * x0 + sign * sigma * elements**0.5 * direction)
                if score.shape != x0.shape:
                    raise InputError(
                        f"expected a denoiser that answers with the shape of x, {tuple(x0.shape)}; got "
                        f"{tuple(score.shape)}. It must be E[x_0 | x_t]."
                    )
                watch.see(score, number, float(t))
                pull = sigma * score.flatten(1).double()
                first, second = first + pull, second + pull[:, :, None] * pull[:, None, :]
    watch.finish()
    mean = first / (2 * elements * rounds)
    covariance = second / (2 * elements * rounds) - mean[:, :, None] * mean[:, None, :]
    values = torch.linalg.eigvalsh(covariance).flip(1).clamp_min(0).sqrt()
    across, gap = _counted(values, 0.5)
    return DimensionSpectrum(values, elements - across, gap, x0, sigma / alpha)


def flipd(
    denoiser: Denoiser, x0: Batch, times: Times, divergence: Divergence | None = None, **conditions: Any
) -> Flipd:
    r"""FLIPD: how fast the density of noisy data falls with the noise, $N + \partial\log p_\kappa/\partial\log\kappa$.

    $$N + \sigma_t^2\left(\operatorname{tr}\nabla s(\alpha_t x_0, t) + |s(\alpha_t x_0, t)|^2\right)$$

    on every path: the factors alpha of score and Jacobian make up for those of kappa.

    Args:
        denoiser: E[x_0 | x_t] of Gaussian noise.
        x0: Samples, (batch, *event).
        times: Noise levels, inside (0, 1), (levels,).
        divergence: None: `ExactDivergence()`. For large events `hutchinson(x0, generators, probes)`: the same probes at
            every level, so a curve is smooth.
        conditions: Passed on, one row a sample.

    Raises:
        InputError: no time or one at an end, noise that is not Gaussian, or an answer that is not finite.

    References:
        Kamkari et al. 2024, https://arxiv.org/abs/2406.03537, section 3.
    """
    if times.ndim != 1 or not len(times):
        raise InputError(
            f"expected times (levels,); got shape {tuple(times.shape)}. Use torch.tensor([0.01])."
        )
    rates = torch.stack([log_density_rate(denoiser, x0, t, divergence, **conditions) for t in times])
    probes, c = rates.shape[1], denoiser.path.coefficients(times)
    error = torch.full_like(rates[:, 0], torch.nan) if probes == 1 else rates.std(1) / probes**0.5
    return Flipd(x0[0].numel() + rates.mean(1), error, c.sigma / c.alpha)


def _counted(values: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """How many falling values lie above the threshold, and the ratio of the two about it."""
    count = (values > threshold).sum(1)
    edge = values.new_full((len(values), 1), threshold)
    around = torch.cat([edge, values, edge], 1)
    upper, lower = around.gather(1, count[:, None])[:, 0], around.gather(1, count[:, None] + 1)[:, 0]
    return count, upper / lower.clamp_min(torch.finfo(values.dtype).tiny)


def _tangents(
    noise: Tensor, directions: int | None, generators: Sequence[torch.Generator] | None
) -> Float[Tensor, "tangents batch *event"]:
    """Unit tangents of every row: all, or random orthonormal ones."""
    elements = noise[0].numel()
    if directions is None:
        unit = torch.eye(elements, dtype=noise.dtype, device=noise.device)
        return unit.view(elements, 1, *noise.shape[1:]).expand(-1, *noise.shape)
    if not 1 <= directions <= elements or len(generators or ()) != len(noise):
        raise InputError(
            f"expected 1 to {elements} directions and {len(noise)} generators; got {directions} and "
            f"{len(generators or ())}. Use generators_of(seeds), or directions=None."
        )
    drawn = noise_of(generators or (), (elements, directions), torch.float64, noise.device)
    return torch.linalg.qr(drawn).Q.permute(2, 0, 1).to(noise.dtype).reshape(directions, *noise.shape)


def _require_finite(x: Tensor, name: str) -> None:
    if x.ndim < 2 or not x.numel() or not bool(torch.isfinite(x).all()):
        raise InputError(
            f"expected finite {name} (batch, *event); got shape {tuple(x.shape)} or NaN. Check it."
        )
