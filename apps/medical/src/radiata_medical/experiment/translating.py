"""One case of `translate`: means of the wanted contrast, the start, the prior's refinement, the file.

A named contrast is a table of means (`data.contrasts`) in arbitrary units; they become units of white by painting the scan's
own tissues with them and looking for the white of that painting. A reference's are measured on its own tissues.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_core.tiling import TiledDenoiser
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume
from radiata_medical.data.contrasts import CONTRASTS
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.scans import Case, output_path
from radiata_medical.data.structures import CONTRAST
from radiata_medical.experiment.anatomy import BRAIN, TISSUE_COUNT, Anatomy
from radiata_medical.experiment.outputs import Facts, write_image
from radiata_medical.model.guides import TissueMapGuide
from radiata_medical.model.restorer import Restorer
from radiata_medical.model.translation import (
    TranslationOptions,
    curve_image,
    painted,
    quantile_mapping,
    tissue_means,
    translate,
)

__all__ = [
    "Method",
    "Target",
    "named_target",
    "reference_target",
    "tissue_map_guide",
    "translate_case",
    "write_translation",
]

Method = Literal["prior", "curve", "paint", "histogram"]

_GROUPS = (
    ("background",),
    ("cerebrospinal fluid",),
    ("cerebral cortex",),
    ("cerebral white matter",),
    ("thalamus", "caudate and putamen"),
    ("cerebellar cortex",),
    ("cerebellar white matter",),
    ("brain stem",),
    ("soft tissue", "fat and skin"),
)
"""Groups of `data.contrasts` that a tissue is the mean of."""


@dataclass(frozen=True, eq=False)
class Target:
    """The contrast wanted.

    Attributes:
        name: Of the contrast, or of the reference's file.
        means: Of each tissue, (tissues,), NaN where not known; relative units for a named contrast, else units of white.
        white: Intensity of 1 in the result's file; None: that of the scan.
        head: The reference's voxels of the head, for histogram matching; None for a named contrast.
        sources: Name -> SHA-256 of what it was measured on.
    """

    name: str
    means: Tensor
    white: float | None
    head: np.ndarray | None
    sources: dict[str, str]


def named_target(name: str) -> Target:
    """The contrast of a table.

    Raises:
        InputError: no such table.
    """
    table = CONTRASTS.get(name)
    if table is None:
        raise InputError(
            f"expected a contrast with a table; got {name!r}. Use t1, t2, flair or pd, or --like."
        )
    means = [float(np.mean([table[group] for group in groups])) for groups in _GROUPS]
    return Target(name, torch.tensor(means), None, None, {})


def reference_target(
    name: str, scan: Volume, scale: IntensityScale, anatomy: Anatomy, sources: dict[str, str]
) -> Target:
    """The contrast of a reference scan, measured on its tissues."""
    image = torch.from_numpy(scale.to_prior(scan.array))[None, None]
    tissues = torch.from_numpy(anatomy.tissues.astype(np.int64))[None]
    means = tissue_means(image, tissues, TISSUE_COUNT)[0]
    head = scale.to_prior(scan.array)[anatomy.tissues > 0]
    return Target(name, means, scale.white, head, sources)


def translate_case(
    scan: Volume,
    scale: IntensityScale,
    anatomy: Anatomy,
    target: Target,
    method: Method,
    options: TranslationOptions,
    restorer: Restorer | None,
    *,
    joint: Any = None,
    detail: float = 0.5,
    tile: int = 64,
    batch_size: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The scan in the wanted contrast, units of its own white, on its grid; and the figures of its card.

    Args:
        scan: Intensities of its file.
        scale: Of the scan.
        anatomy: Of the scan.
        target: Contrast wanted.
        method: "prior", or one of the baselines.
        options: Of the prior's refinement.
        restorer: Holds the prior; for "prior".
        joint: A joint denoiser of slices that guides; None for none.
        detail: Part of the scan's own detail that is kept, in [0, 1].
        tile: Voxels an axis of a block, for volumes.
        batch_size: Slices at once.
        seed: Of the noise; slices have their own streams.

    Raises:
        InputError: the brain lacks tissues, or histogram matching without a reference.
    """
    upright = reorient(Volume(scale.to_prior(scan.array), scan.affine))
    tissue_volume = reorient(Volume(anatomy.tissues.astype(np.float32), scan.affine))
    image = torch.from_numpy(np.ascontiguousarray(upright.array))[None, None]
    tissues = torch.from_numpy(np.ascontiguousarray(tissue_volume.array)).round().long()[None]
    means = tissue_means(image, tissues, TISSUE_COUNT)
    wanted = _in_white(target, tissues)[None].to(image)
    if method == "histogram":
        if target.head is None:
            raise InputError(
                "expected a reference for histogram matching; got a named contrast. Give --like."
            )
        found = torch.zeros_like(image)
        inside = (tissues > 0)[:, None]
        found[inside] = quantile_mapping(image[inside], torch.from_numpy(target.head))
    elif method == "paint":
        found = painted(tissues, wanted)
    else:
        found = curve_image(image, tissues, means, wanted, BRAIN, detail=detail)
    if method == "prior" and restorer is not None:
        found = _refined(found, tissues, wanted, options, restorer, joint, tile, batch_size, seed)
    turned = reorient(Volume(found[0, 0].cpu().numpy(), upright.affine), scan.axcodes)
    figures = {
        "MeansFound": dict(zip(CONTRAST, means[0, 1:].tolist(), strict=False)),
        "MeansWanted": dict(zip(CONTRAST, wanted[0, 1:].tolist(), strict=False)),
        "White": target.white or scale.white,
    }
    return turned.array, figures


