"""Heads from 1, 2, 4, 5, 6, 8 and 20 evaluations: the students beside their teacher, against people that no training saw.

    python benchmarks/few_step.py [--quick] [--json FILE] [--store cohort.h5] [--labels FOLDER] [--student NAME=MODEL ...]

Every set is drawn from the same seeds and compared with the test people's heads:

- MMD^2 with the energy kernel and KID with the cubic kernel, on random convolutions (standardised on training heads), with
  their 95 % bootstrap intervals; beside it the same figure of the validation people, the floor that real heads reach;
- the power spectrum: root mean square over shells of the difference of mean log spectra, in dB;
- nearest neighbours: median ratio of the distance to the training set and to the held-out set (copies have 0), and the
  ratio that real held-out people show;
- the distance to the teacher's own converged head from the same noise (200 steps), relative to its spread;
- seconds a head, one after another in this run;
- conditions: fluid in the middle of heads drawn with `ventricles_ml` 15 and 70, same seeds (see t1_quality.py).

The teacher draws with UniPC-2 (20 steps, its best deterministic solver), and below 8 evaluations with DDIM on the same
linear grid as the students: both are given, and the better one stands as the teacher's. Two test people are two people:
read the figures as an order. Key `mmd_student_*` is the shipped student's. No features here are those of an FID.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from radiata_core.checkpoint import load_model
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LogSNRGrid
from radiata_imaging.features import RandomConvFeatures, Standardised, extract
from radiata_imaging.memorisation import nearest
from radiata_imaging.spectra import RadialBins, log_power, spectrum_ratio
from radiata_imaging.store import Store
from radiata_imaging.two_sample import EnergyKernel, PolynomialKernel, compare
from radiata_t1.data.covariates import CovariateScale
from radiata_t1.model.samplers import GridName, Sampler, SamplerName
from radiata_t1.model.weights import FEW_STEPS, find_model, shipped
from t1_quality import central_fluid, heads, interval, store_of, table

EVALUATIONS = (1, 2, 4, 5, 6, 8, 20)
Set = tuple[np.ndarray, float]


def model_of(name: str):
    loaded = load_model(find_model(name))
    denoiser = loaded.denoiser.eval()
    denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[union-attr, call-overload]
    return denoiser


def drawn(denoiser, sampler: Sampler, count: int, event: tuple[int, ...]) -> Set:
    """Heads `(count, x, y, z)` and seconds a head."""
    parts = []
    with torch.inference_mode():
        sampler(denoiser, [0, 1, 2, 3], event)  # first calls choose kernels
        start = time.perf_counter()
        for first in range(0, count, 4):
            parts.append(sampler(denoiser, list(range(first, first + 4)), event)[:, 0].clamp(-1, 1))
        seconds = (time.perf_counter() - start) / count
    return torch.cat(parts).numpy(), seconds


def converged(denoiser, count: int, event: tuple[int, ...], steps: int) -> np.ndarray:
    """The teacher's heads from the same noise with many steps."""
    parts = []
    grid = LogSNRGrid()(steps, denoiser.path)
    with torch.inference_mode():
        for first in range(0, count, 4):
            noise = noise_of(generators_of(range(first, first + 4), 0), event, torch.float32, "cpu")
            parts.append(integrate(denoiser, noise, unipc_2(grid, denoiser.path))[:, 0].clamp(-1, 1))
    return torch.cat(parts).numpy()


