r"""Regression: the loss that turns a network into a posterior mean.

$$\mathcal L = \mathbb E_{x_0,\,\varepsilon,\,t}\; w(t)\, \ell\big(\hat p(x_t, t),\; a_t x_0 + b_t\varepsilon\big),
  \qquad x_t = \alpha_t x_0 + \sigma_t\varepsilon$$

Whatever the target (x0, noise, velocity, v …), with a squared error the minimiser is the conditional
expectation of the target, hence equivalent to $E[x_0 \mid x_t]$; the choice of target and of w only says at
which noise levels errors are expensive. In units of x0 the squared error of a target weighs $J_t^2$, where
$J_t$ is the derivative of the target with respect to x0 at fixed $x_t$ (from `predictions`):

| target | $J_t^2$ | |
|---|---|---|
| `X0` | 1 | |
| `EPSILON` | $\alpha^2/\sigma^2$ | SNR |
| `V` | $(\alpha^2+\sigma^2)^2/\sigma^2$ | 1 + SNR on variance-preserving paths |
| `FLOW` | $(\alpha+\sigma)^2/\sigma^2$ | $(1+\sqrt{SNR})^2$ |
| `VELOCITY` | $(\alpha\sigma'-\sigma\alpha')^2/\sigma^2$ | $1/t^2$ on the linear path |

The weights here are those of the literature, stated in units of x0 as $W(SNR)$ and divided by $J_t^2$ for
the target at hand, so that `MinSNR(5)` means the same objective for every target.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from radiata_core.coefficients import checked_times
from radiata_core.couplings import Coupling, IndependentCoupling, Pair
from radiata_core.errors import InputError
from radiata_core.kernels import is_gaussian
from radiata_core.paths import AnyTime, Path, add_noise
from radiata_core.predictions import Prediction, convert, target_of
from radiata_core.seeds import sent
from radiata_core.specs import buildable
from radiata_core.times import TimeLaw
from radiata_core.types import Batch, Row

__all__ = [
    "EDM",
    "SNR",
    "AbsoluteError",
    "Constant",
    "Loss",
    "LossFunction",
    "MinSNR",
    "PseudoHuber",
    "Regression",
    "SquaredError",
    "TruncatedSNR",
    "Weight",
]


@runtime_checkable
class LossFunction(Protocol):
    """A distance of prediction and target, one value a sample."""

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        """Mean over the event of the penalty, (batch,), in float32 or finer."""
        ...


def _per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    fine = torch.promote_types(target.dtype, torch.float32)
    return prediction.to(fine) - target.to(fine)


@buildable("squared-error")
@dataclass(frozen=True)
class SquaredError:
    """Mean squared error; its minimiser is the conditional mean."""

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        return _per_sample(_difference(prediction, target) ** 2)


@buildable("absolute-error")
@dataclass(frozen=True)
class AbsoluteError:
    """Mean absolute error (MedForJ's rectified flow); its minimiser is the conditional median of each element."""

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        return _per_sample(_difference(prediction, target).abs())


@buildable("pseudo-huber")
@dataclass(frozen=True)
class PseudoHuber:
    r"""Mean over elements of $\sqrt{d^2 + c^2} - c$: $d^2/2c$ for small errors d, $|d|$ for large ones.

    Args:
        c: Where it turns, in units of the target, > 0.

    References:
        Charbonnier et al., 1997, Deterministic Edge-Preserving Regularization in Computed Imaging,
        https://doi.org/10.1109/83.551699.
    """

    c: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.c < float("inf"):
            raise InputError(
                f"expected c > 0; got {self.c}. Use the size of an error that matters, or AbsoluteError."
            )

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        d = _difference(prediction, target)
        # d^2 / (sqrt(d^2 + c^2) + c) is the same without the cancellation of small errors.
        return _per_sample(d**2 / (torch.sqrt(d**2 + self.c**2) + self.c))


@runtime_checkable
class Weight(Protocol):
    """How much a time counts in the loss of a target."""

    def __call__(self, t: AnyTime, path: Path, target: Prediction = Prediction.X0) -> AnyTime:
        """Weights >= 0, float64, shaped like `t`, of the loss measured in units of `target`."""
        ...


@buildable("constant-weight")
@dataclass(frozen=True)
class Constant:
    """1 at every time: the plain loss of the target."""

    def __call__(self, t: AnyTime, path: Path, target: Prediction = Prediction.X0) -> AnyTime:
        return torch.ones_like(t, dtype=torch.float64)


class _OfSNR(ABC):
    """A weight W(SNR) of the squared error of x0, SNR = alpha^2/sigma^2, divided by the target's $J^2$."""

    @abstractmethod
    def _in_x0(self, snr: Tensor) -> Tensor:
        """W, for x0 as target."""

    @abstractmethod
    def _over_snr(self, inverse: Tensor) -> Tensor:
        """W/SNR as a function of 1/SNR, which stays finite where sigma is 0."""

    def __call__(self, t: AnyTime, path: Path, target: Prediction = Prediction.X0) -> AnyTime:
        """Weights >= 0, float64, shaped like `t`, of the squared error of `target`."""
        c = path.coefficients(t)
        snr = (c.alpha / c.sigma) ** 2
        if target == Prediction.X0:
            return self._in_x0(snr)
        # SNR / J^2, in forms without 0/0 at the ends.
        match target:
            case Prediction.EPSILON:
                ratio = torch.ones_like(snr)
            case Prediction.SCORE:
                ratio = c.sigma**2
            case Prediction.V:
                ratio = (c.alpha / (c.alpha**2 + c.sigma**2)) ** 2
            case Prediction.FLOW:
                ratio = (c.alpha / (c.alpha + c.sigma)) ** 2
            case Prediction.VELOCITY:
                ratio = (c.alpha / (c.alpha * c.d_sigma - c.sigma * c.d_alpha)) ** 2
        return ratio * self._over_snr(1 / snr)


@buildable("snr-weight")
@dataclass(frozen=True)
class SNR(_OfSNR):
    """W = SNR: the plain loss of the noise (Ho et al.'s simple loss), whatever the target."""

    def _in_x0(self, snr: Tensor) -> Tensor:
        return snr

    def _over_snr(self, inverse: Tensor) -> Tensor:
        return torch.ones_like(inverse)


@buildable("min-snr-weight")
@dataclass(frozen=True)
class MinSNR(_OfSNR):
    """W = min(SNR, gamma): 1 for x0 at little noise, the noise's loss at much noise.

    For the noise this is min(SNR, gamma)/SNR, for v min(SNR, gamma)/(SNR + 1).

    Args:
        gamma: > 0, 5 in the paper.

    References:
        Hang et al., 2023, Efficient Diffusion Training via Min-SNR Weighting Strategy,
        https://arxiv.org/abs/2303.09556, section 3.4.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma < float("inf"):
            raise InputError(f"expected gamma > 0; got {self.gamma}. The paper uses 5.")

    def _in_x0(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)

    def _over_snr(self, inverse: Tensor) -> Tensor:
        return (self.gamma * inverse).clamp(max=1.0)


@buildable("truncated-snr-weight")
@dataclass(frozen=True)
class TruncatedSNR(_OfSNR):
    """W = max(SNR, floor): the noise's loss that does not forget x0 at much noise.

    Args:
        floor: > 0, 1 in the paper.

    References:
        Salimans, Ho, 2022, https://arxiv.org/abs/2202.00512, section 4.
    """

    floor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.floor < float("inf"):
            raise InputError(f"expected floor > 0; got {self.floor}. The paper uses 1.")

    def _in_x0(self, snr: Tensor) -> Tensor:
        return snr.clamp(min=self.floor)

    def _over_snr(self, inverse: Tensor) -> Tensor:
        return (self.floor * inverse).clamp(min=1.0)


@buildable("edm-weight")
@dataclass(frozen=True)
class EDM(_OfSNR):
    r"""$W = (\kappa^2 + \sigma_d^2)/(\kappa\sigma_d)^2$: the same loss for a preconditioned network at every noise.

    With $\sigma_d = 1$ this is 1 + SNR, the plain loss of v.

    Args:
        sigma_data: Standard deviation of the data, > 0.

    References:
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, table 1 (loss weighting).
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < float("inf"):
            raise InputError(
                f"expected sigma_data > 0; got {self.sigma_data}. Use the data's standard deviation."
            )

    def _in_x0(self, snr: Tensor) -> Tensor:
        return self.sigma_data**-2 + snr

    def _over_snr(self, inverse: Tensor) -> Tensor:
        return 1 + inverse / self.sigma_data**2


@dataclass(frozen=True)
class Loss:
    """The mean loss (), the loss of each sample (batch,), and the time of each sample (batch,), float64."""

    value: Tensor
    per_sample: Tensor
    t: Tensor


@dataclass(frozen=True)
class Regression:
    """The regression of a target on the noisy state.

    Args:
        path: Path from data to noise; the denoiser's must be the same.
        time_law: Law of the times.
        coupling: How data and noise are paired.
        target: In which units the loss is taken; what the network predicts is converted.
        weight: Weight of a time, a function of the time, the path and the target.
        loss: Distance of prediction and target.
    """

    path: Path
    time_law: TimeLaw
    coupling: Coupling = field(default_factory=IndependentCoupling)
    target: Prediction = Prediction.X0
    weight: Weight = field(default_factory=Constant)
    loss: LossFunction = field(default_factory=SquaredError)

    def __call__(self, denoiser: Any, x0: Batch, generators: Sequence[Generator], **conditions: Any) -> Loss:
        """Loss of the denoiser on a batch; sample i draws its time and then its noise from generator i only.

        Args:
            denoiser: A denoiser. With `predict` and `prediction` its raw output is compared; else its E[x0|x_t].
            x0: Data, (batch, *event).
            generators: One generator a sample.
            conditions: Passed to the denoiser and to the coupling.

        Raises:
            InputError: not one generator a sample, or a denoiser of another path.
        """
        if denoiser.path != self.path:
            raise InputError(
                f"expected a denoiser on {self.path}; got one on {denoiser.path}. Train it on its own path."
            )
        _same_noise(denoiser, self.coupling)
        if len(generators) != x0.shape[0]:
            raise InputError(
                f"expected one generator a sample, {x0.shape[0]}; got {len(generators)}. Make one a sample."
            )
        t = torch.cat([self.time_law.sample(1, g).cpu() for g in generators])
        t = sent(checked_times(self.time_law.on(self.path, t)), x0.device)
        return self.compare(denoiser, self.coupling(x0, generators, **conditions), t, **conditions)

    def compare(self, denoiser: Any, pair: Pair, t: Row, **conditions: Any) -> Loss:
        """Loss of the denoiser on pairs at given times: the part of a call after everything random is drawn.

        Args:
            denoiser: As in a call.
            pair: Data and noise, (batch, *event) each.
            t: One time a row, (batch,), float64.
            conditions: Passed to the denoiser.
        """
        x = add_noise(self.path, pair.x0, pair.noise, t)
        predict, source = (
            getattr(denoiser, "predict", denoiser),
            getattr(denoiser, "prediction", Prediction.X0),
        )
        # The state in float32 or finer: a half-precision output is converted without further loss.
        fine = x.to(torch.promote_types(x.dtype, torch.float32))
        estimate = convert(predict(x, t, **conditions), fine, t, self.path, source, self.target)
        truth = target_of(pair.x0.to(fine.dtype), pair.noise.to(fine.dtype), t, self.path, self.target)
        distance = self.loss(estimate, truth)
        per_sample = self.weight(t, self.path, self.target).to(distance) * distance
        return Loss(per_sample.mean(), per_sample, t)


def _same_noise(denoiser: object, coupling: object) -> None:
    """Nothing, unless both name a law of the noise and the two differ.

    Raises:
        InputError: they differ: the denoiser would later be asked as what it is not.
    """
    told, drawn = getattr(denoiser, "kernel", None), getattr(coupling, "kernel", None)
    if told is None or drawn is None or told == drawn or (is_gaussian(told) and is_gaussian(drawn)):
        return
    raise InputError(
        f"expected noise of the denoiser's kernel, {told}; got a coupling that draws {drawn}. Give both the same kernel."
    )
