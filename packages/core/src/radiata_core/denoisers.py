r"""Denoisers: a network that predicts anything becomes the posterior mean E[x_0 | x_t].

Everything above this module (solvers, guidance, posterior sampling, diagnostics) sees one kind of object, a callable
`denoise(x, t, **conditions) -> E[x_0 | x_t]` with the attribute `path`, and `kernel` where the noise is not Gaussian. What
the network predicts, how its input is scaled and how it is told the noise level are settled here:

    raw   = network(c_in x_t, level(t), ...)             what the network says, in units of `prediction`
    D(x)  = convert(raw, x_t, t, path, prediction, X0)   what everybody else sees

With an anchor G (a closed-form Gaussian denoiser) the network sees G(x_t) as further channels and predicts the difference:
raw = convert(G) + network(...). Karras et al.'s preconditioning D = c_skip x + c_out F(c_in x) is `EDMDenoiser`.

References:
    Karras, Aittala, Aila & Laine, "Elucidating the design space of diffusion-based generative models", 2022,
        https://arxiv.org/abs/2206.00364, eq. 7 and table 1.
    Ho & Salimans, "Classifier-free diffusion guidance", 2022, https://arxiv.org/abs/2207.12598, eq. 6.
    Karras, Aittala, Kynkäänniemi, Lehtinen, Aila & Laine, "Guiding a diffusion model with a bad version of itself", 2024,
        https://arxiv.org/abs/2406.02507, section 3.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from radiata_core.coefficients import readable
from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel, Kernel, is_gaussian, kernel_of, require_gaussian
from radiata_core.paths import DiscreteVPPath, Path, expand
from radiata_core.predictions import Prediction, convert
from radiata_core.specs import buildable
from radiata_core.types import Batch, Time

__all__ = [
    "Autoguided",
    "Denoiser",
    "EDMDenoiser",
    "Guided",
    "MedForJInput",
    "NetworkDenoiser",
    "Scaling",
    "UnitVariance",
]


@runtime_checkable
class Denoiser(Protocol):
    """E[x_0 | x_t] as a function of the state and the time. Without an attribute `kernel` its noise is Gaussian."""

    path: Path

    def __call__(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch: ...


@runtime_checkable
class Scaling(Protocol):
    """How the state and the time enter a network."""

    def __call__(self, x: Batch, t: Time, path: Path) -> tuple[Tensor, Tensor]:
        """The network's input and its noise level."""
        ...

    @property
    def sign(self) -> float:
        """Factor on the network's output: -1 for programs whose velocity points from noise to data."""
        ...


@buildable("unit-variance")
@dataclass(frozen=True)
class UnitVariance:
    """x / sqrt(alpha^2 sigma_data^2 + sigma^2), and the log-SNR as noise level.

    Attributes:
        sigma_data: Root mean square of the data, > 0.
        limit: The log-SNR is clipped to [-limit, limit], so t = 0 and t = 1 are finite.
    """

    sigma_data: float = 1.0
    limit: float = 8.0
    sign = 1.0
    told_as = "log-snr"

    def __call__(self, x: Batch, t: Time, path: Path) -> tuple[Tensor, Tensor]:
        c = path.coefficients(t)
        scale = (c.alpha.square() * self.sigma_data**2 + c.sigma.square()).rsqrt()
        level = torch.log(c.alpha / c.sigma).clamp(-self.limit, self.limit)
        return x * expand(scale, x).to(x), level


@buildable("medforj-input")
@dataclass(frozen=True)
class MedForJInput:
    """The state as it is and the time step as MedForJ counts it: 0 .. 999 on its discrete path, 1000 t on the linear one.

    Attributes:
        flip: The network's velocity points from noise to data (MONAI's and MedForJ's rectified flow).
    """

    flip: bool = False
    told_as = "step"

    @property
    def sign(self) -> float:
        return -1.0 if self.flip else 1.0

    def __call__(self, x: Batch, t: Time, path: Path) -> tuple[Tensor, Tensor]:
        return x, path.model_time(t) if isinstance(path, DiscreteVPPath) else 1000.0 * t


