"""Few labels: probes of a denoiser that saw none, beside the same probes of pixels and a network trained on the labels.

Scikit-learn's 8 x 8 digits, scans of handwriting, in a fixed order: 1200 train the denoiser without labels (300 steps); 100
of each class of them can be labelled, the 200 that are left are validation, and the other 597 are the test. Two tasks: the
digits as they are, and `moved_*`, the same scans at random places of a 16 x 16 canvas (the places are synthetic), where no
pixel means anything by itself. Arms get 5, 20 or 100 labels *a class* (50, 200, 1000 in all):

probe       ridge regression of the classes on features of one layer at one noise level, mean over cells
pixels      the same on the pixels, and (of `moved`) on their means over cells
supervised  the denoiser's own network, with a linear layer on the mean of its last map, from scratch; 200 steps of
            AdamW, stopped by validation

Layer, level, cells, penalty and stopping are all chosen on the validation images, for all arms alike; these are
more labels than 5 a class, so the figures at 5 are those of methods whose settings are known. Keys, a value a seed (of
weights, batches, noise and of which images are labelled):

*_acc_5, *_acc_20, *_acc_100   accuracy on the test
probe_acc_20_level_*           of the layer, cells and penalty that validation prefers at that noise level sigma/alpha
probe_acc_20_one_noise         the choice again, with one noise for all images in place of one each
probe_acc_20_eight_draws       the choice again, features averaged over 8 noises
logistic_acc_20                the choice again, read by logistic regression
attention_acc_20               an attention probe on the maps of the place that was chosen, 4 x 4 cells, 200 steps
chosen_level_20                the level that was chosen
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from radiata_core.denoiser_features import DenoiserFeatures, pooled
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.feature_selection import Places, Selection, accuracy, gathered, select
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.probes import AttentionProbe, LinearProbe, logistic_probe, ridge_probe, train_probe
from radiata_core.seeds import generator_of, generators_of, seed_of
from radiata_core.times import LogNormalSNR

PATH = LinearPath()
LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0)
CELLS = (2, 4)
CLASSES, BATCH, STEPS = 10, 64, 300


def ridge_classes(features: Tensor, labels: Tensor, penalty: float) -> LinearProbe:
    """Ridge regression of each class's indicator: the greatest value is the class."""
    return ridge_probe(features, F.one_hot(labels, CLASSES).double(), penalty)


FITS = {f"penalty {penalty:g}": partial(ridge_classes, penalty=penalty) for penalty in (0.03, 0.3, 3.0)}

CLAIMS: list[tuple[str, str, str, str]] = [
    *[(f"features beat pixels at {n}", f"probe_acc_{n}", ">", f"pixels_acc_{n}") for n in (5, 20, 100)],
    *[(f"and supervision at {n}", f"probe_acc_{n}", ">", f"supervised_acc_{n}") for n in (5, 20, 100)],
    *[
        (f"moved: features beat pixels at {n}", f"moved_probe_acc_{n}", ">", f"moved_pixels_acc_{n}")
        for n in (5, 20, 100)
    ],
    *[
        (f"moved: and supervision at {n}", f"moved_probe_acc_{n}", ">", f"moved_supervised_acc_{n}")
        for n in (5, 20, 100)
    ],
    ("accuracy falls with noise", "probe_acc_20_level_3", "<", "probe_acc_20_level_0.3"),
    ("the best noise is not the least", "probe_acc_20_level_0.03", "<", "probe_acc_20_level_0.3"),
    ("eight draws help", "probe_acc_20_eight_draws", ">", "probe_acc_20"),
]


@dataclass(frozen=True)
class Task:
    """Images in [-1, 1] and labels, with the rows of each purpose."""

    images: Tensor
    labels: Tensor
    pool: Tensor
    validation: Tensor
    test: Tensor

    def labelled(self, count: int, seed: int) -> Tensor:
        """Rows of `count` images a class, outside validation and test; nested from one count to the next."""
        candidates = self.pool[~torch.isin(self.pool, self.validation)]
        order = candidates[torch.randperm(len(candidates), generator=generator_of(seed, 1))]
        return torch.cat([order[self.labels[order] == k][:count] for k in range(CLASSES)])


def task_of(moved: bool) -> Task:
    """The digits; moved, each at its own place of a larger canvas."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(images), generator=generator_of(0))
    pool, test = order[:1200], order[1200:]
    kept = torch.cat([pool[labels[pool] == k][:100] for k in range(CLASSES)])
    if moved:
        canvas = torch.full((len(images), 1, 16, 16), -1.0)
        places = torch.randint(9, (len(images), 2), generator=generator_of(2)).tolist()
        for row, (down, across) in enumerate(places):
            canvas[row, :, down : down + 8, across : across + 8] = images[row]
        images = canvas
    return Task(images, labels, pool, pool[~torch.isin(pool, kept)], test)


def network_of(task: Task, seed: int) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        return UNet(
            dims=2, patch=task.images.shape[-1] // 8, channels=(24, 48), down_blocks=(1, 1), up_blocks=(1, 1),
            attention=(False, True), embedding=128, shape=tuple(task.images.shape[2:]),
        )  # fmt: skip


def denoiser_of(task: Task, seed: int, steps: int) -> NetworkDenoiser:
    """Trained on the pool, without labels."""
    denoiser = NetworkDenoiser(network_of(task, seed), PATH, "velocity")
    objective = Regression(PATH, LogNormalSNR(0.0, 1.2), target=denoiser.prediction)
    optimiser = torch.optim.AdamW(denoiser.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = task.pool[torch.randint(len(task.pool), (BATCH,), generator=generator_of(seed, 3, step))]
        value = objective(denoiser, task.images[rows], generators_of(range(BATCH), 4, seed, step)).value
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return denoiser.eval()


class Supervised(nn.Module):
    """The same network and a linear layer on the mean of its last map."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network
        self.out = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        held: list[Tensor] = []
        handle = self.network.up[0].register_forward_hook(lambda _, __, output: held.append(output))
        self.network(x, torch.full((len(x),), 3.0))
        handle.remove()
        return self.out(held[0].mean((2, 3)))


