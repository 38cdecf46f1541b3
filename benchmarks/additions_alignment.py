"""Alignment with a real 3-D encoder of heads: what a denoiser's hidden layer knows with it, without it, with a wrong one.

Nine of SynthSeg's label maps (nine people), rendered T1-like at 1 mm: synthetic heads, real anatomy. Targets are 30 hidden
channels of brainchop's MeshNet (`model18cls`'s wider sister, model30chan18cls), a real segmenter of T1 heads, computed once
for an axial slab of each. Each seed trains on six people and holds three out (every person is held out once). A transformer
of width 64 and 6 blocks with patch 4 learns 32 x 32 crops of axial planes, 480 steps of 16, velocity on the linear path; the
arms of a seed have the same weights, crops, times and noises. The layer is the second block.

base        no alignment
repa        iREPA: convolution, spatially standardised targets, weight 0.5
mlp         REPA: MLP, targets as they are, weight 0.5
shuffled    iREPA with targets of another crop of the batch
self        SRA: block 2 learns from block 4 of the averaged network at less noise

loss_*        held-out denoising loss at fixed times and noises (`loss_base_alignment` for base)
probe_r2_*    R2 of a ridge probe from the layer (at t = 0.3) to the encoder's features, fitted on crops of the training
              people, scored on held-out people, all channels of unit variance
alignment_*   held-out mean cosine of the trained projector with the true targets

The data beside the checkout is needed (label maps and weights); without it the section says so and stops.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from radiata_core.aligned_objective import Aligned, aligned, hidden_maps
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.transformer import Transformer
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, add_noise
from radiata_core.predictions import Prediction
from radiata_core.probes import ridge_probe
from radiata_core.seeds import generator_of, generators_of, noise_of, rng_of, seed_of
from radiata_core.self_alignment import SelfAligned, self_aligned
from radiata_core.times import LogNormalSNR
from radiata_imaging.contrast import bias_field, intensities_of, rician
from radiata_imaging.feature_encoders import MeshNetFeatures
from radiata_imaging.meshnet import read_meshnet
from radiata_imaging.nifti import read_volume

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MESHNET = "model30chan18cls"
PEOPLE = ("01", "02", "03", "04", "05", "06", "07", "08", "09")
PATH = LinearPath()
OBJECTIVE = Regression(PATH, LogNormalSNR(0.0, 1.2), target=Prediction.VELOCITY)
STEPS, BATCH, EDGE, PATCH, LAYER = 480, 16, 32, 4, "network.blocks.1"
PLANES, MARGIN, GRID = 24, 12, (176, 208)
ARMS = ("base", "repa", "mlp", "shuffled", "self")

CLAIMS: list[tuple[str, str, str, str]] = [
    ("alignment raises what the layer says of the encoder", "probe_r2_repa", ">", "probe_r2_base"),
    ("shuffled targets do not", "probe_r2_shuffled", "<", "probe_r2_repa"),
    ("iREPA's form is better than REPA's", "probe_r2_repa", ">", "probe_r2_mlp"),
    ("alignment lowers the denoising loss", "loss_repa", "<", "loss_base_alignment"),
    ("self-alignment raises the probe without an encoder", "probe_r2_self", ">", "probe_r2_base"),
]

People = dict[str, tuple[Tensor, Tensor]]


def slab_of(person: str) -> np.ndarray:
    """A rendered axial slab `(left, plane, anterior)` of a person, 0 … 1, with planes beyond it on both sides."""
    codes = read_volume(SHARED / "labels" / f"training_seg_{person}.nii.gz").array.astype(np.int64)
    inside = np.argwhere((codes > 0) & (codes < 500))
    middle = ((inside.min(0) + inside.max(0)) // 2).tolist()
    sizes = (GRID[0], PLANES + 2 * MARGIN, GRID[1])
    first = [
        min(max(m - n // 2, 0), whole - n) for m, n, whole in zip(middle, sizes, codes.shape, strict=True)
    ]
    box = codes[tuple(slice(f, f + n) for f, n in zip(first, sizes, strict=True))]
    rng = rng_of(int(person), 61)
    image = gaussian_filter(intensities_of(box, rng), 0.6) * bias_field(box.shape, rng, strength=0.05)
    image = rician(image, 3.0, rng)
    return np.clip(image / np.quantile(image, 0.999), 0, 1).astype(np.float32)


def people_of(names: Sequence[str]) -> People:
    """Planes `(plane, 1, left, anterior)` in [-1, 1] and features `(plane, 30, cells)` of each person."""
    if not (SHARED / "labels").is_dir():
        raise InputError(
            "expected label maps and MeshNet's weights in the data folder beside the checkout; it is absent. "
            "Leave this section out: --only."
        )
    encoder = MeshNetFeatures(
        read_meshnet(SHARED / "weights" / "brainchop" / MESHNET), layers=7, stride=1, window=(0.0, 1.0)
    )
    found = {}
    kept = slice(MARGIN, MARGIN + PLANES, 2)
    for name in names:
        slab = torch.from_numpy(slab_of(name))
        maps = encoder(slab[None, None])[0, :, :, kept].movedim(2, 0)
        found[name] = (
            2 * slab[:, kept].transpose(0, 1)[:, None] - 1,
            torch.nn.functional.avg_pool2d(maps, PATCH),
        )
    return found


def crops(people: People, names: Sequence[str], count: int, key: int) -> tuple[Tensor, Tensor]:
    """Crops on the grid of the cells, and their features; crops of air alone are drawn again."""
    g = generator_of(key, 62)
    images, features = [], []
    while len(images) < count:
        planes, maps = people[names[int(torch.randint(len(names), (), generator=g))]]
        plane = int(torch.randint(len(planes), (), generator=g))
        x, y = (int(torch.randint((n - EDGE) // PATCH + 1, (), generator=g)) for n in planes.shape[2:])
        crop = planes[plane, :, x * PATCH : x * PATCH + EDGE, y * PATCH : y * PATCH + EDGE]
        if float(crop.std()) > 0.1:
            cells = EDGE // PATCH
            images.append(crop)
            features.append(maps[plane, :, x : x + cells, y : y + cells])
    return torch.stack(images), torch.stack(features)


def network_of(seed: int) -> NetworkDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 63))
        network = Transformer(dims=2, patch=PATCH, depth=6, heads=4, head=16)
    return NetworkDenoiser(network, PATH, Prediction.VELOCITY)


def objective_of(
    arm: str, denoiser: NetworkDenoiser, example: Tensor, channels: int
) -> Regression | Aligned | SelfAligned:
    if arm == "base":
        return OBJECTIVE
    if arm == "self":
        return self_aligned(
            OBJECTIVE,
            denoiser,
            example,
            early=LAYER,
            late="network.blocks.3",
            length=100.0,
            generator=generator_of(9),
        )
    form = {"projector": "mlp", "standardise": "none", "hidden": 256} if arm == "mlp" else {}
    return aligned(
        OBJECTIVE,
        denoiser,
        example,
        None,
        layer=LAYER,
        target_channels=channels,
        generator=generator_of(9),
        **form,
    )  # type: ignore[arg-type]


def measure_one(people: People, seed: int, steps: int) -> dict[str, float]:
    """All keys of a seed."""
    names = list(people)
    third = max(len(names) // 3, 1)
    held = [names[(third * seed + i) % len(names)] for i in range(third)]
    taught = [name for name in names if name not in held]
    train, targets = crops(people, taught, steps * BATCH // 4, 10 + seed)
    probed, told = crops(people, taught, 200, 20 + seed)
    test, truth = crops(people, held, 200, 30 + seed)
    scale = told.std((0, 2, 3), keepdim=True)
    found: dict[str, float] = {}
    for arm in ARMS:
        denoiser = network_of(seed)
        objective = objective_of(arm, denoiser, train[:1], targets.shape[1])
        beside = list(objective.beside.parameters()) if isinstance(objective, Aligned | SelfAligned) else []
        weights = [*denoiser.parameters(), *(p for p in beside if p.requires_grad)]
        optimiser = torch.optim.AdamW(weights, 2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
        for step in range(steps):
            rows = torch.randint(len(train), (BATCH,), generator=generator_of(seed, 64, step))
            given = targets[rows.roll(1) if arm == "shuffled" else rows]
            told_too = {"features": given} if isinstance(objective, Aligned) else {}
            loss = objective(denoiser, train[rows], generators_of(range(BATCH), 65, seed, step), **told_too)
            optimiser.zero_grad()
            loss.value.backward()
            optimiser.step()
            schedule.step()
        denoiser.eval()
        with torch.no_grad():
            value = OBJECTIVE(denoiser, test, generators_of(range(len(test)), 66)).value
        found["loss_base_alignment" if arm == "base" else f"loss_{arm}"] = float(value)
        t = torch.tensor(0.3, dtype=torch.float64)

        def rows_of(images: Tensor, key: int, denoiser: NetworkDenoiser = denoiser, t: Tensor = t) -> Tensor:
            noise = noise_of(generators_of(range(len(images)), key), images.shape[1:])
            return hidden_maps(denoiser, LAYER, add_noise(PATH, images, noise, t), float(t))

        hidden = rows_of(test, 68)
        flat = [
            m.movedim(1, -1).flatten(0, -2)
            for m in (rows_of(probed, 67), told / scale, hidden, truth / scale)
        ]
        probe = ridge_probe(flat[0], flat[1], 1e-3)
        left = (probe(flat[2]) - flat[3]).square().sum()
        found[f"probe_r2_{arm}"] = float(1 - left / (flat[3] - flat[3].mean(0)).square().sum())
        if isinstance(objective, Aligned):
            with torch.no_grad():
                found[f"alignment_{arm}"] = float(objective.alignment.cosine(hidden, truth))
    return found


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """All keys, one value a seed.

    Args:
        seeds: Of people, weights, crops, times and noises.
        quick: Three people and a few steps, to see that it runs.
    """
    people = people_of(PEOPLE[:3] if quick else PEOPLE)
    found: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in measure_one(people, seed, 8 if quick else STEPS).items():
            found.setdefault(name, []).append(value)
    return found
