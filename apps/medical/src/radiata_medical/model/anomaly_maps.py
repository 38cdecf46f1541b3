r"""Clusters of a map of strangeness, and how well such maps find lesions whose place is known.

A map above its threshold falls into connected clusters; each is given with its volume, its peak, its middle in the world and
its side. How good the ranking of voxels is, whatever the threshold, is the average precision within the brain,

    AP = sum over voxels of the lesion of precision at their rank / their number,

whose value for a map that knows nothing is the share of lesion voxels (`chance`). With lesions of a hundredth of the brain
an AP of .1 is ten times chance, and still means nine false voxels for a true one at most ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_medical.model.anomaly_calibration import AnomalyCalibration, fit_calibration
from radiata_medical.model.pseudo_healthy import Evidence, HealthyModel

__all__ = ["AnomalyScore", "Cluster", "anomaly_scores", "average_precision", "find_clusters", "gathered"]


@dataclass(frozen=True)
class Cluster:
    """One connected cluster.

    Attributes:
        size_ml: Its volume.
        peak: Largest score in it.
        centre_mm: Mean of its voxels' places in the world, RAS.
        side: "left", "right", or "middle" within 5 mm of the middle of the brain.
        voxels: Of its mask.
    """

    size_ml: float
    peak: float
    centre_mm: tuple[float, float, float]
    side: str
    voxels: int


@dataclass(frozen=True)
class AnomalyScore:
    """How a score finds lesions.

    Attributes:
        average_precision: Over the voxels of all brains together.
        chance: Share of lesion voxels: the average precision of a map that knows nothing.
        cases: Average precision of each image, in their order; NaN without a lesion.
    """

    average_precision: float
    chance: float
    cases: tuple[float, ...]


def find_clusters(
    score: np.ndarray, mask: np.ndarray, threshold: float, affine: np.ndarray, smallest_ml: float = 0.0
) -> tuple[np.ndarray, tuple[Cluster, ...]]:
    """The clusters above a threshold, as labels 1, 2, … by falling volume, int32, and as a table in that order.

    Args:
        score: (x, y, z).
        mask: Where it counts, bool.
        threshold: A voxel belongs if its score is greater.
        affine: Voxel to world, RAS, mm.
        smallest_ml: Smaller clusters are left out.
    """
    from scipy.ndimage import label

    pieces, count = label((score > threshold) & mask, np.ones((3,) * score.ndim))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    order = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] * voxel_ml >= smallest_ml]
    middle = float((np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])[:, 0].mean()) if mask.any() else 0.0
    labels, table = np.zeros(score.shape, np.int32), []
    for number, i in enumerate(order, start=1):
        inside = pieces == i + 1
        labels[inside] = number
        x, y, z = (np.argwhere(inside).mean(0) @ affine[:3, :3].T + affine[:3, 3]).tolist()
        side = "middle" if abs(x - middle) < 5 else "left" if x < middle else "right"
        table.append(
            Cluster(float(sizes[i] * voxel_ml), float(score[inside].max()), (x, y, z), side, int(sizes[i]))
        )
    return labels, tuple(table)


def average_precision(score: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Average precision of a map within a mask; NaN without a true voxel. Ties count as drawn in any order."""
    from sklearn.metrics import average_precision_score

    inside = truth[mask].astype(bool)
    return float(average_precision_score(inside, score[mask])) if inside.any() else float("nan")


def gathered(
    model: HealthyModel,
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    batch_size: int = 8,
    first_seed: int = 0,
    conditions: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Evidence, ...]:
    """Evidence of many images, a batch at a time; image i draws from seed first_seed + i.

    Args:
        model: How the prior is asked.
        images: (images, 1, *grid), units of the prior.
        masks: (images, *grid), bool.
        batch_size: Images at once.
        first_seed: Seed of the first.
        conditions: Name -> a row an image, for the prior.
    """
    found: list[Evidence] = []
    for start in range(0, len(images), batch_size):
        part = slice(start, min(start + batch_size, len(images)))
        rows: dict[str, Any] = {name: value[part] for name, value in (conditions or {}).items()}
        seeds = range(first_seed + part.start, first_seed + part.stop)
        found += model.evidence(images[part], masks[part], seeds, **rows)
    return tuple(found)


def anomaly_scores(
    model: HealthyModel,
    images: torch.Tensor,
    lesions: torch.Tensor,
    brains: torch.Tensor,
    healthy: torch.Tensor,
    healthy_brains: torch.Tensor,
    *,
    batch_size: int = 8,
    seed: int = 0,
    conditions: Mapping[str, torch.Tensor] | None = None,
    healthy_conditions: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, AnomalyScore], AnomalyCalibration]:
    """How well each score finds known lesions, calibrated on other, healthy images: the rows of a table.

    Besides the scores of `AnomalyCalibration` there are two that need no prior: `blur`, |x - x blurred|, and `median`,
    the distance from the median of the brain, each of which a method has to beat.

    Args:
        model: How the prior is asked.
        images: With lesions, (images, 1, *grid), units of the prior.
        lesions: Where they are, bool (images, *grid).
        brains: Where it counts, bool (images, *grid).
        healthy: Of other people, (others, 1, *grid).
        healthy_brains: Bool (others, *grid).
        batch_size: Images at once.
        seed: Of the first image; healthy ones draw from other seeds.
        conditions: For the prior, a row an image.
        healthy_conditions: The same for the healthy ones.

    Raises:
        InputError: no lesion within a brain.
    """
    truth = [row.cpu().numpy().astype(bool) for row in lesions]
    if not bool((lesions.bool() & brains.bool()).any()):
        raise InputError("expected lesions within the brains; got none. Check the masks.")
    known = gathered(
        model,
        healthy,
        healthy_brains,
        batch_size=batch_size,
        first_seed=seed + 100_000,
        conditions=healthy_conditions,
    )
    calibration = fit_calibration(known)
    seen = gathered(model, images, brains, batch_size=batch_size, first_seed=seed, conditions=conditions)
    maps: dict[str, list[np.ndarray]] = {}
    for evidence in seen:
        for name, score in (calibration.scores(evidence) | _plain(evidence)).items():
            maps.setdefault(name, []).append(score)
    inside = [evidence.mask for evidence in seen]
    return {name: _judged(rows, truth, inside) for name, rows in maps.items()}, calibration


def _plain(evidence: Evidence) -> dict[str, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(evidence.image, 2.0)
    middle = np.median(evidence.image[evidence.mask]) if evidence.mask.any() else 0.0
    return {"blur": np.abs(evidence.image - blurred), "median": np.abs(evidence.image - middle)}


def _judged(
    maps: Sequence[np.ndarray], truth: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> AnomalyScore:
    cases = tuple(average_precision(s, t, m) for s, t, m in zip(maps, truth, masks, strict=True))
    score = np.concatenate([s[m] for s, m in zip(maps, masks, strict=True)])
    lesion = np.concatenate([t[m] for t, m in zip(truth, masks, strict=True)])
    whole = average_precision(score, lesion, np.ones_like(lesion))
    return AnomalyScore(whole, float(lesion.mean()), cases)
