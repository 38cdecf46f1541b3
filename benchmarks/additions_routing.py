"""Denoising task routing beside the same network without it and with random channels, on digits.

Scikit-learn's 8 x 8 digits, the first 1300 to train and 497 held out, with their classes told. A transformer of width 64 and
3 blocks (14 places of the window at beta 0.8), velocity on the linear path, AdamW with a cosine, 1500 steps of 32. The three
arms of a seed start from the same weights and see the same images, times and noises in the same order; the held-out loss is
at times and noises that are the same for all.

    loss_base              no routing
    loss_dtr               beta 0.8, alpha 4
    loss_random_routing    as many channels for each of 1000 levels, drawn at random
    loss_base_margin       1.005 loss_base, what routing is held to here
"""

from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from additions_backbones import OBJECTIVE, PATH, digits, transformer
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.handles import Handle
from radiata_core.predictions import Prediction
from radiata_core.routing import random_channels, routed
from radiata_core.seeds import generator_of, generators_of, seed_of

STEPS, BATCH, RATE = 1500, 32, 3e-3

CLAIMS: list[tuple[str, str, str, str]] = [
    ("routing lowers the loss", "loss_dtr", "<", "loss_base"),
    ("routing costs less than 0.5 % of the loss", "loss_dtr", "<", "loss_base_margin"),
    ("windows of channels are better than random channels", "loss_dtr", "<", "loss_random_routing"),
]


def classes() -> tuple[Tensor, Tensor]:
    """One number in {0, 1} a class, `(n, 10)`: to train, and held out."""
    told = torch.nn.functional.one_hot(torch.from_numpy(load_digits().target).long(), 10).float()
    return told[:1300], told[1300:]


def arm(name: str, denoiser: NetworkDenoiser, seed: int) -> Handle:
    if name == "loss_dtr":
        return routed(denoiser)
    if name == "loss_random_routing":
        return routed(denoiser, masks=random_channels(seed=seed_of(seed, 4) % 2**31))
    return routed(denoiser, shared=1.0)


def loss_of(name: str, seed: int, steps: int) -> float:
    """Held-out loss of one arm after `steps`."""
    (train, test), (told, held) = digits(), classes()
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, 1))
        denoiser = NetworkDenoiser(transformer(heads=4, head=16, covariates=10), PATH, Prediction.VELOCITY)
    optimiser = torch.optim.AdamW(denoiser.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    order = generator_of(seed, 2)
    with arm(name, denoiser, seed):
        for step in range(steps):
            rows = torch.randint(len(train), (BATCH,), generator=order)
            noises = generators_of(range(step * BATCH, (step + 1) * BATCH), seed, 3)
            loss = OBJECTIVE(denoiser, train[rows], noises, covariates=told[rows]).value
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            draws = [
                OBJECTIVE(denoiser, test, generators_of(range(len(test)), 7000 + draw), covariates=held).value
                for draw in range(4)
            ]
    return float(torch.stack(draws).mean())


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """Held-out losses, one a seed."""
    steps = 20 if quick else STEPS
    names = ("loss_base", "loss_dtr", "loss_random_routing")
    found = {name: [loss_of(name, seed, steps) for seed in seeds] for name in names}
    return found | {"loss_base_margin": [1.005 * value for value in found["loss_base"]]}
