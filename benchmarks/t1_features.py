"""A covariate of heads from few labels: millilitres of ventricles, read off features of the shipped T1 generator.

    OMP_NUM_THREADS=1 python benchmarks/t1_features.py [--store cohort.h5] [--labels FOLDER]

Heads are synthetic (renderings of sixteen people's label maps), split by person: twelve people train, two are validation,
two test. Labels: one head of each training person (12) or eight (96). Arms:

features     ridge on one place of the generator (`rflow-4mm`), conditions left out; level and penalty by validation
intensities  the same ridge on intensities, means over 4^3 or 8^3 cells
supervised   a small convolutional network (60 000 weights) from scratch, 100 steps, stopped by validation

R^2 and the mean absolute error in ml on the 24 heads of the test people, with the error for predicting the training mean.
The generator was trained on other heads of the training people, and told their ventricles in part of the steps: its
features are not quite without labels. Two test people are two people. Not for clinical use.
"""

import argparse
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from radiata_core.denoiser_features import DenoiserFeatures, pooled
from radiata_core.feature_selection import Places, explained, gathered, select
from radiata_core.probes import ridge_probe
from radiata_core.seeds import generator_of
from radiata_imaging.store import Store
from t1_quality import heads, model_named, store_of

FITS = {f"penalty {p:g}": partial(ridge_probe, penalty=p) for p in (0.01, 0.1, 1.0, 10.0)}


def millilitres(store: Store, split: str, limit: int) -> tuple[Tensor, Tensor]:
    """Heads of a split, `limit` a person, and their ventricles in ml."""
    images, _ = heads(store, split, limit)
    index = store.indices(split)
    people = store.subjects[index]
    kept = np.concatenate([np.flatnonzero(people == p)[:limit] for p in np.unique(people)])
    column = list(store.covariate_names).index("ventricles_ml")
    return images, torch.from_numpy(store.covariates[index[kept], column]).double()


def supervised(images: list[Tensor], targets: list[Tensor], steps: int) -> Tensor:
    """Predictions for the last set of the network that was best on the second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((1, 12, 24, 48)):
            layers += [nn.Conv3d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool3d((3, 3, 3)), nn.Flatten(), nn.Linear(48 * 27, 1))
    mean, sd = targets[0].mean(), targets[0].std()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, said = -float("inf"), torch.zeros(len(targets[2]), 1)
    for step in range(1, steps + 1):
        rows = torch.randint(len(targets[0]), (8,), generator=generator_of(0, 71, step))
        wanted = ((targets[0][rows] - mean) / sd).float()[:, None]
        loss = nn.functional.mse_loss(network(images[0][rows]), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            with torch.no_grad():
                score = explained(network(images[1]).double() * sd + mean, targets[1])
                if score > best:
                    best, said = score, network(images[2]).double() * sd + mean
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--labels", type=Path)
    arguments = parser.parse_args()
    arguments.quick = False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = store_of(arguments, Path(folder))
        if path is None:
            raise SystemExit("needs --store or --labels")
        store = Store(path)
        sets = [
            millilitres(store, split, limit)
            for split, limit in (("train", 8), ("validation", 12), ("test", 12))
        ]
    denoiser = model_named("rflow-4mm")
    features = DenoiserFeatures(denoiser, (0.1, 0.5), share=1.0, estimate=False)
    places, pixels = [], []
    for images, _ in sets:
        places.append(gathered(features, images, range(len(images)), 3, batch_size=4))
        means = {(f"over {n}", 0.0): pooled(images, n).flatten(1) for n in (4, 8)}
        pixels.append(Places(means))
    print(
        f"features of {sum(len(images) for images, _ in sets)} heads: {time.process_time():.0f} CPU-s",
        flush=True,
    )
    targets = [values for _, values in sets]
    for each in (1, 8):
        rows = torch.arange(len(targets[0])).reshape(-1, 8)[:, :each].flatten()
        y = targets[0][rows]
        print(f"{len(rows)} labels; error of the mean {float((targets[2] - y.mean()).abs().mean()):.1f} ml")
        said = {}
        for name, held in (("features", places), ("intensities", pixels)):
            found = select(held[0].rows(rows), y, held[1], targets[1], FITS, explained)
            said[name] = found(held[2])
            print(f"  {name}: {found.best}")
        said["supervised"] = supervised([sets[0][0][rows], sets[1][0], sets[2][0]], [y, *targets[1:]], 100)
        for name, values in said.items():
            error = float((values[:, 0] - targets[2]).abs().mean())
            print(f"  {name}: R2 {explained(values, targets[2]):.2f}, error {error:.1f} ml", flush=True)


if __name__ == "__main__":
    main()
