"""A head of few labels from files: labelled scans in, slices of them at 1 mm, heads and their model card out.

    images/head-1.nii.gz  labels/head-1_dseg.nii.gz  ...  ->  slices that hold labels  ->  `model.feature_head.fit_head`

Scans and label maps are matched by name (`data.pairing`) and must lie on one grid. A label map may be labelled in a few
slices only: slices without any label are not used, and of the others at most `slices` a scan, evenly spaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.checkpoint import LoadedModel, load_model, save_model
from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.files import sha256
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.orientation import Grid, reorient, resample
from radiata_imaging.volume import Volume
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.label_reading import Codebook, read_labels
from radiata_medical.data.pairing import named_files, pair_files
from radiata_medical.data.scans import read_scan, same_grid
from radiata_medical.data.structures import channels_of, tissue_channels
from radiata_medical.experiment.segmenting_tables import LabelTable, of_codes, tissues
from radiata_medical.model.feature_head import fit_head
from radiata_medical.model.weights import find_model
from radiata_medical.model.working_grid import WorkingScan

__all__ = ["LabelledSlices", "fitted_heads", "labelled_slices", "prior_of_slices", "train_head"]

_ANY = Codebook({"any": tuple(range(1, 65536))}, {}, freesurfer=False)


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """Axial slices at 1 mm and the class of each voxel.

    Attributes:
        images: (n, 1, x, y), units of white.
        labels: (n, x, y), classes; -1 outside of a scan's field of view.
        table: What the classes mean.
        sources: File name -> SHA-256 of scans and label maps.
    """

    images: Tensor
    labels: Tensor
    table: LabelTable
    sources: dict[str, str]


def labelled_slices(
    images: Path, labels: Path, *, classes: Literal["as-is", "tissues"] = "as-is", slices: int = 8
) -> LabelledSlices:
    """Slices with labels from scans and their label maps.

    Args:
        images: A scan or a folder of scans.
        labels: Its label map, or a folder of them; scans without one are left out.
        classes: "as-is": the codes of the label maps; "tissues": FreeSurfer's codes, gathered into seven tissues.
        slices: Slices of a scan, at most.

    Raises:
        InputError: nothing there, files that do not match or lie on two grids, an image given as label map, a label map
            given as image, unknown codes.
    """
    if slices < 1:
        raise InputError(f"expected at least 1 slice of a scan; got {slices}.")
    pairs, _ = pair_files(named_files(labels, "label maps"), named_files(images, "scans"))
    cut: list[tuple[np.ndarray, np.ndarray]] = []
    sources: dict[str, str] = {}
    for pair in pairs:
        scan = read_scan(pair.reference.path)
        codes, grid = read_labels(pair.result.path, _ANY if classes == "as-is" else None)
        same_grid(scan, grid, (f"the scan {pair.reference.path.name}", f"the labels {pair.result.path.name}"))
        cut += _cut(scan, codes, slices)
        for path in (pair.reference.path, pair.result.path):
            sources[path.name] = sha256(path)
    if not cut:
        raise InputError(f"expected label maps with labels; got background alone in {labels}. Choose others.")
    found = np.unique(np.concatenate([np.unique(codes) for _, codes in cut]))
    if classes == "tissues":
        table = tissues()
        lookup = [tissue_channels()[channels_of(codes)] for _, codes in cut]
    else:
        table = of_codes([int(code) for code in found])
        lookup = [np.searchsorted(np.asarray(table.labelling.codes), codes) for _, codes in cut]
    stacked = [
        _padded([image for image, _ in cut], 0.0),
        _padded([one.astype(np.float32) for one in lookup], -1.0),
    ]
    return LabelledSlices(stacked[0][:, None], stacked[1].long(), table, sources)


def _cut(scan: Volume, codes: np.ndarray, slices: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Axial slices of a scan and their codes, on the working grid."""
    scale = IntensityScale.of(scan.array)
    work = WorkingScan(Volume(scale.to_prior(scan.array), scan.affine), crop=min(scan.shape) > 1)
    turned = resample(
        reorient(Volume(codes, scan.affine)),
        Grid(work.shape, work.affine),
        interpolation=Interpolation.NEAREST,
    )
    marked = np.rint(turned.array).astype(np.int32)
    labelled = np.flatnonzero(marked.any((0, 1)))
    count = min(slices, len(labelled))
    chosen = labelled[
        ((np.arange(count) + 0.5) * len(labelled) / max(count, 1)).astype(int)
    ]  # not the outermost ones
    return [(work.image[:, :, k].numpy(), marked[:, :, k]) for k in chosen] if len(labelled) else []


