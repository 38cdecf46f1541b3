"""The transformer beside two U-Nets on digits at equal CPU-seconds, its options at equal steps, and large patches.

Scikit-learn's 8 x 8 digits, the first 1300 to train and 497 held out (other writers, mostly: the set is in their order). The
loss is the squared error of the velocity on held-out digits, at fixed times (log-normal) and noises; lower is better. Every
network trains with AdamW and a cosine that ends with its budget; the learning rate of each of the three was the best of
1e-3, 3e-3 and 6e-3 on seed 100, which is not among the seeds.

equal CPU-seconds   loss_transformer, loss_unet, loss_medforj_unet; steps_* are the steps that the budget bought
equal steps         loss_adaln_zero (the reference) and, one option changed: loss_adaln_single, loss_no_skips,
                    loss_no_absolute, loss_windows, loss_conv_stem
large patches       digits at 32 x 32 with patch 8 (64 values a token) and at 8 x 8 with patch 2 (4 values), width 24, one
                    network read as x_0 or as velocity, both trained on the squared error of x_0: error_x0_patch_8 and
                    error_velocity_patch_8 are that error held out, loss_*_patch_8 the velocity's; *_patch_2 the same
"""

import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.nets.transformer import Transformer
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generator_of, generators_of, seed_of
from radiata_core.times import LogNormalSNR

PATH = LinearPath()
LAW = LogNormalSNR(0.0, 1.2)
OBJECTIVE = Regression(PATH, LAW, target=Prediction.VELOCITY)
ERROR = Regression(PATH, LAW, target=Prediction.X0)
SECONDS, STEPS, BATCH = 15.0, 250, 32

CLAIMS: list[tuple[str, str, str, str]] = [
    (
        "the transformer's loss is below the house U-Net's at equal CPU-seconds",
        "loss_transformer",
        "<",
        "loss_unet",
    ),
    (
        "the transformer's loss is below MedForJ's U-Net's at equal CPU-seconds",
        "loss_transformer",
        "<",
        "loss_medforj_unet",
    ),
    ("long skips lower the loss at equal steps", "loss_adaln_zero", "<", "loss_no_skips"),
    ("absolute places lower the loss at equal steps", "loss_adaln_zero", "<", "loss_no_absolute"),
    ("a convolutional stem lowers the loss at equal steps", "loss_conv_stem", "<", "loss_adaln_zero"),
    ("windows cost loss on a grid of 4 x 4 tokens", "loss_adaln_zero", "<", "loss_windows"),
    (
        "with a patch of more values than channels x_0 is the better prediction, by the error of x_0",
        "error_x0_patch_8",
        "<",
        "error_velocity_patch_8",
    ),
    (
        "the same by the error of the velocity",
        "loss_x0_patch_8",
        "<",
        "loss_velocity_patch_8",
    ),
    (
        "with a patch of fewer values than channels velocity is the better prediction, by the error of x_0",
        "error_velocity_patch_2",
        "<",
        "error_x0_patch_2",
    ),
]


def digits() -> tuple[Tensor, Tensor]:
    """Digits (n, 1, 8, 8) of about mean 0 and standard deviation 1: to train, and held out."""
    images = torch.from_numpy(load_digits().images).float()[:, None]
    scaled = (images - 4.9) / 6.0
    return scaled[:1300], scaled[1300:]


def transformer(**options: object) -> Transformer:
    base = {"dims": 2, "patch": 2, "depth": 3, "heads": 4, "head": 12, "absolute": True}
    return Transformer(**(base | options))


def unet() -> UNet:
    return UNet(
        dims=2,
        patch=1,
        channels=(16, 32),
        down_blocks=(1, 2),
        up_blocks=(1, 2),
        attention=(False, True),
        embedding=64,
        shape=(8, 8),
    )


def medforj_unet() -> MedForJUNet:
    return MedForJUNet(spatial_dims=2, channels=(8, 16), num_res_blocks=1, attention_levels=(False, True))