def supervised(task: Task, rows: Tensor, seed: int, steps: int) -> float:
    """Accuracy on the test at the moment that was best on validation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 5))
        model = Supervised(network_of(task, seed))
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.1)
    best, result = -1.0, 0.0
    for step in range(1, steps + 1):
        chosen = rows[
            torch.randint(len(rows), (min(BATCH, len(rows)),), generator=generator_of(seed, 6, step))
        ]
        loss = F.cross_entropy(model(task.images[chosen]), task.labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 4) == 0:
            with torch.no_grad():
                score = accuracy(model(task.images[task.validation]), task.labels[task.validation])
                if score > best:
                    best = score
                    result = accuracy(model(task.images[task.test]), task.labels[task.test])
    return result


def features_of(denoiser: NetworkDenoiser, images: Tensor) -> Places:
    """Every layer at every level over every number of cells, noised as much as the network is told."""
    layers = ("network.down.1", "network.up.1", "network.up.0")
    features = DenoiserFeatures(denoiser, LEVELS, layers, share=1.0, estimate=False)
    found = Places()
    full = gathered(features, images, range(len(images)), max(images.shape[2:]))
    for (layer, level), rows in full.items():
        side = next(n for n in (8, 4) if layer.endswith(".0") == (n == 8))
        maps = rows.unflatten(1, (-1, side, side))
        for cells in CELLS:
            found[f"{layer} over {cells}", level] = pooled(maps, cells).flatten(1)
    return found


def pixels_of(task: Task) -> Places:
    """Pixels, and their means over cells."""
    found = Places({("pixels", 0.0): task.images.flatten(1)})
    if task.images.shape[-1] > 8:
        for cells in (2, 4, 8):
            found[f"pixels over {cells}", 0.0] = pooled(task.images, cells).flatten(1)
    return found


def chosen(places: Places, task: Task, rows: Tensor) -> Selection:
    validation = places.rows(task.validation)
    return select(
        places.rows(rows), task.labels[rows], validation, task.labels[task.validation], FITS, accuracy
    )


def tested(selection: Selection, places: Places, task: Task) -> float:
    return accuracy(selection(places.rows(task.test)), task.labels[task.test])


def again(denoiser: NetworkDenoiser, task: Task, selection: Selection, rows: Tensor) -> dict[str, float]:
    """The place that was chosen, under other noise, and read by attention."""
    words, level = selection.place
    layer, _, cells = words.partition(" over ")
    features = DenoiserFeatures(denoiser, (level,), (layer,), share=1.0, estimate=False)
    count = len(task.images)
    fit = FITS[selection.best.fit]
    found = {}
    for name, version, seeds in (
        ("one_noise", features, [0] * count),
        ("eight_draws", replace(features, draws=8), range(count)),
    ):
        values = gathered(version, task.images, seeds, int(cells))[layer, level]
        probe = fit(values[rows], task.labels[rows])
        found[f"probe_acc_20_{name}"] = accuracy(probe(values[task.test]), task.labels[task.test])
    side = 8 if layer.endswith(".0") else 4
    values = gathered(features, task.images, range(count), int(cells))[layer, level]
    probe = logistic_probe(values[rows], task.labels[rows])
    found["logistic_acc_20"] = accuracy(probe(values[task.test]), task.labels[task.test])
    maps = gathered(features, task.images, range(count), 8)[layer, level].unflatten(1, (-1, side, side))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        attention = AttentionProbe(maps.shape[1], CLASSES, (4, 4), width=32)
    train_probe(attention, maps[rows], task.labels[rows], 200)
    with torch.no_grad():
        found["attention_acc_20"] = accuracy(attention(maps[task.test]), task.labels[task.test])
    return found


def measure_task(moved: bool, seed: int, quick: bool) -> dict[str, float]:
    """All keys of a task and a seed."""
    task = task_of(moved)
    denoiser = denoiser_of(task, seed, 20 if quick else STEPS)
    places, pixels = features_of(denoiser, task.images), pixels_of(task)
    found: dict[str, float] = {}
    for count in (5, 20, 100):
        rows = task.labelled(count, seed)
        selection = chosen(places, task, rows)
        found[f"probe_acc_{count}"] = tested(selection, places, task)
        found[f"pixels_acc_{count}"] = tested(chosen(pixels, task, rows), pixels, task)
        found[f"supervised_acc_{count}"] = supervised(task, rows, seed, 6 if quick else 200)
        if count == 20:
            found["chosen_level_20"] = selection.best.level
            for level in LEVELS:
                row = max((row for row in selection.table if row.level == level), key=lambda row: row.score)
                values = places[row.layer, level]
                probe = FITS[row.fit](values[rows], task.labels[rows])
                found[f"probe_acc_20_level_{level:g}"] = accuracy(
                    probe(values[task.test]), task.labels[task.test]
                )
            found |= again(denoiser, task, selection, rows)
    return {f"moved_{name}": value for name, value in found.items()} if moved else found


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All keys, one value a seed.

    Args:
        seeds: Of weights, batches, noise and the choice of labelled images.
        quick: A few steps, to see that it runs.
    """
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in (measure_task(False, seed, quick) | measure_task(True, seed, quick)).items():
            found.setdefault(name, []).append(value)
    return found
