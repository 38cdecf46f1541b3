r"""Score distillation: a denoiser as a prior for whatever can be rendered, written as a loss to a denoised target.

A volume, a field, the output of a network: anything with parameters theta that shows *views* x = g(theta) of the kind that a
denoiser knows (slices of a volume, say). Noise a view, x_t = alpha x + sigma eps, denoise it, and move the parameters along

    grad SDS = w (eps^ - eps) dx/dtheta,        eps^ = (x_t - alpha x^_0)/sigma,      x^_0 = E[x_0 | x_t],

which needs no gradient of the denoiser. Put eps = (x_t - alpha x)/sigma beside it: the noise cancels, and what is left is
the gradient of a squared distance,

    grad SDS = grad  1/2 w (alpha/sigma) |x - x^_0|^2,           x^_0 held fixed.                                     (*)

So this is a reconstruction loss whose target is the view, denoised; x^_0 is there to be looked at, and the weight is
chosen in the open. For the residual p^ - p of any prediction p = a x_0 + b eps the same holds with |alpha b - sigma a|/sigma
in place of alpha/sigma: 1/sigma for v, 1/t for the velocity of the linear path (`ResidualWeight`).

**Noise is annealed.** Much noise makes the target a blurred mean, which is right for a bad first guess and wrong for a good
one; drawing all levels until the end (DreamFusion's recipe) pulls the result to that mean. `AnnealedTimes` lets the interval
of times fall with the progress. That is decisive for volumes from slices: docs/score-distillation.md.

**It seeks a mode.** What comes out is one point estimate, something like a maximum a posteriori: smoother than any sample,
the same from every seed up to noise. The spread of several runs is *no* uncertainty. For samples see `posterior`.

Read next: `slice_distillation` (a volume from a prior of slices), `gaussian_field` (what else can be rendered).

References:
    Guo et al., "StableDreamer: taming noisy score distillation sampling for text-to-3D", 2023,
        https://arxiv.org/abs/2312.02189 (the loss as a distance to a denoised target, annealed noise, two stages).
    Poole et al., "DreamFusion: text-to-3D using 2D diffusion", 2022, https://arxiv.org/abs/2209.14988, section 3
        (the gradient).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.kernels import require_gaussian
from radiata_core.objectives import Constant, Weight
from radiata_core.paths import AnyTime, Coefficients, Path, add_noise, expand
from radiata_core.predictions import Prediction, target_of
from radiata_core.seeds import noise_of
from radiata_core.types import Batch, Row, Scalar

__all__ = ["AnnealedTimes", "Distilled", "ResidualWeight", "ScoreDistillation"]


@dataclass(frozen=True)
class AnnealedTimes:
    """The interval of times at a progress from 0 to 1, both of its ends falling geometrically (or staying).

    Attributes:
        high: Upper end at progress 0 and 1, times in (0, 1]. (0.98, 0.98) with low (0.02, 0.02) is DreamFusion's, not
            annealed.
        low: Lower end at progress 0 and 1, not above the upper.

    Raises:
        InputError: times outside (0, 1], or a lower end above the upper.
    """

    high: tuple[float, float] = (0.5, 0.1)
    low: tuple[float, float] = (0.1, 0.02)

    def __post_init__(self) -> None:
        pairs = list(zip(self.low, self.high, strict=True))
        if not all(0 < low <= high <= 1 for low, high in pairs):
            raise InputError(
                f"expected times 0 < low <= high <= 1 at the start and at the end; got low {self.low} and high {self.high}. "
                "Times of 0 have no noise to take away."
            )

    def __call__(self, progress: float) -> tuple[float, float]:
        """Lowest and highest time."""
        first, last = (1 - progress), progress
        return (
            self.low[0] ** first * self.low[1] ** last,
            self.high[0] ** first * self.high[1] ** last,
        )


@dataclass(frozen=True)
class ResidualWeight:
    """The weight of 1/2 |x - x^_0|^2 that makes the gradient w (p^ - p) dx/dtheta, p a prediction: eq. (*) of the module.

    For X0 and the score, whose residuals point the other way, it is -w (p^ - p) dx/dtheta.

    Attributes:
        prediction: p, of which the residual is taken.
        w: `Coefficients -> ` weights >= 0, of the shape of the times; None: 1. DreamFusion's is sigma squared.
    """

    prediction: Prediction = Prediction.EPSILON
    w: Callable[[Coefficients], Tensor] | None = None

    def __call__(self, t: AnyTime, path: Path, target: Prediction = Prediction.X0) -> AnyTime:
        """w |alpha b - sigma a| / sigma for p = a x_0 + b eps, float64, of the shape of t."""
        c = path.coefficients(t)
        one, none = torch.ones_like(c.alpha).flatten(), torch.zeros_like(c.alpha).flatten()
        a = target_of(one, none, t.double().flatten(), path, self.prediction).reshape(t.shape)
        b = target_of(none, one, t.double().flatten(), path, self.prediction).reshape(t.shape)
        rate = (c.alpha * b - c.sigma * a).abs() / c.sigma
        return rate if self.w is None else self.w(c) * rate


@dataclass(frozen=True, eq=False)
class Distilled:
    """The loss of some views.

    Attributes:
        value: Sum over views, ().
        per_view: weight(t)/2 |x - x^_0|^2, summed over the event, (view,).
        x0: The denoised targets x^_0, detached, (view, *event): look at them.
        t: The times that were drawn, (view,), float64.
    """

    value: Scalar
    per_view: Row
    x0: Batch
    t: Tensor


@dataclass(frozen=True, eq=False)
class ScoreDistillation:
    """The loss whose gradient is that of score distillation, of views of anything.

    Attributes:
        denoiser: E[x_0 | x_t] of single views, with Gaussian noise. `denoisers.Guided` for guidance.
        times: Progress in [0, 1] -> lowest and highest time, between which times are drawn evenly.
        weight: Of the squared distance, by time; 1 by default. `ResidualWeight` has the classical ones.

    Raises:
        InputError: the noise is not Gaussian.
    """

    denoiser: Denoiser
    times: Callable[[float], tuple[float, float]] = field(default_factory=AnnealedTimes)
    weight: Weight = field(default_factory=Constant)

    def __post_init__(self) -> None:
        require_gaussian(self.denoiser, "score distillation")

    def __call__(
        self, views: Batch, progress: float, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Distilled:
        """Loss of views; view i draws its time, then its noise, from generator i.

        Args:
            views: What the parameters show, with their graph, (view, channel, *grid).
            progress: How much of the optimisation is done, in [0, 1].
            generators: One a view; the same one several times gives all times first, then all noise.
            **conditions: Of the denoiser, one row a view.

        Raises:
            InputError: a progress outside [0, 1], times outside (0, 1], or not one generator a view.
        """
        if not 0 <= progress <= 1:
            raise InputError(
                f"expected a progress from 0 to 1; got {progress}. Divide the step by the steps."
            )
        if len(generators) != len(views):
            raise InputError(
                f"expected one generator a view, {len(views)}; got {len(generators)}. Make one a view."
            )
        low, high = self.times(progress)
        if not 0 < low <= high <= 1:
            raise InputError(
                f"expected times 0 < low <= high <= 1; got {low} and {high} at progress {progress}. See AnnealedTimes."
            )
        u = [torch.rand((), generator=g, dtype=torch.float64, device=g.device).cpu() for g in generators]
        t = low + (high - low) * torch.stack(u)
        noise = noise_of(generators, views.shape[1:], views.dtype, views.device)
        with torch.no_grad():
            x = add_noise(self.denoiser.path, views.detach(), noise, t)
            target = self.denoiser(x, t, **conditions).detach()
        weight = self.weight(t, self.denoiser.path).to(views.device)
        squared = (views - target).square().flatten(1).sum(1)
        per_view = 0.5 * expand(weight, squared).to(squared) * squared
        return Distilled(per_view.sum(), per_view, target, t)
