r"""Further terms of a flow map's loss: a discriminator, features, and the weight that keeps them in proportion.

`flowmap_objectives.ConsistencyTrajectory` adds any `term(jumps, consistency) -> ()` to its loss. Here are Kim et al.'s.

**Adversarial.** A discriminator D, with logits, judges the student's jumps, taken on to t = 0 by the stopped map:

| | student | discriminator |
|---|---|---|
| `Hinge` | $-\overline{D(\hat x)}$ | $\overline{[1 - D(x_0)]_+} + \overline{[1 + D(\hat x)]_+}$ |
| `NonSaturating` | $\overline{\zeta(-D(\hat x))}$ | $\overline{\zeta(-D(x_0))} + \overline{\zeta(D(\hat x))}$ |

with $\zeta(y) = \log(1 + e^y)$.

The discriminator has its own optimiser and its own step, on `Adversarial.discriminator_loss(jumps)`.

**Perceptual.** A distance of features of the two ends at t = 0 instead of voxels; as a term (`Perceptual`), or as the loss
itself (`FeatureDistance` with `compare_at_data=True`, as in the paper).

**Adaptive weight.** Terms of unknown scale are balanced by their gradients at one parameter, usually the last weight:

$$\lambda = \mathrm{clip}\left(\frac{|\nabla_{last} \mathcal L_{consistency}|}{|\nabla_{last} \mathcal L_{other}|},
  \lambda_{least}, \lambda_{most}\right) .$$

A warning about attribution: with the same hyper-parameters Kim et al. report an FID of 5.19 at one step without and 2.28
with the discriminator, whose features were trained on ImageNet, as the FID's were. Medical images have no such features.

References:
    Kim et al., "Consistency trajectory models", 2023, https://arxiv.org/abs/2310.02279, eqs. 13-15.
    Esser, Rombach & Ommer, "Taming transformers", 2020, https://arxiv.org/abs/2012.09841, eq. 7 (adaptive weight).
    Lim & Ye, "Geometric GAN", 2017, https://arxiv.org/abs/1705.02894 (hinge).
    Goodfellow et al., "Generative adversarial networks", 2014, https://arxiv.org/abs/1406.2661, section 3 (non-saturating).
    Zhang et al., "The unreasonable effectiveness of deep features", 2018, https://arxiv.org/abs/1801.03924, eq. 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from radiata_core.errors import InputError
from radiata_core.flowmap_objectives import Balance, Jumps, held_fixed
from radiata_core.objectives import LossFunction, SquaredError
from radiata_core.types import Batch, Row

__all__ = [
    "AdaptiveWeight",
    "Adversarial",
    "AdversarialForm",
    "FeatureDistance",
    "Hinge",
    "NonSaturating",
    "Perceptual",
]


@dataclass(frozen=True)
class AdaptiveWeight:
    """Factor of a term, (), without gradient: the ratio of gradient norms at one parameter, clipped.

    A `Balance`: give it as `denoising_weight`, or as the weight of a term. Costs one backward pass to that parameter a
    term; the graph is kept. Where nothing collects gradients (validation) it is 1, clipped.

    Attributes:
        parameter: Name of one of the student's parameters, e.g. "network.last.weight", or `student -> parameter`.
        least: Lower clip, >= 0.
        most: Upper clip.
        factor: What the ratio is multiplied with before it is clipped.

    References:
        Esser et al. 2020, eq. 7; clipped to [0.01, 10] for Kim et al.'s discriminator.
    """

    parameter: str | Callable[[Any], Tensor]
    least: float = 0.01
    most: float = 10.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise InputError(f"expected 0 <= least <= most; got {self.least} and {self.most}. Swap them.")

    def __call__(self, main: Tensor, other: Tensor, student: Any) -> Tensor:
        """The factor of `other`.

        Raises:
            InputError: the student has no such parameter.
        """
        if not (torch.is_grad_enabled() and main.requires_grad and other.requires_grad):
            return main.new_tensor(self.factor).clamp(self.least, self.most)
        last = self._of(student)
        norms = [
            torch.zeros_like(main) if gradient is None else gradient.norm().to(main)
            for term in (main, other)
            for gradient in torch.autograd.grad(term, [last], retain_graph=True, allow_unused=True)
        ]
        ratio = (self.factor * norms[0] / norms[1]).nan_to_num(nan=self.least, posinf=self.most)
        return ratio.clamp(self.least, self.most).detach()

    def _of(self, student: Any) -> Tensor:
        if callable(self.parameter):
            return self.parameter(student)
        try:
            return dict(student.named_parameters())[self.parameter]
        except KeyError:
            names = [name for name, _ in student.named_parameters()]
            raise InputError(
                f"expected the name of a parameter of the student; got {self.parameter!r}. Its last are "
                f"{', '.join(names[-2:])}."
            ) from None


@runtime_checkable
class AdversarialForm(Protocol):
    """The two losses of a game, each (), as functions of logits of any shape."""

    def of_student(self, fake: Tensor) -> Tensor:
        """What the student lowers."""
        ...

    def of_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator lowers."""
        ...


