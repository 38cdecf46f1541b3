"""Guides for a diffusion of digits: one clean classifier, made to read noise by one expert or by several, or not at all.

Scikit-learn's 8 x 8 digits: 1200 train an unconditional denoiser (600 steps) and, with their labels, a small convolutional
classifier of clean images; 597 are held out. The classifier is then the guide, asked for a class by 400 samples of 20 DDIM
steps (40 a class, the same noise for every arm), and an independent judge (SVM on training images) says what was drawn.

off_the_shelf     grad log f(x_t): the classifier as it is
single            one low-rank expert for all noise, 900 steps of 64 on 1000 samples of the denoiser, no label
multi_expert      five, over ranges cut evenly in log SNR: the same 900 steps, samples, rank and law of time, so that each
                  has seen 180 batches' worth of images, in 900 steps of its own share of the rows
skipped_gradient  grad log f(D(x_t)): clean classifier, clean estimate, no gradient of the denoiser

Each gets Bayes' weight 1 and, `_strong`, weight 4. Single and multi_expert have the same number of additions *in use* at a
time; multi_expert has five times as many to store. Keys, a value a seed (data are the same; weights and noise are not):

Weights of different guides do not compare, so one and five experts also get the weights of `FRONTIER`:

within_*     the largest share obeyed at any weight whose damage is not above that of the generator without a guide
frontier_*   share obeyed and damage at each weight

guidance_*   share of 400 samples in which the judge sees the class that was asked for; guidance_none is without a guide
damage_*     Frechet distance, in the 12 first principal components of training images, of the 400 samples to held-out images
             over that of training images to them: 1 is as close as training images; damage_none is without a guide
accuracy_*   of the guide on held-out images at log SNR -0.6 (sigma = 1.8 alpha)
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn

from radiata_core.denoisers import Denoiser, NetworkDenoiser
from radiata_core.generated_sets import generated_set
from radiata_core.nets.unet import UNet
from radiata_core.noise_experts import (
    ClassifierGuided,
    ExpertLogProbability,
    KnowledgeTransfer,
    NoiseExperts,
    SkippedGradient,
    log_probability_of,
)
from radiata_core.noise_ranges import EvenRanges, even_edges
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, add_noise
from radiata_core.posterior_spread import measured_spread
from radiata_core.seeds import generator_of, generators_of, noise_of, seed_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim, dpmpp_2m
from radiata_core.times import LogNormalSNR, LogSNRGrid

PATH = LinearPath()
EDGES = even_edges(PATH, 5)
GRID, CLASSES, BATCH, DRAWS = (8, 8), 10, 64, 400
WEIGHTS = {"": 1.0, "_strong": 4.0}
FRONTIER = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

CLAIMS: list[tuple[str, str, str, str]] = [
    ("several experts obey more than one", "guidance_multi_expert", ">", "guidance_single"),
    ("one expert obeys more than the clean classifier", "guidance_single", ">", "guidance_off_the_shelf"),
    ("several obey more, guided strongly", "guidance_multi_expert_strong", ">", "guidance_single_strong"),
    (
        "one obeys more than the clean classifier, guided strongly",
        "guidance_single_strong",
        ">",
        "guidance_off_the_shelf_strong",
    ),
    ("several read noise better than one", "accuracy_multi_expert", ">", "accuracy_single"),
    ("several do no more damage than one", "damage_multi_expert", "<", "damage_single"),
    (
        "several obey more than one at no more damage than without a guide",
        "within_multi_expert",
        ">",
        "within_single",
    ),
]


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images in [-1, 1] and labels, held-out images and labels, in a fixed random order."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(images), generator=generator_of(0))
    train, test = order[:1200], order[1200:]
    return images[train], labels[train], images[test], labels[test]


def fitted(
    network: nn.Module, loss: Callable[[int, Tensor], Tensor], rows: int, steps: int, key: int
) -> None:
    """AdamW at 3e-3 with a linear warm-up and half a cosine; batches are a function of the key."""
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        value = loss(step, torch.randint(rows, (BATCH,), generator=generator_of(key, 1, step)))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()


def denoiser_of(images: Tensor, seed: int, steps: int) -> NetworkDenoiser:
    """An unconditional U-Net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        network = UNet(
            dims=2, patch=1, channels=(24, 48), down_blocks=(1, 1), up_blocks=(1, 1), attention=(False, True),
            embedding=128, shape=GRID,
        )  # fmt: skip
    denoiser = NetworkDenoiser(network, PATH, "velocity")
    objective = Regression(PATH, LogNormalSNR(0.0, 1.2), target=denoiser.prediction)

    def loss(step: int, rows: Tensor) -> Tensor:
        return objective(denoiser, images[rows], generators_of(range(BATCH), 2, seed, step)).value

    fitted(denoiser, loss, len(images), steps, seed)
    return denoiser.eval().requires_grad_(False)


