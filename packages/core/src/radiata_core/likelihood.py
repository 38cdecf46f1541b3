r"""How probable a sample is under a denoiser: the density that its flow carries.

Along the probability-flow ODE a log-density changes by the divergence of the velocity. In the straight coordinates of
`straight_coordinates`, X = x/(alpha + sigma), with N elements a sample,

$$\log p_{\kappa}(x_0) = \log \pi(x_T) + N\log(\alpha_T + \sigma_T) + \int_{w_{\min}}^{w_{\max}}
  \operatorname{div}\frac{dX}{dw}\,dw + N \log(1 - \tau_{\min}),$$

where pi is the density of the state at t_max: of the noise sigma_T eps (Gaussian, or the Student-t of PFGM++, whose flow
is the same equation), or one that you give. State and log-density are
one ODE, solved from the data to the noise; nothing is drawn but the probes, and those once a trajectory.

**What is dropped at t → 0.** At sigma = 0 a flow has no velocity, so it starts at kappa = sigma/alpha > 0, and what comes
out is exactly the log-density of *data plus kappa times noise* at x_0, the same on every path. That is what a network was
trained for, and for data on a manifold it is all there is: log p itself is infinite. By the heat equation

$$\frac{\partial \log p_\kappa}{\partial\log\kappa} = \kappa^2\left(\operatorname{tr} J_s + |s|^2\right) =: r, \qquad
  \log p_0 \approx \log p_\kappa - \tfrac12 r,$$

so `smoothing` = r/2 is, to first order, what the noise adds; it is near 0 where the density is smooth on the scale of kappa,
and near -(N - d)/2 on a manifold of dimension d, where no t_min is small enough (`intrinsic_dimension.flipd` is N + r).

Divergences are objects: `ExactDivergence` (N reverse products), `BlockDivergence` (the same in blocks), or
`hutchinson(x0, generators, probes)`, unbiased, one product a probe, with a standard error.

References:
    Song et al., "Score-based generative modeling through stochastic differential equations", 2021,
        https://arxiv.org/abs/2011.13456, eqs. 39-40 (time and sign as here).
    Grathwohl et al., "FFJORD", 2018, https://arxiv.org/abs/1810.01367, eqs. 4 and 8 (a fixed probe).
    Chen et al., "Neural ordinary differential equations", 2018, https://arxiv.org/abs/1806.07366, eq. 8.
    Horvat & Pfister, 2024, https://arxiv.org/abs/2402.03845 (when a learned field has the density of its flow).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.jacobians import Divergence, ExactDivergence, Field, Hutchinson, inner, probe_divergences
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import expand
from radiata_core.straight_coordinates import Adaptive, FlowSolver, Interval, StraightFlow, interval
from radiata_core.types import Batch, Row, Time

__all__ = ["Likelihood", "log_density_rate", "log_likelihood"]

_NOISY = 10.0  # sigma/alpha from which on data of unit size are noise to 1 %


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-densities and what they rest on.

    log_likelihood: of data plus kappa times noise at x0, nats, (batch,), float64; the mean over probes.
    by_probe: the same for every probe, (probes, batch); one row if the divergence is exact.
    latent: the state at t_max in the scale of the path, (batch, *event).
    smoothing: first-order part of log_likelihood that the noise adds, nats, (batch,); NaN if the noise is not Gaussian.
    kappa: sigma/alpha at t_min, in units of the data.
    evaluations: calls of the network; each but the last goes with the products of one divergence.
    """

    log_likelihood: Row
    by_probe: Float[Tensor, "probes batch"]
    latent: Batch
    smoothing: Row
    kappa: float
    evaluations: int

    @property
    def standard_error(self) -> Row:
        """Of log_likelihood over the probes, (batch,); NaN for a single one: ask for two or more."""
        probes = len(self.by_probe)
        if probes == 1:
            return torch.full_like(self.log_likelihood, math.nan)
        return self.by_probe.std(0) / probes**0.5

    @property
    def bits_per_dim(self) -> Row:
        """-log2 p(x0) / N of the density, (batch,); depends on the unit of x0."""
        return self.bits(1.0)

    def bits(self, step: float) -> Row:
        """Bits a dimension of data that are multiples of `step`: -log2(p(x0) step^N) / N, (batch,).

        With x0 dequantised uniformly its mean bounds the discrete code length from above. Images of 8 bit in [-1, 1]: 2/255.

        Raises:
            InputError: the step is not positive.
        """
        if not 0 < step < math.inf:
            raise InputError(f"expected a step > 0; got {step}. 8-bit images in [-1, 1] have 2/255.")
        elements = self.latent[0].numel() if len(self.latent) else 1
        return -(self.log_likelihood / elements + math.log(step)) / math.log(2)


