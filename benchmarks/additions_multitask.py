"""Multi-task diffusion on digits: do an image and a label that are drawn together belong together?

Scikit-learn's 8 x 8 digits, 1200 to train and 597 held out. Three ways to one small U-Net of equal width, equal steps:

aggregated    image and label are encoded into one latent of 4 channels and diffused together; heads read both back
heads_only    the image alone is diffused; the label's head reads its noisy state (the label's weight is 0)
concatenated  the image and ten constant planes are channels of one ordinary diffusion: the strong baseline for aligned data

The first two also learn the conditionals (modality dropout), which the third does not: it has all its steps for drawing
jointly, and classifies by trying all ten labels: which pair it denoises best (five noise levels). Keys, a value a seed:

consistency_*     share of 500 joint draws whose image an independent judge (SVM on training images) gives the drawn label
label_accuracy_*  of held-out images, by p(label | image), one evaluation (fifty, of 200 images, for concatenated)
label_nats_*      mean -log p of the true label of held-out images; not for concatenated, which has no probabilities
obeyed_*          share of draws *given* a label in which the judge sees it; not for concatenated
label_spread_*    entropy of the drawn labels, nats; log 10 = 2.30 for the data
judge_accuracy    of the judge itself on held-out images: the most that can be asked for
"""

from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.aggregated_elbo import AggregatedELBO
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.modality_laws import ClassLaw, RealLaw
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, add_noise
from radiata_core.predictions import Prediction
from radiata_core.seeds import generator_of, generators_of, noise_of, seed_of
from radiata_core.shared_modalities import modalities_of
from radiata_core.solvers import dpmpp_2m, integrate
from radiata_core.times import LogNormalSNR, LogSNRGrid

PATH, LAW = LinearPath(), LogNormalSNR(0.5, 1.5)
LATENT, FEATURES, CLASSES, GRID = 4, 16, 10, (8, 8)
STEPS, BATCH, DRAWS, ASKED = 600, 64, 500, 200

