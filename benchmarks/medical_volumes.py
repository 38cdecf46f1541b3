"""Restoration of whole heads at 1 mm: blocks of a 3-D network, slices and planes of the 2-D one, TV in three dimensions.

The measurement is of the whole head in each case: 4 mm slices (means over four), or a quarter of the lines of k-space, drawn
in the plane across the read-out. The 2-D restorer gets each plane that holds the coarse axis (or both phase axes) as a
problem of its own (`radiata_2d_slices`); `radiata_planes` has the 2-D network denoise the volume across two directions
within the unrolled restorer of the whole volume. TV's weight is chosen on a validation head.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.classical_restoration import tv_restoration
from radiata_core.cubic_resampling import cubic_upsampling
from radiata_core.downsampling import thick_slices
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.kspace_masks import random_points
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.planes import PlanewiseDenoiser
from radiata_core.provenance import peak_memory_mib
from radiata_core.seeds import generator_of, generators_of
from radiata_core.tiling import TiledDenoiser
from radiata_core.unrolled import UnrolledRestorer
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise

SHAPE = (176, 224, 208)
NOISE = 0.02
WEIGHTS = (0.001, 0.003, 0.01)


def heads_of(
    store: LabelMaps, split: str, count: int, seed: int, shape: tuple[int, int, int]
) -> list[tuple[str, Tensor]]:
    """Whole T1-like heads at 1 mm of the people of a split, in turn, `(1, x, y, z)`."""
    names = store.of_split(split)
    found = []
    for number in range(count):
        name = names[number % len(names)]
        head = head_of(store.read(name).codes)
        head = dataclasses.replace(head, centres=head.centres.mean(0, keepdim=True))
        spec = ScanSpec(shape=shape, contrasts=(("t1", 1.0),), inside=1.0, rotation=5.0, flip=False)
        found.append((store.person(name), synthesise(head, spec, generator_of(seed, 78, number)).image[None]))
    return found


def operators(task: str, shape: tuple[int, int, int], device: str) -> tuple[LinearOperator, LinearOperator]:
    """The operator of the volume, and that of one of its planes `(y, z)`."""
    event = (1, *shape)
    if task == "thick4":
        return thick_slices(event, -1, 4), thick_slices((1, *shape[1:]), -1, 4)
    mask = random_points(shape, 4, torch.Generator().manual_seed(5), axes=(1, 2), middle=0.02).to(device)
    # The read-out is not under-sampled, so its Fourier transform, which is unitary, leaves a problem in every plane.
    return FourierSampling(mask, event, real=True), FourierSampling(mask[0], (1, *shape[1:]), real=True)


def volume_figures(
    prior3: UnrolledRestorer,
    prior2: UnrolledRestorer,
    store: LabelMaps,
    device: str,
    count: int,
    *,
    shape: tuple[int, int, int] = SHAPE,
    tile: int = 96,
    halo: int = 16,
    iterations: int = 40,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """PSNR in the head, seconds and memory of every method on `count` test heads, both tasks."""
    figures: dict[str, Any] = {}
    tests = heads_of(store, "test", count, 2, shape)
    (_, held) = heads_of(store, "validation", 1, 1, shape)[0]
    tiled = prior3.on(TiledDenoiser(prior3.denoiser, tile, halo))
    planes = prior2.on(PlanewiseDenoiser(prior2.denoiser, (0, 1)))
    for task in ("thick4", "kspace4"):
        operator, plane = operators(task, shape, device)

        def volume(x: Tensor, seed: int, operator: LinearOperator = operator) -> Tensor:
            return GaussianNoise(NOISE)(operator(x[None].to(device)), generators_of([seed], 6))

        def sliced(x: Tensor, seed: int, plane: LinearOperator = plane) -> Tensor:
            rows = plane(x[0][:, None].to(device))
            return GaussianNoise(NOISE)(rows, generators_of(range(len(rows)), 7, seed))

        y = volume(held, 0)
        scores = [0.0]
        if not names or "tv_3d" in names:
            scores = [_psnr(tv_restoration(operator, y, w, iterations), held.to(device)) for w in WEIGHTS]
        weight = WEIGHTS[int(np.argmax(scores))]
        methods: dict[str, Callable[[Tensor, int], Tensor]] = {
            "radiata_3d": lambda x, s: tiled.restore(operator, volume(x, s), NOISE),  # noqa: B023
            "radiata_planes": lambda x, s: planes.restore(operator, volume(x, s), NOISE),  # noqa: B023
            "radiata_2d_slices": lambda x, s: _by_planes(prior2, plane, sliced(x, s)),  # noqa: B023
            "tv_3d": lambda x, s: tv_restoration(operator, volume(x, s), weight, iterations),  # noqa: B023
            "zero_filled": lambda x, s: operator.pseudo_inverse(volume(x, s)),  # noqa: B023
        }
        if task == "thick4":
            methods["tricubic"] = lambda x, s: cubic_upsampling(operator, volume(x, s))  # noqa: B023
        for name, method in methods.items():
            if names and name not in names:
                continue
            rows, seconds = [], []
            for number, (_, x) in enumerate(tests):
                start = time.perf_counter()
                with torch.no_grad():
                    found = method(x, 10 + number)
                seconds.append(time.perf_counter() - start)
                rows.append(_psnr(found, x.to(device)))
            figures[f"{task}_{name}"] = {
                "psnr": rows,
                "mean": float(np.mean(rows)),
                "seconds": float(np.mean(seconds)),
                "peak_mib": peak_memory_mib(),
            }
            print(
                f"{task:8} {name:18} {np.mean(rows):6.2f} dB [{min(rows):.2f}, {max(rows):.2f}]  {np.mean(seconds):7.1f} s",
                flush=True,
            )
    figures["people"] = [person for person, _ in tests]
    figures["shape"] = list(shape)
    return figures


def _by_planes(restorer: UnrolledRestorer, plane: LinearOperator, y: Tensor, batch: int = 16) -> Tensor:
    parts = [restorer.restore(plane, y[a : a + batch], NOISE) for a in range(0, len(y), batch)]
    return torch.cat(parts)[:, 0][None, None]


def _psnr(x: Tensor, truth: Tensor) -> float:
    """dB for a range of 1 (white), over the voxels within 4 mm of the head."""
    inside = torch.nn.functional.max_pool3d((truth[None] > 0.1).float(), 9, 1, 4)[0] > 0
    error = (x.reshape(truth.shape).double() - truth.double()).square()[inside].mean()
    return float(-10 * torch.log10(error))
