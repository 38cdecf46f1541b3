"""The parts of an evaluation that are not one distance: copies, diversity, regions, figures, and putting them on disk."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.runs import atomic_path, write_json
from radiata_imaging.diversity import pairwise_distance, pairwise_ssim, precision_recall
from radiata_imaging.evaluation import Finding, Instruments, Measured
from radiata_imaging.memorisation import memorisation
from radiata_imaging.plots import NumberedFigure, grid, histogram, save, spectrum
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.region_tables import RegionTable
from radiata_imaging.regions import compare_regions, sliced_wasserstein
from radiata_imaging.two_sample import people_means
from radiata_imaging.volume import Volume, centred_affine
from radiata_t1.data.heads import Heads

__all__ = ["copies", "figures", "keep", "regions", "variety"]

_SSIM_VOLUMES = 20  # 190 pairs


def copies(
    sets: Sequence[Measured],
    control: Measured,
    tables: Mapping[str, Sequence[np.ndarray]],
    instruments: Instruments,
    names: Sequence[str],
    train_names: Sequence[str],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Nearest-training-neighbour analysis in voxels and in the features of the random network.

    Args:
        sets: Training, synthetic, held-out.
        control: Near-copies of training volumes.
        tables: Rows `[train, synthetic, held_out, control]` by feature name.
        instruments: That made them.
        names: Of the synthetic volumes.
        train_names: Of the training volumes.
        rng: Draws subsets of people.
    """
    train, synthetic, held_out = sets
    spaces: dict[str, Sequence[np.ndarray]] = {
        instruments.pooled.name: [train.pooled, synthetic.pooled, held_out.pooled, control.pooled],
        # Components fitted on the training set put it far from everybody else; histograms do not see place.
        **{name: rows for name, rows in tables.items() if name.startswith(instruments.network.name)},
    }
    results = []
    for space, (of_train, of_synthetic, of_held_out, of_control) in spaces.items():
        if len(of_held_out) < 3:
            return []
        found = memorisation(
            of_synthetic, of_train, of_held_out, of_control, rng,
            train_people=train.people, held_out_people=held_out.people,
        )  # fmt: skip
        order = np.argsort(found.ratio)[:5]
        results.append(
            {
                "features": space,
                "median_ratio": float(np.median(found.ratio)),
                "median_ratio_real": float(np.median(found.real_ratio)),
                "threshold": found.threshold,
                "flagged": int(found.flagged.sum()),
                "n": len(found.ratio),
                "expected_by_chance": found.alpha * len(found.ratio),
                "control_detected": found.control_detected,
                "usable": found.usable,
                "nearer_to_train": found.nearer_to_train,
                "flagged_volumes": [names[int(i)] for i in np.flatnonzero(found.flagged)][:50],
                "nearest": [
                    {
                        "volume": names[i],
                        "training": train_names[int(found.nearest_train[i])],
                        "ratio": float(found.ratio[i]),
                    }
                    for i in order
                ],
            }
        )
    return results


