"""A spiking denoiser beside its twin without spikes: loss, firing, energy by the account, and time.

Scikit-learn's 8 x 8 digits, scans of handwriting, in a fixed order: 1400 train, 397 are held out. One small U-Net
(`nets.spiking`, 2 levels, channels 16 and 32, T = 4) predicts the velocity on the linear path at log-normal noise; its twin
has SiLU and one step, the same start, batches and noise; equal steps (400 of 32). Then the spiking network is trained for 40
steps more, in two arms that differ in one thing: the gains p[n] of all layers held at 1, or free (TSM).

loss_spiking, loss_ann_twin            held-out squared error of the velocity, noise and times fixed
loss_finetuned_plain, loss_finetuned_tsm   after the second stage
energy_ratio                           picojoule of the spiking network over its twin's, every float input a MAC
energy_ratio_published                 the same by the published formula: only the stem is a MAC
firing_rate                            share of ones among the inputs of all layers that read spikes, weighted by operations
time_ratio_spiking_over_ann            CPU-seconds of training
loss_threshold_0.9 … loss_threshold_1.1   thresholds times a factor, without training, after the first stage
"""

import copy
import time
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.nets.spiking import SpikingUNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of
from radiata_core.spiking import free_gains, thresholds
from radiata_core.spiking_energy import synaptic_energy
from radiata_core.times import LogNormalSNR

PATH = LinearPath()
STEPS, FURTHER, BATCH = 400, 40, 32
FACTORS = (0.9, 0.98, 0.997, 1.003, 1.02, 1.1)

CLAIMS: list[tuple[str, str, str, str]] = [
    ("spikes do not lose to the twin", "loss_spiking", "<", "loss_ann_twin"),
    ("temporal gains beat plain fine-tuning", "loss_finetuned_tsm", "<", "loss_finetuned_plain"),
    ("fine-tuning with gains helps at all", "loss_finetuned_tsm", "<", "loss_spiking"),
    *[
        (f"threshold guidance by {factor} helps", f"loss_threshold_{factor}", "<", "loss_spiking")
        for factor in FACTORS
    ],
]


def data() -> tuple[Tensor, Tensor]:
    """Digits in [-1, 1] to train on, and those held out."""
    images = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    order = torch.randperm(len(images), generator=generator_of(0))
    return images[order[:1400]], images[order[1400:]]


def objective_of(denoiser: NetworkDenoiser) -> Regression:
    return Regression(PATH, LogNormalSNR(), target=denoiser.prediction)


def train(denoiser: NetworkDenoiser, images: Tensor, steps: int, rate: float, seed: int, stage: int) -> float:
    """Train in place; CPU-seconds."""
    objective, began = objective_of(denoiser), time.process_time()
    gains = [p for n, p in denoiser.named_parameters() if n.endswith("gain") and p.requires_grad]
    others = [p for n, p in denoiser.named_parameters() if not n.endswith("gain")]
    groups = [{"params": others}, *([{"params": gains, "weight_decay": 0.0}] if gains else [])]
    optimiser = torch.optim.AdamW(groups, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=generator_of(seed, stage, step))
        generators = generators_of(range(BATCH), seed, stage, step)
        loss = objective(denoiser.train(), images[rows], generators).value
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return time.process_time() - began


def held_out(denoiser: NetworkDenoiser, images: Tensor) -> float:
    with torch.no_grad():
        return float(
            objective_of(denoiser)(denoiser.eval(), images, generators_of(range(len(images)), 9)).value
        )


def network_of(seed: int) -> SpikingUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpikingUNet(dims=2, channels=(16, 32), embedding=64, frequencies=32)


def denoiser_of(network: SpikingUNet) -> NetworkDenoiser:
    return NetworkDenoiser(network, PATH, "velocity")


def energy_of(network: SpikingUNet, images: Tensor) -> dict[str, float]:
    """The account on held-out states, one noise a row."""
    noise = torch.randn(images.shape, generator=generator_of(7))
    t = torch.rand(len(images), generator=generator_of(8)).clamp(0.02, 0.98)
    times = t.reshape(-1, 1, 1, 1)
    account = synaptic_energy(network, (1 - times) * images + times * noise, ((1 - t) / t).log())
    twin = synaptic_energy(network.twin(), images, torch.zeros(len(images)))
    stem = images[0].numel() * network.stem.weight.numel()
    dense = network.steps * (twin.macs - account.macs)
    return {
        "energy_ratio": account.ratio,
        "energy_ratio_published": (4.6 * stem + 0.9 * account.acs) / twin.picojoule,
        "firing_rate": account.acs / dense,
    }


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """One value a seed for every key of the module's docstring."""
    images, held = data()
    held = held[:40] if quick else held
    steps, further = (3, 2) if quick else (STEPS, FURTHER)
    found: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        found.setdefault(key, []).append(value)

    for seed in seeds:
        network = network_of(seed)
        spikes, twin = denoiser_of(network), denoiser_of(network.twin())
        seconds = [train(model, images, steps, 3e-3, seed, 1) for model in (spikes, twin)]
        note("loss_spiking", held_out(spikes, held))
        note("loss_ann_twin", held_out(twin, held))
        note("time_ratio_spiking_over_ann", seconds[0] / seconds[1])
        for key, value in energy_of(network, held[:64]).items():
            note(key, value)
        for factor in FACTORS:
            with thresholds(network, factor):
                note(f"loss_threshold_{factor}", held_out(spikes, held))
        for arm in ("plain", "tsm"):
            again = copy.deepcopy(network)
            free_gains(again, arm == "tsm")
            denoiser = denoiser_of(again)
            train(denoiser, images, further, 5e-4, seed, 2)
            note(f"loss_finetuned_{arm}", held_out(denoiser, held))
    return found
