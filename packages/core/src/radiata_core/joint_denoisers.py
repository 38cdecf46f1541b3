r"""An image and its labels diffused together, each with a noise level of its own: one network, every conditional law.

The image $x$ and the label field $l$ are noised independently, at times t and u of one path,

$$x_t = \alpha_t x + \sigma_t\varepsilon, \qquad l_u = \alpha_u l + \sigma_u\varepsilon',$$

and one network that is told both levels answers with $E[x \mid x_t, l_u]$ and the law of the label of every voxel,
$p(k \mid x_t, l_u)$. The corners of the square of times are the laws one is asked for:

| t (image) | u (labels) | the labels' answer is | the image's answer is |
|---|---|---|---|
| 0 | 1 → 0 | segmentation, sampled: p(l \| x) | |
| 1 → 0 | 0 | | synthesis of a labelled image: p(x \| l) |
| 1 → 0 | 1 | | the prior of images alone |
| 1 → 0 | 1 → 0 | joint generation | joint generation |
| of the noise | 1 → 0 | segmentation of a noisy image | its restoration, told the labels |

`JointDenoiser.labels_given_image`, `image_given_labels` and `jointly` are these rows as ordinary denoisers: every solver and
posterior sampler of the library runs on them. How the network's output becomes an answer is a `Modality`:

* `RealField`, images and signed distances: Karras et al.'s preconditioning, written without a division by alpha, so that it
  is finite at t = 1 as well;
* `ClassField`, one of K classes in each voxel, diffused as a field of K channels that is 1 in the class and -1 elsewhere.
  White noise is independent in all channels, so Bayes' rule splits exactly into what the voxel's own noisy field says and
  what everything else says, $\log p(k \mid x_t, l_u) = f_k + 2\alpha_u l_{u,k}/\sigma_u^2 + \text{const}$: the network
  learns $f_k$, the context, and the rest is added. $E[l \mid \cdot] = 2p - 1$.

Where alpha = 0 a state holds nothing, and the network sees zeros in its place: its answer is a function of the other
modality alone, the same for all noise. At u = 1 a joint denoiser is an ordinary segmenter.

References:
    Chen et al., "Diffusion models for multi-modal generative modeling" (MT-Diffusion), 2024, https://arxiv.org/abs/2407.17571.
    Bao et al., "One transformer fits all distributions in multi-modal diffusion at scale" (UniDiffuser), 2023,
        https://arxiv.org/abs/2303.06555 (a level for each modality).
    Dieleman et al., "Continuous diffusion for categorical data", 2022, https://arxiv.org/abs/2211.15089 (class
        probabilities as the answer of a Gaussian diffusion).
    Karras et al., 2022, https://arxiv.org/abs/2206.00364, eq. 7.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.paths import Coefficients, Path, expand
from radiata_core.specs import buildable
from radiata_core.types import Time

__all__ = [
    "ClassField",
    "ImageGivenLabels",
    "JointDenoiser",
    "JointPosterior",
    "Jointly",
    "LabelsGivenImage",
    "Modality",
    "RealField",
]

_LIMIT = 6.0
"""Clip of log(sigma / alpha): both ends of a path have a finite level."""
_LARGEST = 200.0
"""Clip of 2 alpha / sigma^2. Beyond it the classes lie more than 20 standard deviations apart: certain either way."""

Field = Float[Tensor, "batch channel *grid"]
LabelField = Float[Tensor, "batch class *grid"]


@runtime_checkable
class Modality(Protocol):
    """How one modality enters the network, and what its part of the output means."""

    @property
    def channels(self) -> int:
        """Channels of its field, and of its part of the network's input and output."""
        ...

    def encode(self, labels: Tensor) -> Tensor:
        """The clean field (batch, channels, *grid) of what a data set holds."""
        ...

    def scaled(self, state: Tensor, c: Coefficients) -> Tensor:
        """The state as the network sees it, about 1 in root mean square."""
        ...

    def answer(self, raw: Tensor, state: Tensor, c: Coefficients) -> tuple[Tensor, Tensor | None]:
        """E[field | states] and the log-probabilities of classes, if there are classes."""
        ...


@buildable("real-field")
@dataclass(frozen=True)
class RealField:
    """Real numbers on a grid: D = c_skip x + c_out F(c_in x).

    Attributes:
        channels: Of the field, >= 1.
        sigma_data: Root mean square of the field, > 0, in its units.
    """

    channels: int = 1
    sigma_data: float = 0.5

    def encode(self, labels: Tensor) -> Tensor:
        """The field itself, in float32."""
        return labels.to(torch.float32)

    def scaled(self, state: Tensor, c: Coefficients) -> Tensor:
        """state / sqrt(alpha^2 sigma_data^2 + sigma^2)."""
        return state * expand(self._total(c).rsqrt(), state).to(state)

    def answer(self, raw: Tensor, state: Tensor, c: Coefficients) -> tuple[Tensor, Tensor | None]:
        """(sigma_data^2 alpha x + sigma_data sigma sqrt(total) F) / total, total = alpha^2 sigma_data^2 + sigma^2."""
        total = self._total(c)
        skip, out = self.sigma_data**2 * c.alpha / total, self.sigma_data * c.sigma * total.rsqrt()
        return expand(skip, state).to(state) * state + expand(out, state).to(state) * raw, None

    def _total(self, c: Coefficients) -> Tensor:
        return c.alpha.square() * self.sigma_data**2 + c.sigma.square()