def variety(
    synthetic: Measured,
    held_out: Measured,
    tables: Mapping[str, Sequence[np.ndarray]],
    instruments: Instruments,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Pairwise SSIM and distance, precision and recall: synthetic beside real different people."""
    shape = tuple(-(-n // instruments.pooled.factor) for n in instruments.pooled.shape)
    rows: list[dict[str, Any]] = []
    one_each = _one_each(held_out.people, len(held_out))
    if min(shape) >= 11 and len(one_each) >= 2:
        chosen = np.unique(
            np.rint(np.linspace(0, len(synthetic) - 1, min(len(synthetic), _SSIM_VOLUMES))).astype(int)
        )
        a, b = (
            pairwise_ssim([volume.reshape(shape) for volume in volumes], rng)
            for volumes in (synthetic.pooled[chosen], held_out.pooled[one_each[:_SSIM_VOLUMES]])
        )
        rows.append(_pair(f"mean pairwise SSIM ({instruments.pooled.name}; higher is less diverse)", a, b))
    name, (_, x, y) = next(iter(tables.items()))
    distances = pairwise_distance(x, rng), pairwise_distance(y, rng, blocks=held_out.people)
    rows.append(_pair(f"mean pairwise distance ({name})", *distances))
    if len(one_each) >= 2:
        real = y[one_each]
        size = min(len(x), len(real))
        found = precision_recall(x[rng.permutation(len(x))[:size]], real[rng.permutation(len(real))[:size]])
        n = f"{size} each, k = {found.k}"
        rows += [
            {"measure": f"precision ({n})", "value": found.precision, "n": size},
            {"measure": f"recall ({n})", "value": found.recall, "n": size},
        ]
    return rows


def _one_each(people: Sequence[str] | None, n: int) -> np.ndarray:
    """First volume of each person."""
    return (
        np.arange(n) if people is None else np.array([people.index(name) for name in dict.fromkeys(people)])
    )


def _pair(measure: str, synthetic: Any, real: Any) -> dict[str, Any]:
    return {
        "measure": measure, "value": synthetic.mean, "interval": synthetic.interval, "n": synthetic.n,
        "real": real.mean, "real_interval": real.interval, "n_real": real.n,
    }  # fmt: skip


def regions(
    pair: tuple[RegionTable, RegionTable] | None, rng: np.random.Generator, permutations: int
) -> dict[str, Any]:
    """Per-region permutation tests with Holm's correction and the sliced Wasserstein distance; empty without tables.

    Rows of one subject in the reference are one person.
    """
    if pair is None:
        return {}
    synthetic, real = pair
    people = list(real.subjects)
    shared = synthetic.shared_with(real)
    tests = compare_regions(synthetic, real, rng, blocks_y=people, permutations=permutations)
    of_people = people_means(real.columns(shared), people)
    whole = sliced_wasserstein(synthetic.columns(shared), of_people, rng, permutations=min(permutations, 199))
    m = len(of_people)
    halves = [rng.permutation(m) for _ in range(20)] if m >= 4 else []
    scale = np.where(of_people.std(0) > 0, of_people.std(0), 1.0)
    floors = [
        sliced_wasserstein(
            of_people[h[: m // 2]] / scale, of_people[h[m // 2 :]] / scale, rng, permutations=0
        ).value
        for h in halves
    ]
    bounds = (
        tuple(float(v) for v in np.percentile(floors, [2.5, 97.5]))
        if floors
        else (float("nan"), float("nan"))
    )
    return {
        "tests": [asdict(test) for test in tests],
        "sliced_wasserstein": {
            **asdict(whole),
            "floor": float(np.mean(floors)) if floors else float("nan"),
            "floor_interval": bounds,
            "regions": len(shared),
        },
        "n_synthetic": len(synthetic.subjects),
        "n_people": m,
    }


def figures(
    sets: Sequence[Measured], synthetic: Heads, held_out: Heads, instruments: Instruments
) -> dict[str, NumberedFigure]:
    """Histogram, spectrum, and a grid of synthetic beside real heads, by file name."""
    _, of_synthetic, of_held_out = sets
    shown = instruments.shells.shown
    edge = instruments.shells.spacing[0]
    affine = centred_affine(synthetic.shape, edge, PreprocessSpec().axcodes)

    def pair(field: str) -> dict[str, np.ndarray]:
        real = people_means(getattr(of_held_out, field), of_held_out.people)
        return {"synthetic": getattr(of_synthetic, field), held_out.name: real}

    heads = [(f"synthetic {i + 1}", synthetic.read(i)) for i in range(min(4, len(synthetic)))]
    first = _one_each(held_out.people, len(held_out))[:4]
    heads += [(f"real {i + 1}", held_out.read(int(row))) for i, row in enumerate(first)]
    volumes = [Volume(array, affine) for _, array in heads]
    return {
        "heads": grid(
            volumes, [n for n, _ in heads], synthetic=True, limits=(-1.0, 1.0), unit="network intensity"
        ),
        "intensities": histogram(
            instruments.intensities.centres, pair("intensities"), unit="network intensity, [-1, 1]"
        ),
        "spectrum": spectrum(instruments.shells.frequency[shown], pair("spectrum")),
    }


def keep(
    folder: Path,
    result: dict[str, Any],
    drawn: Mapping[str, NumberedFigure],
    tables: Mapping[str, Sequence[np.ndarray]],
    run: Any,
) -> None:
    """Write everything: JSON, CSV, features, figures, and the page made from them."""
    from radiata_core.runs import provenance
    from radiata_imaging.report import Image, Provenance, Section, write_report
    from radiata_t1.experiment.pages import CAPTIONS, evaluation_sections

    findings: list[Finding] = result["findings"]
    plain = result | {"findings": [asdict(finding) for finding in findings]}
    with (
        atomic_path(folder / "findings.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(asdict(findings[0])))
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in findings)
    arrays = {
        f"{which}_{i}": rows
        for i, three in enumerate(tables.values())
        for which, rows in zip(("train", "synthetic", "held_out"), three, strict=True)
    }
    with atomic_path(folder / "features.npz") as temporary:
        np.savez_compressed(temporary, names=np.array(list(tables)), **arrays)  # type: ignore[arg-type]
    pictures = [Image(save(figure, folder / f"{name}.png"), CAPTIONS[name]) for name, figure in drawn.items()]
    write_json(folder / "evaluation.json", plain)
    sections = evaluation_sections(plain)
    sections.insert(1, Section("Pictures", pictures))
    facts = {key: run.record.get(key) for key in ("command", "options", "seed", "data")} | provenance()
    sections.append(Section("Provenance", [Provenance(facts)]))
    write_report(folder / "evaluation.html", "Evaluation of synthetic T1 heads", sections, synthetic=True)
