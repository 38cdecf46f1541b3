r"""Poisson flows (PFGM++): data as electric charges, seen from D more dimensions; D = infinity is diffusion.

Put the data y in $\mathbb R^N$ as positive charges into $\mathbb R^{N+D}$. Their field at $(x, z)$, $|z| = r$, is

$$E_x = \mathrm E_y \frac{x - y}{(|x - y|^2 + r^2)^{(N+D)/2}}, \qquad
  E_r = \mathrm E_y \frac{r}{(|x - y|^2 + r^2)^{(N+D)/2}}, \tag{1}$$

and its lines lead from infinity to the data, along $dx/dr = E_x/E_r$. Weighing charges as the field does is Bayes' rule for
the kernel $p_r(x|y) \propto (|x - y|^2 + r^2)^{-(N+D)/2}$, so

$$\frac{E_x}{E_r} = \frac{x - \mathrm E[y|x]}{r}, \tag{2}$$

and a denoiser is all that is needed. With $r = \sigma\sqrt D$ (`radius_of_sigma`) that kernel is the multivariate Student-t
law of D degrees of freedom and scale sigma (`kernels.StudentTKernel`), (2) is EDM's $dx/d\sigma = (x - D)/\sigma$, and
network, preconditioning, law of time, grid and deterministic solver are diffusion's as they stand. Two things change, the
noise in training and the noise that sampling starts from:

    kernel = StudentTKernel(128)
    denoiser = EDMDenoiser(network, path, kernel=kernel)
    loss = Regression(path, law, IndependentCoupling(kernel), weight=EDM(0.5))(denoiser, x0, generators).value
    x = integrate(denoiser, prior(path, generators, event, kernel), dpmpp_2m(grid, path))

On a path with $\alpha \ne 1$ read $\alpha y$ for y: the state is $\alpha y + \sigma\varepsilon$, and its flow
$\mathrm E[\alpha' x_0 + \sigma'\varepsilon | x]$ is the same lines in other coordinates. At $\alpha = 0$ all charges look
alike.

Not for finite D: anything with a score. $(\alpha\,\mathrm E[y|x] - x)/\sigma^2$ is the score of Gaussian noise only; here it
is

$$\nabla\log p_t(x) = -(N + D)\,\mathrm E\Big[\frac{x - \alpha y}{r^2 + |x - \alpha y|^2}\Big|\,x\Big] \tag{3}$$

(`EmpiricalPoissonDenoiser.score`). `kernels.require_gaussian` refuses churn, stochastic solvers, search and guidance.

Reading order: `kernels.StudentTKernel`, then `EmpiricalPoissonDenoiser` (the exact answer for a finite set),
`electric_field` (equation 1, to see that 2 holds), `RadiusLaw` (how far noise reaches), `stabilised` (a target of less
variance).

References:
    Xu et al., 2023, *PFGM++: Unlocking the Potential of Physics-Inspired Generative Models*,
        https://arxiv.org/abs/2302.04265, sections 3 (field, kernel, objective) and 4
        (r = sigma sqrt(D), D to infinity).
    Xu et al., 2022, *Poisson Flow Generative Models*, https://arxiv.org/abs/2209.11178 (D = 1).
    Xu, Tong & Jaakkola, 2023, *Stable Target Field for Reduced Variance Score Estimation in Diffusion Models*,
        https://arxiv.org/abs/2302.00670 (with the Gaussian kernel).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.couplings import Pair
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel, StudentTKernel, is_gaussian
from radiata_core.paths import Path, expand
from radiata_core.types import Batch, Row, Time

__all__ = [
    "ElectricField",
    "EmpiricalPoissonDenoiser",
    "RadiusLaw",
    "electric_field",
    "radius_of_sigma",
    "stabilised",
]

_TINY = 1e-60  # square that stands for zero, as in `analytic`
_CHUNK = 2**22  # numbers of the data set that are widened to float64 at a time


def radius_of_sigma(sigma: Tensor, dof: float | int) -> Tensor:
    """r = sigma sqrt(D): the distance from the plane of the data at which the kernel has the scale sigma, like sigma."""
    return sigma * math.sqrt(dof)


@dataclass(frozen=True, eq=False)
class EmpiricalPoissonDenoiser:
    r"""E[x_0 | x_t] of a finite set under Student-t noise: what a PFGM++ network that memorised its training set says.

    A softmax over $\log w_i - \tfrac{N+D}2 \log(1 + |x - \alpha y_i|^2/(D\sigma^2))$; for D = infinity over
    $\log w_i - |x - \alpha y_i|^2/2\sigma^2$. Distances are float64; the data set is walked in chunks.

    Args:
        data: Samples, the charges, (samples, *event).
        path: alpha and sigma of t.
        kernel: `StudentTKernel(D)`; a Gaussian kernel is D = infinity.
        shares: Charge of each sample, > 0, (samples,); normalised. None: all alike.

    Raises:
        InputError: no sample, or shares that are not one positive number a sample.

    References:
        Xu et al., 2023, https://arxiv.org/abs/2302.04265, section 3 (the field's minimiser).
    """

    data: Float[Tensor, "samples *event"]
    path: Path
    kernel: Kernel
    shares: Tensor | None = None

    def __post_init__(self) -> None:
        shares = torch.ones(len(self.data)) if self.shares is None else self.shares
        if not len(self.data) or shares.shape != self.data.shape[:1] or not bool((shares > 0).all()):
            raise InputError(
                f"expected at least one sample and one positive share each; got {len(self.data)} samples and shares of "
                f"shape {tuple(shares.shape)}. Leave out samples without a share."
            )
        _dof(self.kernel)

    @property
    def dof(self) -> float:
        """D."""
        return _dof(self.kernel)

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """Posterior mean, like x; at sigma = 0 the nearest sample. Conditions are ignored."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        return self._average(self._logits(x, alpha, sigma).softmax(1)).to(x.dtype).view_as(x)

    def weights(self, x: Batch, t: Time) -> Float[Tensor, "batch samples"]:
        """Posterior probability of every sample, float64; rows sum to 1."""
        return self._logits(x, *_alpha_sigma(self.path, t, x)).softmax(1)

    def score(self, x: Batch, t: Time) -> Batch:
        r"""Gradient of `log_density` by equation (3), like x; sigma > 0. For D = infinity $(\alpha D - x)/\sigma^2$."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        chances = self._logits(x, alpha, sigma).softmax(1)
        if math.isinf(self.dof):
            pull = chances / sigma.square()
        else:
            squares = self._squares(x, alpha)
            pull = (self.dof + x[0].numel()) * chances / (self.dof * sigma.square() + squares)
        toward = alpha * self._average(pull) - pull.sum(1, keepdim=True) * x.flatten(1).double()
        return toward.to(x.dtype).view_as(x)

    def log_density(self, x: Batch, t: Time) -> Row:
        """log p_t(x) in nats, (batch,), float64; sigma > 0."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        size, dof = x[0].numel(), self.dof
        if math.isinf(dof):
            constant = -0.5 * size * math.log(2 * math.pi)
        else:
            constant = (
                math.lgamma((size + dof) / 2) - math.lgamma(dof / 2) - 0.5 * size * math.log(dof * math.pi)
            )
        return self._logits(x, alpha, sigma).logsumexp(1) + constant - size * sigma[:, 0].log()

    def _logits(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Log of charge times kernel up to a constant, (batch, samples)."""
        squares, dof = self._squares(x, alpha), self.dof
        scaled = squares / sigma.square().clamp_min(_TINY)
        logits = -scaled / 2
        if not math.isinf(dof):
            power = -(x[0].numel() + dof) / 2 * torch.log1p(scaled / dof)
            # On the data the field is that of the one charge there.
            logits = torch.where(sigma > 0, power, logits)
        if self.shares is None:
            return logits - math.log(len(self.data))
        shares = self.shares.to(x.device, torch.float64)
        return logits + (shares / shares.sum()).log()

    def _squares(self, x: Tensor, alpha: Tensor) -> Tensor:
        """|x - alpha y|^2, (batch, samples)."""
        flat, parts = x.flatten(1).double(), []
        own = flat.square().sum(1, keepdim=True)
        for y in self._chunks(x.device):
            parts.append(own - 2 * alpha * (flat @ y.mT) + alpha.square() * y.square().sum(1))
        return torch.cat(parts, 1).clamp_min(0)

    def _average(self, weights: Tensor) -> Tensor:
        """Sum over the samples of weights times samples, (batch, numbers)."""
        first, total = 0, torch.zeros(())
        for y in self._chunks(weights.device):
            total = total.to(y) + weights[:, first : first + len(y)] @ y
            first += len(y)
        return total

    def _chunks(self, device: torch.device) -> Iterator[Tensor]:
        size = max(1, _CHUNK // max(1, self.data[0].numel()))
        return (part.to(device, torch.float64) for part in self.data.flatten(1).split(size))


@dataclass(frozen=True, eq=False)
class ElectricField:
    """The field of charges in N + D dimensions, up to one positive factor a row.

    Attributes:
        x: Along the data, (batch, *event).
        r: Away from the plane of the data, (batch,), > 0.
    """

    x: Tensor
    r: Tensor


def electric_field(
    x: Batch, r: Row, charges: Float[Tensor, "charges *event"], dof: float | int, shares: Tensor | None = None
) -> ElectricField:
    """Equation (1), charge by charge and without any posterior: the field at distance r from the plane of the data.

    Takes batch x charges x event numbers. The factor that is left out keeps powers of N + D from overflowing.

    Args:
        x: Where, (batch, *event).
        r: Distance from the plane, > 0, (batch,).
        charges: The data, (charges, *event).
        dof: D, finite, > 0.
        shares: Charge of each, > 0; None: all alike.

    Raises:
        InputError: D or a distance is not positive and finite.

    References:
        Xu et al., 2023, https://arxiv.org/abs/2302.04265, section 3.
    """
    if not (0 < dof < math.inf and bool((r > 0).all())):
        raise InputError(
            f"expected 0 < D < infinity and r > 0; got D={dof}. In the plane the field is infinite."
        )
    apart = x.flatten(1)[:, None] - charges.flatten(1).to(x)
    squares = apart.square().sum(2) + r.square()[:, None]
    strength = -(x[0].numel() + dof) / 2 * squares.log()
    if shares is not None:
        strength = strength + shares.to(x).log()
    strength = (strength - strength.amax(1, keepdim=True)).exp()
    return ElectricField((strength[..., None] * apart).sum(1).view_as(x), strength.sum(1) * r)


@dataclass(frozen=True)
class RadiusLaw:
    r"""The law of $R = |x - \alpha y|$, how far the noise of scale sigma reaches: $R^2/r^2$ is beta prime(N/2, D/2).

    $R^2/r^2 = |z|^2/\chi^2_D$ is a ratio of two chi-squares, of N and of D degrees of freedom, so

    $$P(R \le \rho) = I_{b}(N/2, D/2), \qquad b = \frac{\rho^2}{\rho^2 + D\sigma^2},$$

    with the regularised incomplete beta function I. For D = infinity $R/\sigma$ is chi of N.

    Args:
        elements: N, numbers an event, >= 1: the whole event, channels and voxels.
        dof: D > 0.
        sigma: Scale, > 0.

    Raises:
        InputError: a number out of range.

    References:
        Xu et al., 2023, https://arxiv.org/abs/2302.04265, section 3 (sampling the radius).
    """

    elements: int
    dof: float | int
    sigma: float | int = 1.0

    def __post_init__(self) -> None:
        if not (self.elements >= 1 and self.dof > 0 and 0 < self.sigma < math.inf):
            raise InputError(
                f"expected elements >= 1, dof > 0 and sigma > 0; got {self.elements}, {self.dof}, {self.sigma}. "
                "elements counts all numbers of a sample."
            )

    def cdf(self, radius: Tensor) -> Tensor:
        """Probability of a noise within the radius, float64, like `radius` (>= 0)."""
        from scipy.special import betainc, gammainc

        square, n = (radius.double() / self.sigma).square(), self.elements / 2
        if math.isinf(self.dof):
            return _by_scipy(lambda s: gammainc(n, s / 2), square)
        return _by_scipy(lambda b: betainc(n, self.dof / 2, b), square / (square + self.dof))

    def quantile(self, probability: Tensor) -> Tensor:
        """The radius within which the noise lies with a probability in [0, 1), float64, like `probability`."""
        from scipy.special import betaincinv, gammaincinv

        p, n = probability.double(), self.elements / 2
        if math.isinf(self.dof):
            return self.sigma * (2 * _by_scipy(lambda q: gammaincinv(n, q), p)).sqrt()
        # b from its own tail, one minus b from the other: each is 1 to rounding in the other's.
        near = _by_scipy(lambda q: betaincinv(n, self.dof / 2, q), p)
        rest = _by_scipy(lambda q: betaincinv(self.dof / 2, n, q), 1 - p)
        odds = torch.where(p < 0.5, near / (1 - near), (1 - rest) / rest)
        return self.sigma * (self.dof * odds).sqrt()


def stabilised(pair: Pair, t: Row, path: Path, kernel: Kernel) -> Pair:
    r"""The same states with targets of less variance: every row's $x_0$ becomes the posterior mean over the whole batch.

    A row's own data are one draw from $p(y|x_t)$; the batch, weighed by the kernel as in `EmpiricalPoissonDenoiser`,
    estimates the mean of that law from all rows. The noise is set so that the state is unchanged: use

        objective.compare(denoiser, stabilised(objective.coupling(x0, generators), t, path, kernel), t)

    For a large batch the target's mean is the posterior mean; for a small one it leans towards the row's own data. Rows then
    depend on each other, and the rows of a batch must share their conditions, or the targets forget them.

    Args:
        pair: Data and noise, (batch, *event).
        t: Times in (0, 1], (batch,).
        path: alpha and sigma of t.
        kernel: The law of the noise.

    Raises:
        InputError: a time without noise.

    References:
        Xu, Tong & Jaakkola, 2023, https://arxiv.org/abs/2302.00670.
    """
    c = path.coefficients(t)
    if bool((c.sigma == 0).any()):
        raise InputError("expected times with noise; got sigma = 0, where the data are known. Keep t > 0.")
    alpha, sigma = expand(c.alpha, pair.x0).to(pair.x0), expand(c.sigma, pair.x0).to(pair.x0)
    x = alpha * pair.x0 + sigma * pair.noise
    x0 = EmpiricalPoissonDenoiser(pair.x0, path, kernel)(x, t)
    return Pair(x0, pair.noise + alpha / sigma * (pair.x0 - x0))


def _dof(kernel: Kernel) -> float:
    if is_gaussian(kernel):
        return math.inf
    if isinstance(kernel, StudentTKernel):
        return kernel.dof
    raise InputError(
        f"expected StudentTKernel(D) or a Gaussian kernel; got {kernel}. Its density is not known."
    )


def _alpha_sigma(path: Path, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(1 or batch, 1) each, float64."""
    c = path.coefficients(t)
    return c.alpha.to(x.device).reshape(-1, 1), c.sigma.to(x.device).reshape(-1, 1)


def _by_scipy(function: Callable[[Any], Any], values: Tensor) -> Tensor:
    result = torch.as_tensor(function(values.detach().cpu().numpy()), dtype=torch.float64)
    return result.to(values.device)