def _padded(arrays: Sequence[np.ndarray], value: float) -> Tensor:
    """Slices of several sizes as one tensor (n, x, y), filled up at their ends."""
    x, y = (max(array.shape[axis] for array in arrays) for axis in range(2))
    out = torch.full((len(arrays), x, y), value)
    for row, array in enumerate(arrays):
        out[row, : array.shape[0], : array.shape[1]] = torch.from_numpy(
            np.ascontiguousarray(array, dtype=np.float32)
        )
    return out


def train_head(
    images: Path,
    labels: Path,
    out: Path,
    *,
    prior: str = "prior-2d",
    classes: Literal["as-is", "tissues"] = "as-is",
    slices: int = 8,
    minutes: float | None = 5.0,
    steps: int | None = None,
    seed: int = 0,
    members: int = 5,
    hidden: int = 32,
    report: Callable[[float, float], object] | None = None,
) -> Path:
    """Train heads on a prior's features from labelled scans and write `out` (.safetensors) with its card.

    Args:
        images: A scan or a folder of scans.
        labels: Its label map, or a folder of them.
        out: Model file.
        prior: Name, file or run folder of a 2-D prior.
        classes: See `labelled_slices`.
        slices: See `labelled_slices`.
        minutes: Processor time; None for no limit.
        steps: Optimiser steps; None for no limit. With steps alone the result repeats to the bit.
        seed: Of first weights, noise, motion and order.
        members: Heads of the ensemble.
        hidden: Channels inside a head.
        report: Called with the share of the budget used and the loss.

    Raises:
        InputError: as `labelled_slices`, or a model that is no 2-D prior.
    """
    under = prior_of_slices(prior)
    data = labelled_slices(images, labels, classes=classes, slices=slices)
    return fitted_heads(
        data, under, out,
        prior=prior, minutes=minutes, steps=steps, seed=seed, members=members, hidden=hidden, report=report,
    )  # fmt: skip


def prior_of_slices(name: str) -> LoadedModel:
    """The prior of slices of a name, file or run folder.

    Raises:
        InputError: no such model, or one of another kind.
    """
    found = load_model(find_model(name))
    network: Any = getattr(found.denoiser, "network", None)
    if not isinstance(found.denoiser, EDMDenoiser) or network.options.get("dims") != 2:
        raise InputError(f"expected a 2-D prior; got {name}. Use prior-2d or one trained with --dims 2.")
    return found


def fitted_heads(
    data: LabelledSlices,
    under: LoadedModel,
    out: Path,
    *,
    prior: str,
    minutes: float | None,
    steps: int | None,
    seed: int = 0,
    members: int = 5,
    hidden: int = 32,
    report: Callable[[float, float], object] | None = None,
) -> Path:
    """Train heads on slices that were read, and write `out`: the work of `train_head`.

    Args:
        data: From `labelled_slices`.
        under: From `prior_of_slices`.
        out: Model file.
        prior: Name under which `segment` will look for the prior.
        minutes: See `train_head`.
        steps: See `train_head`.
        seed: See `train_head`.
        members: See `train_head`.
        hidden: See `train_head`.
        report: See `train_head`.
    """
    heads = fit_head(
        data.images, data.labels, under.denoiser, classes=len(data.table.colours), steps=steps,
        seconds=None if minutes is None else 60 * minutes, seed=seed, members=members,
        hidden=hidden, report=report,
    )  # fmt: skip
    metadata: dict[str, Any] = {
        "application": "radiata-medical",
        "task": "head",
        "dims": 2,
        "spacing": 1.0,
        "prior": {"name": prior, "sha256": under.sha256},
        "labels": data.table.card(),
        "slices": len(data.images),
        "sources": data.sources,
        "training": {"minutes": minutes, "steps": steps, "seed": seed},
        "intended_use": "Research: segmentation of head scans. Not for clinical use.",
    }
    save_model(out, heads, metadata=metadata)
    return out
