r"""Modalities of any kind diffused as one latent, by one backbone: an image with its label map, class, volumes, embedding.

    z_0 = sum_i w_i E_i(x_i)                    the aggregate of what a sample has
    z_t = alpha_t z_0 + sigma_t eps             on any path that ends in noise    (`aggregation` says why this is all)
    network([z_t, told], level) -> [prediction of z, features]
    said_i = head_i(E[z_0 | z_t], features)     p(x_i | z_t), a law a modality     (`modality_laws`)

The backbone is any network of this house or yours. `AggregatedDenoiser` is a `Denoiser` of the latent: solvers, guidance
and posterior samplers run on it; `read` adds what the heads say, `sample` draws all modalities at once. Modalities need no
common grid: that is what aggregation has over `joint_denoisers`, where an image and a label field of the *same* grid each
have a time of their own. docs/multi-task.md has it beside plain concatenation of channels.

**Conditionals.** `told` is what is known for certain: the sum of the encodings of the modalities that are given, and for
each modality a plane that is 1 (given), 0 (part of the noise) or -1 (the sample lacks it). In training each is given at
random (`aggregated_elbo`), so one network draws every modality given any others, `sample(..., given={"labels": three})`,
and says p(label | image) at once. That is our way to all conditionals, not the paper's.

References:
    Chen et al., "Diffusion models for multi-modal generative modeling" (MT-Diffusion), 2024, https://arxiv.org/abs/2407.17571.
    Bao et al., "One transformer fits all distributions in multi-modal diffusion at scale" (UniDiffuser), 2023,
        https://arxiv.org/abs/2303.06555 (the alternative: a time for each modality).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from radiata_core.aggregation import require_pure_noise
from radiata_core.denoisers import UnitVariance
from radiata_core.errors import InputError
from radiata_core.modality_laws import Law
from radiata_core.paths import Path
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import noise_of
from radiata_core.shared_modalities import SharedModality
from radiata_core.solvers import MultistepTable, Step, integrate
from radiata_core.specs import buildable
from radiata_core.tables import dpmpp_2m
from radiata_core.times import LogSNRGrid
from radiata_core.types import Batch, Time

__all__ = ["AggregatedDenoiser", "SharedPosterior"]


@dataclass(frozen=True)
class SharedPosterior:
    """What is known of a noisy latent.

    Attributes:
        latent: E[z_0 | z_t], (batch, latent, *grid).
        prediction: The same in the units that the network predicts.
        said: What each head says, by name; its law tells what it means.
    """

    latent: Tensor
    prediction: Tensor
    said: dict[str, Tensor]


@buildable("aggregated-denoiser")
class AggregatedDenoiser(nn.Module):
    """E[z_0 | z_t] of the aggregate, and the law of every modality.

    Args:
        network: `network(x, level, **conditions)` with `in_channels` of this denoiser in, latent + features out.
        path: From data to noise; must end in N(0, I).
        modalities: By name; the first is the one that data sets call "image". `shared_modalities.modalities_of` makes them.
        latent: Channels of the latent.
        prediction: What the first `latent` channels of the network mean.
        conditional: Whether the network is told what is given; else it takes `latent` channels and draws jointly only.
        sigma_data: Root mean square of the aggregate, > 0.

    Raises:
        InputError: no modality, or a path that does not end in noise.
    """

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        modalities: Mapping[str, SharedModality],
        latent: int,
        prediction: Prediction | str = "velocity",
        conditional: bool = True,
        sigma_data: float = 1.0,
    ) -> None:
        super().__init__()
        if not modalities:
            raise InputError("expected at least one modality; got none. See shared_modalities.modalities_of.")
        require_pure_noise(path)
        self.network, self.path, self.latent = network, path, latent
        self.modalities = nn.ModuleDict(modalities)
        self.prediction, self.conditional = Prediction(prediction), conditional
        self.scaling = UnitVariance(sigma_data)

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this denoiser."""
        return {
            "network": self.network,
            "path": self.path,
            "modalities": dict(self.modalities.items()),
            "latent": self.latent,
            "prediction": self.prediction,
            "conditional": self.conditional,
            "sigma_data": self.scaling.sigma_data,
        }

    @property
    def in_channels(self) -> int:
        """Channels that the network takes: the latent's, and as many again and a plane a modality to be told."""
        return self.latent + (self.latent + len(self.modalities) if self.conditional else 0)

    def known(self, values: Mapping[str, Tensor]) -> Tensor:
        """Which rows have which modality, bool, (batch, modalities), in their order.

        Raises:
            InputError: nothing, a name of no modality, or different numbers of rows.
        """
        unknown = [name for name in values if name not in self.modalities]
        if unknown or not values:
            raise InputError(
                f"expected modalities out of {', '.join(self.modalities)}; got {unknown[0] if unknown else 'nothing'!r}. "
                "Name them as the denoiser does."
            )
        rows = {len(value) for value in values.values()}
        if len(rows) > 1:
            raise InputError(f"expected as many rows of each modality; got {sorted(rows)}. Repeat the rows.")
        missing = torch.zeros(rows.pop(), dtype=torch.bool, device=next(iter(values.values())).device)
        columns = [
            missing if name not in values else self.law(name).known(values[name]) for name in self.modalities
        ]
        return torch.stack(columns, 1)

    def aggregate(self, values: Mapping[str, Tensor], grid: Sequence[int]) -> Batch:
        """z_0 = sum_i w_i E_i(x_i) over what each row has, (batch, latent, *grid)."""
        weights: dict[str, float] = {name: part.weight for name, part in self.modalities.items()}  # type: ignore[misc]
        return self._sum(values, self.known(values), weights, grid)

    def told(
        self, values: Mapping[str, Tensor], given: Tensor, grid: Sequence[int], present: Tensor | None = None
    ) -> Batch:
        """What the network is told, (batch, latent + modalities, *grid).

        Args:
            values: Of the modalities, by name.
            given: Which are told, bool, (batch, modalities).
            grid: Of the latent.
            present: Which the rows have at all; None: all.
        """
        flags = given.to(torch.float32) if present is None else given.to(torch.float32) - (~present).float()
        clean = self._sum(values, given, dict.fromkeys(self.modalities, 1.0), grid)
        planes = flags.to(clean).reshape(*flags.shape, *[1] * len(grid)).expand(*flags.shape, *grid)
        return torch.cat([clean, planes], 1)

    def read(
        self, z: Batch, t: Time, told: Tensor | None = None, **conditions: Tensor | None
    ) -> SharedPosterior:
        """The latent's posterior mean and what every head says.

        Args:
            z: State, (batch, latent, *grid).
            t: Its time, () or (batch,).
            told: Of `told`, one row or as many as z; None: nothing is given and all is present.
            conditions: Passed to the network.

        Raises:
            InputError: a state of other channels, a network of other outputs, or something told that is not listened to.
        """
        if z.shape[1] != self.latent:
            raise InputError(
                f"expected {self.latent} channels of the latent; got {z.shape[1]}. Aggregate the values."
            )
        if told is not None and not self.conditional:
            raise InputError(
                "expected nothing given to a denoiser that is not conditional; got values. Build it with conditional=True."
            )
        scaled, level = self.scaling(z, t, self.path)
        if self.conditional:
            rest = z.new_zeros(1, self.in_channels - self.latent, *z.shape[2:]) if told is None else told
            scaled = torch.cat([scaled, rest.to(scaled).expand(len(z), *rest.shape[1:])], 1)
        fine = torch.promote_types(z.dtype, torch.float32)
        raw = self.network(scaled, level.to(z.device, fine), **conditions)
        if raw.shape[1] < self.latent:
            raise InputError(
                f"expected a network of at least {self.latent} channels out; got {raw.shape[1]}. "
                "Give it the latent's and the features' channels."
            )
        prediction, features = raw[:, : self.latent], raw[:, self.latent :]
        latent = convert(prediction, z, t, self.path, self.prediction, Prediction.X0)
        said = {name: part.head(latent, features) for name, part in self.modalities.items()}  # type: ignore[operator]
        return SharedPosterior(latent, prediction, said)

    def forward(self, z: Batch, t: Time, told: Tensor | None = None, **conditions: Tensor | None) -> Batch:
        """E[z_0 | z_t], the shape of z."""
        return self.read(z, t, told, **conditions).latent

    def sample(
        self,
        generators: Sequence[Generator],
        grid: Sequence[int],
        given: Mapping[str, Tensor] | None = None,
        table: MultistepTable | None = None,
        **conditions: Tensor | None,
    ) -> dict[str, Tensor]:
        """Every modality, drawn together; those that are given come back as they are.

        The latent is drawn, and the heads are read at the last time that the solver visits: the likeliest class, the mean.

        Args:
            generators: One a sample.
            grid: Of the latent.
            given: Values by name, one row or as many as generators; rows that lack theirs (NaN, negative) are drawn.
            table: Solver; None: DPM-Solver++(2M), 20 steps even in log-SNR.
            conditions: Passed to the network.
        """
        first = self._first()
        table = dpmpp_2m(LogSNRGrid()(20, self.path), self.path) if table is None else table
        noise = noise_of(generators, (self.latent, *grid), first.dtype, first.device)
        values = {
            name: value.to(first.device).expand(len(noise), *value.shape[1:])
            for name, value in (given or {}).items()
        }
        if values:
            conditions = conditions | {"told": self.told(values, self.known(values), grid)}
        last: list[Step] = []
        with torch.no_grad():
            fresh = generators if table.stochastic else None
            integrate(
                self,
                noise,
                table,
                generators=fresh,
                callback=lambda s: last.__setitem__(slice(None), [s]),
                **conditions,  # type: ignore[arg-type]
            )
            step = last[0]
            said = self.read(step.x, torch.tensor(step.t, dtype=torch.float64), **conditions).said
        drawn = {name: self.law(name).guess(words) for name, words in said.items()}
        return {name: self._kept(name, value, values.get(name)) for name, value in drawn.items()}

    def infer(
        self, given: Mapping[str, Tensor], noise: Batch, **conditions: Tensor | None
    ) -> dict[str, Tensor]:
        """E[x_i | what is given], or the likeliest class, of every other modality, in one evaluation at t = 1.

        Args:
            given: Values by name.
            noise: Standard normal, (batch, latent, *grid): a state that holds nothing.
            conditions: Passed to the network.
        """
        told = self.told(given, self.known(given), noise.shape[2:])
        said = self.read(noise, torch.ones((), dtype=torch.float64), told, **conditions).said
        return {name: self.law(name).guess(words) for name, words in said.items() if name not in given}

    def _kept(self, name: str, drawn: Tensor, given: Tensor | None) -> Tensor:
        """The given rows where they are known, else what was drawn."""
        if given is None:
            return drawn
        rows = self.law(name).known(given).reshape(-1, *[1] * (drawn.ndim - 1))
        return torch.where(rows, given.to(drawn), drawn)

    def law(self, name: str) -> Law:
        """Of the modality of this name."""
        return self.modalities[name].law  # type: ignore[return-value]

    def _first(self) -> Tensor:
        """A tensor of the dtype and on the device of this module."""
        return next(itertools.chain(self.parameters(), self.buffers()), torch.zeros(()))

    def _sum(
        self,
        values: Mapping[str, Tensor],
        wanted: Tensor,
        weights: Mapping[str, float],
        grid: Sequence[int],
    ) -> Tensor:
        total = torch.zeros(len(wanted), self.latent, *grid, device=wanted.device, dtype=self._first().dtype)
        for column, (name, part) in enumerate(self.modalities.items()):
            if name in values and weights[name]:
                rows = wanted[:, column].reshape(-1, *[1] * (total.ndim - 1))
                code = part.encoder(part.law.numbers(values[name]).to(total), grid)  # type: ignore[operator, union-attr]
                total = total + weights[name] * code * rows
        return total
