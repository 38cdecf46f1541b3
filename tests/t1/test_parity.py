"""MedForJ's two samplers against literal transcriptions of the published updates, and against each other."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, VPPath
from radiata_core.predictions import Prediction
from radiata_t1.model.parity import ParityStep, grid_2025, grid_2026, medforj_2025, medforj_2026

VP_TYPES = [Prediction.EPSILON, Prediction.X0, Prediction.V, Prediction.FLOW]


class Wobble(nn.Module):
    """A smooth, nonlinear stand-in for a network, large enough that x0 is often clipped."""

    def forward(self, x: Tensor, noise_level: Tensor, covariates: Tensor | None = None) -> Tensor:
        level = noise_level.reshape(-1, *[1] * (x.ndim - 1)) / 1000
        return (
            0.9 * torch.tanh(1.3 * x + 0.4 * level) + 0.3 * torch.roll(x, 1, -1) * torch.cos(3 * level) - 0.2
        )


def noise_of(shape: tuple[int, ...] = (2, 1, 4, 3, 5), seed: int = 4) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alphas_cumprod() -> list[float]:
    """The published table: betas from 1e-4 to 2e-2 in 1000 equal steps, then the running product of 1 - beta."""
    table, product = [], 1.0
    for i in range(1000):
        product *= 1.0 - (1e-4 + (2e-2 - 1e-4) * i / 999)
        table.append(product)
    return table


def interpret(kind: Prediction, out: Tensor, x: Tensor, abar: float) -> tuple[Tensor, Tensor]:
    """x0 and epsilon of each prediction type, as written in the published scheduler."""
    if kind == Prediction.EPSILON:
        return (x - math.sqrt(1 - abar) * out) / math.sqrt(abar), out
    if kind == Prediction.X0:
        return out, (x - math.sqrt(abar) * out) / math.sqrt(1 - abar)
    if kind == Prediction.V:
        x0 = math.sqrt(abar) * x - math.sqrt(1 - abar) * out
        return x0, math.sqrt(abar) * out + math.sqrt(1 - abar) * x
    total = math.sqrt(abar) + math.sqrt(1 - abar)
    return (x - math.sqrt(1 - abar) * out) / total, (x + math.sqrt(abar) * out) / total


def published_2025(kind: Prediction, network: Callable[..., Tensor], x: Tensor, steps: int) -> Tensor:
    table, ratio = alphas_cumprod(), 1000 // steps
    timesteps = [i * ratio for i in range(steps)]
    for timestep in timesteps[::-1]:
        prev_timestep = timestep - 1000 // steps
        alpha_prod = table[timestep]
        alpha_prod_prev = table[prev_timestep] if prev_timestep >= 0 else 1.0
        x0, eps = interpret(
            kind, network(x, torch.tensor([float(timestep)], dtype=torch.float64)), x, alpha_prod
        )
        x0 = torch.clamp(x0, -1, 1)
        x = math.sqrt(alpha_prod_prev) * x0 + math.sqrt(1 - alpha_prod_prev) * eps
    return x


def published_2026(kind: Prediction, network: Callable[..., Tensor], x: Tensor, steps: int) -> Tensor:
    table = alphas_cumprod()
    timesteps = np.round(np.linspace(0, 999, steps)).astype(int)[::-1]
    for i, timestep in enumerate(timesteps):
        successor = timesteps[i + 1] if i + 1 < len(timesteps) else -1
        alpha_prod = table[timestep]
        alpha_prod_prev = table[successor] if successor >= 0 else 1.0
        x0, _ = interpret(
            kind, network(x, torch.tensor([float(timestep)], dtype=torch.float64)), x, alpha_prod
        )
        x0 = torch.clamp(x0, -1, 1)
        eps = (x - math.sqrt(alpha_prod) * x0) / math.sqrt(1 - alpha_prod)
        x = math.sqrt(alpha_prod_prev) * x0 + math.sqrt(1 - alpha_prod_prev) * eps
    return x


def published_rflow(network: Callable[..., Tensor], x: Tensor, steps: int) -> Tensor:
    timesteps = [(1 - i / steps) * 1000 for i in range(steps)]
    for i, timestep in enumerate(timesteps):
        tau = timestep / 1000
        s = timesteps[i + 1] / 1000 if i + 1 < steps else 0.0
        v = network(x, torch.tensor([timestep], dtype=torch.float64))
        x0, eps = x + tau * v, x - (1 - tau) * v
        x = (1 - s) * x0 + s * eps
    return x


def denoiser_of(kind: Prediction) -> NetworkDenoiser:
    return NetworkDenoiser(Wobble(), DiscreteVPPath(), kind, MedForJInput())


@pytest.mark.parametrize(("steps", "kind"), [*product([64, 7], VP_TYPES), (150, Prediction.V)])
def test_2025_is_the_published_update(kind: Prediction, steps: int) -> None:
    got = medforj_2025(denoiser_of(kind), noise_of(), steps)
    want = published_2025(kind, Wobble(), noise_of(), steps)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("steps", "kind"), [*product([64, 5], VP_TYPES), (256, Prediction.V), (2, Prediction.FLOW)]
)
def test_2026_is_the_published_update(kind: Prediction, steps: int) -> None:
    got = medforj_2026(denoiser_of(kind), noise_of(), steps)
    want = published_2026(kind, Wobble(), noise_of(), steps)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize("steps", [256, 10, 1])
def test_2026_rflow_is_the_published_update(steps: int) -> None:
    denoiser = NetworkDenoiser(Wobble(), LinearPath(), Prediction.VELOCITY, MedForJInput(flip=True))
    got = medforj_2026(denoiser, noise_of(), steps)
    torch.testing.assert_close(got, published_rflow(Wobble(), noise_of(), steps), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", VP_TYPES)
def test_the_two_programs_differ(kind: Prediction) -> None:
    """Each transcription fails on the other program by far more than the tolerance above, even at equal steps."""
    ours_2025 = medforj_2025(denoiser_of(kind), noise_of(), 64)
    ours_2026 = medforj_2026(denoiser_of(kind), noise_of(), 64)
    assert (ours_2025 - published_2026(kind, Wobble(), noise_of(), 64)).abs().max() > 1e-3
    assert (ours_2026 - published_2025(kind, Wobble(), noise_of(), 64)).abs().max() > 1e-3


def test_float32_stays_near_float64() -> None:
    """In the network's own precision, samples agree with the exact ones to what float32 can hold."""
    got = medforj_2026(denoiser_of(Prediction.V), noise_of().float(), 64)
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got.double(), medforj_2026(denoiser_of(Prediction.V), noise_of(), 64), rtol=0, atol=1e-3
    )


