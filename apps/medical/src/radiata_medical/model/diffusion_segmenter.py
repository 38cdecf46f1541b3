r"""Segmentation by sampling: draws of p(labels | image) from a joint denoiser.

    image (noisy or clean)  →  one evaluation at u = 1     p(l | x) of every voxel by itself: an ordinary segmenter
                            →  `steps` - 1 more a draw     whole label maps, each of which could be the truth

What draws have over one evaluation is what voxels have in common: label maps with surfaces, not voxels thrown one by one. A
draw ends with probabilities, $p(l \mid x, l_u)$ given its own noisy labels; their mean over draws estimates $p(l \mid x)$.

In every step the class of each voxel is drawn from its probabilities, and the field of these classes takes the place of
the posterior mean in an ancestral step. With few steps the mean would let every draw run to the likelier side: it has
none of the variance that the labels still have. Chains of voxels have a posterior that can be enumerated
(`tests/medical/test_diffusion_segmenter.py`): with four steps, total variation between the law of drawn label maps and the
truth falls from 0.10 to 0.055 (six voxels, two classes, 6000 draws; 0.02 is chance, voxels drawn one by one are at 0.6), the
error of the mean probabilities from 0.035 to 0.02.
The noise goes from pure noise to sigma/alpha = 4 and down to sqrt(2) (`label_times`); lower, and voxels settle one by one.

That is a perfect network. The errors of a trained one add up over steps, and the mean of its draws is surer of itself than
one evaluation is: for probabilities of single voxels take one step, or calibrate (`reliability`); draws are for whole maps.

Draw d has the same noise in every slice: neighbouring slices that look alike get labels that look alike, and a draw is a
volume. Nothing depends on how slices are batched. What is made of the draws is `draw_statistics`.

References:
    Amit et al., "SegDiff", 2021, https://arxiv.org/abs/2112.00390 (several draws of a segmentation, averaged).
    Wu et al., "MedSegDiff", 2022, https://arxiv.org/abs/2211.00611 (fused by STAPLE).
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
from radiata_core.seeds import generator_of, noise_of
from radiata_core.solvers import ddpm, integrate
from radiata_medical.model.draw_statistics import DrawSums, SampledSegmentation
from radiata_medical.model.joint_model import build_joint

__all__ = ["SampledSegmentation", "build_joint", "drawn_field", "label_times", "segment_slices"]

_FIRST, _LAST_OF_CLASSES, _LAST_OF_DISTANCES = 4.0, math.sqrt(2.0), 0.2
_NOISE, _CLASS = 17, 18
"""Purposes of random numbers: part of the key of their generators."""


def label_times(steps: int, path: Path, last: float = _LAST_OF_CLASSES) -> Tensor:
    """Times of the labels, float64, (steps + 1,), from 1 to 0: in between sigma/alpha is geometric from 4 to `last`.

    Raises:
        InputError: no step.
    """
    if steps < 1:
        raise InputError(f"expected at least 1 step; got {steps}. 1 is an ordinary segmenter, 4 is usual.")
    ends = math.log(_FIRST), math.log(last)
    if steps == 2:
        log_kappa = torch.tensor([sum(ends) / 2], dtype=torch.float64)
    else:
        log_kappa = torch.linspace(*ends, steps - 1, dtype=torch.float64)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return torch.cat([one, path.time_of_log_snr(-log_kappa), zero])


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
        batch_size: Slices (or draws of few slices) at once; changes nothing but memory.
        seed: Of the draws; draw d is the same for any number of draws.
        fusion: "mean": class of largest mean probability, the best guess for draws of one law. "staple": by STAPLE.
        device: Where the network runs.
        progress: Called with the number of slices done.

    Raises:
        InputError: a volume that is not 3-D and finite, or options out of range.
    """
    _check(joint, volume, noise_sd, draws, axis, batch_size, fusion)
    joint = joint.to(device).eval()
    distances = isinstance(joint.labels, RealField)
    times = label_times(steps, joint.path, _LAST_OF_DISTANCES if distances else _LAST_OF_CLASSES)
    draws = draws if steps > 1 else 1
    slices = np.moveaxis(np.asarray(volume, np.float32), axis, 0)
    sums = DrawSums(joint.labels.channels, slices.shape, draws, distances)
    for start in range(0, len(slices), batch_size):
        rows = slice(start, min(start + batch_size, len(slices)))
        images, crop = _padded(torch.from_numpy(slices[rows].copy()), joint)
        for draw, found in enumerate(
            _draws(joint, images.to(device), noise_sd, times, draws, seed, batch_size)
        ):
            sums.add(rows, draw, found, crop)
        if progress is not None:
            progress(rows.stop)
    return sums.segmentation(axis, 1 + draws * (steps - 1), fusion, noise_sd > 0, volume)


