"""Has the shipped T1 model learned anything, and how many evaluations does a head need?

    python benchmarks/t1_quality.py [--quick] [--json FILE] [--store cohort.h5] [--labels FOLDER]

Part 1, held-out denoising: mean squared error of E[x_0 | x_t] on heads of people that no training saw, by noise level,
beside three baselines: the state itself (identity, x_t / alpha), the mean training head, and the best linear denoiser
(Wiener: PCA-Gaussian on the same training heads; rank and shrinkage chosen for it on the validation people, separately
at each noise level, which favours it). `*_mid` pools t = 0.4, 0.5, 0.6 on the linear path.

Part 2, quality per evaluation: relative error of a solver's heads against a converged solution of the same model from the
same noise, || x - x* || / || x* - mean(x*) ||, root mean square over heads. MedForJ's programs clip, and one of them starts
late; what they converge to is their own matter, so their error here holds both their steps and their rules.

Part 3, sets: the distance of drawn heads to held-out heads, for the stochastic default and a deterministic solver, beside
the same distance from the validation people and from training heads.
Part 4, conditions: fluid in the middle of heads drawn with small and with large `ventricles_ml`, same seeds; and how well
that stand-in follows the true volume on held-out heads (correlation).

The store is what `radiata-t1 cohort LABELS --validation 07 14 --test 06 13` writes. Without --store, it is drawn anew from
--labels (or from `../shared/data/labels` beside the checkout); where there is neither, part 1 is left out (null).
Real scans, where they lie beside the checkout (four of three people, never in training), are denoised too: `real_*`, with
the least and largest error for interval. They are another world than the renderings the model knows.
Intervals: 95 % bootstrap over heads within people. Two test people are two people: the interval says nothing of a third.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.checkpoint import load_model
from radiata_core.covariances import LowRank, fit_low_rank
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LogSNRGrid
from radiata_t1.model.samplers import Sampler, SamplerName, start_state
from radiata_t1.model.weights import find_model

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MIDDLE = (0.4, 0.5, 0.6)
RANKS = (50, 150, 400, 1000)
SHRINKAGES = (0.0, 0.1, 0.3, 0.6)
SOLVERS = (
    ("err_dpmpp2m_20", SamplerName.DPMPP_2M, 20),
    ("err_unipc_20", SamplerName.UNIPC_2, 20),
    ("err_ddim_64", SamplerName.DDIM, 64),
    ("err_medforj2025_64", SamplerName.MEDFORJ_2025, 64),
    ("err_medforj2026_256", SamplerName.MEDFORJ_2026, 256),
)


def interval(values: np.ndarray, statistic=np.mean, groups: np.ndarray | None = None) -> list[float]:
    """95 % bootstrap interval over rows, resampled within groups."""
    rng = np.random.default_rng(0)
    groups = np.zeros(len(values), int) if groups is None else groups
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    draws = [statistic(values[np.concatenate([rng.choice(m, len(m)) for m in members])]) for _ in range(2000)]
    return [float(q) for q in np.quantile(draws, (0.025, 0.975))]


def model_named(name: str) -> NetworkDenoiser:
    denoiser = load_model(find_model(name)).denoiser.eval()
    assert isinstance(denoiser, NetworkDenoiser)
    denoiser.network.to(memory_format=torch.channels_last_3d)
    return denoiser


def store_of(arguments: argparse.Namespace, folder: Path) -> Path | None:
    if arguments.store is not None:
        return arguments.store
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "labels"
    labels = arguments.labels or (beside if beside.is_dir() else None)
    if labels is None:
        return None
    from radiata_t1.experiment.cohort import Cohort

    counts = {"train": 30, "heldout": 15} if arguments.quick else {"train": 180, "heldout": 60}
    Cohort(labels, folder / "cohort.h5", validation=("07", "14"), test=("06", "13"), **counts).run()
    return folder / "cohort.h5"


def heads(store, split: str, limit: int | None = None) -> tuple[torch.Tensor, np.ndarray]:
    """Images `(n, 1, x, y, z)` and people; `limit` heads a person."""
    index = store.indices(split)
    people = store.subjects[index]
    if limit is not None:
        keep = np.concatenate([np.flatnonzero(people == p)[:limit] for p in np.unique(people)])
        index, people = index[keep], people[keep]
    return torch.from_numpy(np.stack([store.array(i) for i in index]))[:, None], people


def errors(denoiser, x0: torch.Tensor, noise: torch.Tensor, t: float) -> np.ndarray:
    """Mean squared error of each head at time t of the linear path."""
    time_ = torch.tensor(t, dtype=torch.float64)
    parts = []
    with torch.inference_mode():
        for clean, eps in zip(x0.split(6), noise.split(6), strict=True):
            estimate = denoiser((1 - t) * clean + t * eps, time_)
            parts.append((estimate - clean).square().flatten(1).mean(1))
    return torch.cat(parts).double().numpy()


def denoising(store_path: Path, quick: bool) -> tuple[dict[str, float | list[float]], list[list[str]]]:
    from radiata_imaging.store import Store

    store = Store(store_path)
    train, _ = heads(store, "train")
    tuning, _ = heads(store, "validation", 6 if quick else 20)
    test, people = heads(store, "test", 6 if quick else 24)
    noise = noise_of(generators_of(range(len(test)), 7), test.shape[1:])
    tuning_noise = noise_of(generators_of(range(len(tuning)), 8), tuning.shape[1:])
    path = LinearPath()
    widest = fit_low_rank(train, min(max(RANKS), len(train) - 2))
    linear = {}
    for rank in (r for r in RANKS if r < len(train) - 1):
        for shrinkage in SHRINKAGES:
            linear[rank, shrinkage] = GaussianDenoiser(
                widest.mean, truncated(widest.covariance, rank, shrinkage), path
            )
    model = model_named("rflow-4mm")
    figures: dict[str, float | list[float]] = {}
    chosen_mid = next(iter(linear))
    rows, mid = [], {"model": [], "wiener": [], "identity": [], "mean": []}
    for t in TIMES:
        chosen = min(linear, key=lambda key: errors(linear[key], tuning, tuning_noise, t).mean())
        chosen_mid = chosen if t == 0.5 else chosen_mid
        by = {
            "model": errors(model, test, noise, t),
            "wiener": errors(linear[chosen], test, noise, t),
            "identity": errors(lambda x, _, t=t: x / (1 - t), test, noise, t),
            "mean": errors(lambda x, _: widest.mean.expand_as(x), test, noise, t),
        }
        rows.append(
            [f"{t:g}", *(f"{by[name].mean():.4f}" for name in by), f"rank {chosen[0]}, shrinkage {chosen[1]}"]
        )
        for name, values in by.items():
            figures[f"{name}_mse_t{t:g}"] = float(values.mean())
            if t in MIDDLE:
                mid[name].append(values)
    scans = real_heads()
    if scans is not None:
        figures["real_scans"] = len(scans)
        real_noise = noise_of(generators_of(range(len(scans)), 9), scans.shape[1:])
        for name, denoiser in (("model", model), ("wiener", linear[chosen_mid])):
            values = np.mean([errors(denoiser, scans, real_noise, t) for t in MIDDLE], 0)
            figures[f"real_{name}_mse_mid"] = float(values.mean())
            figures[f"real_{name}_mse_mid_ci"] = [float(values.min()), float(values.max())]
    for name, values in mid.items():
        pooled = np.mean(values, 0)
        figures[f"{name}_mse_mid"] = float(pooled.mean())
        figures[f"{name}_mse_mid_ci"] = interval(pooled, groups=people)
    figures["test_people"], figures["test_heads"] = len(np.unique(people)), len(people)
    return figures, rows


def real_heads() -> torch.Tensor | None:
    """The real scans beside the checkout, prepared as the command prepares them; None where they are absent."""
    from radiata_imaging.nifti import read_volume
    from radiata_imaging.preprocess import PreprocessSpec, prepare_volume

    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "t1"
    if not folder.is_dir():
        return None
    spec = PreprocessSpec(spacing=4.0, shape=(48, 56, 48))
    return torch.from_numpy(
        np.stack([prepare_volume(read_volume(path), spec).array for path in sorted(folder.glob("*.nii.gz"))])
    )[:, None]


def truncated(covariance: LowRank, rank: int, shrinkage: float) -> LowRank:
    """The covariance with its leading `rank` components, the rest in the floor, shrunk towards a multiple of 1."""
    elements = covariance.basis[0].numel()
    values, rest = covariance.eigenvalues[:rank], covariance.eigenvalues[rank:]
    floor = (float(rest.sum()) + float(covariance.floor) * (elements - len(covariance.eigenvalues))) / (
        elements - rank
    )
    average = (float(values.sum()) + floor * (elements - rank)) / elements
    keep = 1 - shrinkage
    return LowRank(
        covariance.basis[:rank], keep * values + shrinkage * average, keep * floor + shrinkage * average
    )


def solving(name: str, quick: bool) -> tuple[dict[str, float | list[float]], list[list[str]]]:
    """Errors against the converged solution of one model; MedForJ's programs where the model is on their path."""
    denoiser = model_named(name)
    event = _grid(denoiser)
    seeds = range(2 if quick else 4)
    noise = noise_of(generators_of(seeds, 0), (1, *event))
    figures: dict[str, float | list[float]] = {}
    rows = []
    with torch.inference_mode():
        state = start_state(denoiser, noise)
        fine = 60 if quick else 200
        truth = integrate(denoiser, state, unipc_2(LogSNRGrid()(fine, denoiser.path), denoiser.path))
        spread = (truth - truth.flatten(1).mean(1).view(-1, 1, 1, 1, 1)).flatten(1).norm(dim=1)
        for key, solver, steps in SOLVERS:
            if name.startswith("rflow") and steps > 20:
                continue  # MedForJ's programs are compared on the path they were written for
            sampler = Sampler(solver, steps)
            start = time.perf_counter()
            given = sampler(denoiser, list(seeds), (1, *event))
            seconds = time.perf_counter() - start
            error = ((given - truth).flatten(1).norm(dim=1) / spread).double().numpy()
            prefix = "" if name.startswith("velocity") else "rflow_"
            rms = lambda values: float(np.sqrt(np.mean(np.square(values))))  # noqa: E731
            figures[prefix + key], figures[f"{prefix}{key}_ci"] = rms(error), interval(error, rms)
            rows.append(
                [name, solver.value, str(steps), f"{rms(error):.4f}", f"{seconds / len(seeds):.1f} s"]
            )
    return figures, rows


