"""The three ways to segment a scan, each as one object: `segment(scan)` in, labels on the scan's grid out.

| method | model | stands on | unsure where |
|---|---|---|---|
| network | whole-head segmenter, one or several | 34 structures, any contrast | passes and networks differ: entropy |
| features | heads of few labels on a frozen prior | slices at 1 mm | heads differ: Jensen-Shannon divergence |
| diffusion | joint denoiser of image and tissues | slices at 1 mm | draws differ: mutual information |

All three see the scan in units of its white, at 1 mm with axes towards L, P, S (`model.working_grid`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.errors import InputError
from radiata_core.joint_denoisers import JointDenoiser
from radiata_imaging.volume import Volume, times
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.experiment.segmenting_tables import LabelTable, structures, table_of, tissues
from radiata_medical.model.diffusion_segmenter import segment_slices
from radiata_medical.model.feature_head import FeatureHeads
from radiata_medical.model.kept_maps import KeptMaps
from radiata_medical.model.segmenter import SegmenterOptions, segment_volume
from radiata_medical.model.segmenter_network import SegmenterNetwork
from radiata_medical.model.slice_segmentation import segment_with_heads
from radiata_medical.model.weights import find_model
from radiata_medical.model.working_grid import Segmentation, WorkingScan

__all__ = ["ScanSegmenter", "Segmented", "load_segmenter", "network_segmenter"]

Method = Literal["network", "features", "diffusion"]
_THIN = 8  # voxels of 1 mm below which a scan is a slice, not a volume
_USUAL = {"network": "segmenter", "features": "head", "diffusion": "joint-2d"}


@dataclass(frozen=True, eq=False)
class Segmented:
    """A segmented scan and what else was found.

    Attributes:
        segmentation: Labels, entropy, volumes, quality.
        maps: Word -> further map on the scan's grid, nats: "disagreement" of heads or draws.
        notes: What was done in another way than asked.
    """

    segmentation: Segmentation
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ScanSegmenter(Protocol):
    """Any of the three."""

    @property
    def table(self) -> LabelTable:
        """What its labels mean."""
        ...

    @property
    def models(self) -> dict[str, str]:
        """Name -> SHA-256 of its weights."""
        ...

    def segment(self, scan: Volume, report: Callable[[int, int], object] | None = None) -> Segmented:
        """Segment a scan in units of its file.

        Args:
            scan: Any grid.
            report: Called with windows or slices done and to do.
        """
        ...


def load_segmenter(
    method: Method,
    model: Sequence[str] = (),
    *,
    prior: str | None = None,
    passes: int = 1,
    draws: int = 8,
    steps: int = 4,
    window: int = 128,
    batch_size: int = 8,
    seed: int = 0,
    keep_largest: bool = True,
    posteriors: bool = False,
    device: str = "cpu",
) -> ScanSegmenter:
    """A segmenter, its models found and checked.

    Args:
        method: Which of the three.
        model: Names, files or run folders; several for an ensemble of networks; empty for the shipped one.
        prior: Of `features`: the prior, where it is not to be found under the name in the head's file.
        passes: Of `network`: `model.segmenter.PASSES`.
        draws: Of `diffusion`.
        steps: Of `diffusion`.
        window: Of `network`: longest edge of a window.
        batch_size: Slices at once.
        seed: Of noise in features and draws.
        keep_largest: Keep one piece of the brain.
        posteriors: Keep all probabilities.
        device: Where networks run.

    Raises:
        InputError: no such model, or one of another kind.
    """
    names = tuple(model) or (_USUAL[method],)
    if method != "network" and len(names) > 1:
        raise InputError(f"expected one model for the method {method}; got {len(names)}. Name one.")
    loaded = [(name, load_model(find_model(name))) for name in names]
    kinds = {"network": SegmenterNetwork, "features": FeatureHeads, "diffusion": JointDenoiser}
    for name, one in loaded:
        if not isinstance(one.denoiser, kinds[method]):
            raise InputError(
                f"expected a model for --method {method}; got {name}, a {type(one.denoiser).__name__}. "
                "Choose another --model or --method."
            )
        one.denoiser.to(device).eval()
    checksums = {name: one.sha256 for name, one in loaded}
    if method == "network":
        temperature = float(loaded[0][1].metadata.get("temperature", 1.0))
        options = SegmenterOptions(window, 8, passes, temperature, keep_largest, posteriors, device)
        return network_segmenter(loaded, options)
    if method == "diffusion":
        joint: Any = loaded[0][1].denoiser
        if joint.labels.channels != len(tissues().colours):
            raise InputError(
                f"expected a joint model of {len(tissues().colours)} tissues; got {joint.labels.channels} classes."
            )
        settings = {"draws": draws, "steps": steps, "batch_size": batch_size, "seed": seed, "device": device}
        return _ByDiffusion(joint, settings, keep_largest, posteriors, checksums)
    name, head = loaded[0]
    under = _prior_of(head, prior, name)
    checksums[prior or str(head.metadata.get("prior", {}).get("name"))] = under.sha256
    heads: Any = head.denoiser
    return _ByFeatures(
        heads, under.denoiser.to(device).eval(), table_of(head.metadata, name),
        {"seed": seed, "batch_size": batch_size, "keep_largest": keep_largest, "posteriors": posteriors}, checksums,
    )  # fmt: skip


def network_segmenter(loaded: Sequence[tuple[str, LoadedModel]], options: SegmenterOptions) -> ScanSegmenter:
    """The segmenter of one network or several that are loaded already.

    Args:
        loaded: Name and model.
        options: How scans go through them.

    Raises:
        InputError: networks of different classes, or without a table of them.
    """
    checksums = {name: one.sha256 for name, one in loaded}
    return _ByNetwork([one.denoiser for _, one in loaded], options, _structures_of(loaded), checksums)


def _structures_of(loaded: Sequence[tuple[str, LoadedModel]]) -> LabelTable:
    """The channels of the networks: those of the head's structures, or those in the first one's metadata."""
    networks: list[Any] = [one.denoiser for _, one in loaded]
    classes = {int(network.classes) for network in networks}
    if len(classes) > 1:
        raise InputError(
            f"expected networks of the same classes; got {sorted(classes)}. Choose other members."
        )
    name, first = loaded[0]
    if "labels" in first.metadata:
        return table_of(first.metadata, name)
    table = structures()
    if classes != {len(table.colours)}:
        raise InputError(
            f"expected a segmenter of {len(table.colours)} structures; got {name} with {classes.pop()} classes "
            "and no table of them."
        )
    return table


def _prior_of(head: LoadedModel, prior: str | None, name: str) -> LoadedModel:
    """The prior a head was trained on.

    Raises:
        InputError: it is not there, or is another one.
    """
    told = head.metadata.get("prior")
    told = told if isinstance(told, dict) else {}
    under = load_model(find_model(prior or str(told.get("name", "prior-2d"))))
    if under.sha256 != told.get("sha256"):
        raise InputError(
            f"expected the prior that {name} was trained on (sha256 {str(told.get('sha256'))[:12]}…); got "
            f"{under.sha256[:12]}…. Name it with --prior."
        )
    return under


def _in_prior_units(scan: Volume) -> Volume:
    return Volume(IntensityScale.of(scan.array).to_prior(scan.array), scan.affine)


def _working(scan: Volume) -> WorkingScan:
    """The scan at 1 mm; a single slice keeps its whole field of view.

    Raises:
        InputError: a slice that is not axial.
    """
    extent = np.asarray(scan.shape) * np.asarray(scan.spacing)
    whole = WorkingScan(_in_prior_units(scan), crop=bool(extent.min() > 40.0))
    if min(whole.shape[:2]) < _THIN:
        raise InputError(
            f"expected axial slices or a volume; got {times(whole.shape)} mm towards L, P, S. "
            "Models of slices know axial ones."
        )
    return whole


@dataclass(frozen=True, eq=False)
class _ByNetwork:
    networks: list[Any]
    options: SegmenterOptions
    table: LabelTable
    models: dict[str, str]

    def segment(self, scan: Volume, report: Callable[[int, int], object] | None = None) -> Segmented:
        if min(scan.shape) == 1:
            raise InputError(
                f"expected a volume for --method network; got one slice, {times(scan.shape)}. "
                "Use --method features or diffusion."
            )
        notes: list[str] = []
        found = segment_volume(
            self.networks,
            _in_prior_units(scan),
            self.table.labelling,
            self.options,
            report=report,
            warn=notes.append,
        )
        return Segmented(found, {}, tuple(notes))


@dataclass(frozen=True, eq=False)
class _ByFeatures:
    heads: FeatureHeads
    prior: torch.nn.Module
    table: LabelTable
    settings: dict[str, Any]
    models: dict[str, str]

    def segment(self, scan: Volume, report: Callable[[int, int], object] | None = None) -> Segmented:
        work = _working(scan)
        maps, divergence = segment_with_heads(
            self.heads, self.prior, work.image, self.table.labelling, report=report, **self.settings
        )
        found = work.segmentation(maps, self.table.labelling)
        return Segmented(found, {"disagreement": work.values_on_scan(divergence)})


@dataclass(frozen=True, eq=False)
class _ByDiffusion:
    joint: JointDenoiser
    settings: dict[str, Any]
    keep_largest: bool
    posteriors: bool
    models: dict[str, str]
    table: LabelTable = field(default_factory=tissues)

    def segment(self, scan: Volume, report: Callable[[int, int], object] | None = None) -> Segmented:
        work = _working(scan)
        labelling = self.table.labelling
        depth = work.shape[2]

        def progress(done: int) -> None:
            if report is not None:
                report(done, depth)

        sampled = segment_slices(self.joint, work.image.numpy(), progress=progress, **self.settings)
        maps = KeptMaps(work.shape, len(labelling.codes), labelling.brain, self.posteriors)
        for start in range(0, work.shape[0], 8):  # a slab at a time: the probabilities come in half precision
            part = torch.from_numpy(sampled.probabilities[:, start : start + 8].astype(np.float32))
            box = (slice(start, start + part.shape[1]), slice(0, work.shape[1]), slice(0, depth))
            maps.take(part, box)
        maps.winner[:] = sampled.classes
        maps.evaluations = sampled.evaluations * depth
        if self.keep_largest:
            maps.keep_largest()
        found = work.segmentation(maps, labelling)
        return Segmented(found, {"disagreement": work.values_on_scan(sampled.mutual_information)})
