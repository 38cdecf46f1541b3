r"""The law of the noise: what $\varepsilon$ is in $x_t = \alpha_t x_0 + \sigma_t \varepsilon$.

A kernel draws noise of any shape. With a list of generators, one a sample, row i depends on generator i
only: a sample is the same alone and inside any batch. Numbers are drawn on the generator's device and then
moved, so a CPU generator gives the same noise whatever the device of the data.

| kernel | $\varepsilon$ | known as |
|---|---|---|
| `GaussianKernel` | $z \sim \mathcal N(0, I)$ | diffusion, flow matching |
| `StudentTKernel(D)` | $z\sqrt{D/\chi^2_D}$, one $\chi^2_D$ a sample | PFGM++; D = infinity is the Gaussian |

Whatever the law, the flow $\dot x = \mathrm E[\alpha'_t x_0 + \sigma'_t\varepsilon \mid x_t]$ has the law of $x_t$ at every
time, because $x_t$ is a straight function of $(x_0, \varepsilon)$. So training, preconditioning, grids and deterministic
solvers know nothing of the kernel. What does is whatever calls $-\mathrm E[\varepsilon|x_t]/\sigma_t$ a *score*: that is
true of Gaussian noise alone, and `require_gaussian` is asked there. What follows from the other kernel is in
`poisson_flows`.

References:
    Xu et al., 2023, *PFGM++: Unlocking the Potential of Physics-Inspired Generative Models*,
        https://arxiv.org/abs/2302.04265, section 3 (the perturbation kernel) and 4 (r = sigma sqrt(D)).
    Abramowitz & Stegun, 1964, *Handbook of Mathematical Functions*, sections 26.4 (chi-square) and 26.2.49
        (Cornish–Fisher expansion).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.specs import buildable
from radiata_core.types import Batch

__all__ = [
    "GaussianKernel",
    "Kernel",
    "StudentTKernel",
    "is_gaussian",
    "kernel_of",
    "prior",
    "require_gaussian",
]

_LARGE = 1e6  # degrees of freedom from which the expansion of the quantile is exact to rounding


@runtime_checkable
class Kernel(Protocol):
    """A law of the noise."""

    def sample(
        self,
        shape: Sequence[int],
        generator: Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The noise of one sample, of the given shape (*event), dtype and device."""
        ...

    def noise(self, x0: Batch, generators: Generator | Sequence[Generator]) -> Batch:
        """Noise like `x0`, (batch, *event): from one generator, or row i from generator i."""
        ...


@buildable("gaussian-kernel")
@dataclass(frozen=True)
class GaussianKernel:
    r"""The unit normal law, $\varepsilon \sim \mathcal N(0, I)$."""

    def sample(
        self,
        shape: Sequence[int],
        generator: Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Noise of the given shape, dtype and device.

        Half-precision noise is drawn in float32 and rounded, so that a seed is the same in float16 and
        bfloat16.
        """
        fine = torch.promote_types(dtype, torch.float32)
        drawn = torch.randn(tuple(shape), generator=generator, dtype=fine, device=generator.device)
        return drawn.to(device, dtype)

    def noise(self, x0: Batch, generators: Generator | Sequence[Generator]) -> Batch:
        """Noise like `x0`, (batch, *event): from one generator, or row i from generator i.

        Raises:
            InputError: the number of generators is not that of rows.
        """
        if isinstance(generators, Generator):
            return self.sample(x0.shape, generators, x0.dtype, x0.device)
        return _rows(self, x0, generators)


@buildable("student-t-kernel")
@dataclass(frozen=True)
class StudentTKernel:
    r"""The multivariate Student-t law of D degrees of freedom: $\varepsilon = z\sqrt{D/\chi^2_D}$, PFGM++'s kernel.

    The density of $x = \alpha y + \sigma\varepsilon$ is proportional to $(|x - \alpha y|^2 + r^2)^{-(N+D)/2}$ with
    $r = \sigma\sqrt D$ and N numbers an event: an electric charge at y, seen from the plane at distance r in N + D
    dimensions. The smaller D, the heavier the tails: a number has the variance D/(D - 2), infinite for D <= 2, so it is no
    scale to normalise by. With D = `math.inf` the numbers are those of `GaussianKernel`, to the bit.

    A generator gives the z of a sample first and then one uniform number, of which $\chi^2_D$ is the quantile: exact for
    every D, without rejection, and a seed is a continuous function of D. Nothing is clipped. (Below D = 1/2 the tails leave
    float32 now and then: use float64.)

    Args:
        dof: D > 0, any number; 128 and 2048 are the paper's choices for images.

    Raises:
        InputError: D is not positive.

    References:
        Xu et al., 2023, https://arxiv.org/abs/2302.04265, section 3.
    """

    dof: float | int

    def __post_init__(self) -> None:
        if not self.dof > 0:
            raise InputError(
                f"expected degrees of freedom D > 0; got {self.dof}. PFGM++ uses 128 or 2048, math.inf is Gaussian."
            )
        object.__setattr__(self, "dof", float(self.dof))

    def sample(
        self,
        shape: Sequence[int],
        generator: Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The noise of ONE sample of the given shape: all of it shares one chi-square. A batch is `noise`'s."""
        fine = torch.promote_types(dtype, torch.float32)
        drawn = GaussianKernel().sample(shape, generator, fine, device)
        return (drawn * self._factors(1, generator)[0].to(drawn)).to(dtype)

    def noise(self, x0: Batch, generators: Generator | Sequence[Generator]) -> Batch:
        """Noise like `x0`, (batch, *event), one chi-square a row: from one generator, or row i from generator i.

        One generator gives the normal numbers of all rows, then the chi-square of each.

        Raises:
            InputError: the number of generators is not that of rows.
        """
        if not isinstance(generators, Generator):
            return _rows(self, x0, generators)
        fine = torch.promote_types(x0.dtype, torch.float32)
        drawn = GaussianKernel().sample(x0.shape, generators, fine, x0.device)
        factors = self._factors(len(x0), generators).to(drawn)
        return (drawn * factors.reshape(-1, *(1,) * (x0.ndim - 1))).to(x0.dtype)

    def _factors(self, count: int, generator: Generator) -> Tensor:
        """sqrt(D / chi-square), float64, (count,), on the CPU; 1 for D = infinity, for which nothing is drawn."""
        if math.isinf(self.dof):
            return torch.ones(count, dtype=torch.float64)
        drawn = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)
        # A zero has the probability 2^-53 and would be an infinite noise.
        return _mean_chi_square(drawn.cpu().clamp_min(2.0**-54), self.dof).rsqrt()


