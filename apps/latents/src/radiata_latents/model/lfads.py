r"""LFADS: a population as an autonomous recurrent network that starts somewhere, and perhaps is pushed.

For T observed bins of spikes n of held-in neurons, and F bins after them,

$$q(g_0 \mid n) = \mathcal N(\mu, s^2)\ \text{by a bidirectional GRU}, \qquad
  g_t = \mathrm{GRU}(g_{t-1}, u_t), \qquad f_t = \hat W g_t, \qquad \log r_t = V f_t + b,$$

with the rows of $\hat W$ of norm 1. By default there is no u: everything that is known of a trial is its initial condition,
and the generator is one call over all bins. With `inputs` a controller infers a push in every observed bin,

$$c_t = \mathrm{GRU}(c_{t-1}, [e_t(n), f_{t-1}]), \qquad u_t \sim \mathcal N(\mu(c_t), s^2(c_t)), \qquad
  p(u_t \mid u_{t-1}) = \mathcal N(a u_{t-1}, (1 - a^2) \sigma^2)$$

where a and $\sigma$ are learned, one a dimension. The posterior is autoregressive too, so

$$KL = KL(g_0) + E_q \sum_t KL\big(\mathcal N(\mu(c_t), s^2(c_t))\,\|\,\mathcal N(a u_{t-1}, (1 - a^2) \sigma^2)\big),$$

in closed form given the path so far. The forward window is the generator run on; inputs there follow their prior (its mean
where nothing is drawn), never the controller, which has no spikes to read.

Differences from the published program: dropout of spikes is coordinated and belongs to the objective; weights are decayed by
the optimiser; the state is not clipped, since a GRU's cannot grow.

References:
    Sussillo et al., "LFADS - latent factor analysis via dynamical systems", 2016, https://arxiv.org/abs/1608.06315,
        eq. 6 to 16.
    Pandarinath et al., "Inferring single-trial neural population dynamics using sequential auto-encoders", 2018,
        https://doi.org/10.1038/s41592-018-0109-9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_core.specs import buildable
from radiata_latents.model.elbo_terms import standard_kl
from radiata_latents.model.population_model import LARGEST_LOG_RATE, LatentModel

__all__ = ["LFADS", "GeneratorPath", "StartPosterior"]


@dataclass(frozen=True, eq=False)
class GeneratorPath:
    """States of the generator in all bins, and what pushed it.

    Attributes:
        state: g_t.
        factors: f_t.
        inputs: u_t; none where the model has no inputs.
        input_kl: KL of the inputs along this path, nats a trial.
    """

    state: Float[Tensor, "batch time generator"]
    factors: Float[Tensor, "batch time factor"]
    inputs: Float[Tensor, "batch time input"]
    input_kl: Float[Tensor, "batch"]

    @property
    def features(self) -> Float[Tensor, "batch time factor"]:
        """The factors: what rates are read from."""
        return self.factors


@dataclass(frozen=True, eq=False)
class StartPosterior:
    """What the encoder says of a trial.

    Attributes:
        start_mean: Of the initial condition.
        start_log_sd: Log of its standard deviation.
        prior_sd: Standard deviation of its prior, whose mean is 0.
        evidence: What the controller reads, e_t; None where the model has no inputs.
    """

    start_mean: Float[Tensor, "batch latent"]
    start_log_sd: Float[Tensor, "batch latent"]
    prior_sd: float
    evidence: Float[Tensor, "batch bins evidence"] | None = None

    def kl(self, path: GeneratorPath | None = None) -> Float[Tensor, "batch"]:
        """KL to the prior of start and inputs, nats a trial.

        Args:
            path: A draw of the posterior; inputs are charged along it.

        Raises:
            InputError: there are inputs and no path.
        """
        start = standard_kl(
            self.start_mean / self.prior_sd, 2 * (self.start_log_sd - math.log(self.prior_sd))
        )
        if self.evidence is None:
            return start
        if path is None:
            raise InputError("expected the path that inputs are charged along; got none. Give kl(path).")
        return start + path.input_kl

    def informed(self) -> tuple[float, ...]:
        """Share of the variance of the start that trials explain, in [0, 1]: 0 is a collapsed posterior."""
        between = self.start_mean.var(0, unbiased=False)
        within = torch.exp(2 * self.start_log_sd).mean(0)
        return (float((between.sum() / (between + within).sum()).detach()),)


@buildable("lfads")
class LFADS(LatentModel):
    """Rates of a population from spikes of its held-in part; the interface of `LangevinFlow`.

    Args:
        neurons: All neurons; the held-in ones come first.
        heldin: How many the encoder sees.
        bins: Observed bins.
        forward: Bins after them, predicted.
        hidden: Units of the encoder, each way.
        latents: Numbers of the initial condition.
        generator: Units of the generator.
        factors: Width of the read-out.
        inputs: Inferred inputs a bin; 0: the generator is autonomous and there is no controller.
        controller: Units of the controller, and of its encoder each way.
        start_sd: Standard deviation of the initial condition's prior, > 0.
        dropout: Of the encoder's output and of the factors' input, in [0, 1).

    Raises:
        InputError: numbers that do not fit together.
    """

    def __init__(
        self,
        neurons: int,
        heldin: int,
        bins: int,
        forward: int = 0,
        hidden: int = 64,
        latents: int = 32,
        generator: int = 100,
        factors: int = 16,
        inputs: int = 0,
        controller: int = 32,
        start_sd: float = 1.0,
        dropout: float = 0.05,
    ) -> None:
        super().__init__(neurons, heldin, bins, forward)
        if min(hidden, latents, generator, factors, controller) < 1 or inputs < 0 or not start_sd > 0:
            raise InputError(
                f"expected widths of 1 or more, inputs >= 0 and a start_sd > 0; got hidden {hidden}, latents {latents}, "
                f"generator {generator}, factors {factors}, controller {controller}, inputs {inputs}, start_sd {start_sd}."
            )
        self.options = {
            "neurons": neurons,
            "heldin": heldin,
            "bins": bins,
            "forward": forward,
            "hidden": hidden,
            "latents": latents,
            "generator": generator,
            "factors": factors,
            "inputs": inputs,
            "controller": controller,
            "start_sd": start_sd,
            "dropout": dropout,
        }
        self.latents, self.inputs, self.start_sd = latents, inputs, start_sd
        self.encoder = nn.GRU(heldin, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.start = nn.Linear(2 * hidden, 2 * latents)
        nn.init.normal_(self.start.weight, std=0.1)
        nn.init.zeros_(self.start.bias)
        self.begin = nn.Linear(latents, generator)
        self.generator = nn.GRU(max(1, inputs), generator, batch_first=True)
        self.factors = nn.Linear(generator, factors, bias=False)
        self.readout = nn.Linear(factors, neurons)
        if inputs:
            self.controller_encoder = nn.GRU(heldin, controller, batch_first=True, bidirectional=True)
            self.controller = nn.GRUCell(2 * controller + factors, controller)
            self.push = nn.Linear(controller, 2 * inputs)
            nn.init.normal_(self.push.weight, std=0.05)
            nn.init.zeros_(self.push.bias)
            self.memory = nn.Parameter(torch.full((inputs,), math.log(10.0)))  # of bins
            self.spread = nn.Parameter(torch.full((inputs,), math.log(0.3)))

    def set_mean_counts(self, mean: Float[Tensor, "neuron"]) -> None:
        """Begin at the neurons' mean counts a bin."""
        self.begin_at(self.readout, mean)

    def encode(self, counts: Float[Tensor, "batch bins heldin"]) -> StartPosterior:
        """The posterior given spikes of held-in neurons in the observed bins.

        Raises:
            InputError: counts of another shape.
        """
        self.check_seen(counts)
        ends = (
            self.encoder(counts)[1].transpose(0, 1).flatten(1)
        )  # the last state of each way: both have read all
        mean, log_sd = self.start(self.dropout(ends)).chunk(2, 1)
        evidence = self.dropout(self.controller_encoder(counts)[0]) if self.inputs else None
        return StartPosterior(mean, (log_sd + math.log(self.start_sd)).clamp(-6, 3), self.start_sd, evidence)

    def path(
        self,
        posterior: StartPosterior,
        generators: Sequence[Generator] | None = None,
        forward_generators: Sequence[Generator] | None = None,
    ) -> GeneratorPath:
        """The generator in observed and forward bins.

        Args:
            posterior: From `encode`.
            generators: One a trial: a draw of the posterior. None: its mean.
            forward_generators: One a trial: noise of the inputs in the forward window. None: their prior's mean.
        """
        start = posterior.start_mean
        if generators is not None:
            start = start + torch.exp(posterior.start_log_sd) * _normal(generators, start)
        if posterior.evidence is None:
            return self._undisturbed(start, self.bins + self.forward_bins)
        noise = start.new_zeros(len(start), self.bins + self.forward_bins, self.inputs)
        if generators is not None:
            noise[:, : self.bins] = _normal(generators, noise[:, : self.bins])
        if forward_generators is not None and self.forward_bins:
            noise[:, self.bins :] = _normal(forward_generators, noise[:, self.bins :])
        return self._pushed(start, noise, posterior.evidence)

    def _undisturbed(self, start: Tensor, bins: int) -> GeneratorPath:
        nothing = start.new_zeros(len(start), bins, 1)
        state = self.generator(nothing, self.begin(start)[None])[0]
        return GeneratorPath(state, self._read(state), nothing[..., :0], start.new_zeros(len(start)))

    def _pushed(self, start: Tensor, noise: Tensor, evidence: Tensor | None) -> GeneratorPath:
        """Bin by bin: the controller where there is evidence, the prior of inputs after it."""
        weights = dict(self.generator.named_parameters())
        of_input, of_state = weights["weight_ih_l0"], weights["weight_hh_l0"]
        biases = weights["bias_ih_l0"], weights["bias_hh_l0"]
        weight = self._factor_weight()
        keep, sd = self.input_prior
        state = self.begin(start)
        factors = functional.linear(self.dropout(state), weight)
        inner = start.new_zeros(len(start), self.controller.hidden_size)
        u, kl = torch.zeros_like(noise[:, 0]), start.new_zeros(len(start))
        states, inputs = [], []
        for t in range(noise.shape[1]):
            before, spread = keep * u, sd * (1.0 if t == 0 else torch.sqrt(1 - keep.square()))
            if evidence is not None and t < evidence.shape[1]:
                inner = self.controller(torch.cat([evidence[:, t], factors], 1), inner)
                mean, log_sd = self.push(inner).chunk(2, 1)
                log_sd = (log_sd + torch.log(spread)).clamp(-6, 3)
                u = mean + torch.exp(log_sd) * noise[:, t]
                kl = kl + standard_kl((mean - before) / spread, 2 * (log_sd - torch.log(spread)))
            else:
                u = before + spread * noise[:, t]
            state = torch.gru_cell(u, state, of_input, of_state, *biases)
            factors = functional.linear(self.dropout(state), weight)
            states.append(state)
            inputs.append(u)
        state = torch.stack(states, 1)
        return GeneratorPath(state, self._read(state), torch.stack(inputs, 1), kl)

    @property
    def input_prior(self) -> tuple[Float[Tensor, "input"], Float[Tensor, "input"]]:
        """a and sigma of the inputs' prior: how much is kept from bin to bin, and the standard deviation at rest."""
        return torch.exp(-torch.exp(-self.memory)), torch.exp(self.spread)

    def _factor_weight(self) -> Tensor:
        return functional.normalize(self.factors.weight, dim=1)

    def _read(self, state: Tensor) -> Tensor:
        return functional.linear(self.dropout(state), self._factor_weight())

    def log_rates(self, path: GeneratorPath) -> Float[Tensor, "batch time neuron"]:
        """Log of expected counts a bin."""
        return self.readout(path.factors).clamp(max=LARGEST_LOG_RATE)

    def sample(self, generators: Sequence[Generator], bins: int | None = None) -> GeneratorPath:
        """Paths of the prior, one a generator.

        Args:
            generators: One a trial.
            bins: How long; by default observed and forward bins.
        """
        count = self.bins + self.forward_bins if bins is None else bins
        like = self.readout.weight
        start = self.start_sd * noise_of(generators, (self.latents,), like.dtype, like.device)
        if not self.inputs:
            return self._undisturbed(start, count)
        return self._pushed(start, noise_of(generators, (count, self.inputs), like.dtype, like.device), None)


def _normal(generators: Sequence[Generator], like: Tensor) -> Tensor:
    return noise_of(generators, like.shape[1:], like.dtype, like.device)
