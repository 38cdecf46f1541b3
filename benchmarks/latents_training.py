"""One training for a budget of CPU-seconds, the same for every network of `benchmarks/latents.py`.

AdamW, batches of 32 trials drawn with replacement, step size along a half cosine over the *time*, gradients clipped at 5
(the release of LangevinFlow is not: its first gradient is 1e12). Rates are those of the posterior's mean path, in one pass.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCH = 32


@dataclass(frozen=True)
class Recipe:
    """A network and how it learns.

    Attributes:
        make: (neurons, heldin, bins, forward) -> the network.
        objective: Updates an epoch -> the objective.
        rate: Largest step size.
        clip: Largest norm of the gradient.
        decay: Weight decay.
    """

    make: Callable[[int, int, int, int], nn.Module]
    objective: Callable[[int], Any]
    rate: float = 8e-3
    clip: float = 5.0
    decay: float = 1e-4


@dataclass(frozen=True)
class Learned:
    """What a training left."""

    network: nn.Module
    updates: int
    milliseconds: float


def learned(
    recipe: Recipe, counts: Tensor, heldin: int, seconds: float, seed: int, forward: int = 0
) -> Learned:
    """A network after so many CPU-seconds of this process.

    Args:
        recipe: What and how.
        counts: (trial, time, neuron), held-in neurons first.
        heldin: How many those are.
        seconds: CPU-seconds.
        seed: Of initial weights, batches, masks and noise.
        forward: Forward bins at the end.
    """
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = recipe.make(counts.shape[2], heldin, counts.shape[1] - forward, forward)
        model.set_mean_counts(counts.mean((0, 1)))
        objective = recipe.objective(math.ceil(len(counts) / BATCH))
        optimiser = torch.optim.AdamW(model.parameters(), recipe.rate, weight_decay=recipe.decay)
        began, step = time.process_time(), 0
        while (share := (time.process_time() - began) / seconds) < 1:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * share))
            rows = torch.randint(len(counts), (min(BATCH, len(counts)),), generator=draws)
            seeds = torch.randint(2**31, (len(rows),), generator=draws)
            generators = [torch.Generator().manual_seed(int(s)) for s in seeds]
            loss = objective.at(step)(model, counts[rows], generators).value
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            step += 1
    took = 1e3 * (time.process_time() - began) / max(1, step)
    return Learned(model.eval(), step, took)


@torch.no_grad()
def rates_of(network: nn.Module, counts: Tensor) -> np.ndarray:
    """Expected counts of all neurons and bins, from the held-in counts of the observed bins."""
    model: Any = network
    seen = counts[:, : model.bins, : model.heldin]
    return np.concatenate([model.rates(part).numpy() for part in seen.split(256)])
