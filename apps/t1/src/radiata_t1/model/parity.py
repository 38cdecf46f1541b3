r"""MedForJ's own samplers, step by step: what its published programs compute, for comparison and nothing else.

Two programs were released. Both are deterministic DDIM on the discrete path with x̂₀ clipped to [−1, 1], yet they give
different heads from the same noise. With a = √ᾱ, b = √(1 − ᾱ) at a step and a', b' at the next,

    x' = a' clip(x̂₀) + b' ε̂

                     steps visited                                  ε̂                        after the last step
    2025             k ⌊1000/N⌋, k = N − 1 … 0 (64: 945 … 0)        before the clip           ᾱ' = 1
    2026             round(linspace(0, 999, N)) (256: 999 … 0)      (x − a clip(x̂₀)) / b      ᾱ' = 1
    2026, rflow      1000 (1 − i/N), i = 0 … N − 1                  never clipped             τ' = 0

The clip without a new ε̂ leaves the two inconsistent (2025); the grid of 2025 starts from pure noise at step 945, that
of N = 256 at 765, where a tenth to a twentieth of the head should still show. Use radiata's solvers for heads; use these
to reproduce a published one.

Coefficients are float64 here; the programs accumulate ᾱ in float32, which differs by less than 1e-5 relative.

References:
    MedForJ, 2025, https://github.com/piksl-research/medforj, `medforj/scheduler.py` (both versions).
    Song, Meng & Ermon (2021). Denoising diffusion implicit models, eq. 12 with η = 0. https://arxiv.org/abs/2010.02502
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath
from radiata_core.predictions import Prediction, convert

__all__ = ["ParityStep", "grid_2025", "grid_2026", "medforj_2025", "medforj_2026"]


@dataclass(frozen=True)
class ParityStep:
    """What a callback is given after each update: its number, the time it started at, the new state, and x̂₀."""

    index: int
    t: float
    x: Tensor
    x0: Tensor


Callback = Callable[[ParityStep], None]


def grid_2025(steps: int, path: DiscreteVPPath) -> list[int]:
    """Indices of the steps visited by the program of 2025, in order: multiples of ⌊1000/steps⌋, down to 0.

    Raises:
        InputError: not 1 … 1000 steps.
    """
    if not 1 <= steps <= path.steps:
        raise InputError(f"expected 1 to {path.steps} steps; got {steps}. MedForJ's default of 2025 is 64.")
    stride = path.steps // steps
    return [k * stride for k in reversed(range(steps))]


def grid_2026(steps: int, path: DiscreteVPPath) -> list[int]:
    """Indices of the steps visited by the program of 2026, in order: evenly spread from the last index to 0.

    Raises:
        InputError: not 2 … 1000 steps (one step would visit index 0 alone, from pure noise).
    """
    if not 2 <= steps <= path.steps:
        raise InputError(f"expected 2 to {path.steps} steps; got {steps}. MedForJ's default of 2026 is 256.")
    last = torch.tensor(path.steps - 1, dtype=torch.float64)
    spread = torch.arange(steps, dtype=torch.float64) * last / (steps - 1)
    return spread.round().long().flip(0).tolist()


@torch.no_grad()
def medforj_2025(
    denoiser: NetworkDenoiser,
    noise: Tensor,
    steps: int = 64,
    *,
    callback: Callback | None = None,
    **conditions: Tensor | None,
) -> Tensor:
    """Samples as the program of 2025 draws them, (batch, channel, x, y, z), from `noise` of the same shape.

    Args:
        denoiser: A denoiser on MedForJ's discrete path, of prediction sample, epsilon, v or medforj-flow.
        noise: Standard normal, (batch, channel, x, y, z).
        steps: Network evaluations.
        callback: Called after each update.

    Raises:
        InputError: the denoiser lies on another path, or the number of steps does not fit.
    """
    path = denoiser.path
    if not isinstance(path, DiscreteVPPath):
        raise InputError(
            f"expected a denoiser on MedForJ's discrete path; got {type(path).__name__}. "
            "The program of 2025 knows no rectified flow: use medforj-2026 or a solver of radiata."
        )
    return _ddim(denoiser, path, noise, grid_2025(steps, path), False, callback, conditions)


@torch.no_grad()
def medforj_2026(
    denoiser: NetworkDenoiser,
    noise: Tensor,
    steps: int = 256,
    *,
    callback: Callback | None = None,
    **conditions: Tensor | None,
) -> Tensor:
    """Samples as the program of 2026 draws them: DDIM on the discrete path, Euler on the linear one (rflow).

    Args:
        denoiser: A denoiser on MedForJ's discrete path, or of any prediction on the linear path.
        noise: Standard normal, (batch, channel, x, y, z).
        steps: Network evaluations.
        callback: Called after each update.

    Raises:
        InputError: the denoiser lies on another path, or the number of steps does not fit.
    """
    path = denoiser.path
    if isinstance(path, LinearPath):
        return _rflow(denoiser, noise, steps, callback, conditions)
    if not isinstance(path, DiscreteVPPath):
        raise InputError(
            f"expected a denoiser on MedForJ's discrete path or the linear one; got {type(path).__name__}. "
            "Use a solver of radiata."
        )
    return _ddim(denoiser, path, noise, grid_2026(steps, path), True, callback, conditions)


def _ddim(
    denoiser: NetworkDenoiser,
    path: DiscreteVPPath,
    noise: Tensor,
    indices: list[int],
    consistent: bool,
    callback: Callback | None,
    conditions: dict[str, Tensor | None],
) -> Tensor:
    x = noise
    for number, (index, following) in enumerate(zip(indices, [*indices[1:], -1], strict=True)):
        t = path.time_of_index(index).to(x.device)
        then = path.coefficients(path.time_of_index(following).to(x.device))
        raw = denoiser.predict(x, t, **conditions)
        x0 = convert(raw, x, t, path, denoiser.prediction, Prediction.X0).clamp(-1, 1)
        if consistent:
            epsilon = convert(x0, x, t, path, Prediction.X0, Prediction.EPSILON)
        else:
            epsilon = convert(raw, x, t, path, denoiser.prediction, Prediction.EPSILON)
        x = then.alpha.item() * x0 + then.sigma.item() * epsilon
        if callback is not None:
            callback(ParityStep(number, t.item(), x, x0))
    return x


def _rflow(
    denoiser: NetworkDenoiser,
    noise: Tensor,
    steps: int,
    callback: Callback | None,
    conditions: dict[str, Tensor | None],
) -> Tensor:
    if steps < 1:
        raise InputError(f"expected at least 1 step; got {steps}. MedForJ's default of 2026 is 256.")
    x, path = noise, denoiser.path
    for number in range(steps):
        t, following = 1 - number / steps, 1 - (number + 1) / steps
        time = torch.tensor(t, dtype=torch.float64, device=x.device)
        velocity = convert(
            denoiser.predict(x, time, **conditions), x, time, path, denoiser.prediction, Prediction.VELOCITY
        )
        x0, epsilon = x - t * velocity, x + (1 - t) * velocity
        x = (1 - following) * x0 + following * epsilon
        if callback is not None:
            callback(ParityStep(number, t, x, x0))
    return x
