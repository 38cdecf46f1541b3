"""Segmentation of whole heads at 1 mm: synthetic test people of any contrast, and real heads beside an independent network.

synthetic    two scans of every test person with intensities drawn at random (and as T1, T2, FLAIR, and of 4 mm slices): mean
             Dice over the seven tissues.
calibration  one temperature, fitted on a scan of each validation person; expected calibration error of the chosen class over
             the voxels of the head, before and after.
real         T1 heads, none of which was trained on, against MeshNet's white matter (brainchop, trained on other data).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.seeds import generator_of
from radiata_imaging.meshnet import on_grid_of, read_meshnet, segment
from radiata_imaging.nifti import read_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.structures import CODES, TISSUES
from radiata_medical.data.synthesis import ScanSpec, SyntheticScan, head_of, synthesise
from radiata_medical.experiment.segmenting_tables import structures
from radiata_medical.model.reliability import fit_temperature, tempered, top_label_reliability
from radiata_medical.model.segmenter import SegmenterOptions, segment_volume

SHAPE = (176, 224, 224)
KINDS: dict[str, dict[str, Any]] = {
    "random": {"contrasts": (("random", 1.0),)},
    "random_4mm": {"contrasts": (("random", 1.0),), "thickness": (4.0, 4.0)},
    "t1": {"contrasts": (("t1", 1.0),)},
    "t2": {"contrasts": (("t2", 1.0),)},
    "flair": {"contrasts": (("flair", 1.0),)},
}


def scan_of(store: LabelMaps, name: str, kind: str, seed: int) -> SyntheticScan:
    """A whole head at 1 mm with bias and noise."""
    head = head_of(store.read(name).codes)
    head = dataclasses.replace(head, centres=head.centres.mean(0, keepdim=True))
    spec = ScanSpec(
        shape=SHAPE, rotation=8.0, inside=1.0, bias=(0.0, 0.25), noise=(0.01, 0.05), **KINDS[kind]
    )
    return synthesise(head, spec, generator_of(seed, 79))


def dice_of_tissues(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of each tissue; both are codes."""
    scores = {}
    for name, codes in TISSUES.items():
        a, b = np.isin(found, codes), np.isin(truth, codes)
        scores[name] = 2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum()))
    return scores


def synthetic(network: torch.nn.Module, store: LabelMaps, kinds: list[str], repeats: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    affine = centred_affine(SHAPE, 1.0, "LPS")
    for kind in kinds:
        rows = []
        for number, name in enumerate(store.of_split("test")):
            for repeat in range(repeats if kind == "random" else 1):
                scan = scan_of(store, name, kind, 100 + 10 * number + repeat)
                image = IntensityScale.of(scan.image.numpy()).to_prior(scan.image.numpy())
                found = segment_volume(network, Volume(image, affine), structures().labelling)
                scores = dice_of_tissues(found.codes, np.asarray(CODES)[scan.labels.numpy()])
                rows.append(
                    scores | {"mean": float(np.mean(list(scores.values()))), "quality": found.quality}
                )
        means = [row["mean"] for row in rows]
        figures[kind] = {
            "rows": rows,
            "mean": float(np.mean(means)),
            "least": min(means),
            "most": max(means),
            "scans": len(rows),
        }
        parts = ", ".join(f"{t} {np.mean([r[t] for r in rows]):.2f}" for t in TISSUES)
        print(
            f"{kind:11} Dice {np.mean(means):.3f} [{min(means):.3f}, {max(means):.3f}], {len(rows)} scans: {parts}",
            flush=True,
        )
    return figures


@torch.no_grad()
def _logits(
    network: torch.nn.Module, scan: SyntheticScan, voxels: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and truth of some voxels of the head in the middle window, (channels, voxels) and (voxels,)."""
    image = scan.image.numpy()
    image = IntensityScale.of(image).to_prior(image)
    middle = tuple(slice((n - 128) // 2, (n + 128) // 2) for n in SHAPE)
    window = torch.from_numpy(np.ascontiguousarray(image[middle]))[None, None]
    logits: Tensor = network(window)[0].flatten(1)
    truth = scan.labels[middle].flatten().long()
    inside = torch.nonzero(truth > 0)[:, 0]
    chosen = inside[torch.randperm(len(inside), generator=generator_of(seed, 80))[:voxels]]
    return logits[:, chosen].double().numpy(), truth[chosen].numpy()


def calibration(network: torch.nn.Module, store: LabelMaps, voxels: int = 20_000) -> dict[str, Any]:
    def gathered(split: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            _logits(network, scan_of(store, name, "random", seed + number), voxels, seed + number)
            for number, name in enumerate(store.of_split(split))
        ]
        return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts])

    temperature = fit_temperature(*gathered("validation", 300)).temperature
    logits, truth = gathered("test", 400)
    before = top_label_reliability(tempered(logits, 1.0), truth).expected_error
    after = top_label_reliability(tempered(logits, temperature), truth).expected_error
    print(
        f"temperature {temperature:.3f}: expected calibration error {before:.4f} before, {after:.4f} after",
        flush=True,
    )
    return {"temperature": temperature, "ece_before": before, "ece": after, "voxels": len(truth)}


def real(network: torch.nn.Module, scans: list[Path], judge: Path, passes: int = 1) -> dict[str, Any]:
    """Dice of white (and of grey) matter against MeshNet's three classes."""
    model = read_meshnet(judge)
    figures: dict[str, Any] = {}
    # What MeshNet calls white includes the brain stem, as FreeSurfer's maps of tissue do.
    white = TISSUES["white matter"] + TISSUES["cerebellar white matter"] + TISSUES["brain stem"]
    grey = TISSUES["cortex"] + TISSUES["cerebellar cortex"]
    for path in scans:
        volume = read_volume(path)
        theirs = on_grid_of(segment(volume, model, margin=16), volume).array
        scaled = IntensityScale.of(volume.array).to_prior(volume.array)
        options = SegmenterOptions(passes=passes)
        ours = segment_volume(network, Volume(scaled, volume.affine), structures().labelling, options)
        names = [name.lower() for name in model.classes]
        row = {"quality": ours.quality, "intracranial_ml": ours.intracranial_ml}
        for tissue, codes in (("white", white), ("grey", grey)):
            number = next(i for i, name in enumerate(names) if tissue in name)
            a, b = np.isin(ours.codes, codes), theirs == number
            row[tissue] = 2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum()))
        figures[path.name.split(".")[0]] = row
        print(f"{path.name:32} " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
    return figures


def segmentation_figures(
    network: torch.nn.Module,
    store: LabelMaps,
    scans: list[Path],
    judge: Path | None,
    kinds: list[str],
    quick: bool,
) -> dict[str, Any]:
    """Everything of this page."""
    figures: dict[str, Any] = {"calibration": calibration(network, store, 2000 if quick else 20_000)}
    figures["synthetic"] = synthetic(network, store, ["random"] if quick else kinds, 1 if quick else 2)
    if judge is not None:
        figures["real"] = real(network, scans, judge)
    return figures