def test_float32_table_of_the_programs_is_ours() -> None:
    """What the programs accumulate in float32 is our table to 1e-5, relative."""
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float32)
    path = DiscreteVPPath()
    ours = path.coefficients(path.time_of_index(torch.arange(1000))).alpha.square()
    torch.testing.assert_close(torch.cumprod(1 - betas, 0).double(), ours, rtol=1e-5, atol=0)


def test_grids_are_those_of_the_programs() -> None:
    path = DiscreteVPPath()
    assert grid_2025(64, path)[:2] == [945, 930]
    assert grid_2025(256, path)[0] == 765
    assert grid_2026(256, path)[:3] == [999, 995, 991]
    assert {grid[-1] for grid in (grid_2025(64, path), grid_2026(256, path))} == {0}


def test_a_sample_is_the_same_alone_and_in_a_batch() -> None:
    denoiser = denoiser_of(Prediction.FLOW)
    together = medforj_2025(denoiser, noise_of(), 16)
    assert torch.equal(medforj_2025(denoiser, noise_of()[1:], 16), together[1:])


def test_callback_sees_every_step() -> None:
    seen: list[ParityStep] = []
    out = medforj_2025(denoiser_of(Prediction.X0), noise_of(), 8, callback=seen.append)
    assert [step.index for step in seen] == list(range(8))
    assert all(step.x0.abs().max() <= 1 for step in seen)
    assert torch.equal(seen[-1].x, out)


def test_refusals() -> None:
    linear = NetworkDenoiser(Wobble(), LinearPath(), Prediction.VELOCITY, MedForJInput(flip=True))
    other = NetworkDenoiser(Wobble(), VPPath(), Prediction.V)
    with pytest.raises(InputError, match="no rectified flow"):
        medforj_2025(linear, noise_of())
    with pytest.raises(InputError, match="got VPPath"):
        medforj_2026(other, noise_of())
    with pytest.raises(InputError, match="1 to 1000"):
        medforj_2025(denoiser_of(Prediction.V), noise_of(), 1001)
    with pytest.raises(InputError, match="2 to 1000"):
        medforj_2026(denoiser_of(Prediction.V), noise_of(), 1)
    with pytest.raises(InputError, match="at least 1"):
        medforj_2026(linear, noise_of(), 0)
