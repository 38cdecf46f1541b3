r"""A prior of small pictures that can be told a ridge prediction: network, the law of such predictions, and the objective.

A calibrated linear prediction of a target $x_k$ (variance $s_k^2$, leave-one-out $R^2 = r_k$) has, whatever the subject,

$$ \hat x_k = r_k x_k + \sqrt{r_k (1 - r_k)}\, s_k\, \varepsilon_k, \qquad
   E[x_k \mid \hat x_k] = \hat x_k, \quad \mathrm{Var}(\hat x_k) = r_k s_k^2 . $$

So one network serves every subject: it is trained on pictures whose principal components were blurred and disturbed by this
law with random profiles $r$, and is told the picture $\hat x$ decodes to (the *guess*) and the profile, averaged in bands.
It answers with $E[x_0 \mid x_t, \text{guess}, r]$ for all t: draws of the flow are samples of p(picture | prediction), and
at t = 1, where the state holds nothing, one evaluation is their mean. With r = 0 the guess is the mean picture and says
nothing: the prior itself. Category weights are further covariates, unknown (NaN) most of the time.

Noise of different components is taken to be independent; that of a real decoder is not quite.

References:
    F. Ozcelik, R. VanRullen (2023), https://arxiv.org/abs/2303.05334 (a guess from a linear stage, then a generator).
    Y. Lipman et al. (2023). Flow matching for generative modeling. https://arxiv.org/abs/2210.02747.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.couplings import IndependentCoupling
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Loss, Regression
from radiata_core.paths import LinearPath, Path
from radiata_core.predictions import Prediction
from radiata_core.specs import buildable
from radiata_core.times import LogNormalSNR, TimeLaw

__all__ = [
    "BANDS",
    "CATEGORIES",
    "GuessLaw",
    "GuessRegression",
    "PictureNetwork",
    "banded",
    "build_picture_prior",
    "guessed",
]

BANDS = 16
"""Bands of components, logarithmic in their number, in which the profile is told."""
CATEGORIES = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
"""Categories that the shipped prior was taught, the eight of Haxby et al. (2001)."""
CENTRE, SPREAD = 0.5, 0.25
"""The state is (picture - CENTRE) / SPREAD: about unit variance for photographs."""


@buildable("picture-network")
class PictureNetwork(nn.Module):
    """A U-Net that sees the state and the guess side by side.

    Args:
        channels: Channels a level, finest first.
        down_blocks: Residual blocks a level on the way down.
        up_blocks: The same on the way up.
        attention: Whether a level attends.
        patch: Edge of the blocks folded into channels.
        categories: Number of category weights.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 160),
        down_blocks: Sequence[int] = (1, 2, 2),
        up_blocks: Sequence[int] = (1, 2, 2),
        attention: Sequence[bool] = (False, False, True),
        patch: int = 2,
        categories: int = len(CATEGORIES),
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "channels": tuple(channels), "down_blocks": tuple(down_blocks), "up_blocks": tuple(up_blocks),
            "attention": tuple(attention), "patch": patch, "categories": categories,
        }  # fmt: skip
        self.categories = categories
        self.unet = UNet(
            dims=2, in_channels=6, out_channels=3, patch=patch, channels=channels, down_blocks=down_blocks,
            up_blocks=up_blocks, attention=attention, covariates=BANDS + categories,
        )  # fmt: skip

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        guess: Tensor | None = None,
        profile: Tensor | None = None,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Output (n, 3, y, x).

        Args:
            x: State, (n, 3, y, x).
            noise_level: Log-SNR, () or (n,).
            guess: In units of the state, (n, 3, y, x); None, with no profile: the mean picture, which says nothing.
            profile: Mean R2 in each band, (n, BANDS); None: 0.
            class_weights: Share of each category, (n, categories); None or NaN: not known.
        """
        if guess is None:
            guess = torch.zeros_like(x)
        if profile is None:
            profile = x.new_zeros(len(x), BANDS)
        if class_weights is None:
            class_weights = x.new_full((len(x), self.categories), torch.nan)
        covariates = torch.cat([profile.to(x), class_weights.to(x)], 1)
        return self.unet(torch.cat([x, guess.to(x)], 1), noise_level, covariates)


def build_picture_prior(seed: int = 0, **options: Any) -> NetworkDenoiser:
    """An untrained prior on the linear path, predicting velocities; a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PictureNetwork(**options)
    return NetworkDenoiser(network, LinearPath(), Prediction.VELOCITY)


