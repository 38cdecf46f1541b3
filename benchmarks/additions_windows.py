"""Windowed against global attention: time at growing grids, and the loss of a network that is run windowed.

Time: attention of 4 heads of 32 channels alone, float32, one thread, global and in windows, one after the other, median of
repeats. A value above 1 is how many times windows are faster.

    time_ratio_global_over_window_96x96        2^d windows of half the grid (HiDiffusion's)
    time_ratio_global_over_fixed_96x96         windows of 8^2 or 4^3 tokens

Loss: digits enlarged to 16 x 16, a transformer of 8 x 8 tokens, velocity on the linear path, 400 steps of 32 with global
attention; then 100 more at a tenth of the rate, globally and in windows of half the grid, on the same images and noises.

    loss_global               trained and run with global attention, 500 steps
    loss_windowed_untuned     the same network run in windows
    loss_windowed_trained     the last 100 of its 500 steps in windows, and run so
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from additions_backbones import BATCH, OBJECTIVE, PATH, digits, held_out_loss, transformer
from radiata_core.attention_windows import window_of, windowed, windowed_attention
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.predictions import Prediction
from radiata_core.seeds import generator_of, generators_of, seed_of

GRIDS = ((32, 32), (64, 64), (96, 96), (12, 12, 12), (16, 16, 16), (20, 20, 20))

CLAIMS: list[tuple[str, str, str, str]] = [
    (
        "windows of half the grid are faster on 96 x 96",
        "time_ratio_global_over_window_96x96",
        ">",
        "one",
    ),
    (
        "windows of half the grid are faster on 20 x 20 x 20",
        "time_ratio_global_over_window_20x20x20",
        ">",
        "one",
    ),
    (
        "windows of a fixed size gain more, the larger the grid",
        "time_ratio_global_over_fixed_96x96",
        ">",
        "time_ratio_global_over_fixed_32x32",
    ),
    ("a network loses by being run in windows untuned", "loss_global", "<", "loss_windowed_untuned"),
    ("and gains most of it back by training so", "loss_windowed_trained", "<", "loss_windowed_untuned"),
]


def seconds(call: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return statistics.median(taken[1:])


def ratios(grid: Sequence[int], seed: int, repeats: int) -> dict[str, float]:
    """How many times faster windows are than global attention on a grid."""
    count, word = torch.Size(grid).numel(), "x".join(map(str, grid))
    q, k, v = (torch.randn(1, 4, count, 32, generator=generator_of(seed, part)) for part in range(3))
    windows = {"window": window_of(grid, 2), "fixed": (8, 8) if len(grid) == 2 else (4, 4, 4)}
    whole = seconds(lambda: F.scaled_dot_product_attention(q, k, v), repeats)
    return {
        f"time_ratio_global_over_{name}_{word}": whole
        / seconds(lambda w=window: windowed_attention(q, k, v, grid, w), repeats)  # type: ignore[misc]
        for name, window in windows.items()
    }


def large_digits() -> tuple[Tensor, Tensor]:
    train, test = (F.interpolate(x, scale_factor=2, mode="bicubic").clamp(-1, 2) for x in digits())
    return train, test


def trained(denoiser: NetworkDenoiser, x0: Tensor, seed: int, steps: range, rate: float) -> None:
    optimiser = torch.optim.AdamW(denoiser.parameters(), rate, weight_decay=0.01)
    for step in steps:
        rows = torch.randint(len(x0), (BATCH,), generator=generator_of(seed, 2, step))
        noises = generators_of(range(step * BATCH, (step + 1) * BATCH), seed, 3)
        loss = OBJECTIVE(denoiser, x0[rows], noises).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def losses(seed: int, steps: int, further: int) -> dict[str, float]:
    train, test = large_digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, 1))
        network = transformer(heads=3, head=12, patch=2)
    common = NetworkDenoiser(network, PATH, Prediction.VELOCITY)
    trained(common, train, seed, range(steps), 3e-3)
    tuned = copy.deepcopy(common)
    after = range(steps, steps + further)
    trained(common, train, seed, after, 3e-4)
    with windowed(tuned, 2):
        trained(tuned, train, seed, after, 3e-4)
        windowed_loss = held_out_loss(tuned, test)
    found = {"loss_global": held_out_loss(common, test), "loss_windowed_trained": windowed_loss}
    with windowed(common, 2):
        return found | {"loss_windowed_untuned": held_out_loss(common, test)}


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All figures, one value a seed."""
    found: dict[str, list[float]] = {"one": [1.0 for _ in seeds]}
    for seed in seeds:
        values = losses(seed, *((10, 5) if quick else (400, 100)))
        for grid in GRIDS[::3] if quick else GRIDS:
            values |= ratios(grid, seed, 1 if quick else 3)
        for key, value in values.items():
            found.setdefault(key, []).append(value)
    return found
