r"""What a network may predict, and the one conversion between all of it.

Given the state $x_t = \alpha x_0 + \sigma\varepsilon$, every parameterisation is a linear form
$a x_0 + b\varepsilon$:

| prediction | a | b | known as |
|---|---|---|---|
| `X0` | 1 | 0 | sample, clean, denoiser |
| `EPSILON` | 0 | 1 | noise |
| `VELOCITY` | $\alpha'$ | $\sigma'$ | flow matching's $dx/dt$; rectified flow on the linear path |
| `V` | $-\sigma$ | $\alpha$ | v of Salimans and Ho (MedForJ's "velocity") |
| `SCORE` | 0 | $-1/\sigma$ | gradient of the log density |
| `FLOW` | -1 | 1 | MedForJ's "flow": $\varepsilon - x_0$ on the VP path |

Two equations, two unknowns: with $d_S = \alpha b_S - \sigma a_S$,

$$p_T = \frac{d_T}{d_S}\, p_S + \frac{a_T b_S - b_T a_S}{d_S}\, x_t .$$

The weights are made in float64 and are exact at the ends: at t = 0 the state *is* the data, whatever was
predicted. What cannot be known – x0 from noise where alpha is 0, noise from x0 where sigma is 0 – is
refused, never returned as NaN. Conversions from x0 or v are well conditioned where those from the noise or
the score are not: on the linear path at t = 0.9999 in float32, x0 from the noise has an error of 3e-3, from
the velocity of 4e-7.

References:
    Salimans, Ho, 2022, Progressive Distillation for Fast Sampling, https://arxiv.org/abs/2202.00512,
    section 4.
    Lai et al., 2025, The Principles of Diffusion Models, https://arxiv.org/abs/2510.21890 (names).
"""

from enum import StrEnum

import torch
from torch import Tensor

from radiata_core.coefficients import readable
from radiata_core.errors import InputError
from radiata_core.paths import Coefficients, Path, expand
from radiata_core.types import Batch, Time

__all__ = ["Prediction", "convert", "target_of"]


class Prediction(StrEnum):
    """Names of the parameterisations, as files and command lines spell them."""

    X0 = "sample"
    EPSILON = "epsilon"
    VELOCITY = "velocity"
    V = "v"
    SCORE = "score"
    FLOW = "medforj-flow"


def convert(value: Batch, x: Batch, t: Time, path: Path, source: Prediction, target: Prediction) -> Batch:
    r"""The prediction `target` that says the same as `value` does in terms of `source`, in the dtype of `x`.

    Computed in float32 or finer. Linear in `value` and `x`, so expectations convert as values do.

    Args:
        value: A prediction, (batch, *event).
        x: The state x_t, (batch, *event).
        t: Times in [0, 1], shape () or (batch,).
        path: The path `x` lies on.
        source: What `value` is.
        target: What is wanted.

    Raises:
        InputError: `value` does not determine `target` at this time (the noise does not tell x0 where
            alpha = 0), or a time lies outside [0, 1].
    """
    c = path.coefficients(t)
    if source == target:
        return value.to(x.dtype)
    of_value, of_x = _weights(c, source, target)
    _refuse_singular(of_value, of_x, t, path, f"{target.value} from {source.value}")
    fine = torch.promote_types(x.dtype, torch.float32)
    return (expand(of_value, x) * value.to(fine) + expand(of_x, x) * x.to(fine)).to(x.dtype)


def target_of(x0: Batch, noise: Batch, t: Time, path: Path, prediction: Prediction) -> Batch:
    r"""What a network of this prediction is regressed on, $a x_0 + b\varepsilon$, in the dtype of `x0`.

    Args:
        x0: Data, (batch, *event).
        noise: The noise that was added, (batch, *event).
        t: Times in [0, 1], shape () or (batch,).

    Raises:
        InputError: the target is infinite at this time (the score at t = 0), or a time lies outside [0, 1].
    """
    of_x0, of_noise = _forms(path.coefficients(t), prediction)
    _refuse_singular(of_x0, of_noise, t, path, prediction.value)
    return (expand(of_x0, x0) * x0 + expand(of_noise, x0) * noise).to(x0.dtype)


def _forms(c: Coefficients, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """The pair (a, b) of the table above."""
    one = torch.ones_like(c.alpha)
    match prediction:
        case Prediction.X0:
            return one, 0 * one
        case Prediction.EPSILON:
            return 0 * one, one
        case Prediction.VELOCITY:
            return c.d_alpha, c.d_sigma
        case Prediction.V:
            return -c.sigma, c.alpha
        case Prediction.SCORE:
            return 0 * one, -1 / c.sigma
        case Prediction.FLOW:
            return -one, one


def _weights(c: Coefficients, source: Prediction, target: Prediction) -> tuple[Tensor, Tensor]:
    """The weights of the value and of the state; not finite where the request is singular."""
    one = torch.ones_like(c.alpha)
    # The score is the noise in other units; the noise has no 0/0 at sigma = 0 and at alpha = 0.
    if source == Prediction.SCORE:
        of_value, of_x = _weights(c, Prediction.EPSILON, target)
        return -c.sigma * of_value, of_x
    if target == Prediction.SCORE:
        of_value, of_x = _weights(c, source, Prediction.EPSILON)
        return -of_value / c.sigma, -of_x / c.sigma
    if source == target:
        return one, 0 * one
    (a_s, b_s), (a_t, b_t) = _forms(c, source), _forms(c, target)
    d_s, d_t = c.alpha * b_s - c.sigma * a_s, c.alpha * b_t - c.sigma * a_t
    of_value, of_x = d_t / d_s, (a_t * b_s - b_t * a_s) / d_s
    if target == Prediction.X0:
        clean = c.sigma == 0
        of_value, of_x = torch.where(clean, 0.0, of_value), torch.where(clean, 1 / c.alpha, of_x)
    return of_value, of_x


def _refuse_singular(first: Tensor, second: Tensor, t: Tensor, path: Path, request: str) -> None:
    if not readable(t):
        return
    bad = ~(torch.isfinite(first) & torch.isfinite(second))
    if bool(bad.any()):
        time = t.expand_as(bad)[bad].flatten()[0].item()
        raise InputError(
            f"expected a time at which {request} exists on {type(path).__name__}; got t={time:g}, where it "
            "is singular. Predict x0 or v, or keep the time inside (0, 1)."
        )