def banded(r2: Tensor) -> Tensor:
    """Mean R2 in `BANDS` bands, (..., BANDS), of the R2 of components in falling order of variance, (..., d).

    Raises:
        InputError: fewer components than bands.
    """
    count = r2.shape[-1]
    if count < BANDS:
        raise InputError(f"expected at least {BANDS} components; got {count}. Train the decoder with more.")
    edges = torch.logspace(0, 1, BANDS + 1, base=float(count + 1), dtype=torch.float64).sub(1).round().long()
    for band in range(BANDS):  # every band has a component, also where the logarithm would leave it empty
        edges[band + 1] = max(int(edges[band + 1]), int(edges[band]) + 1)
    edges = edges.clamp(max=count)
    parts = [r2[..., min(a, count - 1) : max(b, 1)].mean(-1) for a, b in itertools.pairwise(edges.tolist())]
    return torch.stack(parts, -1)


def guessed(latents: Tensor, r2: Tensor, sd: Tensor, noise: Tensor) -> Tensor:
    """A prediction of the latents by the law of the module, (n, d).

    Args:
        latents: Centred components, (n, d).
        r2: In [0, 1], (n, d).
        sd: Of each component over pictures, (d,).
        noise: Standard normal, (n, d).
    """
    return r2 * latents + (r2 * (1 - r2)).clamp(min=0).sqrt() * sd * noise


@dataclass(frozen=True, eq=False)
class GuessLaw:
    """Random profiles: R2 falls from `best` along a logistic in the logarithm of the component's number.

    Attributes:
        mean: Mean picture in units of the state, flattened, (p,).
        components: Orthonormal rows, (d, p).
        sd: Of the components in units of the state, (d,).
        drop: Share of rows without any prediction (r = 0).
    """

    mean: Tensor
    components: Tensor
    sd: Tensor
    drop: float = 0.12

    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """R2 of every component in every row, (count, d)."""
        u = torch.rand(count, 5, generator=generator)
        best = 1 - (
            0.55 * u[:, :1] ** 2 + 0.005
        )  # .45 to .995: one decoder's first components, noise-free or not
        middle = torch.exp(u[:, 1:2] * 6.2)  # component where R2 has fallen by half: 1 to 500
        width = 0.3 + 1.2 * u[:, 2:3]
        number = torch.arange(1, len(self.sd) + 1).log()
        r2 = best * torch.sigmoid((middle.log() - number) / width)
        jitter = torch.exp(0.25 * u[:, 3:4] * torch.randn(count, len(self.sd), generator=generator))
        r2 = (r2 * jitter).clamp(0, 0.999)
        return torch.where(u[:, 4:] < self.drop, torch.zeros_like(r2), r2)

    def guess(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A guess (n, 3, y, x) in units of the state and its profile (n, BANDS)."""
        flat = x0.flatten(1)
        latents = (flat - self.mean.to(flat)) @ self.components.T.to(flat)
        r2 = self.profiles(len(x0), generator)
        noise = torch.randn(len(x0), len(self.sd), generator=generator)
        found = guessed(latents, r2.to(flat), self.sd.to(flat), noise.to(flat))
        picture = self.mean.to(flat) + found @ self.components.to(flat)
        known = (r2.amax(1) > 0).to(flat)[:, None]  # nothing known: zeros, as in a call without a guess
        return (picture * known).view_as(x0), banded(r2).to(flat)


@dataclass(frozen=True, eq=False)
class GuessRegression:
    """Flow matching of pictures told a random guess; a share of the rows at t = 1, where one evaluation is the mean.

    Attributes:
        law: Of guesses.
        path: From pictures to noise.
        time_law: Of the other rows.
        ends: Share of rows at t = 1.
    """

    law: GuessLaw
    path: Path = field(default_factory=LinearPath)
    time_law: TimeLaw = field(default_factory=lambda: LogNormalSNR(0.0, 1.6))
    ends: float = 0.15

    def __call__(
        self, denoiser: Any, x0: Tensor, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Loss:
        """Loss of a batch of pictures in units of the state; row i uses generator i only.

        Raises:
            InputError: not one generator a row.
        """
        if len(generators) != len(x0):
            raise InputError(f"expected one generator a row, {len(x0)}; got {len(generators)}.")
        t = torch.cat([self.time_law.sample(1, g).cpu() for g in generators])
        last = torch.cat([torch.rand(1, generator=g) for g in generators]) < self.ends
        t = torch.where(last, torch.ones(()), self.time_law.on(self.path, t)).to(x0.device)
        rows = [self.law.guess(x0[i : i + 1].cpu(), g) for i, g in enumerate(generators)]
        guess, profile = (torch.cat(part).to(x0.device) for part in zip(*rows, strict=True))
        plain = Regression(self.path, self.time_law, target=Prediction.VELOCITY)
        pair = IndependentCoupling()(x0, generators)
        return plain.compare(denoiser, pair, t, guess=guess, profile=profile, **conditions)