@buildable("class-field")
@dataclass(frozen=True)
class ClassField:
    """One of K classes in every voxel, as K channels of 1 (the class) and -1 (the others).

    Attributes:
        classes: K >= 2.
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(f"expected at least 2 classes; got {self.classes}. Background is one of them.")

    @property
    def channels(self) -> int:
        return self.classes

    def encode(self, labels: Shaped[Tensor, "batch *grid"]) -> LabelField:
        """2 onehot - 1; zeros where the class is not known (negative).

        Args:
            labels: Class of every voxel, 0 … K - 1, or negative where it is not known.

        Raises:
            InputError: a class of K or more.
        """
        index = labels.round().long() if labels.is_floating_point() else labels.long()
        if index.numel() and int(index.max()) >= self.classes:
            raise InputError(
                f"expected classes 0 … {self.classes - 1}; got {int(index.max())}. "
                f"Group the labels into {self.classes} classes."
            )
        known = (index >= 0).unsqueeze(1)
        onehot = torch.nn.functional.one_hot(index.clamp_min(0), self.classes).movedim(-1, 1)
        return (2.0 * onehot - 1.0) * known

    def scaled(self, state: Tensor, c: Coefficients) -> Tensor:
        """state / sqrt(alpha^2 + sigma^2); the field's root mean square is 1."""
        return state * expand((c.alpha.square() + c.sigma.square()).rsqrt(), state).to(state)

    def answer(self, raw: Tensor, state: Tensor, c: Coefficients) -> tuple[Tensor, Tensor | None]:
        """2 p - 1 and log p, p = softmax(F + 2 alpha l / sigma^2), in float32 or finer."""
        gain = (2 * c.alpha / c.sigma.square().clamp_min(1e-12)).clamp(max=_LARGEST)
        fine = torch.promote_types(state.dtype, torch.float32)
        logits = raw.to(fine) + expand(gain, state).to(fine) * state.to(fine)
        log_p = logits.log_softmax(1)
        return 2 * log_p.exp() - 1, log_p


@dataclass(frozen=True)
class JointPosterior:
    """What is known of a pair of states.

    Attributes:
        image: E[image | both states], (batch, channel, *grid), units of the image.
        labels: E[label field | both states], (batch, class, *grid), in [-1, 1] for classes.
        log_probabilities: log p(class | both states) in every voxel, (batch, class, *grid), or None for a field that is
            not one of classes.
    """

    image: Field
    labels: LabelField
    log_probabilities: LabelField | None

    @property
    def probabilities(self) -> Tensor:
        """p(class | both states), (batch, class, *grid), sums to 1 over classes."""
        if self.log_probabilities is None:
            raise InputError("expected labels that are classes; got a real field. Use its mean, `labels`.")
        return self.log_probabilities.exp()