def central_fluid(images: np.ndarray) -> np.ndarray:
    """Millilitres of fluid-like voxels (below -0.35) in a central ellipsoid: a stand-in for ventricular volume, `(n,)`."""
    axes = [(np.arange(n) - (n - 1) / 2) * 4.0 for n in images.shape[-3:]]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    centre = (x / 36) ** 2 + (y / 52) ** 2 + ((z - 4) / 32) ** 2 < 1
    return (images[..., centre] < -0.35).sum(-1) * 0.064


def conditioning(store_path: Path | None, quick: bool) -> dict[str, float | list[float]]:
    """Does `ventricles_ml` do what it says? The same seeds at 15 and at 70 ml; the stand-in is judged on held-out heads."""
    from radiata_imaging.store import Store
    from radiata_t1.data.covariates import CovariateScale

    loaded = load_model(find_model("rflow-4mm"))
    scale = CovariateScale.from_metadata(loaded.metadata)
    denoiser = model_named("rflow-4mm")
    seeds = list(range(4 if quick else 8))
    figures: dict[str, float | list[float]] = {}
    drawn = {}
    with torch.inference_mode():
        for millilitres in (15.0, 70.0):
            row = torch.from_numpy(scale.row({"ventricles_ml": millilitres})).expand(len(seeds), -1)
            heads_ = Sampler(SamplerName.SDE_DPMPP_2M, 30)(
                denoiser, seeds, (1, *_grid(denoiser)), covariates=row
            )
            drawn[millilitres] = central_fluid(heads_[:, 0].numpy())
            figures[f"fluid_ml_at_{millilitres:g}"] = float(drawn[millilitres].mean())
    difference = drawn[70.0] - drawn[15.0]
    figures["fluid_ml_difference"] = float(difference.mean())
    figures["fluid_ml_difference_ci"] = interval(difference)
    if store_path is not None:
        store = Store(store_path)
        index = store.indices("test")
        truth = store.covariates[index, store.covariate_names.index("ventricles_ml")]
        proxy = central_fluid(np.stack([store.array(i) for i in index]))
        figures["fluid_truth_correlation"] = float(np.corrcoef(truth, proxy)[0, 1])
    return figures


