r"""Segmentation by sampling: draws of p(labels | image) from a joint denoiser.

    image (noisy or clean)  →  one evaluation at u = 1     p(l | x) of every voxel by itself: an ordinary segmenter
                            →  `steps` - 1 more a draw     whole label maps, each of which could be the truth

What draws have over one evaluation is what voxels have in common: label maps with surfaces, not voxels thrown one by one. A
draw ends with probabilities, $p(l \mid x, l_u)$ given its own noisy labels; their mean over draws estimates $p(l \mid x)$.

The noise of the labels falls from pure noise through $\sigma/\alpha = \sqrt 8$, where one voxel's noise equals the distance
of two classes: 8, 2.8 and 1 for four steps, ancestral (`label_times`). In worlds whose posterior is known (chains of voxels,
`tests/medical/test_diffusion_segmenter.py`) four such steps leave the law of whole label maps within 0.05 of the truth in
total variation, and the mean probabilities within 0.02.

Draw d has the same noise in every slice: neighbouring slices that look alike get labels that look alike, and a draw is a
volume. Nothing depends on how slices are batched. What is made of the draws is `draw_statistics`.

References:
    Amit et al., "SegDiff", 2021, https://arxiv.org/abs/2112.00390 (several draws of a segmentation, averaged).
    Wu et al., "MedSegDiff", 2022, https://arxiv.org/abs/2211.00611 (fused by STAPLE).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.joint_denoisers import (
    JointDenoiser,
    JointPosterior,
    LabelsGivenImage,
    RealField,
)
from radiata_core.paths import Path
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import ddpm, integrate
from radiata_medical.model.draw_statistics import DrawSums, SampledSegmentation
from radiata_medical.model.joint_model import build_joint

__all__ = ["SampledSegmentation", "build_joint", "label_times", "segment_slices"]

_CENTRE, _RATIO = math.sqrt(8.0), math.sqrt(8.0)
_PURPOSE = 17


def label_times(steps: int, path: Path) -> Tensor:
    """Times of the labels, float64, (steps + 1,), from 1 to 0: sigma/alpha is geometric about sqrt(8) between.

    Raises:
        InputError: no step.
    """
    if steps < 1:
        raise InputError(f"expected at least 1 step; got {steps}. 1 is an ordinary segmenter, 4 is usual.")
    inner = steps - 1
    reach = min(0.5 * (inner - 1) * math.log(_RATIO), math.log(16.0)) if inner > 1 else 0.0
    log_kappa = math.log(_CENTRE) + torch.linspace(reach, -reach, inner, dtype=torch.float64)
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return torch.cat([ends[:1], path.time_of_log_snr(-log_kappa), ends[1:]])


@torch.no_grad()
def segment_slices(
    joint: JointDenoiser,
    volume: np.ndarray,
    *,
    noise_sd: float = 0.0,
    draws: int = 8,
    steps: int = 4,
    axis: int = 2,
    batch_size: int = 16,
    seed: int = 0,
    fusion: Literal["mean", "staple"] = "mean",
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> SampledSegmentation:
    """Label maps of a volume, slice by slice, and their spread.

    One evaluation a slice is shared by all draws; each draw costs `steps` - 1 more.

    Args:
        joint: 2-D joint denoiser.
        volume: Scan in units of the prior, float, (x, y, z), axes towards L, P, S at the spacing the model was trained at.
        noise_sd: sd of the white noise in the scan, units of the prior, >= 0; the scan is then restored as well.
        draws: Label maps, >= 1; with one step all draws are one.
        steps: Evaluations of a draw, >= 1.
        axis: Axis across the slices, 2 for axial ones.
        batch_size: Slices at once; changes nothing but memory.
        seed: Of the draws; draw d is the same for any number of draws.
        fusion: "mean": class of largest mean probability, the best guess for draws of one law. "staple": by STAPLE.
        device: Where the network runs.
        progress: Called with the number of slices done.

    Raises:
        InputError: a volume that is not 3-D and finite, or options out of range.
    """
    _check(joint, volume, noise_sd, draws, axis, batch_size, fusion)
    joint = joint.to(device).eval()
    times = label_times(steps, joint.path)
    draws = draws if steps > 1 else 1
    slices = np.moveaxis(np.asarray(volume, np.float32), axis, 0)
    sums = DrawSums(joint.labels.channels, slices.shape, draws, isinstance(joint.labels, RealField))
    for start in range(0, len(slices), batch_size):
        rows = slice(start, min(start + batch_size, len(slices)))
        images, crop = _padded(torch.from_numpy(slices[rows].copy()), joint)
        for draw, found in enumerate(_draws(joint, images.to(device), noise_sd, times, draws, seed)):
            sums.add(rows, draw, found, crop)
        if progress is not None:
            progress(rows.stop)
    return sums.segmentation(axis, 1 + draws * (steps - 1), fusion, noise_sd > 0, volume)


def _draws(
    joint: JointDenoiser, images: Tensor, noise_sd: float, times: Tensor, draws: int, seed: int
) -> Iterator[JointPosterior]:
    """What each draw ends with, for a batch of slices (slice, 1, *grid)."""
    lam = torch.tensor(-math.log(noise_sd) if noise_sd > 0 else math.inf, dtype=torch.float64)
    t_image = joint.path.time_of_log_snr(lam)
    view = _LastWord(
        joint.labels_given_image(float(joint.path.coefficients(t_image).alpha) * images, t_image)
    )
    event = (joint.labels.channels, *images.shape[2:])
    first = view(images.new_zeros(len(images), *event), times[0])
    if len(times) == 2:
        yield view.said
        return
    c = joint.path.coefficients(times[1])
    table = ddpm(times[1:], joint.path)
    for draw in range(draws):
        generators = generators_of([seed] * len(images), _PURPOSE, draw)  # the same noise in every slice
        noise = noise_of(generators, event, images.dtype, images.device)
        state = float(c.alpha) * first + float(c.sigma) * noise
        integrate(view, state, table, generators=generators)
        yield view.said


class _LastWord:
    """A view of the joint denoiser as a denoiser of labels that keeps all it said last."""

    def __init__(self, view: LabelsGivenImage) -> None:
        self.view, self.path = view, view.path
        self.said: JointPosterior

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.said = self.view.both(x, t)
        return self.said.labels.to(x)


def _padded(images: Tensor, joint: JointDenoiser) -> tuple[Tensor, tuple[slice, ...]]:
    """(slice, 1, *grid) with axes the network can halve, and where the images lie in it."""
    multiple = int(getattr(joint.network, "multiple", 1))
    missing = [-size % multiple for size in images.shape[1:]]
    around = [n for gap in reversed(missing) for n in (gap // 2, gap - gap // 2)]
    crop = tuple(
        slice(gap // 2, gap // 2 + size) for gap, size in zip(missing, images.shape[1:], strict=True)
    )
    return torch.nn.functional.pad(images.unsqueeze(1), around), crop


def _check(
    joint: JointDenoiser,
    volume: np.ndarray,
    noise_sd: float,
    draws: int,
    axis: int,
    batch_size: int,
    fusion: str,
) -> None:
    if volume.ndim != 3 or not np.isfinite(volume).all():
        raise InputError(
            f"expected one finite 3-D volume; got shape {volume.shape} or NaN in it. Give one scan."
        )
    if joint.image.channels != 1:
        raise InputError(
            f"expected a joint model of one image channel; got {joint.image.channels}. Use joint-2d."
        )
    if not (math.isfinite(noise_sd) and noise_sd >= 0):
        raise InputError(f"expected noise >= 0 in units of the prior; got {noise_sd}. 0 for a clean scan.")
    if draws < 1 or batch_size < 1 or axis not in (0, 1, 2):
        raise InputError(
            f"expected draws and batch size >= 1 and an axis 0, 1 or 2; got {draws}, {batch_size}, {axis}. "
            "8 draws of axial slices (2) are usual."
        )
    if fusion not in ("mean", "staple"):
        raise InputError(f"expected fusion mean or staple; got {fusion!r}. Use one of them.")