def kernel_of(denoiser: object) -> Kernel:
    """The law of the noise that a denoiser says it is for: its attribute `kernel`, or Gaussian where it has none."""
    kernel: Kernel | None = getattr(denoiser, "kernel", None)
    return GaussianKernel() if kernel is None else kernel


def is_gaussian(kernel: object) -> bool:
    """Whether it is the unit normal law, also as a Student-t of infinite degrees of freedom."""
    return isinstance(kernel, GaussianKernel) or getattr(kernel, "dof", None) == math.inf


def require_gaussian(denoiser: object, what: str = "these steps") -> None:
    r"""Nothing, if the denoiser's noise is Gaussian.

    Score-based methods stand on $\nabla\log p_t = (\alpha_t D - x)/\sigma_t^2$ (Tweedie), those that add noise to a state on
    the sum of two noises of one law being such a noise. Both hold for Gaussian noise alone: under a Student-t of D degrees
    of freedom the score is $-(N + D)\,\mathrm E[(x - \alpha y)/(r^2 + |x - \alpha y|^2) \mid x]$, which no denoiser tells.

    Args:
        denoiser: Its attribute `kernel` is looked at; without one it is taken for Gaussian.
        what: What needs it, for the message.

    Raises:
        InputError: the noise is not Gaussian.
    """
    kernel = getattr(denoiser, "kernel", None)  # of any kind: what is not known is refused
    if kernel is not None and not is_gaussian(kernel):
        raise InputError(
            f"expected Gaussian noise for {what}; got {kernel}, for which (D(x) - x)/sigma² is not the score and added "
            "noise leaves the law. Use a deterministic solver without score guidance, or a Gaussian kernel."
        )


def prior(
    path: Path,
    generators: Sequence[Generator],
    event_shape: Sequence[int],
    kernel: Kernel | None = None,
    *,
    t: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Batch:
    r"""States to start sampling from, $\sigma_t\varepsilon$, (batch, *event); row i from generator i alone.

    With the Gaussian kernel on a path with $\sigma(1) = 1$ it is `seeds.noise_of`, to the bit.

    Where $\alpha(1) = 0$ this is the law of the state exactly, whatever the kernel: the noise itself, and the first
    posterior mean is the mean of the data. Where $\alpha(1) > 0$ (VE, VP) the data are left out of
    $\alpha x_0 + \sigma\varepsilon$, an error of the size of $\alpha/\sigma$ times that of the data.

    Args:
        path: sigma of t.
        generators: One a row.
        event_shape: Of one sample.
        kernel: The law of the noise, `kernel_of(denoiser)`; None: Gaussian.
        t: First time of the grid, in (0, 1].
        dtype: Of the state.
        device: Of the state.

    Raises:
        InputError: there is no generator, or t is no time.
    """
    if not generators:
        raise InputError("expected at least one generator; got none. Use generators_of(seeds).")
    kernel = GaussianKernel() if kernel is None else kernel
    sigma = float(path.coefficients(torch.tensor(t, dtype=torch.float64)).sigma)
    rows = [kernel.sample(event_shape, g, dtype, device) for g in generators]
    return sigma * torch.stack(rows)


def _rows(kernel: Kernel, x0: Tensor, generators: Sequence[Generator]) -> Tensor:
    if len(generators) != x0.shape[0]:
        raise InputError(
            f"expected one generator a sample, {x0.shape[0]}; got {len(generators)}. "
            "Make them from one seed a sample."
        )
    rows = [kernel.sample(x0.shape[1:], g, x0.dtype, x0.device) for g in generators]
    return torch.stack(rows) if rows else torch.empty_like(x0)


def _mean_chi_square(probability: Tensor, dof: float) -> Tensor:
    """Quantile of chi-square / D, float64, to 1e-11; probabilities in (0, 1), float64 on the CPU."""
    if dof < _LARGE:
        from scipy.special import gammaincinv  # here: who draws normal numbers need not load scipy

        return torch.from_numpy(gammaincinv(dof / 2, probability.numpy())) * (2 / dof)
    # scipy's inverse is wrong in the tails from about 1e8 on; here the first neglected term is below 1e-15.
    z, h = torch.special.ndtri(probability), dof**-0.5
    terms = (
        math.sqrt(2) * z,
        2 / 3 * (z**2 - 1),
        (z**3 - 7 * z) / (9 * math.sqrt(2)),
        -2 / 405 * (3 * z**4 + 7 * z**2 - 16),
        (9 * z**5 + 256 * z**3 - 433 * z) / (4860 * math.sqrt(2)),
    )
    return 1 + sum((term * h ** (i + 1) for i, term in enumerate(terms)), torch.zeros_like(z))