def write_translation(
    out: Path, case: Case, scan: Volume, values: np.ndarray, white: float, facts: Facts, began: float
) -> Path:
    """Write a translated scan and its card; returns where."""
    told = replace(facts, figures={**facts.figures, "Seconds": round(time.monotonic() - began, 2)})
    return write_image(output_path(out, case, "translated"), values * white, scan, told)


def _in_white(target: Target, tissues: Tensor) -> Tensor:
    if target.white is not None:
        return target.means
    painting = painted(tissues, target.means[None])
    return target.means / IntensityScale.of(painting.numpy()).white


def _refined(
    start: Tensor,
    tissues: Tensor,
    wanted: Tensor,
    options: TranslationOptions,
    restorer: Restorer,
    joint: Any,
    tile: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """The start through the prior, slice by slice or whole in blocks."""
    covariates = wanted[:, 1 : 1 + len(CONTRAST)]
    device = restorer.device
    if restorer.dims == 3:
        denoiser: Any = TiledDenoiser(restorer.prior, tile, 16)
        return translate(
            denoiser, start.to(device), options, generators_of([seed], 21), covariates=covariates.to(device)
        ).cpu()
    denoiser = TiledDenoiser(restorer.prior, 0, 0)
    slices, labels = start[0].movedim(-1, 0), tissues[0].movedim(-1, 0)
    found = torch.zeros_like(slices)
    occupied = torch.nonzero((labels > 0).flatten(1).any(1))[:, 0].tolist()
    for first in range(0, len(occupied), batch_size):
        rows = occupied[first : first + batch_size]
        found[rows] = translate(
            denoiser,
            slices[rows].to(device),
            options,
            generators_of(rows, 21, seed),
            guide=None if joint is None else tissue_map_guide(joint, labels[rows].to(device)),
            spread=restorer.spread,
            covariates=covariates.expand(len(rows), -1).to(device),
        ).cpu()
    return found.movedim(0, -1)[None]


def tissue_map_guide(joint: Any, target: Tensor) -> TissueMapGuide:
    """Keep the tissue map, as a joint denoiser of slices reads clean images.

    Args:
        joint: Image and tissues together, in two dimensions.
        target: Tissue of every pixel, int64 (batch, x, y).
    """

    def segmenter(x0: Tensor) -> Tensor:
        grid = x0.shape[2:]
        padded = [-(-n // 8) * 8 for n in grid]
        image = torch.zeros(len(x0), 1, *padded, dtype=x0.dtype, device=x0.device)
        image[(slice(None), slice(None), *(slice(0, n) for n in grid))] = x0
        fields = torch.zeros(len(x0), joint.labels.channels, *padded, dtype=x0.dtype, device=x0.device)
        zero, one = (torch.tensor(t, dtype=torch.float64) for t in (0.0, 1.0))
        logits = joint(image, zero, fields, one).log_probabilities
        return logits[(slice(None), slice(None), *(slice(0, n) for n in grid))]

    return TissueMapGuide(segmenter, target, tempering=4.0)