def sets(store_path: Path, quick: bool) -> tuple[dict[str, float | list[float]], list[list[str]]]:
    """Heads of two samplers against held-out heads: MMD on random convolutions (energy kernel), beside real against real."""
    from radiata_imaging.features import RandomConvFeatures, Standardised, extract
    from radiata_imaging.store import Store
    from radiata_imaging.two_sample import EnergyKernel, compare

    store = Store(store_path)
    count = 8 if quick else 24
    denoiser = model_named("rflow-4mm")
    features = RandomConvFeatures()
    train = extract((store.array(i) for i in store.indices("train")[:: 30 if quick else 10]), [features])[0]
    scale = Standardised.fit(train)
    held = {split: store.indices(split)[:: 120 // count][:count] for split in ("validation", "test")}
    real = {
        split: scale(extract((store.array(i) for i in index), [features])[0]) for split, index in held.items()
    }
    groups = {"validation people (floor)": real["validation"], "training heads": scale(train)[:count]}
    for sampler in (Sampler(SamplerName.SDE_DPMPP_2M, 60), Sampler(SamplerName.DPMPP_2M, 20)):
        drawn = []
        with torch.inference_mode():
            for first in range(0, count, 4):
                drawn += list(
                    sampler(denoiser, list(range(first, first + 4)), (1, *_grid(denoiser)))[:, 0].numpy()
                )
        rows = scale(extract((head.clip(-1, 1) for head in drawn), [features])[0])
        groups[f"{sampler.name.value} {sampler.count}"] = rows
    figures: dict[str, float | list[float]] = {"set_heads": count}
    lines = []
    for name, values in groups.items():
        found = compare(values, real["test"], EnergyKernel(), np.random.default_rng(0))
        key = "mmd_" + name.split(" (")[0].replace(" ", "_").replace("-", "_")
        figures[key], figures[f"{key}_ci"] = found.value, list(found.interval)
        low, high = found.interval
        lines.append([name, f"{found.value:.3f}", f"{low:.3f} to {high:.3f}"])
    return figures, lines


def _grid(denoiser: NetworkDenoiser) -> tuple[int, ...]:
    return tuple(denoiser.network.options["shape"])


def table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer heads and seeds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--store", type=Path, help="store of the cohort")
    parser.add_argument("--labels", type=Path, help="label maps to draw the cohort from")
    arguments = parser.parse_args()
    figures: dict[str, float | list[float] | None] = {"wiener_mse_mid": None, "model_mse_mid": None}
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(arguments, Path(folder))
        if store is None:
            print("no store and no label maps: held-out denoising is left out")
        else:
            found, rows = denoising(store, arguments.quick)
            figures |= found
            if "real_model_mse_mid" in found:
                model, linear = (f"{found[f'real_{name}_mse_mid']:.4f}" for name in ("model", "wiener"))
                print(f"{found['real_scans']} real scans at middle noise: model {model}, wiener {linear}")
            print(
                f"held-out denoising, {found['test_heads']} heads of {found['test_people']} people, mean squared error"
            )
            table(["t", "model", "wiener", "identity", "mean head", "wiener chosen"], rows)
        if store is not None:
            found, rows = sets(store, arguments.quick)
            figures |= found
            print(
                f"distance of {found['set_heads']} heads to as many of the test people (two people: read it as an order)"
            )
            table(["heads", "MMD, random convolutions", "95 %"], rows)
        found = conditioning(store, arguments.quick)
        figures |= found
        low, high = (f"{found[f'fluid_ml_at_{ml}']:.1f}" for ml in (15, 70))
        print(
            f"central fluid of heads drawn with ventricles_ml 15: {low} ml, with 70: {high} ml (same seeds)\n"
        )
    rows = []
    for name in ("velocity-4mm", "rflow-4mm"):
        found, more = solving(name, arguments.quick)
        figures |= found
        rows += more
    print("relative error against the converged solution of the same model")
    table(["model", "solver", "evaluations", "error", "time a head"], rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
