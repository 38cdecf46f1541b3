r"""A guide that was made for clean images, taught to read noisy ones: experts over ranges of noise, without labels.

A classifier or segmenter f knows p(y | x_0); to guide a diffusion one needs p(y | x_t). Frozen f with low-rank additions
(`low_rank`), one set for each range of times, learns it from f itself on images x_0 that the generative model made:

    L(n) = E KL( softmax f(x_0) || softmax f_n(x_t) ),      t in [e_n, e_{n+1}).

Its minimiser is softmax f_n(x_t) = E[softmax f(x_0) | x_t], which is p(y | x_t) if f is p(y | x_0). That holds for the
teacher's own probabilities; softened or sharpened ones (`temperature`, 0.25 in the authors' program) give a student of
another law. Every row of a batch is read by the expert of its own time, and a time belongs to exactly one range.

The prior is then guided by Bayes' rule for scores, with a denoiser in and a denoiser out:

    E[x_0 | x_t, y] = D(x_t) + (sigma^2/alpha) grad log p(y | x_t)                         `ClassifierGuided`
                    ~ D(x_t) + r^2 grad log p(y | x_0 = D),  r^2 the variance about D      `SkippedGradient`

The second needs no noise-aware guide and no gradient of any network but f: it takes the posterior of x_0 to be N(D, r^2 I),
and is exact for it where log p(y | x_0) is linear. `posterior.steer` is the same idea as a step on the state.

References:
    Go et al., "Towards practical plug-and-play diffusion models" (PPAP), 2023, https://arxiv.org/abs/2212.05973, section 4.
    Dhariwal & Nichol, "Diffusion models beat GANs on image synthesis", 2021, https://arxiv.org/abs/2105.05233, section 4.
    Patel et al. 2024, https://arxiv.org/abs/2412.00100, section 4 (gradient skipping).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.couplings import IndependentCoupling
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel, kernel_of, require_gaussian
from radiata_core.low_rank import adapt, using
from radiata_core.objectives import Loss
from radiata_core.paths import Path, add_noise, expand
from radiata_core.posterior_spread import Spread
from radiata_core.specs import buildable
from radiata_core.times import TimeLaw, UniformTime
from radiata_core.types import Batch, Row, Time

__all__ = [
    "ClassifierGuided",
    "ExpertLogProbability",
    "KnowledgeTransfer",
    "NoiseExperts",
    "SkippedGradient",
    "log_probability_of",
]


@buildable("noise-experts")
class NoiseExperts(nn.Module):
    """f_n(x_t): logits of a frozen guide, with the additions of the expert of each row's time.

    The state enters divided by the root of alpha^2 + sigma^2/sigma_data^2, so that it has the size of clean data at every
    time and is the clean image at t = 0.

    Args:
        guide: f, `(batch, *event) -> (batch, classes, *any)` logits; registered with `specs.buildable` if it is to be saved.
        path: From data to noise.
        edges: Inner limits of the ranges, times rising within (0, 1); N - 1 of them for N experts. By default fifths, the
            authors' ranges.
        rank: Of the additions.
        alpha: Numerator of their scale.
        vectors: Also add to biases and norms.
        sigma_data: Root mean square of clean data, > 0.

    Raises:
        InputError: limits that do not rise within (0, 1), or a guide without layers to adapt.
    """

    inner: Tensor

    def __init__(
        self,
        guide: nn.Module,
        path: Path,
        edges: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
        rank: int = 16,
        alpha: float = 8.0,
        vectors: bool = True,
        sigma_data: float = 1.0,
    ) -> None:
        super().__init__()
        limits = (0.0, *map(float, edges), 1.0)
        if any(not low < high for low, high in itertools.pairwise(limits)):
            raise InputError(
                f"expected limits of ranges that rise within (0, 1); got {tuple(edges)}. Sort them."
            )
        if not 0 < sigma_data < math.inf:
            raise InputError(f"expected sigma_data > 0; got {sigma_data}. Measure it on clean images.")
        self.guide, self.path, self.sigma_data = guide, path, sigma_data
        self.options = {
            "guide": guide,
            "path": path,
            "edges": tuple(limits[1:-1]),
            "rank": rank,
            "alpha": alpha,
            "vectors": vectors,
            "sigma_data": sigma_data,
        }
        self.register_buffer("inner", torch.tensor(limits[1:-1], dtype=torch.float64), persistent=False)
        adapt(guide, rank, alpha, experts=len(limits) - 1, vectors=vectors)

    @property
    def experts(self) -> int:
        """Number of experts."""
        return len(self.inner) + 1

    def train(self, mode: bool = True) -> "NoiseExperts":
        """The guide stays in evaluation mode: its dropout and its running statistics are those it was made with."""
        super().train(mode)
        self.guide.eval()
        return self

    def expert_of(self, t: Time) -> Tensor:
        """Index of the expert of each time, of the shape of t: of the range [e_n, e_{n+1}) it lies in, 1 in the last."""
        return torch.bucketize(t.detach().double().contiguous(), self.inner.to(t.device), right=True)

    def clean(self, x0: Batch) -> Tensor:
        """f(x_0), the guide as it was."""
        with using(self.guide, None):
            return self.guide(x0)

    def forward(self, x: Batch, t: Time) -> Tensor:
        """Logits of p(y | x_t), one expert a row.

        Args:
            x: State, (batch, *event).
            t: Its time, () or (batch,).
        """
        c = self.path.coefficients(t)
        size = (c.alpha.square() + c.sigma.square() / self.sigma_data**2).rsqrt()
        x = x * expand(size, x).to(x)
        chosen = self.expert_of(t).expand(len(x)) if t.ndim == 0 else self.expert_of(t)
        present = chosen.unique().tolist()
        if len(present) == 1:
            return self._read(x, present[0])
        rows = [torch.nonzero(chosen == expert)[:, 0].to(x.device) for expert in present]
        logits = torch.cat([self._read(x[part], n) for part, n in zip(rows, present, strict=True)])
        return logits[torch.argsort(torch.cat(rows))]

    def _read(self, x: Tensor, expert: int) -> Tensor:
        with using(self.guide, expert):
            return self.guide(x)


@dataclass(frozen=True)
class KnowledgeTransfer:
    """The objective: KL(softmax f(x_0)/temperature || softmax f_n(x_t)), for `radiata_core.train.train`.

    Images come from the generative model itself; no label is asked for. All experts learn at once, since each row goes to
    the expert of its own time.

    Attributes:
        path: That of the experts.
        time_law: Law of the times; uniform, so that equal ranges are seen equally often.
        temperature: Of the teacher, > 0; only 1 has p(y | x_t) as its minimiser.
    """

    path: Path
    time_law: TimeLaw = field(default_factory=UniformTime)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise InputError(
                f"expected a temperature > 0; got {self.temperature}. 1 keeps the teacher's law."
            )

    def __call__(
        self, denoiser: NoiseExperts, x0: Batch, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Loss:
        """Loss of a batch; row i draws its time and its noise from generator i. Summed over classes, mean over the rest.

        Raises:
            InputError: experts of another path, or not one generator a row.
        """
        if denoiser.path != self.path:
            raise InputError(f"expected experts on {self.path}; got {denoiser.path}. Use one path for both.")
        if len(generators) != len(x0):
            raise InputError(
                f"expected one generator a row, {len(x0)}; got {len(generators)}. Make one a row."
            )
        t = torch.cat([self.time_law.sample(1, g).cpu() for g in generators])
        t = self.time_law.on(self.path, t).to(x0.device)
        x = add_noise(self.path, x0, IndependentCoupling()(x0, generators).noise, t)
        with torch.no_grad():
            teacher = (denoiser.clean(x0).float() / self.temperature).log_softmax(1)
        student = denoiser(x, t).float().log_softmax(1)
        distance = (teacher.exp() * (teacher - student)).sum(1)
        per_sample = distance.flatten(1).mean(1) if distance.ndim > 1 else distance
        return Loss(per_sample.mean(), per_sample, t)


def log_probability_of(logits: Tensor, target: Tensor) -> Row:
    """log p of wanted classes, one number a row; summed over pixels where there is a class for each.

    Args:
        logits: (batch, classes, *grid); a grid may be missing.
        target: Class indices, (batch or 1, *grid); negative where anything will do.
    """
    target = target.to(logits.device).expand(len(logits), *target.shape[1:])
    picked = logits.log_softmax(1).gather(1, target.clamp_min(0)[:, None])[:, 0]
    picked = picked.masked_fill(target < 0, 0.0)
    return picked.flatten(1).sum(1) if picked.ndim > 1 else picked


@dataclass(frozen=True, eq=False)
class ExpertLogProbability:
    """log p(y | x_t) of wanted classes by experts, as `log_probability_of`.

    Attributes:
        experts: Noise-aware guide.
        target: Class indices, (batch or 1,) for one class an image, (batch or 1, *grid) for a map; negative for any class.
    """

    experts: NoiseExperts
    target: Tensor

    def __call__(self, x: Batch, t: Time) -> Row:
        return log_probability_of(self.experts(x, t), self.target)


@dataclass(frozen=True, eq=False)
class ClassifierGuided:
    """E[x_0 | x_t, y] = D + w (sigma^2/alpha) grad log p(y | x_t), by a noise-aware guide.

    Attributes:
        denoiser: D, with Gaussian noise.
        log_probability: `(x_t, t) -> (batch,)`, differentiable in x_t, such as `ExpertLogProbability`.
        weight: w; 1 is Bayes' rule, more exaggerates.

    Raises:
        InputError: the noise is not Gaussian.
    """

    denoiser: Denoiser
    log_probability: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_gaussian(self.denoiser, "guidance by a classifier, a sum of scores,")

    @property
    def path(self) -> Path:
        return self.denoiser.path

    @property
    def kernel(self) -> Kernel:
        return kernel_of(self.denoiser)

    def __call__(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        free = self.denoiser(x, t, **conditions)
        c = self.path.coefficients(t)
        # Where alpha = 0 the state says nothing of x_0 and the gradient is of the order of alpha: the prior's mean stands.
        gain = torch.where(c.alpha > 0, c.sigma.square() / c.alpha.clamp_min(1e-12), 0.0)
        slope = _slope(lambda state: self.log_probability(state, t), x)
        return free + self.weight * expand(gain, x).to(x) * slope


@dataclass(frozen=True, eq=False)
class SkippedGradient:
    """D + w r^2 grad log p(y | x_0 = D): guidance by a guide of clean images, without any gradient of the denoiser.

    Attributes:
        denoiser: D, with Gaussian noise.
        log_probability: `x_0 -> (batch,)`, differentiable.
        spread: r^2, the variance of x_0 about D, at each noise level.
        weight: w.
        largest: Limit of the root mean square of the shift, in units of r; the approximation is of first order in it.

    Raises:
        InputError: the noise is not Gaussian.
    """

    denoiser: Denoiser
    log_probability: Callable[[Tensor], Tensor]
    spread: Spread
    weight: float = 1.0
    largest: float = math.inf

    def __post_init__(self) -> None:
        require_gaussian(self.denoiser, "guidance by a classifier, a sum of scores,")

    @property
    def path(self) -> Path:
        return self.denoiser.path

    @property
    def kernel(self) -> Kernel:
        return kernel_of(self.denoiser)

    def __call__(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        free = self.denoiser(x, t, **conditions)
        c = self.path.coefficients(t)
        kappas = (c.sigma / c.alpha).reshape(-1).tolist()
        variance = torch.tensor([self.spread.variance(kappa) for kappa in kappas], dtype=torch.float64)
        shift = self.weight * expand(variance.reshape(t.shape), x).to(x) * _slope(self.log_probability, free)
        if self.largest < math.inf:
            limit = self.largest * variance.sqrt().to(x)
            size = shift.flatten(1).square().mean(1).sqrt()
            shift = shift * expand((limit / size.clamp_min(1e-30)).clamp(max=1.0), x)
        return free + shift


def _slope(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Gradient of one number a row.

    Raises:
        InputError: another number of values.
    """
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        values = function(point)
        if values.shape != (len(at),):
            raise InputError(
                f"expected log-probabilities of shape ({len(at)},); got {tuple(values.shape)}. Sum over the event."
            )
        return torch.autograd.grad(values.sum(), point)[0]