def _told(kernel: Kernel) -> dict[str, object]:
    """The argument, where it is not the default: files of Gaussian denoisers stay as they are."""
    return {} if is_gaussian(kernel) else {"kernel": kernel}


def _fine(level: Tensor, x: Tensor) -> Tensor:
    """The noise level beside x in float32 or finer: bf16 would merge neighbouring steps of 0 .. 999."""
    return level.to(x.device, torch.promote_types(x.dtype, torch.float32))


@buildable("network-denoiser")
class NetworkDenoiser(nn.Module):
    """A network of any prediction type as E[x_0 | x_t].

    Args:
        network: `network(x, noise_level, covariates=None) -> ` prediction, `(batch, *event)`.
        path: The path the network was (or will be) trained on.
        prediction: What the network's output means.
        scaling: How state and time enter the network.
        anchor: Closed-form denoiser `anchor(x, alpha, sigma, **conditions)`; the network then takes twice the channels.
        kernel: The law of the noise it was (or will be) trained with; None: Gaussian.

    Raises:
        InputError: an anchor or the prediction of a score with noise that is not Gaussian.
    """

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        prediction: Prediction | str,
        scaling: Scaling | None = None,
        anchor: nn.Module | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        self.network, self.anchor = network, anchor
        self.path = path
        self.prediction = Prediction(prediction)
        self.scaling = UnitVariance() if scaling is None else scaling
        self.kernel: Kernel = GaussianKernel() if kernel is None else kernel
        if self.prediction == Prediction.SCORE:
            require_gaussian(self, "a network that predicts the score")
        if anchor is not None:
            require_gaussian(self, "an anchor, the posterior mean under Gaussian noise")

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this denoiser."""
        return {
            "network": self.network,
            "path": self.path,
            "prediction": self.prediction,
            "scaling": self.scaling,
            "anchor": self.anchor,
        } | _told(self.kernel)

    @property
    def told_as(self) -> str | None:
        """What the network's noise level means (`handles`)."""
        return getattr(self.scaling, "told_as", None)

    def predict(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """The prediction in units of `self.prediction`, with the anchor's part added."""
        scaled, level = self.scaling(x, t, self.path)
        if self.anchor is None:
            return self.scaling.sign * self.network(scaled, _fine(level, x), **conditions)
        c = self.path.coefficients(t)
        linear = self.anchor(x, c.alpha, c.sigma, **conditions)
        correction = self.network(torch.cat([scaled, linear], 1), _fine(level, x), **conditions)
        return (
            convert(linear, x, t, self.path, Prediction.X0, self.prediction) + self.scaling.sign * correction
        )

    def forward(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """E[x_0 | x_t], `(batch, *event)`.

        Raises:
            InputError: the prediction does not determine x_0 at this time (the noise at t = 1, say).
        """
        return convert(self.predict(x, t, **conditions), x, t, self.path, self.prediction, Prediction.X0)


@buildable("edm-denoiser")
class EDMDenoiser(nn.Module):
    """Karras et al.'s preconditioning: D = c_skip x + c_out F(c_in x, log(kappa) / 4), with kappa = sigma / alpha.

    The state of any path is first divided by alpha. `prediction` is X0, so an objective sees D itself.

    Args:
        network: F, with the signature of `NetworkDenoiser`'s network.
        path: A path with alpha > 0 wherever it is evaluated.
        sigma_data: Sd of the data, > 0.
        kernel: The law of the noise it was (or will be) trained with; None: Gaussian. Nothing else changes with it.
    """

    prediction = Prediction.X0
    told_as = "quarter-log-kappa"

    def __init__(
        self, network: nn.Module, path: Path, sigma_data: float = 0.5, kernel: Kernel | None = None
    ) -> None:
        super().__init__()
        self.network, self.path, self.sigma_data = network, path, sigma_data
        self.kernel: Kernel = GaussianKernel() if kernel is None else kernel

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this denoiser."""
        own = {"network": self.network, "path": self.path, "sigma_data": self.sigma_data}
        return own | _told(self.kernel)

    def predict(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """D(x_t), the same as calling the denoiser."""
        c = self.path.coefficients(t)
        if readable(t) and bool((c.alpha == 0).any()):
            raise InputError(
                "expected a time with alpha > 0 for EDM's preconditioning; got the end of the path, where alpha = 0. "
                "Start at a time below 1, or use NetworkDenoiser."
            )
        kappa = c.sigma / c.alpha
        total = kappa.square() + self.sigma_data**2
        skip, out, scale = self.sigma_data**2 / total, kappa * self.sigma_data * total.rsqrt(), total.rsqrt()
        clean = x / expand(c.alpha, x).to(x)
        level = kappa.clamp_min(1e-12).log() / 4.0
        raw = self.network(clean * expand(scale, x).to(x), _fine(level, x), **conditions)
        return expand(skip, x).to(x) * clean + expand(out, x).to(x) * raw

    def forward(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """E[x_0 | x_t], `(batch, *event)`."""
        return self.predict(x, t, **conditions)


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance, denoiser in, denoiser out: D_w = D(x; nothing) + w (D(x; c) - D(x; nothing)).

    w = 1 is the conditional denoiser and costs one evaluation; any other w costs two. "Nothing" is every condition set
    to NaN, which is how condition dropout trains it.

    With Gaussian noise the difference of the two is sigma^2 / alpha times the gradient of log p(c | x_t), so D_w is the
    score of p_t(x) p_t(c | x)^w. With other noise it is not that gradient, and to extrapolate along it is refused.

    Attributes:
        denoiser: A denoiser that was trained with condition dropout.
        weight: w, usually between 1 and 4.

    Raises:
        InputError: a weight other than 0 and 1, and noise that is not Gaussian.
    """

    denoiser: Denoiser
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight not in (0.0, 1.0):
            require_gaussian(self.denoiser, "classifier-free guidance, a sum of scores,")

    @property
    def kernel(self) -> Kernel:
        return kernel_of(self.denoiser)

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def __call__(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        given = self.denoiser(x, t, **conditions)
        if self.weight == 1.0:
            return given
        nothing = {k: None if v is None else torch.full_like(v, torch.nan) for k, v in conditions.items()}
        free = self.denoiser(x, t, **nothing)
        return torch.lerp(free, given, self.weight)


@dataclass(frozen=True)
class Autoguided:
    """Guidance by a worse version of the denoiser, denoiser in, denoiser out: D_w = D_worse + w (D - D_worse).

    Where a denoiser is unsure it spreads over what is not data, and a version with fewer weights or less training spreads
    further in the same directions. To go from the worse to the better and beyond leaves those directions, with the
    conditions as they are; classifier-free guidance sharpens the condition as well. w = 1 is the denoiser alone.

    Attributes:
        denoiser: A denoiser.
        worse: The same denoiser, smaller or earlier in its training, told the same conditions.
        weight: w, usually between 1 and 3.

    Raises:
        InputError: denoisers of two paths; a weight other than 0 and 1, and noise that is not Gaussian.
    """

    denoiser: Denoiser
    worse: Denoiser
    weight: float = 2.0

    def __post_init__(self) -> None:
        if self.weight not in (0.0, 1.0):
            require_gaussian(self.denoiser, "autoguidance, a sum of scores,")
        if self.denoiser.path != self.worse.path:
            raise InputError(
                f"expected two denoisers of one path; got {self.denoiser.path} and {self.worse.path}. "
                "Guide by an earlier state of the same training."
            )

    @property
    def network(self) -> nn.Module:
        """That of the denoiser."""
        found: nn.Module = self.denoiser.network  # type: ignore[attr-defined]
        return found

    @property
    def kernel(self) -> Kernel:
        return kernel_of(self.denoiser)

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def __call__(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        better = self.denoiser(x, t, **conditions)
        if self.weight == 1.0:
            return better
        return torch.lerp(self.worse(x, t, **conditions), better, self.weight)