BACKBONES: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "transformer": (transformer, 6e-3),
    "unet": (unet, 6e-3),
    "medforj_unet": (medforj_unet, 6e-3),
}
"""How each is made, and its learning rate."""
OPTIONS: dict[str, dict[str, object]] = {
    "adaln_zero": {},
    "adaln_single": {"shared_modulation": True},
    "no_skips": {"skips": False},
    "no_absolute": {"absolute": False},
    "windows": {"windows": "WWWG", "window": 2},
    "conv_stem": {"conv_stem": True},
}


def as_denoiser(
    make: Callable[[], nn.Module], seed: int, prediction: Prediction = Prediction.VELOCITY
) -> NetworkDenoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, 1))
        network = make()
        if isinstance(network, MedForJUNet):
            network.initialise(generator_of(seed, 1))
    scaling = MedForJInput() if isinstance(network, MedForJUNet) else None
    return NetworkDenoiser(network, PATH, prediction, scaling)


def trained(
    denoiser: NetworkDenoiser,
    x0: Tensor,
    seed: int,
    rate: float,
    steps: int = 0,
    seconds: float = math.inf,
    objective: Regression = OBJECTIVE,
) -> int:
    """Steps taken, until there were that many or the process has used that many CPU-seconds for them."""
    optimiser = torch.optim.AdamW(denoiser.parameters(), rate, weight_decay=0.01)
    order = generator_of(seed, 2)
    begun, step = time.process_time(), 0
    while True:
        progress = step / steps if steps else (time.process_time() - begun) / seconds
        if progress >= 1.0:
            return step
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress)) * min(1.0, (step + 1) / 20)
        rows = torch.randint(len(x0), (BATCH,), generator=order)
        noises = generators_of(range(step * BATCH, (step + 1) * BATCH), seed, 3)
        loss = objective(denoiser, x0[rows], noises).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1


@torch.no_grad()
def held_out_loss(denoiser: NetworkDenoiser, x0: Tensor, objective: Regression = OBJECTIVE) -> float:
    """The mean over two draws of time and noise for each image, the same for every network."""
    denoiser.eval()
    losses = [
        float(objective(denoiser, x0, generators_of(range(len(x0)), 7000 + draw)).value) for draw in range(2)
    ]
    return sum(losses) / len(losses)


def at_equal_seconds(seeds: Sequence[int], seconds: float) -> dict[str, list[float]]:
    train, test = digits()
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name, (make, rate) in BACKBONES.items():
            denoiser = as_denoiser(make, seed)
            steps = trained(denoiser, train, seed, rate, seconds=seconds)
            found.setdefault(f"loss_{name}", []).append(held_out_loss(denoiser, test))
            found.setdefault(f"steps_{name}", []).append(float(steps))
    return found


def of_options(seeds: Sequence[int], steps: int) -> dict[str, list[float]]:
    train, test = digits()
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name, options in OPTIONS.items():
            denoiser = as_denoiser(lambda o=options: transformer(**o), seed)  # type: ignore[misc]
            trained(denoiser, train, seed, BACKBONES["transformer"][1], steps)
            found.setdefault(f"loss_{name}", []).append(held_out_loss(denoiser, test))
    return found


def of_large_patches(seeds: Sequence[int], steps: int) -> dict[str, list[float]]:
    """x_0 against velocity, in patches of more and of fewer values than channels."""
    found: dict[str, list[float]] = {}
    for patch in (8, 2):
        train, test = digits()
        if patch == 8:
            train, test = (
                F.interpolate(x, scale_factor=4, mode="bicubic").clamp(-1, 2) for x in (train, test)
            )
        for seed in seeds:
            for name, prediction in (("x0", Prediction.X0), ("velocity", Prediction.VELOCITY)):
                denoiser = as_denoiser(
                    lambda p=patch: transformer(patch=p, heads=2, head=12),  # type: ignore[misc]
                    seed,
                    prediction,
                )
                trained(denoiser, train, seed, 3e-3, steps, objective=ERROR)
                for key, objective in (("error", ERROR), ("loss", OBJECTIVE)):
                    value = held_out_loss(denoiser, test, objective)
                    found.setdefault(f"{key}_{name}_patch_{patch}", []).append(value)
    return found


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All figures, one value a seed."""
    seconds, steps = (1.0, 20) if quick else (SECONDS, STEPS)
    return at_equal_seconds(seeds, seconds) | of_options(seeds, steps) | of_large_patches(seeds, steps)
