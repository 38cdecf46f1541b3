r"""The multi-modal bound: what it costs to denoise the aggregate, plus what each head does not know of its modality.

$$\mathcal L = \mathbb E_{t,\varepsilon}\Big[\omega_t \|\varepsilon - \varepsilon_\theta(z_t, t)\|^2
   + \sum_i \lambda_i(t)\,\big(-\log p_\theta(x_i \mid z_t, t)\big)\Big] + KL\big(q(z_T \mid X)\,\|\,\mathcal N(0, I)\big)$$

The first term is a regression on the latent, in the units that the network predicts; the sum are the heads' log-losses
(`modality_laws`); the last vanishes on paths that reach alpha = 0 and depends on learned encoders elsewhere. With fixed
encoders each minimiser is exact whatever the positive weights: E[z_0 | z_t] and the posteriors p(x_i | z_t). Terms are means
over places, not sums, so that modalities of different size weigh alike; `SharedModality.share` changes that.

**Ours, not the paper's.** $\lambda_i(t) = \min(\mathrm{SNR}, 1)$ by default: where noise rules a head can learn no more than
the marginal of its modality, and should not spend the backbone on it. And modality dropout: each modality that a row has
is *given* with probability `given`, each for itself: the network is told its clean encoding, its own head is not asked (it
would read the answer off), and the others learn the conditionals. There much can be learned where noise rules: such rows
have $\lambda_i = 1$ at every t, and with probability `at_once` t = 1 itself, where the heads say p(x_i | what is given) in
one evaluation. A row that lacks a modality (NaN, a negative class) trains the rest.

References:
    Chen et al., "Diffusion models for multi-modal generative modeling" (MT-Diffusion), 2024, https://arxiv.org/abs/2407.17571
        (the multi-modal ELBO).
    Hang et al., 2023, https://arxiv.org/abs/2303.09556, section 3.4 (the shape of the weight).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.aggregation import terminal_kl
from radiata_core.errors import InputError
from radiata_core.objectives import Constant, Loss, MinSNR, Weight
from radiata_core.paths import Path, add_noise
from radiata_core.predictions import target_of
from radiata_core.seeds import noise_of
from radiata_core.times import TimeLaw, UniformTime
from radiata_core.types import Batch, Row

__all__ = ["AggregatedELBO", "SharedLoss"]


@dataclass(frozen=True)
class SharedLoss(Loss):
    """A `Loss` with its parts, (batch,) each.

    Attributes:
        noise: Weighted squared error of the latent, a number.
        heads: -log p of each modality, a place, nats, not yet weighted; 0 where it was given or missing.
        terminal: KL of the path's end, a number of the latent.
        given: Which modalities the row was told, bool, (batch, modalities).
    """

    noise: Tensor
    heads: dict[str, Tensor]
    terminal: Tensor
    given: Tensor


@dataclass(frozen=True)
class AggregatedELBO:
    """The objective of an `AggregatedDenoiser`: items are {"image": first modality, name: the others} and conditions.

    Attributes:
        path: The denoiser's path.
        time_law: Law of the times.
        companions: Names of the modalities but the first; `train` passes them on unhidden.
        weight: omega, of the loss in the units that the network predicts.
        head_weight: lambda_i(t), for all heads.
        at_once: Probability that a row that is told something has t = 1, in [0, 1]; 0 for a prediction that does not say
            the data there (the noise, on a path that ends in nothing else).
        given: Probability that a modality is told, each for itself, in [0, 1); only for a conditional denoiser.
    """

    path: Path
    time_law: TimeLaw = field(default_factory=UniformTime)
    companions: tuple[str, ...] = ()
    weight: Weight = field(default_factory=Constant)
    head_weight: Weight = field(default_factory=lambda: MinSNR(1.0))
    given: float = 0.3
    at_once: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.given < 1 and 0 <= self.at_once <= 1):
            raise InputError(
                f"expected given in [0, 1) and at_once in [0, 1]; got {self.given} and {self.at_once}. "
                "0.3 and 0.2 are usual."
            )

    def __call__(
        self,
        denoiser: AggregatedDenoiser,
        x0: Batch,
        generators: Sequence[Generator],
        **conditions: Tensor | None,
    ) -> SharedLoss:
        """The loss of a batch; row i draws its time, its noise and what is given from generator i only.

        Args:
            denoiser: An `AggregatedDenoiser`.
            x0: The first modality, (batch, *event); a field, whose grid is the latent's.
            generators: One a row.
            conditions: The other modalities by their names, what is left passed to the network.

        Raises:
            InputError: a denoiser of another path, or not one generator a row.
        """
        if denoiser.path != self.path:
            raise InputError(
                f"expected a denoiser on {self.path}; got one on {denoiser.path}. Train it on its own path."
            )
        if len(generators) != len(x0):
            raise InputError(
                f"expected one generator a row, {len(x0)}; got {len(generators)}. Make one a row."
            )
        names = list(denoiser.modalities)
        values = {names[0]: x0}
        values |= {name: value for name in names[1:] if (value := conditions.pop(name, None)) is not None}
        grid = x0.shape[2:]
        z0, present = denoiser.aggregate(values, grid), denoiser.known(values)
        t = torch.cat([self.time_law.sample(1, g).cpu() for g in generators])
        t = self.time_law.on(self.path, t).to(z0.device)
        noise = noise_of(generators, z0.shape[1:], z0.dtype, z0.device)
        given, at_once = self._given(generators, present, denoiser.conditional)
        t = torch.where(at_once, 1.0, t)
        told = denoiser.told(values, given, grid, present) if denoiser.conditional else None
        found = denoiser.read(add_noise(self.path, z0, noise, t), t, told, **conditions)
        target = target_of(z0, noise, t, self.path, denoiser.prediction)
        error = (found.prediction - target).flatten(1).square().mean(1)
        regression = self.weight(t, self.path, denoiser.prediction).to(error) * error
        heads = {
            name: denoiser.law(name).surprise(found.said[name], value)
            * (present & ~given)[:, names.index(name)]
            for name, value in values.items()
        }
        shares = torch.where(given.any(1), 1.0, self.head_weight(t, self.path)).to(error)
        terminal = self._terminal(z0)
        per_row = regression + terminal
        for name, loss in heads.items():
            per_row = per_row + denoiser.modalities[name].share * shares * loss  # type: ignore[operator]
        return SharedLoss(per_row.mean(), per_row, t, regression, heads, terminal, given)

    def _given(
        self, generators: Sequence[Generator], present: Tensor, conditional: bool
    ) -> tuple[Tensor, Tensor]:
        """Which modalities each row is told, and which rows are asked at t = 1."""
        if not conditional:
            return torch.zeros_like(present), torch.zeros_like(present[:, 0])
        count = present.shape[1] + 1
        rows = [
            torch.rand(count, generator=g, device=g.device, dtype=torch.float64).cpu() for g in generators
        ]
        drawn = torch.stack(rows).to(present.device)
        given = (drawn[:, 1:] < self.given) & present
        return given, (drawn[:, 0] < self.at_once) & given.any(1)

    def _terminal(self, z0: Tensor) -> Row:
        """KL(q(z_1 | X) || N(0, I)) a number of the latent: 0 where alpha(1) = 0."""
        end = self.path.coefficients(torch.ones((), dtype=torch.float64))
        return terminal_kl(float(end.alpha) * z0, float(end.sigma)) / max(1, z0[0].numel())