def log_likelihood(
    denoiser: Denoiser,
    x0: Batch,
    divergence: Divergence | None = None,
    *,
    solver: FlowSolver | None = None,
    t_min: float | None = None,
    t_max: float = 1.0,
    prior: Callable[[Tensor], Tensor] | None = None,
    **conditions: Any,
) -> Likelihood:
    """Log-density at x0 of data plus kappa times noise, by the flow from t_min to t_max.

    Args:
        denoiser: E[x_0 | x_t] on any path, taking t of shape (batch,).
        x0: Samples, shape (batch, *event), in the dtype of the network. The state of the ODE is float64.
        divergence: None: `ExactDivergence()`. For large events `hutchinson(x0, generators, probes)`.
        solver: None: `Adaptive()`. `FixedSteps(n)` costs the same for every sample.
        t_min: Where the flow starts, > 0; None: where sigma/alpha = 1e-3 (see the module on what is dropped).
        t_max: Where it ends, at most 1; lower for a network that cannot say E[x_0] at alpha = 0.
        prior: Log-density of the state at t_max, `(batch, *event) -> (batch,)`; None: that of sigma times the noise, which
            neglects alpha_T x_0 (on VP, VE and the discrete path an error of order alpha_T/sigma_T).
        conditions: Passed on, one row a sample.

    Raises:
        InputError: x0 or an answer is not finite, a shape or a time does not fit, the noise has no known density, or
            t_max is so early that the noise is no prior.

    References:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, eqs. 39-40.
    """
    divergence = ExactDivergence() if divergence is None else divergence
    ends = interval(denoiser.path, t_min, t_max)
    _require_samples(x0)
    log_prior = _prior(denoiser, ends) if prior is None else prior
    flow = StraightFlow(denoiser, conditions, x0.dtype, x0.shape[1:])
    batch, elements = len(x0), x0[0].numel()
    probes = len(divergence.probes) if isinstance(divergence, Hutchinson) else 1

    def derivative(state: Tensor, w: Tensor) -> Tensor:
        """Of [X | log-density gained a dimension, of each probe]."""
        value, spread = _divergences(divergence, flow.field(w), flow.unflat(state[:, :elements]))
        flow.saw(value, w)
        return torch.cat([value.flatten(1).double(), spread.mT.double() / elements], 1)

    first = (1 - ends.tau_min) * x0.flatten(1).double()
    state = torch.cat([first, first.new_zeros(batch, probes)], 1)
    state = (solver or Adaptive())(derivative, state, ends.w_min, ends.w_max, elements)
    latent = (ends.scale_max * state[:, :elements]).reshape(x0.shape)
    change = elements * (state[:, elements:].mT + math.log(ends.scale_max) + math.log1p(-ends.tau_min))
    by_probe = log_prior(latent).double() + change
    smoothing = torch.full((batch,), math.nan, dtype=torch.float64, device=x0.device)
    if _degrees_of_freedom(denoiser) == math.inf:
        t = torch.full((batch,), ends.t_min, dtype=torch.float64)
        smoothing = log_density_rate(denoiser, x0, t, divergence, **conditions).mean(0) / 2
        flow.evaluations += 1
    flow.finish()
    return Likelihood(
        by_probe.mean(0), by_probe, latent.to(x0.dtype), smoothing, ends.kappa_min, flow.evaluations
    )


