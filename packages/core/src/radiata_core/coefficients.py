r"""What a path from data to noise is: its coefficients at every time, and the noisy state they make.

$$x_t = \alpha_t x_0 + \sigma_t \varepsilon, \qquad \varepsilon \sim \mathcal N(0, I), \qquad t \in [0, 1]$$

The paths themselves are in `radiata_core.paths`. Here are the interface they fill in, the check of times, the
coefficients that every variance-preserving path ($\alpha^2 + \sigma^2 = 1$) has in common, and the state.

Times live best on the CPU, where their range is checked. On an accelerator it is not: reading a number waits for everything
that was asked before it. The objectives check the times they draw before they send them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.types import Batch

__all__ = [
    "AnyTime",
    "Coefficients",
    "Path",
    "add_noise",
    "checked_times",
    "expand",
    "readable",
    "variance_preserving",
]

AnyTime = Float[Tensor, "*times"]


@dataclass(frozen=True)
class Coefficients:
    """Signal and noise coefficients and their time derivatives, float64, each of the shape of the time.

    `d_sigma` is infinite at t = 0 on the variance-preserving paths, where sigma grows like the root of t.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Path(ABC):
    """A path from data (t = 0) to noise (t = 1)."""

    def coefficients(self, t: AnyTime) -> Coefficients:
        """Alpha, sigma and their derivatives at `t`, in float64 and differentiable.

        Args:
            t: Times in [0, 1], any shape.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self._coefficients(checked_times(t))

    def log_snr(self, t: AnyTime) -> AnyTime:
        """Half log-SNR log(alpha/sigma), float64, falling with `t`; +inf at t = 0, -inf where alpha is 0.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self._log_snr(checked_times(t))

    def time_of_log_snr(self, lam: AnyTime) -> AnyTime:
        """Time in [0, 1], float64, of the half log-SNR `lam`; what the path never reaches gives t = 1.

        Args:
            lam: Half log-SNR log(alpha/sigma), any shape; infinities are allowed.

        Raises:
            InputError: a value is not a number.
        """
        lam = lam.to(torch.float64)
        if readable(lam) and bool(torch.isnan(lam).any()):
            raise InputError("expected numbers as log-SNR; got NaN. Check the grid or the law of time.")
        return self._time_of_log_snr(lam).clamp(0.0, 1.0)

    @abstractmethod
    def _coefficients(self, t: Tensor) -> Coefficients:
        """`coefficients` for a checked float64 time."""

    @abstractmethod
    def _log_snr(self, t: Tensor) -> Tensor:
        """`log_snr` for a checked float64 time."""

    @abstractmethod
    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        """`time_of_log_snr` for float64 values, before the clamp to [0, 1]."""


def readable(values: Tensor) -> bool:
    """Whether the host can look at them without waiting: they are on the CPU, and nothing is being compiled."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def checked_times(t: Tensor) -> Tensor:
    """`t` in float64; on an accelerator unchecked.

    Raises:
        InputError: a time is not a number or lies outside [0, 1].
    """
    t = t.to(torch.float64)
    if readable(t) and not bool(((t >= 0) & (t <= 1)).all()):
        worst = t[~((t >= 0) & (t <= 1))].flatten()[0].item()
        raise InputError(
            f"expected times in [0, 1] (0 is data, 1 is noise); got {worst:g}. "
            "Divide step indices by the number of steps, or see `time_of_index`."
        )
    return t


def variance_preserving(log_mean: Tensor, slope: Tensor) -> Coefficients:
    """Coefficients of a variance-preserving path from log(alpha^2) and its time derivative."""
    alpha, sigma = torch.exp(0.5 * log_mean), torch.sqrt(0.0 - torch.expm1(log_mean))
    return Coefficients(
        alpha=alpha, sigma=sigma, d_alpha=0.5 * slope * alpha, d_sigma=-0.5 * slope * alpha**2 / sigma
    )


def expand(values: AnyTime, like: Tensor) -> Tensor:
    """`values`, one for all or one a row, shaped to multiply `like`, on its device, in float32 or finer.

    Args:
        values: Shape () or (batch,).
        like: Shape (batch, *event).

    Raises:
        InputError: the number of values is not that of rows.
    """
    if values.ndim > 1 or (values.ndim == 1 and values.shape[0] not in (1, like.shape[0])):
        raise InputError(
            f"expected one value, or one for each of the {like.shape[0]} rows; got shape "
            f"{tuple(values.shape)}. Give t the shape () or (batch,)."
        )
    values = values.to(like.device, torch.promote_types(like.dtype, torch.float32))
    return values.reshape(values.shape + (1,) * (like.ndim - 1)) if values.ndim else values


def add_noise(path: Path, x0: Batch, noise: Batch, t: AnyTime) -> Batch:
    r"""The noisy state $x_t = \alpha_t x_0 + \sigma_t \varepsilon$, in the dtype of `x0`.

    Args:
        x0: Data, (batch, *event).
        noise: Unit normal noise of the same shape.
        t: Times in [0, 1], shape () or (batch,).

    Raises:
        InputError: a time outside [0, 1], or not one a row.
    """
    c = path.coefficients(t)
    return (expand(c.alpha, x0) * x0 + expand(c.sigma, x0) * noise).to(x0.dtype)