def obeyed(name: str, count: int) -> dict[str, object]:
    """Millilitres of central fluid at `ventricles_ml` 15 and 70 and their difference; 4 evaluations, a teacher 20."""
    loaded = load_model(find_model(name))
    denoiser = loaded.denoiser.eval()
    if name == "rflow-4mm":
        sampler = Sampler(SamplerName.UNIPC_2, 20)
    else:
        word = SamplerName.FLOW_MAP if hasattr(denoiser, "jump") else SamplerName.DDIM
        sampler = Sampler(word, 4, GridName.LINEAR)
    scale = CovariateScale.from_metadata(loaded.metadata)
    event = (1, *denoiser.network.options["shape"])
    fluid = {}
    for millilitres in (15.0, 70.0):
        row = torch.from_numpy(scale.row({"ventricles_ml": millilitres})).expand(count, -1)
        with torch.inference_mode():
            fluid[millilitres] = central_fluid(
                sampler(denoiser, list(range(count)), event, covariates=row)[:, 0].numpy()
            )
    difference = fluid[70.0] - fluid[15.0]
    print(
        f"{name}: central fluid {fluid[15.0].mean():.1f} ml at ventricles_ml 15, {fluid[70.0].mean():.1f} at 70, "
        f"difference {difference.mean():.1f} {[round(v, 1) for v in interval(difference)]}"
    )
    return {"fluid_difference": float(difference.mean()), "fluid_difference_ci": interval(difference)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer heads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--store", type=Path, help="store of the cohort")
    parser.add_argument("--labels", type=Path, help="label maps to draw the cohort from")
    parser.add_argument(
        "--student", action="append", default=[], metavar="NAME=MODEL", help="further students"
    )
    parser.add_argument("--save", type=Path, help="write the drawn sets to this .npz (for the figure)")
    arguments = parser.parse_args()
    keys = ["mmd_teacher_20", "mmd_student_1", "mmd_student_2", "mmd_student_4", "mmd_real_floor"]
    figures: dict[str, object] = dict.fromkeys(keys)
    with tempfile.TemporaryDirectory() as folder:
        path = store_of(arguments, Path(folder))
        if path is None:
            print("no store and no label maps: nothing to compare with")
        else:
            figures |= compared(path, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def compared(path: Path, arguments: argparse.Namespace) -> dict[str, object]:
    store = Store(path)
    count = 8 if arguments.quick else 24
    teacher = model_of("rflow-4mm")
    event = (1, *teacher.network.options["shape"])
    features = RandomConvFeatures()
    train_heads, _ = heads(store, "train", 8 if arguments.quick else 20)
    train = train_heads[:, 0].numpy()
    raw = extract(iter(train), [features])[0]
    scale = Standardised.fit(raw)
    real = {split: heads(store, split, count // 2)[0][:count, 0].numpy() for split in ("validation", "test")}
    bins = RadialBins(event[1:], (4.0, 4.0, 4.0))
    spectra = {split: _spectra(rows, bins) for split, rows in real.items()}
    test = scale(extract(iter(real["test"]), [features])[0])
    train_rows = scale(raw)
    truth = converged(teacher, count, event, 60 if arguments.quick else 200)
    centre = np.sqrt(((truth - truth.mean((1, 2, 3), keepdims=True)) ** 2).sum((1, 2, 3)))
    sets: dict[str, Set] = {}
    for n in EVALUATIONS:
        found = [drawn(teacher, Sampler(SamplerName.DDIM, n, GridName.LINEAR), count, event)]
        if n >= 4:
            found.append(drawn(teacher, Sampler(SamplerName.UNIPC_2, n), count, event))
        sets[f"teacher_{n}"] = min(found, key=lambda s: _mmd(scale, features, s[0], test, EnergyKernel())[0])
    students = ({"student": FEW_STEPS} if FEW_STEPS in shipped() else {}) | dict(
        text.split("=", 1) for text in arguments.student
    )
    for name, model in students.items():
        student = model_of(model)
        word = "flow-map" if hasattr(student, "jump") else "ddim"
        for n in EVALUATIONS:
            sampler = Sampler(SamplerName(word), n, GridName.LINEAR)
            sets[f"{name}_{n}"] = drawn(student, sampler, count, event)
    figures: dict[str, object] = {"heads": count}
    for name, model in {"teacher": "rflow-4mm", **students}.items():
        figures |= {
            f"{key}_{name}": value for key, value in obeyed(model, 4 if arguments.quick else 8).items()
        }
    rows = []
    for name, (images, seconds) in {"real_floor": (real["validation"], 0.0), **sets}.items():
        value, interval = _mmd(scale, features, images, test, EnergyKernel())
        kid, kid_interval = _mmd(scale, features, images, test, PolynomialKernel())
        ratio = spectrum_ratio(
            _spectra(images, bins), spectra["test"], bins.frequency[bins.shown], np.random.default_rng(0)
        )
        mapped = scale(extract(iter(images), [features])[0])
        copying = float(np.median(nearest(mapped, train_rows)[1] / nearest(mapped, test)[1]))
        paired = None
        if len(images) == len(truth) and name != "real_floor":
            paired = float(np.sqrt(np.mean(((images - truth) ** 2).sum((1, 2, 3)) / centre**2)))
        figures |= {
            f"mmd_{name}": value,
            f"mmd_{name}_ci": interval,
            f"kid_{name}": kid,
            f"kid_{name}_ci": kid_interval,
            f"spectrum_db_{name}": ratio.rms,
            f"neighbour_ratio_{name}": copying,
            f"to_teacher_{name}": paired,
            f"seconds_{name}": seconds,
        }
        rows.append(
            [
                name.replace("_", " "),
                f"{value:.3f}",
                f"{interval[0]:.3f} to {interval[1]:.3f}",
                f"{kid:.3g}",
                f"{ratio.rms:.2f}",
                f"{copying:.2f}",
                "" if paired is None else f"{paired:.3f}",
                f"{seconds:.2f}" if seconds else "",
            ]
        )
    print(f"{count} heads a set against {len(test)} heads of the test people")
    table(["heads", "MMD", "95 %", "KID", "spectrum dB", "train/test", "to teacher", "s a head"], rows)
    if arguments.save:
        np.savez_compressed(
            arguments.save, test=real["test"][:4], **{name: images[:4] for name, (images, _) in sets.items()}
        )
    return figures


def _spectra(images: np.ndarray, bins: RadialBins) -> np.ndarray:
    return np.stack([log_power(bins.power(image))[bins.shown] for image in images])


def _mmd(scale, features, images: np.ndarray, test: np.ndarray, kernel) -> tuple[float, list[float]]:
    mapped = scale(extract(iter(images), [features])[0])
    found = compare(mapped, test, kernel, np.random.default_rng(0), permutations=0)
    return found.value, list(found.interval)


if __name__ == "__main__":
    main()