def _draws(
    joint: JointDenoiser,
    images: Tensor,
    noise_sd: float,
    times: Tensor,
    draws: int,
    seed: int,
    batch_size: int,
) -> Iterator[JointPosterior]:
    """What each draw ends with, for some slices (slice, 1, *grid); several draws at once where slices are few."""
    lam = torch.tensor(-math.log(noise_sd) if noise_sd > 0 else math.inf, dtype=torch.float64)
    t_image = joint.path.time_of_log_snr(lam)
    seen = float(joint.path.coefficients(t_image).alpha) * images
    count, event = len(images), (joint.labels.channels, *images.shape[2:])
    first = joint.labels_given_image(seen, t_image).both(images.new_zeros(count, *event), times[0])
    if len(times) == 2:
        yield first
        return
    c = joint.path.coefficients(times[1])
    table = ddpm(times[1:], joint.path)
    most = max(1, batch_size // count)
    for start in range(0, draws, most):
        some = range(start, min(start + most, draws))
        # The same numbers in every slice: see the top of the page.
        noises, uniforms = (
            [generator_of(seed, key, draw) for draw in some for _ in range(count)] for key in (_NOISE, _CLASS)
        )
        given = joint.labels_given_image(_repeated(seen, len(some)), t_image)
        steps = _DrawnSteps(given, uniforms, table.evaluations)
        noise = noise_of(noises, event, images.dtype, images.device)
        begun = drawn_field(_rows_of(first, slice(None), len(some)), uniforms)
        integrate(steps, float(c.alpha) * begun + float(c.sigma) * noise, table, generators=noises)
        for index in range(len(some)):
            yield _rows_of(steps.said, slice(index * count, (index + 1) * count))


def _repeated(rows: Tensor, times: int) -> Tensor:
    return rows.repeat(times, *[1] * (rows.ndim - 1))


def _rows_of(found: JointPosterior, rows: slice, times: int = 1) -> JointPosterior:
    """Some rows of a posterior, all of them repeated."""
    log_p = found.log_probabilities
    return JointPosterior(
        _repeated(found.image[rows], times),
        _repeated(found.labels[rows], times),
        None if log_p is None else _repeated(log_p[rows], times),
    )


class _DrawnSteps:
    """A view of the joint denoiser as a sampler's denoiser: drawn fields, and all that was said in the last evaluation."""

    def __init__(self, view: LabelsGivenImage, uniforms: Sequence[torch.Generator], evaluations: int) -> None:
        self.view, self.path, self.uniforms, self.left = view, view.path, uniforms, evaluations
        self.said: JointPosterior

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.said = self.view.both(x, t)
        self.left -= 1
        return (drawn_field(self.said, self.uniforms) if self.left else self.said.labels).to(x)


def drawn_field(found: JointPosterior, generators: Sequence[torch.Generator]) -> Tensor:
    """The field (batch, class, *grid) of classes drawn voxel by voxel from a posterior; its mean where there are no classes.

    Args:
        found: The posterior.
        generators: One a row.
    """
    if found.log_probabilities is None:
        return found.labels
    p = found.probabilities
    shape = (1, *p.shape[2:])
    u = torch.stack([torch.rand(shape, generator=g, device=g.device) for g in generators]).to(p)
    drawn = (p.cumsum(1) < u).sum(1).clamp_max(p.shape[1] - 1)
    return 2.0 * torch.nn.functional.one_hot(drawn, p.shape[1]).movedim(-1, 1).to(p) - 1.0


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
