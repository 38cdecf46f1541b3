"""One case of `anomaly`: the pseudo-healthy image, scores on a healthy scale, clusters, files.

head_pseudohealthy    the image the prior expects, units of the scan
head_zmap             (scan - pseudo-healthy) in healthy standard deviations, signed
head_anomaly          the score that was thresholded
head_clusters         clusters 1, 2, ... by falling volume
head_clusters.csv     volume, peak, place, side, structure of each
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radiata_core.files import atomic_path
from radiata_core.tiling import TiledDenoiser
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.scans import Case, output_path
from radiata_medical.data.structures import CONTRAST, STRUCTURES
from radiata_medical.experiment.anatomy import TISSUE_COUNT, Anatomy
from radiata_medical.experiment.outputs import Facts, write_image, write_labels
from radiata_medical.model.anomaly_calibration import AnomalyCalibration
from radiata_medical.model.anomaly_maps import Cluster, find_clusters
from radiata_medical.model.pseudo_healthy import Evidence, HealthyModel
from radiata_medical.model.restorer import Restorer
from radiata_medical.model.translation import tissue_means

__all__ = ["Asked", "evidence_of", "seek", "write_findings"]


@dataclass(frozen=True)
class Asked:
    """How the prior is asked.

    Attributes:
        level: kappa, units of white.
        draws: Noises a slice.
        features: Compare the prior's activations too (slices only).
        tile: Voxels an axis of a block, for volumes.
        batch_size: Slices at once.
        seed: Of the noise.
    """

    level: float
    draws: int
    features: bool
    tile: int
    batch_size: int
    seed: int


def evidence_of(
    scan: Volume, scale: IntensityScale, anatomy: Anatomy, restorer: Restorer, asked: Asked
) -> Evidence:
    """Evidence of a whole scan, axes towards L, P, S; outside of the slices with brain the image is its own counterpart.

    Raises:
        InputError: no brain.
    """
    upright = reorient(Volume(scale.to_prior(scan.array), scan.affine)).array
    brain = _upright(anatomy.brain(), scan).array > 0.5
    tissues = np.rint(_upright(anatomy.tissues, scan).array).astype(np.int64)
    image = torch.from_numpy(np.ascontiguousarray(upright))
    means = tissue_means(image[None, None], torch.from_numpy(tissues)[None], TISSUE_COUNT)
    covariates = means[:, 1 : 1 + len(CONTRAST)].to(restorer.device)
    if restorer.dims == 3:
        model = HealthyModel(TiledDenoiser(restorer.prior, asked.tile, 16), asked.level, asked.draws)
        healthy = model.healthy(image[None, None].to(restorer.device), (asked.seed,), covariates=covariates)
        return Evidence(upright, healthy[0, 0].cpu().numpy(), brain)
    return _by_slices(image, brain, covariates, restorer, asked)


def _by_slices(
    image: torch.Tensor, brain: np.ndarray, covariates: torch.Tensor, restorer: Restorer, asked: Asked
) -> Evidence:
    """Slices across the last axis, padded to what the network takes; a slice has its own noise."""
    multiple = int(restorer.prior.network.multiple)
    size = [-(-n // multiple) * multiple for n in image.shape[:2]]
    own = (slice(None), slice(0, image.shape[0]), slice(0, image.shape[1]))
    inside = torch.from_numpy(brain)
    model = HealthyModel(
        restorer.prior, asked.level, asked.draws, feature_levels=(0.3,) if asked.features else ()
    )
    healthy = image.numpy().copy()
    features = np.zeros_like(healthy) if asked.features else None
    occupied = np.flatnonzero(brain.any((0, 1))).tolist()
    for first in range(0, len(occupied), asked.batch_size):
        rows = occupied[first : first + asked.batch_size]
        padded = torch.zeros(len(rows), 1, *size)
        masks = torch.zeros(len(rows), *size, dtype=torch.bool)
        padded[:, 0][own] = image[:, :, rows].movedim(-1, 0)
        masks[own] = inside[:, :, rows].movedim(-1, 0)
        seeds = [asked.seed * 100_000 + row for row in rows]
        found = model.evidence(
            padded.to(restorer.device), masks, seeds, covariates=covariates.expand(len(rows), -1)
        )
        for row, evidence in zip(rows, found, strict=True):
            healthy[:, :, row] = evidence.healthy[own[1:]]
            if features is not None and evidence.features is not None:
                features[:, :, row] = evidence.features[own[1:]]
    return Evidence(image.numpy(), healthy, brain, features)


def seek(
    evidence: Evidence,
    calibration: AnomalyCalibration,
    score: str,
    false_positives: float,
    smallest_ml: float,
    affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float, tuple[Cluster, ...]]:
    """Score map, clusters as labels, threshold, table of clusters, on the grid of the evidence, whose affine is given."""
    found = calibration.scores(evidence)[score]
    threshold = calibration.threshold(score, false_positives)
    labels, clusters = find_clusters(found, evidence.mask, threshold, affine, smallest_ml)
    return found, labels, threshold, clusters


def write_findings(
    out: Path,
    case: Case,
    scan: Volume,
    scale: IntensityScale,
    anatomy: Anatomy,
    evidence: Evidence,
    maps: tuple[np.ndarray, np.ndarray, np.ndarray],
    clusters: Sequence[Cluster],
    facts: Facts,
    began: float,
) -> Path:
    """Write the files of a case, the map of clusters last; returns where that is.

    Args:
        out: Folder.
        case: Whose.
        scan: Its grid.
        scale: Of the scan.
        anatomy: For the structures clusters lie in.
        evidence: With the pseudo-healthy image.
        maps: z, score and labels on the grid of the evidence.
        clusters: The table.
        facts: Command, sources, models, options, figures.
        began: `time.monotonic()` at the start.
    """
    upright = reorient(Volume(np.zeros(scan.shape, np.float32), scan.affine)).affine
    told = replace(
        facts,
        figures={**facts.figures, "Clusters": len(clusters), "Seconds": round(time.monotonic() - began, 2)},
    )

    def back(array: np.ndarray) -> np.ndarray:
        return reorient(Volume(array.astype(np.float32), upright), scan.axcodes).array

    z, score, labels = maps
    labels_there = np.rint(back(labels)).astype(np.int64)
    files: dict[str, tuple[np.ndarray, str]] = {
        "pseudohealthy": (scale.to_file(back(evidence.healthy)), "pseudo-healthy, research only"),
        "zmap": (back(z), "z of scan - pseudo-healthy, research only"),
        "anomaly": (back(score), "anomaly score, research only"),
    }
    for word, (array, what) in files.items():
        write_image(
            output_path(out, case, word),
            array,
            scan,
            replace(told, what=what, generated=word == "pseudohealthy"),
        )
    _write_table(output_path(out, case, "clusters", ".csv"), clusters, labels_there, anatomy)
    names: dict[int, tuple[str, tuple[int, int, int]]] = {
        n: (f"cluster {n}", (220, 60, 40)) for n in range(1, len(clusters) + 1)
    }
    last = replace(told, what="anomaly clusters, research only", generated=False)
    return write_labels(output_path(out, case, "clusters"), labels_there, scan, last, names)


def _write_table(path: Path, clusters: Sequence[Cluster], labels: np.ndarray, anatomy: Anatomy) -> None:
    columns = ("cluster", "size_ml", "peak", "x_mm", "y_mm", "z_mm", "side", "structure", "voxels")
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number, cluster in enumerate(clusters, start=1):
            inside = np.bincount(anatomy.channels[labels == number], minlength=len(STRUCTURES))
            row: list[Any] = [number, f"{cluster.size_ml:.4g}", f"{cluster.peak:.4g}"]
            row += [f"{value:.1f}" for value in cluster.centre_mm]
            writer.writerow([*row, cluster.side, STRUCTURES[int(inside.argmax())].name, cluster.voxels])


def _upright(array: np.ndarray, scan: Volume) -> Volume:
    return reorient(Volume(array.astype(np.float32), scan.affine))
