r"""The bound on the likelihood of an image and its labels as the sum of what each modality contributes.

With an image and a label field that are noised independently (`joint_denoisers`), the negative bound on
$\log p(x, l)$ is, up to constants, a regression of each clean modality on both noisy ones,

$$\mathcal L = E_{t,u}\big[\,w_x\, W(t)\, \|x - E_\theta[x \mid x_t, l_u]\|^2
   \; -\; w_l \log p_\theta(l \mid x_t, l_u)\,\big],$$

the squared error for the image and, for classes, the cross-entropy of every voxel. The minimisers are the exact posterior
mean and the exact posterior of the class, whatever the (positive) weights: with W = -dSNR/dt / 2 the first term is the
variational bound itself, with EDM's weight every noise level is equally expensive. The label field's own term of the bound
is minimal at the posterior of the class as well; cross-entropy finds it with gradients that do not die where the softmax is
sure.

Times are drawn independently, so that the network learns the whole square, and with stated probabilities in its corners,
which a continuous law would never draw: the image clean (segmentation), the labels pure noise (what an image alone says),
the labels clean (an image from its labels). A row whose labels are not known trains the image only.

References:
    Chen et al., "Diffusion models for multi-modal generative modeling" (MT-Diffusion), 2024, https://arxiv.org/abs/2407.17571
        (the sum of modalities' terms; there with one time for all).
    Bao et al., "One transformer fits all distributions in multi-modal diffusion at scale" (UniDiffuser), 2023,
        https://arxiv.org/abs/2303.06555 (independent times).
    Milletari et al., "V-Net", 2016, https://arxiv.org/abs/1606.04797 (the Dice term).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.joint_denoisers import JointPosterior
from radiata_core.objectives import EDM, Loss, Weight
from radiata_core.paths import LinearPath, Path, add_noise
from radiata_core.seeds import noise_of
from radiata_core.times import LogNormalSNR, TimeLaw
from radiata_core.types import Batch, Row

__all__ = ["Corners", "MultitaskELBO", "MultitaskLoss", "cross_entropy", "soft_dice_loss"]


@dataclass(frozen=True)
class Corners:
    """Probabilities of the corners of the square of times; with the rest both times are drawn.

    Attributes:
        segment: The image is clean and the labels' time is drawn: every step of sampled segmentation.
        segment_at_once: The image is clean and the labels are pure noise: an ordinary segmenter.
        image_alone: The labels are pure noise and the image's time is drawn: the image's prior, and segmentation of a
            noisy image at once.
        image_of_labels: The labels are clean and the image's time is drawn.
    """

    segment: float = 0.2
    segment_at_once: float = 0.2
    image_alone: float = 0.2
    image_of_labels: float = 0.1

    def __post_init__(self) -> None:
        if min(self.probabilities) < 0 or sum(self.probabilities) > 1 + 1e-9:
            raise InputError(
                f"expected probabilities >= 0 of at most 1 together; got {self.probabilities}. Lower one of them."
            )

    @property
    def probabilities(self) -> tuple[float, float, float, float]:
        """In the order of the fields."""
        return (self.segment, self.segment_at_once, self.image_alone, self.image_of_labels)

    def __call__(self, u: Row, t_image: Row, t_labels: Row) -> tuple[Row, Row]:
        """The times of every row: as drawn, or moved to a corner by its uniform number u in [0, 1)."""
        edges = torch.tensor(self.probabilities, dtype=torch.float64).cumsum(0)
        corner = torch.bucketize(u.double(), edges, right=True)  # 0 … 3, or 4 for none
        clean_image, pure_labels = corner <= 1, (corner == 1) | (corner == 2)
        moved = torch.where(pure_labels, 1.0, torch.where(corner == 3, 0.0, t_labels))
        return torch.where(clean_image, 0.0, t_image), moved


@dataclass(frozen=True)
class MultitaskLoss(Loss):
    """A `Loss` (its t is the image's) with its parts, (batch,) each, unweighted by `w_image` and `w_labels`.

    Attributes:
        image: Weighted squared error of the image; 0 where it was clean.
        labels: Cross-entropy a voxel in nats (plus Dice), or weighted squared error; 0 where labels were clean or unknown.
        t_labels: The labels' times.
    """

    image: Tensor
    labels: Tensor
    t_labels: Tensor


@dataclass(frozen=True)
class MultitaskELBO:
    """The objective of a `JointDenoiser`: items are {"image": (channel, *grid), "labels": (*grid)} and conditions.

    Labels are class indices, negative where not known, or for a real field the field itself, (channel, *grid). They are a
    companion of the image: dropout of conditions never touches them.

    Attributes:
        path: The denoiser's path.
        image_law: Law of the image's time.
        labels_law: Law of the labels' time. Many voxels share what is known of a class, so labels are settled at far more
            noise than images are: its centre is at sigma = 2 alpha.
        corners: Probabilities of the corners.
        image_weight: W(t) of the squared error of the image; None: EDM's with the denoiser's `sigma_data`.
        w_image: Weight of the image's term, >= 0.
        w_labels: Weight of the labels' term, >= 0.
        dice: Weight of the soft Dice loss beside the cross-entropy, >= 0. Its minimiser is not the posterior: leave it at
            0 where probabilities are to be believed.
    """

    path: Path = field(default_factory=LinearPath)
    image_law: TimeLaw = field(default_factory=lambda: LogNormalSNR(-1.2, 1.4))
    labels_law: TimeLaw = field(default_factory=lambda: LogNormalSNR(0.7, 1.2))
    corners: Corners = field(default_factory=Corners)
    image_weight: Weight | None = None
    w_image: float = 1.0
    w_labels: float = 1.0
    dice: float = 0.0
    companions: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        if not (min(self.w_image, self.w_labels, self.dice) >= 0 and self.w_image + self.w_labels > 0):
            raise InputError(
                f"expected weights >= 0, not both 0; got w_image {self.w_image}, w_labels {self.w_labels}, "
                f"dice {self.dice}. 1, 1 and 0 are usual."
            )

    def __call__(
        self,
        denoiser: Any,
        x0: Batch,
        generators: Sequence[Generator],
        *,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> MultitaskLoss:
        """The loss of a batch; row i draws its corner, both times and both noises from generator i only.

        Args:
            denoiser: A `JointDenoiser`.
            x0: Images, (batch, channel, *grid), in its units.
            generators: One a row.
            labels: Classes (batch, *grid), or fields (batch, channel, *grid).
            conditions: Passed to the denoiser.

        Raises:
            InputError: items without labels, labels on another grid, a denoiser of another path, or not one generator a
                row.
        """
        _check(denoiser, self.path, x0, labels, generators)
        assert labels is not None
        clean = denoiser.labels.encode(labels).to(x0)
        known = (labels >= 0).flatten(1).all(1) if labels.ndim == x0.ndim - 1 else None
        t_image, t_labels = self._times(generators, known)
        image_t = add_noise(self.path, x0, noise_of(generators, x0.shape[1:], x0.dtype, x0.device), t_image)
        labels_t = add_noise(
            self.path, clean, noise_of(generators, clean.shape[1:], clean.dtype, clean.device), t_labels
        )
        found = denoiser(image_t, t_image, labels_t, t_labels, **conditions)
        image = self._real(found.image, x0, t_image, getattr(denoiser.image, "sigma_data", 1.0))
        truth = self._labels(denoiser, found, labels, clean, t_labels)
        per_row = self.w_image * image + self.w_labels * truth
        return MultitaskLoss(per_row.mean(), per_row, t_image, image, truth, t_labels)

    def _times(self, generators: Sequence[Generator], known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both times of every row, float64, on the CPU; the labels' are 1 where labels are not known."""
        draws = [
            (
                torch.rand(1, generator=g, dtype=torch.float64, device=g.device).cpu(),
                self.image_law.sample(1, g).cpu(),
                self.labels_law.sample(1, g).cpu(),
            )
            for g in generators
        ]
        u, t, s = (torch.cat(column) for column in zip(*draws, strict=True))
        t_image, t_labels = self.corners(u, self.image_law.on(self.path, t), self.labels_law.on(self.path, s))
        if known is not None and not bool(known.all()):
            t_labels = torch.where(known.cpu(), t_labels, torch.ones_like(t_labels))
        return t_image, t_labels

    def _real(self, estimate: Tensor, truth: Tensor, t: Row, sigma_data: float) -> Row:
        """W(t) times the mean squared error; 0 where the state was clean, where W is infinite and the error 0."""
        fine = torch.promote_types(truth.dtype, torch.float32)
        error = (estimate.to(fine) - truth.to(fine)).square().flatten(1).mean(1)
        weight = (EDM(sigma_data) if self.image_weight is None else self.image_weight)(t, self.path)
        return torch.where(t > 0, weight, 0.0).to(error) * error

    def _labels(self, denoiser: Any, found: JointPosterior, labels: Tensor, clean: Tensor, t: Row) -> Row:
        if found.log_probabilities is None:
            return self._real(found.labels, clean, t, getattr(denoiser.labels, "sigma_data", 1.0))
        loss = cross_entropy(found.log_probabilities, labels)
        if self.dice:
            loss = loss + self.dice * soft_dice_loss(found.log_probabilities.exp(), clean)
        return loss * (t > 0).to(loss)


def cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Row:
    """Mean of -log p(label) over the voxels whose label is known, nats, (batch,); 0 where none is.

    Args:
        log_probabilities: (batch, class, *grid).
        labels: (batch, *grid), class indices; negative where not known.
    """
    index = labels.round().long() if labels.is_floating_point() else labels.long()
    known = (index >= 0).flatten(1)
    said = -log_probabilities.gather(1, index.clamp_min(0).unsqueeze(1)).squeeze(1).flatten(1)
    return (said * known).sum(1) / known.sum(1).clamp_min(1)


def soft_dice_loss(probabilities: Tensor, field: Tensor) -> Row:
    """1 - mean over the classes present of 2 sum(p y) / (sum p + sum y), (batch,), in [0, 1].

    Args:
        probabilities: (batch, class, *grid).
        field: The clean label field, 1 in the class, -1 elsewhere, 0 where not known, (batch, class, *grid).
    """
    p, y = probabilities.flatten(2), ((field + 1) / 2 * (field != 0)).to(probabilities).flatten(2)
    p = p * (field != 0).flatten(2)
    score = 2 * (p * y).sum(2) / (p.sum(2) + y.sum(2)).clamp_min(1e-6)
    present = y.sum(2) > 0
    return 1 - (score * present).sum(1) / present.sum(1).clamp_min(1)


def _check(
    denoiser: Any, path: Path, x0: Tensor, labels: Tensor | None, generators: Sequence[Generator]
) -> None:
    if labels is None:
        raise InputError(
            "expected items with the key 'labels'; got images alone. Prepare the data with labels."
        )
    if denoiser.path != path:
        raise InputError(
            f"expected a denoiser on {path}; got one on {denoiser.path}. Train it on its own path."
        )
    if len(generators) != len(x0):
        raise InputError(
            f"expected one generator a sample, {len(x0)}; got {len(generators)}. Make one a sample."
        )
    grid = labels.shape[-(x0.ndim - 2) :]
    if grid != x0.shape[2:] or len(labels) != len(x0):
        raise InputError(
            f"expected labels on the image's grid {tuple(x0.shape[2:])}; got {tuple(labels.shape[1:])}. "
            "Crop both alike."
        )
