r"""A population whose latents oscillate: underdamped Langevin dynamics, inferred from spikes.

    spikes (held in) -> bidirectional GRU -> q(start), q(noise of every bin)
    start, noise -> q_t, v_t by the dynamics -> log rates by `rate_readout` [after attention over time]

The dynamics are those of `flow_dynamics`: K oscillators in one bath, their frequencies and damping learned, coupled by a
potential that is bounded below. The posterior is over the noise of *every* bin, the inputs that drive the dynamics: latents
carry what spikes say. Its mean has feedback from the path so far,

$$\xi_t \mid \text{path}, n \sim \mathcal N(u_t(n) - K\,(q_t, v_t/\omega),\; s_t(n)^2),$$

which is the form of the exact posterior of a linear Gaussian model: without it the errors of all bins before would add
up, and a drawn path would wander from what was seen. Then

$$\log p(n) \ge E_q \log p(n \mid q, v) - \beta\,KL(q\,\|\,p),\qquad
  KL = KL(\text{start}) + \sum_t KL(\mathcal N(u_t - K(q_t, v_t/\omega), s_t^2)\,\|\,\mathcal N(0, 1)),\quad \beta \le 1.$$

The forward window is predicted by letting the dynamics run. In the released LangevinFlow (`paper_flow`) the force is linear,
overdamped by two orders of magnitude, and the latents carry nothing; what is different here is what that cost.

References:
    Song et al., "Langevin flows for modeling neural latent dynamics", 2025, https://arxiv.org/abs/2507.11531.
    Pandarinath et al., "Inferring single-trial neural population dynamics using sequential auto-encoders", 2018,
        https://doi.org/10.1038/s41592-018-0109-9 (inferred inputs).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from radiata_core.errors import InputError
from radiata_core.langevin import LinearStep
from radiata_core.seeds import noise_of
from radiata_core.specs import buildable
from radiata_latents.model.flow_dynamics import Direct, Dynamics, Modes, dynamics_of
from radiata_latents.model.gru_scan import bidirectional_gru
from radiata_latents.model.latent_path import CertainPosterior, LatentPath, Posterior
from radiata_latents.model.population_model import LatentModel
from radiata_latents.model.rate_readout import RateReadout
from radiata_latents.model.time_attention import TimeAttention

__all__ = ["Dynamics", "LangevinFlow"]


@buildable("langevin-flow")
class LangevinFlow(LatentModel):
    """Rates of a population from spikes of its held-in part.

    Args:
        neurons: All neurons; the held-in ones come first.
        heldin: How many the encoder sees.
        bins: Observed bins.
        forward: Bins after them, predicted.
        bin_s: Width of a bin, s.
        latents: Oscillators, K.
        hidden: Units of the encoder, each way.
        band_hz: Least and largest frequency that can be learned.
        dynamics: One of `Dynamics`, or its word in a file.
        coupled: Learn L and c; otherwise U is |q|^2 / 2.
        attention: Add one layer of attention over time to the read-out (of latents, never of the encoder).
        dropout: Probability that a unit of the encoder is missing in a whole trial, in [0, 1).
        readout_units: Bounded units of the read-out; 0 for a linear one.

    Raises:
        InputError: numbers that do not fit together, an unknown word.
    """

    def __init__(
        self,
        neurons: int,
        heldin: int,
        bins: int,
        forward: int = 0,
        bin_s: float = 0.02,
        latents: int = 16,
        hidden: int = 64,
        band_hz: Sequence[float] = (0.3, 8.0),
        dynamics: Dynamics | str = Dynamics.OSCILLATORS,
        coupled: bool = True,
        attention: bool = False,
        dropout: float = 0.1,
        readout_units: int = 64,
    ) -> None:
        super().__init__(neurons, heldin, bins, forward)
        if latents < 3 or not bin_s > 0:
            raise InputError(f"expected 3 latents or more and a bin > 0 s; got {latents} and {bin_s}.")
        if not 0 < band_hz[0] < band_hz[1] <= 0.5 / bin_s:
            raise InputError(
                f"expected 0 < band < {0.5 / bin_s:g} Hz, half the rate of bins; got {tuple(band_hz)}."
            )
        if dynamics not in set(Dynamics):
            raise InputError(f"expected dynamics {', '.join(Dynamics)}; got {dynamics!r}.")
        self.options = {
            "neurons": neurons,
            "heldin": heldin,
            "bins": bins,
            "forward": forward,
            "bin_s": bin_s,
            "latents": latents,
            "hidden": hidden,
            "band_hz": list(band_hz),
            "dynamics": Dynamics(dynamics),
            "coupled": coupled,
            "attention": attention,
            "dropout": dropout,
            "readout_units": readout_units,
        }
        self.bin_s, self.latents = bin_s, latents
        self.flow = dynamics_of(dynamics, latents, bin_s, band_hz, coupled)
        self.draws = self.flow.draws
        self.encoder = nn.GRU(heldin, hidden, batch_first=True, bidirectional=True)
        self.dropped = dropout
        self.start = nn.Linear(2 * hidden, 4 * latents)
        self.noise = nn.Linear(2 * hidden, 2 * self.draws * latents)
        for head in (self.start, self.noise):  # begin near the prior
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.feedback = nn.Parameter(torch.zeros(self.draws, 2, latents))
        with torch.no_grad():
            self.feedback[-1] = 0.2
        self.readout = RateReadout(2 * latents, neurons, readout_units)
        self.attention = TimeAttention(2 * latents) if attention else None

    @property
    def frequency_hz(self) -> Float[Tensor, "latent"]:
        """Undamped frequency of each oscillator, were it alone."""
        return self.flow.frequency_hz

    @property
    def damping(self) -> Float[Tensor, "latent"]:
        """Damping ratio gamma / (2 omega): below 1 it oscillates."""
        return self.flow.damping

    def modes(self) -> Modes:
        """Normal modes of the coupled oscillators."""
        return self.flow.modes()

    def step(self) -> LinearStep:
        """The exact step of the uncoupled oscillators over one bin."""
        return self.flow.step()

    def force(self, q: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """-L^T L q - c h'(q), what U has beyond |q|^2 / 2 pulls with."""
        return self.flow.force(q)

    def energy(self, q: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch"]:
        """U(q) in units of the temperature, >= 0."""
        return self.flow.energy(q)

    def set_mean_counts(self, mean: Float[Tensor, "neuron"]) -> None:
        """Begin at the neurons' mean counts a bin: the null model of the metrics."""
        self.readout.set_mean_counts(mean)

    def encode(self, counts: Float[Tensor, "batch bins heldin"]) -> Posterior:
        """The posterior given spikes of held-in neurons in the observed bins.

        Raises:
            InputError: counts of another shape.
        """
        self.check_seen(counts)
        hidden = self.whole_trial_dropout(bidirectional_gru(self.encoder, counts), self.dropped)
        ends = torch.cat([hidden[:, -1, : hidden.shape[2] // 2], hidden[:, 0, hidden.shape[2] // 2 :]], 1)
        mean, log_sd = self.start(ends).unflatten(1, (2, 2, self.latents)).unbind(1)
        noise_mean, noise_log_sd = (
            self.noise(hidden[:, 1:]).unflatten(2, (2, self.draws, self.latents)).unbind(2)
        )
        law = CertainPosterior if isinstance(self.flow, Direct) else Posterior
        return law(mean, log_sd.clamp(-6, 3), noise_mean, noise_log_sd.clamp(-6, 3))

    def path(
        self,
        posterior: Posterior,
        generators: Sequence[Generator] | None = None,
        forward_generators: Sequence[Generator] | None = None,
    ) -> LatentPath:
        """Latents of observed and forward bins.

        Args:
            posterior: From `encode`.
            generators: One a trial: a draw of the posterior. None: its mean.
            forward_generators: One a trial: noise in the forward window. None: none, the dynamics run down undisturbed.
        """
        start, mean = posterior.start_mean, posterior.noise_mean
        apart = torch.zeros_like(mean)
        if generators is not None and not isinstance(posterior, CertainPosterior):
            start = start + torch.exp(posterior.start_log_sd) * _normal(generators, start)
            apart = torch.exp(posterior.noise_log_sd) * _normal(generators, mean)
        if self.forward_bins:
            ahead = torch.zeros_like(mean[:, :1]).expand(-1, self.forward_bins, -1, -1)
            if forward_generators is not None:
                ahead = _normal(forward_generators, ahead)
            apart = torch.cat([apart, ahead], 1)
        return self.run(start, apart, mean)

    def run(
        self,
        start: Float[Tensor, "batch 2 latent"],
        noise: Float[Tensor, "batch steps draws latent"],
        steering: Float[Tensor, "batch steered draws latent"] | None = None,
    ) -> LatentPath:
        """The dynamics from a start (q, v / omega), driven by noise; one state more than steps.

        Args:
            start: The first state.
            noise: Standard normal for a path of the prior, or a deviation from the mean of a posterior.
            steering: In the first steps, the mean of the noise but for its feedback - K (q, v / omega), which is added.
        """
        states, means = self.flow.run(start, noise, steering, 2 * torch.tanh(0.5 * self.feedback))
        return LatentPath(states[:, :, 0], states[:, :, 1], means)

    def log_rates(self, path: LatentPath) -> Float[Tensor, "batch time neuron"]:
        """Log of expected counts a bin."""
        features = path.features
        if self.attention is not None:
            features = features + self.attention(features)
        return self.readout(features)

    def sample(self, generators: Sequence[Generator], bins: int | None = None) -> LatentPath:
        """Paths of the prior: a start at rest (of |q|^2 / 2) and noise, one a generator.

        Args:
            generators: One a trial.
            bins: How long; by default observed and forward bins.
        """
        count = self.bins + self.forward_bins if bins is None else bins
        like = self.feedback
        start = noise_of(generators, (2, self.latents), like.dtype, like.device)
        noise = noise_of(generators, (count - 1, self.draws, self.latents), like.dtype, like.device)
        return self.run(start, noise)


def _normal(generators: Sequence[Generator], like: Tensor) -> Tensor:
    return noise_of(generators, like.shape[1:], like.dtype, like.device)