CLAIMS: list[tuple[str, str, str, str]] = [
    (
        "aggregated draws belong together more often than with heads alone",
        "consistency_aggregated",
        ">",
        "consistency_heads_only",
    ),
    (
        "aggregated draws belong together more often than concatenated channels'",
        "consistency_aggregated",
        ">",
        "consistency_concatenated",
    ),
    (
        "labels of held-out images are read better than with heads alone",
        "label_accuracy_aggregated",
        ">",
        "label_accuracy_heads_only",
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


def unet(inputs: int, outputs: int, seed: int) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        return UNet(
            dims=2,
            in_channels=inputs,
            out_channels=outputs,
            patch=1,
            channels=(24, 64),
            down_blocks=(0, 1),
            up_blocks=(1, 1),
            attention=(False, True),
            embedding=128,
            shape=GRID,
        )


def shared(seed: int, weight: float) -> AggregatedDenoiser:
    """Image and label, the label with a weight in the aggregate."""
    parts = modalities_of(
        {"image": RealLaw(1, mean=-0.39, rms=0.75), "labels": ClassLaw(CLASSES)},
        dims=2,
        latent=LATENT,
        features=FEATURES,
        vectors=("labels",),
        weights={"labels": weight},
        seed=seed,
    )
    inputs = 2 * LATENT + len(parts)
    return AggregatedDenoiser(unet(inputs, LATENT + FEATURES, seed), PATH, parts, LATENT)


def fitted(denoiser: torch.nn.Module, loss, rows: int, steps: int, seed: int) -> torch.nn.Module:
    """AdamW, half a cosine, an average of the last weights; batches and noise are functions of the seed."""
    optimiser = torch.optim.AdamW(denoiser.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    order = generator_of(seed, 1)
    mean = torch.optim.swa_utils.AveragedModel(
        denoiser, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    for step in range(steps):
        chosen = torch.randint(rows, (BATCH,), generator=order)
        value = loss(denoiser, chosen, generators_of(range(step * BATCH, (step + 1) * BATCH), 2, seed))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        mean.update_parameters(denoiser)
    return mean.module.eval()


def spread(labels: Tensor) -> float:
    share = torch.bincount(labels, minlength=CLASSES) / len(labels)
    return float(torch.special.entr(share).sum())


def measure_shared(seed: int, weight: float, judge: SVC, steps: int) -> dict[str, float]:
    """The arms with an aggregate: trained, drawn, asked."""
    images, labels, held, truth = digits()
    objective = AggregatedELBO(PATH, LAW, ("labels",))

    def loss(denoiser, rows, generators):
        return objective(denoiser, images[rows], generators, labels=labels[rows]).value

    denoiser = fitted(shared(seed, weight), loss, len(images), steps, seed)
    drawn = denoiser.sample(generators_of(range(DRAWS), 3, seed), GRID)
    wanted = torch.arange(DRAWS) % CLASSES
    asked = denoiser.sample(generators_of(range(DRAWS), 4, seed), GRID, {"labels": wanted})
    with torch.no_grad():
        given = denoiser.known({"image": held})
        told = denoiser.told({"image": held}, given, GRID)
        noise = noise_of(generators_of(range(len(held)), 5, seed), (LATENT, *GRID))
        said = denoiser.read(noise, torch.ones((), dtype=torch.float64), told).said["labels"]
    return {
        "consistency": float((seen(judge, drawn["image"]) == drawn["labels"]).float().mean()),
        "label_accuracy": float((said.argmax(1) == truth).float().mean()),
        "label_nats": float(torch.nn.functional.cross_entropy(said, truth)),
        "obeyed": float((seen(judge, asked["image"]) == wanted).float().mean()),
        "label_spread": spread(drawn["labels"]),
    }


def measure_concatenated(seed: int, judge: SVC, steps: int) -> dict[str, float]:
    """The ordinary diffusion of eleven channels."""
    images, labels, held, truth = digits()
    stack = torch.cat([images, planes_of(labels)], 1)
    objective = Regression(PATH, LAW, target=Prediction.VELOCITY)

    def loss(denoiser, rows, generators):
        return objective(denoiser, stack[rows], generators).value

    channels = stack.shape[1]
    start = NetworkDenoiser(unet(channels, channels, seed), PATH, "velocity")
    denoiser = fitted(start, loss, len(images), steps, seed)
    times = LogSNRGrid()(20, PATH)
    with torch.no_grad():
        noise = noise_of(generators_of(range(DRAWS), 3, seed), (channels, *GRID))
        drawn = integrate(denoiser, noise, dpmpp_2m(times, PATH))
        images, truth = held[:ASKED], truth[:ASKED]
        errors = torch.zeros(len(images), CLASSES)
        for number, t in enumerate((0.5, 0.7, 0.8, 0.9, 0.95)):
            noise = noise_of(generators_of(range(len(images)), 5, seed, number), (channels, *GRID))
            for k in range(CLASSES):
                pair = torch.cat([images, planes_of(torch.full((len(images),), k))], 1)
                time = torch.tensor(t, dtype=torch.float64)
                found = denoiser(add_noise(PATH, pair, noise, time), time)
                errors[:, k] += ((found - pair) / t).square().flatten(1).mean(1)
    label = drawn[:, 1:].mean((2, 3)).argmax(1)
    return {
        "consistency": float((seen(judge, drawn[:, :1]) == label).float().mean()),
        "label_accuracy": float((errors.argmin(1) == truth).float().mean()),
        "label_spread": spread(label),
    }


def planes_of(labels: Tensor) -> Tensor:
    """Ten constant planes, centred, together as strong as the image: what the weights of the aggregate give too."""
    code = 0.8 * (torch.nn.functional.one_hot(labels, CLASSES).float() - 1 / CLASSES)
    return code[:, :, None, None].expand(-1, -1, *GRID)


def seen(judge: SVC, images: Tensor) -> Tensor:
    return torch.from_numpy(judge.predict(images.flatten(1).clamp(-1, 1).numpy()))


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All keys, one value a seed.

    Args:
        seeds: Of weights, batches, noise and draws.
        quick: A few steps, to see that it runs.
    """
    steps = 20 if quick else STEPS
    images, labels, held, truth = digits()
    judge = SVC(gamma=0.05).fit(images.flatten(1).numpy(), labels.numpy())
    found: dict[str, list[float]] = {}
    for seed in seeds:
        arms = {
            "aggregated": measure_shared(seed, 1.0, judge, steps),
            "heads_only": measure_shared(seed, 0.0, judge, steps),
            "concatenated": measure_concatenated(seed, judge, steps),
        }
        for arm, figures in arms.items():
            for name, value in figures.items():
                found.setdefault(f"{name}_{arm}", []).append(value)
        found.setdefault("judge_accuracy", []).append(float((seen(judge, held) == truth).float().mean()))
    return found
