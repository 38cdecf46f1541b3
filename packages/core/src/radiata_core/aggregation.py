r"""Forward aggregation: modalities that enter a diffusion on its way to noise, written as one ordinary diffusion.

A multi-modal diffusion adds the encoded modalities $E(X) = \sum_i w^{(i)} E_i(x_i)$ to the latent at every step,

$$q(z_t \mid z_{t-1}, X) = \mathcal N\big(\sqrt{\alpha_t}\,(z_{t-1} + w_t E(X)),\; (1-\alpha_t) I\big).$$

Every step is affine, so the chain unrolls: with $\bar\alpha_t = \prod_{s\le t}\alpha_s$ and $\bar\alpha_0 = 1$

$$z_t = \sqrt{\bar\alpha_t}\,\big(z_0 + W_t E(X)\big) + \sqrt{1-\bar\alpha_t}\,\varepsilon, \qquad
  W_t = \sum_{s\le t} \frac{w_s}{\sqrt{\bar\alpha_{s-1}}},$$

an ordinary diffusion whose clean latent $z_0 + W_t E(X)$ depends on t. Three things follow.

* With $w_1 = 1$ alone (`AggregationChain.at_once`) and $z_0 = 0$ it is plain diffusion of E(X): any path of the core serves,
  any solver, any objective. This is what `aggregated_denoisers` builds on.
* With $z_0 = 0$ and any weights the state holds $c_t E(X)$ with $c_t = \sqrt{\bar\alpha_t} W_t$: the weights are a choice of
  signal-to-noise ratio, $c_t^2/(1-\bar\alpha_t)$, and nothing else. Late weights make it *rise* before it falls: the steps
  before its peak (`clearest`) know less of E(X) than later ones, and a sampler has nothing to gain there.
* At the end $c_T$ must vanish, or a sampler that starts from N(0, I) starts where no data ever was. The term
  $KL(q(z_T \mid X) \,\|\, \mathcal N(0, I))$ of the bound (`terminal_kl`) measures it, and `require_pure_noise` refuses
  more than `LARGEST` of it. No backbone can lower that term: it holds encoders and schedule only.

References:
    Chen et al., "Diffusion models for multi-modal generative modeling" (MT-Diffusion), 2024, https://arxiv.org/abs/2407.17571
        (forward aggregation; the unrolling is derived here and tested against the simulated chain).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.seeds import noise_of
from radiata_core.types import Batch, Row

__all__ = ["LARGEST", "AggregationChain", "require_pure_noise", "terminal_kl"]

LARGEST = 1e-2
"""Largest share of the aggregate that may be left where sampling starts."""


@dataclass(frozen=True)
class AggregationChain:
    """The chain of steps 1 … T, each of which fades, adds w_t E(X) before it, and makes noise.

    Attributes:
        alphas: alpha_t of steps 1 … T, each in (0, 1).
        weights: w_t, as many.

    Raises:
        InputError: no steps, another number of weights, or an alpha outside (0, 1).
    """

    alphas: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.alphas or len(self.alphas) != len(self.weights):
            raise InputError(
                f"expected as many weights as alphas, at least 1; got {len(self.weights)} and {len(self.alphas)}. "
                "Give one of each a step."
            )
        if not all(0 < alpha < 1 for alpha in self.alphas):
            raise InputError(
                f"expected alphas in (0, 1); got {min(self.alphas):g} … {max(self.alphas):g}. "
                "Give alpha_t of one step, not the product."
            )

    @classmethod
    def at_once(cls, alphas: Sequence[float]) -> "AggregationChain":
        """Everything at the first step: w_1 = 1."""
        return cls(tuple(alphas), (1.0, *[0.0] * (len(alphas) - 1)))

    @property
    def alpha_bar(self) -> Tensor:
        """Products of the alphas after steps 1 … T, float64, (T,)."""
        return torch.tensor(self.alphas, dtype=torch.float64).cumprod(0)

    @property
    def amounts(self) -> Tensor:
        """W_t: how many E(X) the clean latent holds after steps 1 … T, float64, (T,)."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])
        return (torch.tensor(self.weights, dtype=torch.float64) / before.sqrt()).cumsum(0)

    @property
    def coefficients(self) -> Tensor:
        """c_t = sqrt(alpha_bar_t) W_t, the factor of E(X) in z_t, float64, (T,)."""
        return self.alpha_bar.sqrt() * self.amounts

    @property
    def clearest(self) -> int:
        """The step, 1 … T, at which the state says most of E(X): the last that a sampler needs."""
        return 1 + int((self.coefficients.square() / (1 - self.alpha_bar)).argmax())

    def marginal(self, z0: Batch, aggregate: Batch, step: int) -> tuple[Batch, float]:
        """Mean and standard deviation of z_t given z_0 and E(X), in one go.

        Args:
            z0: Start, (batch, *event).
            aggregate: E(X), the same shape.
            step: t, 1 … T.
        """
        bar, amount = float(self.alpha_bar[step - 1]), float(self.amounts[step - 1])
        return bar**0.5 * (z0 + amount * aggregate), (1 - bar) ** 0.5

    def simulate(self, z0: Batch, aggregate: Batch, generators: Sequence[Generator]) -> Batch:
        """z_T by walking the steps one after the other: the definition, slow; row i draws from generator i."""
        z = z0
        for alpha, weight in zip(self.alphas, self.weights, strict=True):
            noise = noise_of(generators, z0.shape[1:], z0.dtype, z0.device)
            z = alpha**0.5 * (z + weight * aggregate) + (1 - alpha) ** 0.5 * noise
        return z

    def require_pure_noise(self, largest: float = LARGEST) -> None:
        """Nothing, if c_T and sqrt(alpha_bar_T) are at most `largest`.

        Raises:
            InputError: the end of the chain still holds data.
        """
        left = max(abs(float(self.coefficients[-1])), float(self.alpha_bar[-1].sqrt()))
        if left > largest:
            raise InputError(
                f"expected at most {largest:g} of the aggregate at the last step; got {left:.3g}. "
                "Aggregate earlier, or take more or noisier steps."
            )


def require_pure_noise(path: Path, largest: float = LARGEST) -> None:
    """Nothing, if alpha(1) <= `largest` sigma(1) and sigma(1) is 1: a sampler may start from N(0, I).

    Raises:
        InputError: the path ends elsewhere.
    """
    end = path.coefficients(torch.ones((), dtype=torch.float64))
    if float(end.alpha) > largest or abs(float(end.sigma) - 1) > largest:
        raise InputError(
            f"expected a path that ends in N(0, I); got alpha {float(end.alpha):.3g} and sigma {float(end.sigma):.3g} "
            f"at the end of {path}. Use LinearPath."
        )


def terminal_kl(mean: Batch, sd: float) -> Row:
    """KL(N(mean, sd² I) || N(0, I)) in nats, summed over the event, (batch,).

    Args:
        mean: (batch, *event).
        sd: > 0.
    """
    flat = mean.flatten(1).to(torch.promote_types(mean.dtype, torch.float32))
    spread = torch.tensor(sd, dtype=torch.float64).square()
    constant = 0.5 * (spread - 1 - spread.log())
    return 0.5 * flat.square().sum(1) + flat.shape[1] * constant.to(flat)