@buildable("joint-denoiser")
class JointDenoiser(nn.Module):
    """Both posterior means from both noisy states, each at its own time.

    Args:
        network: `network(x, level, target_level=level_of_labels, **conditions)`, in and out (batch, image + label channels,
            *grid); `nets.unet.UNet(destination=True)` is one. A level is log(sigma / alpha) / 4, clipped to ±1.5. The
            embedding of the second starts at zero: the network of an image prior starts a joint denoiser.
        path: The path of both.
        image: The image's modality.
        labels: The labels' modality.
    """

    def __init__(self, network: nn.Module, path: Path, image: Modality, labels: Modality) -> None:
        super().__init__()
        self.network, self.path, self.image, self.labels = network, path, image, labels

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this denoiser."""
        return {"network": self.network, "path": self.path, "image": self.image, "labels": self.labels}

    def forward(
        self,
        image_t: Field,
        t_image: Time,
        labels_t: LabelField,
        t_labels: Time,
        **conditions: Tensor | None,
    ) -> JointPosterior:
        """E[image | both] and the posterior of the labels.

        Args:
            image_t: Noisy image at `t_image`.
            t_image: Its time, () or (batch,).
            labels_t: Noisy label field at `t_labels`.
            t_labels: Its time, () or (batch,).
            conditions: Passed to the network.

        Raises:
            InputError: a field of another number of channels, or a time outside [0, 1].
        """
        for name, state, modality in (("image", image_t, self.image), ("labels", labels_t, self.labels)):
            if state.shape[1] != modality.channels:
                raise InputError(
                    f"expected {modality.channels} channels of the {name}; got {state.shape[1]}. "
                    "Give (batch, channel, *grid)."
                )
        at, of = self.path.coefficients(t_image), self.path.coefficients(t_labels)
        seen = torch.cat(
            [
                self.image.scaled(_shown(image_t, at), at),
                self.labels.scaled(_shown(labels_t, of), of).to(image_t),
            ],
            1,
        )
        raw = self.network(
            seen, self._level(t_image, seen), target_level=self._level(t_labels, seen), **conditions
        )
        parts = raw.split([self.image.channels, self.labels.channels], 1)
        image, _ = self.image.answer(parts[0], image_t, at)
        labels, log_p = self.labels.answer(parts[1], labels_t, of)
        return JointPosterior(image, labels, log_p)

    def _level(self, t: Tensor, like: Tensor) -> Tensor:
        level = -self.path.log_snr(t).clamp(-_LIMIT, _LIMIT) / 4.0
        return level.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def labels_given_image(self, image: Field, t: Time | float = 0.0) -> "LabelsGivenImage":
        """E[labels | labels_u, image_t] as a denoiser of the label field.

        Args:
            image: The image, clean (t = 0) or noisy; one row, or as many as the states will have.
            t: Its time, at which sigma / alpha is the noise's standard deviation.
        """
        return LabelsGivenImage(self, image, torch.as_tensor(t, dtype=torch.float64))

    def image_given_labels(
        self, labels: LabelField | None = None, t: Time | float = 0.0
    ) -> "ImageGivenLabels":
        """E[image | image_t, labels_u] as a denoiser of the image; without labels the prior of images.

        Args:
            labels: The label field, clean (t = 0) or noisy; one row, or as many as the states will have. None: not known.
            t: Its time; 1 where the labels are None.

        Raises:
            InputError: no labels, and a path that does not end in pure noise.
        """
        time = torch.as_tensor(1.0 if labels is None else t, dtype=torch.float64)
        if labels is None and float(self.path.coefficients(time).alpha) > 0:
            raise InputError(
                f"expected a path that ends in pure noise for an image without labels; got {self.path}. Use LinearPath."
            )
        return ImageGivenLabels(self, labels, time)

    def jointly(self) -> "Jointly":
        """Both at one time, as a denoiser of a tensor of image and label channels."""
        return Jointly(self)


def _shown(state: Tensor, c: Coefficients) -> Tensor:
    """The state, or zeros where alpha = 0 and it holds nothing."""
    if not bool((c.alpha == 0).any()):
        return state
    return torch.where(expand(c.alpha, state) == 0, torch.zeros_like(state), state)


def _rows(field: Tensor, like: Tensor) -> Tensor:
    """One row for all, or a row each."""
    if len(field) not in (1, len(like)):
        raise InputError(
            f"expected 1 or {len(like)} rows of what is given; got {len(field)}. Repeat the rows."
        )
    return field.to(like.device).expand(len(like), *field.shape[1:])


@dataclass(frozen=True, eq=False)
class LabelsGivenImage:
    """The labels' posterior mean with the image held at its noise level: a `Denoiser` of label fields."""

    joint: JointDenoiser
    image: Tensor
    t_image: Tensor

    @property
    def path(self) -> Path:
        return self.joint.path

    def both(self, x: LabelField, t: Time, **conditions: Tensor | None) -> JointPosterior:
        """All that the network says: the labels, and the image told these noisy labels."""
        return self.joint(_rows(self.image, x), self.t_image, x, t, **conditions)

    def __call__(self, x: LabelField, t: Time, **conditions: Tensor | None) -> Tensor:
        """E[label field | label field at t, image], the shape of x."""
        return self.both(x, t, **conditions).labels.to(x)


@dataclass(frozen=True, eq=False)
class ImageGivenLabels:
    """The image's posterior mean with the labels held at their noise level: a `Denoiser` of images."""

    joint: JointDenoiser
    labels: Tensor | None
    t_labels: Tensor

    @property
    def path(self) -> Path:
        return self.joint.path

    def both(self, x: Field, t: Time, **conditions: Tensor | None) -> JointPosterior:
        """All that the network says: the image, and the labels told this noisy image."""
        labels = self.labels
        if labels is None:
            labels = x.new_zeros(1, self.joint.labels.channels, *x.shape[2:])
        return self.joint(x, t, _rows(labels, x), self.t_labels, **conditions)

    def __call__(self, x: Field, t: Time, **conditions: Tensor | None) -> Tensor:
        """E[image | image at t, labels], the shape of x."""
        return self.both(x, t, **conditions).image


@dataclass(frozen=True, eq=False)
class Jointly:
    """Image and label channels as one state at one time: a `Denoiser` of (batch, image + label channels, *grid)."""

    joint: JointDenoiser

    @property
    def path(self) -> Path:
        return self.joint.path

    def __call__(self, x: Field, t: Time, **conditions: Tensor | None) -> Tensor:
        """E[both | both at t], the shape of x."""
        image, labels = x.split([self.joint.image.channels, self.joint.labels.channels], 1)
        found = self.joint(image, t, labels, t, **conditions)
        return torch.cat([found.image, found.labels.to(x)], 1)