def classifier_of(images: Tensor, labels: Tensor, seed: int, steps: int) -> nn.Sequential:
    """A convolutional classifier of clean images, 25 000 weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 3))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((1, 24, 48)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.GroupNorm(4, after),
                nn.SiLU(),
                nn.AvgPool2d(2),
            ]
        network = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(48 * 4, 64), nn.SiLU(), nn.Linear(64, CLASSES)
        )

    def loss(step: int, rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(images[rows]), labels[rows], label_smoothing=0.05)

    fitted(network, loss, len(images), steps, seed)
    return network.eval()


def taught(
    classifier: nn.Module, edges: tuple[float, ...], samples: Tensor, seed: int, steps: int
) -> NoiseExperts:
    """Experts over the ranges between the edges. Times are drawn alike for any number of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 4))
        scale = float(samples.square().mean().sqrt())
        experts = NoiseExperts(classifier, PATH, edges, rank=4, sigma_data=scale)
    transfer = KnowledgeTransfer(PATH, EvenRanges(EDGES))

    def loss(step: int, rows: Tensor) -> Tensor:
        return transfer(experts, samples[rows], generators_of(range(BATCH), 5, seed, step)).value

    fitted(experts.train(), loss, len(samples), steps, seed)
    return experts.eval().requires_grad_(False)


def distance(one: np.ndarray, other: np.ndarray, axes: np.ndarray) -> float:
    """Frechet distance of two sets of images along some axes."""
    a, b = one @ axes.T, other @ axes.T
    first, second = np.cov(a.T), np.cov(b.T)
    cross = np.real(sqrtm(first @ second))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * cross))


def flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).clamp(-1, 1).double().numpy()


def measure_one(seed: int, quick: bool) -> dict[str, float]:
    """All keys of a seed."""
    images, labels, held, truth = digits()
    short = 20 if quick else None
    denoiser = denoiser_of(images, seed, short or 600)
    table = dpmpp_2m(LogSNRGrid()(12, PATH), PATH)
    with torch.no_grad():
        samples = generated_set(
            denoiser, 64 if quick else 1000, (1, *GRID), table, first_seed=10**4, batch_size=250
        )
    guides = {
        name: taught(
            classifier_of(images, labels, seed, short or 400), edges, samples.images, seed, short or 900
        )
        for name, edges in (("single", ()), ("multi_expert", EDGES))
    }
    clean = guides["single"].clean
    levels = PATH.time_of_log_snr(torch.linspace(4, -3, 12, dtype=torch.float64))
    spread = measured_spread(denoiser, held[:64], levels, generators_of(range(64), 6))
    target = torch.arange(DRAWS) % CLASSES

    def guided(name: str, weight: float) -> ClassifierGuided | SkippedGradient:
        if name == "skipped_gradient":
            return SkippedGradient(
                denoiser, lambda x: log_probability_of(clean(x), target), spread, weight, 0.5
            )
        if name == "off_the_shelf":
            return ClassifierGuided(denoiser, lambda x, t: log_probability_of(clean(x), target), weight)
        return ClassifierGuided(denoiser, ExpertLogProbability(guides[name], target), weight)

    judge = SVC(gamma=0.05).fit(images.flatten(1).numpy(), labels.numpy())
    centred = flat(images) - flat(images).mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:12]
    floor = distance(flat(images), flat(held), axes)
    noise = noise_of(generators_of(range(DRAWS), 7, seed), (1, *GRID))
    walk = ddim(LogSNRGrid()(20, PATH), PATH)
    arms = {"none": denoiser} | {
        f"{name}{word}": guided(name, weight)
        for name in ("off_the_shelf", "single", "multi_expert", "skipped_gradient")
        for word, weight in WEIGHTS.items()
    }

    def judged(arm: Denoiser) -> tuple[float, float]:
        with torch.no_grad():
            drawn = integrate(arm, noise, walk)
        obeyed = float((judge.predict(flat(drawn)) == target.numpy()).mean())
        return obeyed, distance(flat(drawn), flat(held), axes) / floor

    found: dict[str, float] = {}
    for name, arm in arms.items():
        found[f"guidance_{name}"], found[f"damage_{name}"] = judged(arm)
    for name in ("single", "multi_expert"):
        curve = [judged(guided(name, weight)) for weight in FRONTIER]
        for weight, (obeyed, damage) in zip(FRONTIER, curve, strict=True):
            found[f"frontier_{name}_{weight:g}"], found[f"frontier_damage_{name}_{weight:g}"] = obeyed, damage
        within = [obeyed for obeyed, damage in curve if damage <= found["damage_none"]]
        found[f"within_{name}"] = max([found["guidance_none"], *within])
    t = PATH.time_of_log_snr(torch.tensor(-0.6, dtype=torch.float64))
    noisy = add_noise(PATH, held, noise_of(generators_of(range(len(held)), 8), held.shape[1:]), t)
    said = {name: guide(noisy, t) for name, guide in guides.items()} | {"off_the_shelf": clean(noisy)}
    for name, logits in said.items():
        found[f"accuracy_{name}"] = float((logits.argmax(1) == truth).float().mean())
    found["accuracy_clean"] = float((clean(held).argmax(1) == truth).float().mean())
    return found


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All keys, one value a seed.

    Args:
        seeds: Of weights, batches, noise and draws.
        quick: A few steps, to see that it runs.
    """
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in measure_one(seed, quick).items():
            found.setdefault(name, []).append(value)
    return found
