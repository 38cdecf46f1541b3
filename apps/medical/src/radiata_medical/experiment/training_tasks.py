"""What can be trained: each task's network, objective, scans, and the numbers that go with them.

| task | network | learns |
|---|---|---|
| prior | EDM denoiser on a local U-Net | E[x_0 given x_t] of scans of any contrast |
| restorer | a prior, unrolled | the posterior mean of any linear measurement, in four evaluations |
| segmenter | MONAI's residual U-Net | 35 structures of a whole head at 1 mm, any contrast |
| joint | one U-Net, two noise levels | image and tissues together, and each given the other |
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import torch

    from radiata_medical.data.synthesis import ScanSpec
    from radiata_medical.experiment.synthetic_training import Heads, OnSyntheticScans

__all__ = ["TASKS", "Numbers", "metadata_of", "network_of", "numbers_of", "objective_of"]

TASKS = ("prior", "restorer", "segmenter", "joint")

_CLASSES = 9  # background, seven tissues, other head: data.structures.tissue_channels


@dataclass(frozen=True)
class Numbers:
    """What a task takes where nothing else is asked for.

    Attributes:
        window: Voxels an axis of a training window.
        batch_size: Rows of a step.
        together: Rows of one rendering.
        learning_rate: After the warm-up.
        steps: Of the optimiser.
    """

    window: int
    batch_size: int
    together: int
    learning_rate: float
    steps: int = 10_000


def numbers_of(task: str, dims: int) -> Numbers:
    """The usual numbers of a task."""
    table = {
        ("prior", 2): Numbers(128, 32, 8, 1e-3),
        ("prior", 3): Numbers(64, 8, 2, 1e-3),
        ("restorer", 2): Numbers(128, 16, 4, 2e-4),
        ("restorer", 3): Numbers(64, 4, 2, 2e-4),
        ("segmenter", 2): Numbers(192, 16, 4, 1e-3),
        ("segmenter", 3): Numbers(128, 2, 1, 1e-3),
        ("joint", 2): Numbers(128, 32, 8, 1e-3),
        ("joint", 3): Numbers(64, 8, 2, 1e-3),
    }
    return table[task, dims]


def network_of(
    task: str, dims: int, channels: tuple[int, ...] | None, start: str | None, seed: int
) -> "torch.nn.Module":
    """The network before the first step: from the seed, or from the model `start`.

    Raises:
        InputError: a model of another kind or dimension to start from.
    """
    from radiata_core.checkpoint import load_model
    from radiata_core.denoisers import EDMDenoiser
    from radiata_core.joint_denoisers import JointDenoiser
    from radiata_core.unrolled import UnrolledRestorer
    from radiata_medical.model.prior import SIGMA_DATA, build_joint, build_prior
    from radiata_medical.model.segmenter_network import SegmenterNetwork
    from radiata_medical.model.weights import find_model

    given = None if start is None else load_model(find_model(start)).denoiser
    kinds: dict[str, tuple[type, ...]] = {
        "prior": (EDMDenoiser,),
        "restorer": (EDMDenoiser, UnrolledRestorer),
        "segmenter": (SegmenterNetwork,),
        "joint": (JointDenoiser,),
    }
    if given is not None and not isinstance(given, kinds[task]):
        source = "prior" if task == "restorer" else task
        raise InputError(
            f"expected a {source} to start a {task} from; got {start}, a {type(given).__name__}. "
            f"Train one with --task {source}."
        )
    if task == "restorer":
        prior = given if given is not None else build_prior(dims, channels, seed=seed)
        if isinstance(prior, UnrolledRestorer):
            return _of_dims(prior, dims)
        return UnrolledRestorer(_of_dims(prior, dims), start_sd=SIGMA_DATA)
    if given is not None:
        return _of_dims(given, dims)
    if task == "prior":
        return build_prior(dims, channels, seed=seed)
    if task == "joint":
        return build_joint(dims, _CLASSES, channels, seed=seed)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegmenterNetwork(channels=channels or (16, 32, 64, 128, 256), dims=dims)


def _of_dims(network: "torch.nn.Module", dims: int) -> "torch.nn.Module":
    """The network, if it is one of these dimensions."""
    from torch import nn

    wanted = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    if not any(isinstance(module, wanted) for module in network.modules()):
        raise InputError(
            f"expected a model of {dims} dimensions to start from; got one of others. Say --dims, or take another."
        )
    return network


def _spec(task: str, dims: int, window: int, rendered: bool) -> "ScanSpec":
    from radiata_medical.data.synthesis import ScanSpec

    shape = (window, window, 1 if dims == 2 else window)
    base = ScanSpec(shape=shape, turn=dims == 2, rendered=rendered)
    if task == "segmenter":
        return dataclasses.replace(
            base,
            contrasts=(("random", 0.6), ("t1", 0.2), ("t2", 0.1), ("flair", 0.1)),
            rotation=15.0,
            scale=(0.8, 1.2),
            bias=(0.0, 0.3),
            noise=(0.0, 0.08),
            thickness=(0.5, 5.0),
            blur=(0.45, 1.2),
            gamma=0.2,
            level=(0.75, 1.25),
        )
    if task == "joint":
        return dataclasses.replace(base, noise=(0.0, 0.03), bias=(0.0, 0.2))
    return base


def objective_of(
    task: str, dims: int, heads: "Heads", window: int, together: int, *, rendered: bool = True
) -> "OnSyntheticScans":
    """The objective of a task on rendered scans (or on the store's own, with `rendered=False`)."""
    from radiata_core.multitask_elbo import MultitaskELBO
    from radiata_core.objectives import EDM, Regression
    from radiata_core.operator_families import standard_families
    from radiata_core.paths import LinearPath
    from radiata_core.times import LogNormalSNR
    from radiata_core.unrolled import UnrolledRegression
    from radiata_medical.experiment.synthetic_training import OnSyntheticScans
    from radiata_medical.model.prior import SIGMA_DATA
    from radiata_medical.model.segmenter_objective import SegmenterRegression

    path, law = LinearPath(), LogNormalSNR(-1.2, 1.5)
    spec = _spec(task, dims, window, rendered)
    objective: Any
    if task == "prior":
        objective = Regression(path, law, weight=EDM(SIGMA_DATA))
    elif task == "restorer":
        objective = UnrolledRegression(
            standard_families(dims), together=max(together, 2), recompute=dims == 3
        )
    elif task == "segmenter":
        objective = SegmenterRegression()
    else:
        objective = MultitaskELBO(path, image_law=law)
    labels = {"segmenter": "structures", "joint": "tissues"}.get(task, "none")
    return OnSyntheticScans(
        objective, heads, spec, dims == 2, together, contrast=task != "segmenter" and rendered, labels=labels
    )


def metadata_of(task: str, dims: int, window: int, people: int, store: str) -> dict[str, Any]:
    """What is stored with a model."""
    from radiata_medical.data.structures import CODES, CONTRAST, TISSUES
    from radiata_medical.model.prior import SIGMA_DATA

    return {
        "application": "radiata-medical",
        "task": task,
        "dims": dims,
        "window": window,
        "voxel_mm": 1.0,
        "sigma_data": SIGMA_DATA,
        "white": "99th percentile of the voxels brighter than the mean voxel",
        "contrast": list(CONTRAST),
        "codes": list(CODES),
        "tissues": {name: list(codes) for name, codes in TISSUES.items()},
        "training": {"store": store, "people": people},
        "intended_use": "Research: restoration and segmentation of head scans. Not for clinical use.",
    }