@dataclass(frozen=True)
class Hinge:
    """Margins of 1: the best discriminator says the sign of p_data - p_student."""

    def of_student(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def of_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


@dataclass(frozen=True)
class NonSaturating:
    """Cross entropy: the best discriminator says log p_data / p_student."""

    def of_student(self, fake: Tensor) -> Tensor:
        return functional.softplus(-fake).mean()

    def of_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()


@dataclass(frozen=True)
class Adversarial:
    """The student's side of a game, as a term; the discriminator gets no gradient from it.

    Attributes:
        discriminator: `(x, **conditions) -> logits`, of any shape; larger for what looks like data.
        form: `Hinge()` or `NonSaturating()`.
        weight: Its factor, or a `Balance` such as `AdaptiveWeight`.
    """

    discriminator: nn.Module
    form: AdversarialForm = field(default_factory=Hinge)
    weight: float | Balance = 1.0

    def __call__(self, jumps: Jumps, consistency: Tensor) -> Tensor:
        """The term, (), weighted."""
        with held_fixed(self.discriminator):
            judged = self.discriminator(jumps.found_at_data, **jumps.conditions)
        return _weighted(self.form.of_student(judged), self.weight, consistency, jumps.student)

    def discriminator_loss(self, jumps: Jumps) -> Tensor:
        """The discriminator's loss, (), of a batch's data and of the student's jumps; the student gets no gradient.

        Args:
            jumps: From `ConsistencyTrajectory.jumps`, which may be called without gradients.
        """
        real = self.discriminator(jumps.x0, **jumps.conditions)
        fake = self.discriminator(jumps.found_at_data.detach(), **jumps.conditions)
        return self.form.of_discriminator(real, fake)


@dataclass(frozen=True)
class FeatureDistance:
    """Distance of features, (batch,), summed over layers: a `LossFunction` for images that differ as one sees them.

    The gradient passes through the features to the prediction, not to their weights.

    Attributes:
        features: `x -> tensor`, or a sequence of tensors, one a layer, (batch, channels, ...) each; frozen.
        loss: Distance in a layer.
        normalised: Each place's channels are scaled to unit length first, as in LPIPS.
    """

    features: Callable[[Tensor], Tensor | Sequence[Tensor]]
    loss: LossFunction = field(default_factory=SquaredError)
    normalised: bool = False

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        with held_fixed(self.features):
            found = self._layers(prediction)
        with torch.no_grad():
            wanted = self._layers(target)
        total = self.loss(found[0], wanted[0])
        for one, two in zip(found[1:], wanted[1:], strict=True):
            total = total + self.loss(one, two)
        return total

    def _layers(self, x: Tensor) -> list[Tensor]:
        layers = self.features(x)
        several = [layers] if isinstance(layers, Tensor) else list(layers)
        if not several:
            raise InputError("expected at least one layer of features; got none. Return a tensor or a list.")
        return [functional.normalize(layer, dim=1) for layer in several] if self.normalised else several


@dataclass(frozen=True)
class Perceptual:
    """A distance of the two ends at t = 0, as a term beside the consistency loss.

    Attributes:
        distance: `(prediction, target) -> (batch,)`, e.g. `FeatureDistance`.
        weight: Its factor, or a `Balance` such as `AdaptiveWeight`.
    """

    distance: LossFunction
    weight: float | Balance = 1.0

    def __call__(self, jumps: Jumps, consistency: Tensor) -> Tensor:
        """The term, (), weighted."""
        value = self.distance(jumps.found_at_data, jumps.wanted_at_data).mean()
        return _weighted(value, self.weight, consistency, jumps.student)


def _weighted(term: Tensor, weight: float | Balance, consistency: Tensor, student: Any) -> Tensor:
    return term * (weight(consistency, term, student) if callable(weight) else weight)