def log_density_rate(
    denoiser: Denoiser, x0: Batch, t: Time, divergence: Divergence | None = None, **conditions: Any
) -> Float[Tensor, "probes batch"]:
    r"""How the log-density of data plus kappa times noise changes with log kappa, at x0; for every probe.

    $$\frac{\partial\log p_\kappa(x_0)}{\partial\log\kappa} = \kappa^2(\operatorname{tr}J_s + |s|^2)
      = -\operatorname{div} r + |r|^2/\kappa^2, \qquad r(y) = y - D(\alpha y, t)$$

    Args:
        denoiser: E[x_0 | x_t] of Gaussian noise.
        x0: Where, shape (batch, *event).
        t: Time with alpha > 0 and sigma > 0, () or (batch,); kappa = sigma/alpha there.
        divergence: None: `ExactDivergence()`.
        conditions: Passed on.

    Returns:
        Nats per unit of log kappa, (probes, batch), float64; one row if the divergence is exact.

    Raises:
        InputError: the noise is not Gaussian, a time is at an end, or an answer is not finite or of another shape.

    References:
        Kamkari et al., 2024, https://arxiv.org/abs/2406.03537, section 3, in these coordinates.
    """
    if _degrees_of_freedom(denoiser) != math.inf:
        raise InputError(
            f"expected Gaussian noise, whose densities obey the heat equation; got {getattr(denoiser, 'kernel', None)}. "
            "Use a Gaussian kernel."
        )
    c = denoiser.path.coefficients(t)
    if bool(((c.sigma == 0) | (c.alpha == 0)).any()):
        raise InputError("expected times with data and noise; got an end of the path. Keep t inside (0, 1).")
    _require_samples(x0)
    fine = torch.promote_types(x0.dtype, torch.float32)

    def residual(y: Tensor) -> Tensor:
        clean = denoiser((expand(c.alpha, y).to(y.dtype) * y).to(x0.dtype), t, **conditions)
        if clean.shape != y.shape:
            raise InputError(
                f"expected a denoiser that answers with the shape of x, {tuple(y.shape)}; got {tuple(clean.shape)}. "
                "It must be E[x_0 | x_t]: mind channels and dropped axes."
            )
        return y - clean.to(y.dtype)

    value, spread = _divergences(
        ExactDivergence() if divergence is None else divergence, residual, x0.to(fine)
    )
    watch = FiniteWatch(deferred=False)
    watch.see(value, 0, float(t.flatten()[0]) if t.numel() else 0.0)
    kappa = (c.sigma / c.alpha).to(x0.device)
    return inner(value.double(), value.double()) / kappa.square() - spread.double()


def _divergences(divergence: Divergence, field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """The field's value, and its divergence by each probe, (probes, batch); the state itself carries no graph."""
    if isinstance(divergence, Hutchinson):
        return probe_divergences(field, x, divergence.probes)
    value, total = divergence(field, x)
    return value, total[None]


def _require_samples(x0: Tensor) -> None:
    if x0.ndim < 2 or not x0.numel() or not x0.is_floating_point():
        raise InputError(
            f"expected samples (batch, *event) of floats; got shape {tuple(x0.shape)}, {x0.dtype}. "
            "Add the batch axis."
        )
    if not bool(torch.isfinite(x0).all()):
        raise InputError("expected finite samples; got NaN or infinity in x0. Leave those rows out.")


def _degrees_of_freedom(denoiser: Denoiser) -> float | None:
    """Of the Student-t law of the noise, infinity for Gaussian noise; None for any other law."""
    kernel = getattr(denoiser, "kernel", GaussianKernel())
    return getattr(kernel, "dof", math.inf if isinstance(kernel, GaussianKernel) else None)


def _prior(denoiser: Denoiser, ends: Interval) -> Callable[[Tensor], Tensor]:
    """Log-density of sigma times the denoiser's noise."""
    dof = _degrees_of_freedom(denoiser)
    if dof is None:
        law = type(getattr(denoiser, "kernel", None)).__name__
        raise InputError(
            f"expected Gaussian or Student-t noise, or its log-density as prior=; got {law}. "
            "The flow is the same, the density of its end is not."
        )
    if ends.kappa_max < _NOISY:
        raise InputError(
            f"expected noise as prior, sigma/alpha >= {_NOISY:g} at t_max; got {ends.kappa_max:.3g} at t={ends.t_max:g}. "
            "Raise t_max, or give prior= the log-density of the state there."
        )

    def gaussian(x: Tensor) -> Tensor:
        elements, variance = x[0].numel(), ends.sigma_max**2
        return -0.5 * (inner(x, x) / variance + elements * math.log(2 * math.pi * variance))

    def student_t(x: Tensor) -> Tensor:
        elements, spread = x[0].numel(), dof * ends.sigma_max**2
        constant = math.lgamma((dof + elements) / 2) - math.lgamma(dof / 2)
        constant -= 0.5 * elements * math.log(math.pi * spread)
        return constant - 0.5 * (dof + elements) * (inner(x, x) / spread).log1p()

    return gaussian if math.isinf(dof) else student_t
