r"""LangevinFlow as its authors released it, every trap behind a switch, without a derivative or an encoder call a bin.

For T observed and F forward bins, spikes x of held-in neurons, h the state of one causal GRU:

    h_t = GRU(x_0, x_0, x_1, ..., x_{T-2}, then x_{T-1} F times)           lagged: bin t reads bin t - 1
    z_0, v_0 ~ N(mean(h_0), exp(log variance(h_0)))                        the first bin only
    z_t = z_{t-1} + h v_{t-1}
    v_t = (1 - gamma) (v_{t-1} - h grad U(z_{t-1})) + sqrt(2 gamma) eps    `paper_potential`, `linear_scan`
    log r = decoder(z, v, h)                                               `paper_decoder`

There is no posterior over the noise after the first bin, and the force is too weak by two orders of magnitude to turn
anything: rates come from the GRU and the attention layer, and z, v are noise beside them. `langevin_flow` is what to use;
this is what it is measured against. Departures from the paper stand in `paper_switches`, the loss in `paper_objective`.

What makes it fast: nothing in z, v feeds back into h, so the encoder is one call over all bins (a loop of cells only where
dropout sits inside the recurrence); the force is a matrix, made once a batch; all noise is drawn once, a generator a trial.

Reading order: `paper_switches`, `paper_potential`, `linear_scan`, `paper_decoder`, this, `coordinated_dropout`,
`elbo_terms`, `paper_objective`; `paper_reference` is the same model as a slow literal loop.

References:
    Song et al., "Langevin flows for modeling neural latent dynamics", 2025, https://arxiv.org/abs/2507.11531.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_core.specs import buildable
from radiata_latents.model.elbo_terms import standard_kl
from radiata_latents.model.linear_scan import langevin_scan
from radiata_latents.model.paper_decoder import HEADS, DecoderDropout, PaperDecoder
from radiata_latents.model.paper_potential import CoupledPotential
from radiata_latents.model.paper_switches import PaperSwitches
from radiata_latents.model.population_model import PopulationModel

__all__ = ["Draws", "Encoded", "PaperLangevinFlow", "PaperPath", "Windows"]


@dataclass(frozen=True, eq=False)
class Draws:
    """All randomness of one pass.

    Attributes:
        start: Standard normal, of z and v in the first bin.
        noise: Standard normal, of each later bin.
        encoder: Dropout factors 0 or 1 / (1 - p) of the encoder; None: nothing is dropped anywhere.
        decoder: Those of the decoder.
    """

    start: Float[Tensor, "batch 2 hidden"]
    noise: Float[Tensor, "batch steps hidden"]
    encoder: Float[Tensor, "batch time hidden"] | None = None
    decoder: DecoderDropout | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """States of the encoder, and the law of z, v in the first bin."""

    hidden: Float[Tensor, "batch time hidden"]
    mean: Float[Tensor, "batch 2 hidden"]
    log_variance: Float[Tensor, "batch 2 hidden"]

    def kl(self, path: object = None) -> Float[Tensor, "batch"]:
        """KL of the start to N(0, 1), nats a trial."""
        return standard_kl(self.mean, self.log_variance)


@dataclass(frozen=True, eq=False)
class PaperPath:
    """Latents of all bins, the encoder's states beside them, and the mean that each later velocity was drawn around."""

    position: Float[Tensor, "batch time hidden"]
    velocity: Float[Tensor, "batch time hidden"]
    hidden: Float[Tensor, "batch time hidden"]
    transition_mean: Float[Tensor, "batch steps hidden"]
    dropout: DecoderDropout | None = None


@dataclass(frozen=True, eq=False)
class Windows:
    """Rates, or log-rates, in the four blocks that the Neural Latents Benchmark asks for."""

    heldin: Float[Tensor, "batch bins heldin"]
    heldout: Float[Tensor, "batch bins heldout"]
    heldin_forward: Float[Tensor, "batch forward heldin"]
    heldout_forward: Float[Tensor, "batch forward heldout"]


@buildable("paper-langevin-flow")
class PaperLangevinFlow(PopulationModel):
    """Rates of a population from spikes of its held-in part.

    Args:
        neurons: All neurons; the held-in ones come first.
        heldin: How many the encoder sees.
        bins: Observed bins.
        forward: Bins after them.
        hidden: H, of encoder, z and v each, a multiple of four; the release has 280.
        inner: Width of the decoder's feed-forward part.
        switches: The release, or another form.

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
        inner: int = 512,
        switches: PaperSwitches | None = None,
    ) -> None:
        super().__init__(neurons, heldin, bins, forward)
        if inner < 1:
            raise InputError(
                f"expected a feed-forward part of inner > 0 units; got {inner}. The release has 512."
            )
        self.switches = s = PaperSwitches() if switches is None else switches
        self.options = {
            "neurons": neurons,
            "heldin": heldin,
            "bins": bins,
            "forward": forward,
            "hidden": hidden,
            "inner": inner,
            "switches": s,
        }
        self.hidden, self.inner = hidden, inner
        self.potential = CoupledPotential(
            hidden, normalised=s.normalised_kernel, epsilon=s.kernel_epsilon, spread=s.kernel_spread
        )
        self.encoder = nn.GRU(heldin, hidden, batch_first=True)
        self.start = nn.Linear(hidden, 4 * hidden)
        self.decoder = PaperDecoder(3 * hidden, neurons, inner, s.tfixup)

    def set_mean_counts(self, mean: Float[Tensor, "neuron"]) -> None:
        """Begin at the neurons' mean counts a bin (the release does not)."""
        self.begin_at(self.decoder.readout, mean)

    def draw(self, generators: Sequence[Generator], *, dropout: bool = False) -> Draws:
        """Noise, and with `dropout` the units that are dropped; row i from generator i alone.

        Raises:
            InputError: no generator.
        """
        like, p = self.start.weight, self.switches.dropout
        time = self.bins + self.forward_bins
        normal = noise_of(generators, (time + 1, self.hidden), like.dtype, like.device)
        start, noise = normal.split([2, time - 1], 1)
        if not dropout or p == 0:
            return Draws(start, noise)
        features = 3 * self.hidden
        shapes = [
            (time, self.hidden),
            (HEADS, time, time),
            (time, features),
            (time, self.inner),
            (time, features),
        ]
        sizes = [math.prod(shape) for shape in shapes]
        rows = [torch.rand(sum(sizes), generator=g, device=g.device) for g in generators]
        kept = (torch.stack(rows).to(like.device) >= p).to(like.dtype) / (1 - p)
        parts = [part.unflatten(1, shape) for part, shape in zip(kept.split(sizes, 1), shapes, strict=True)]
        return Draws(start, noise, parts[0], DecoderDropout(*parts[1:]))

    def encode(self, counts: Float[Tensor, "batch bins heldin"], draws: Draws | None = None) -> Encoded:
        """States of all bins and the law of the start, given what the encoder may see.

        Raises:
            InputError: counts of another shape.
        """
        self.check_seen(counts)
        dropout = None if draws is None else draws.encoder
        read = self._read(counts)
        if dropout is None:
            hidden = self.encoder(read)[0]
        elif self.switches.dropout_inside:
            hidden = self._cells(read, dropout)
        else:
            hidden = self.encoder(read)[0] * dropout
        law = self.start(hidden[:, 0]).unflatten(1, (2, 2, self.hidden))
        return Encoded(hidden, law[:, :, 0], law[:, :, 1])

    def _read(self, counts: Tensor) -> Tensor:
        """The bin that the encoder reads in each bin of the output."""
        first = [counts[:, :1], counts[:, :-1]] if self.switches.lagged else [counts]
        last = counts[:, -1:] if self.switches.feed_last_bin else torch.zeros_like(counts[:, -1:])
        return torch.cat([*first, last.expand(-1, self.forward_bins, -1)], 1)

    def _cells(self, read: Tensor, dropout: Tensor) -> Tensor:
        weights = dict(self.encoder.named_parameters())
        of_input, of_state = weights["weight_ih_l0"], weights["weight_hh_l0"]
        biases = weights["bias_ih_l0"], weights["bias_hh_l0"]
        h, states = read.new_zeros(len(read), self.hidden), []
        for x, kept in zip(read.unbind(1), dropout.unbind(1), strict=True):
            h = torch.gru_cell(x, h, of_input, of_state, *biases) * kept
            states.append(h)
        return torch.stack(states, 1)

    def path(
        self,
        posterior: Encoded,
        generators: Sequence[Generator] | None = None,
        forward_generators: Sequence[Generator] | None = None,
        *,
        draws: Draws | None = None,
    ) -> PaperPath:
        """Latents of observed and forward bins.

        Args:
            posterior: From `encode`.
            generators: One a trial, if `draws` are not given; nothing is dropped then.
            forward_generators: Not used: noise of the forward window follows that of the observed bins.
            draws: Given noise and dropout. Neither: the mean start, and no noise.
        """
        if draws is None and generators is not None:
            draws = self.draw(generators)
        deviation, keep = math.sqrt(self.switches.noise_variance), 1 - self.switches.gamma
        if draws is None:
            start = posterior.mean
            kicks = torch.zeros_like(posterior.hidden[:, 1:])
        else:
            start = posterior.mean + torch.exp(0.5 * posterior.log_variance) * draws.start
            kicks = deviation * draws.noise
        position, velocity = langevin_scan(
            start, kicks, self.potential.coupling(), self.switches.step, keep
        ).unbind(0)
        dropout = None if draws is None else draws.decoder
        return PaperPath(position, velocity, posterior.hidden, velocity[:, 1:] - kicks, dropout)

    def log_rates(self, path: PaperPath) -> Float[Tensor, "batch time neuron"]:
        """Log of expected counts a bin."""
        return self.decoder(torch.cat([path.position, path.velocity, path.hidden], 2), path.dropout)

    def forward(
        self, counts: Float[Tensor, "batch bins heldin"], draws: Draws | None = None
    ) -> Float[Tensor, "batch time neuron"]:
        """Log-rates of one pass; without draws along the mean of the start."""
        return self.log_rates(self.path(self.encode(counts, draws), draws=draws))

    def rates(
        self,
        counts: Float[Tensor, "batch bins heldin"],
        passes: int = 0,
        generators: Sequence[Generator] | None = None,
    ) -> Float[Tensor, "batch time neuron"]:
        """Expected counts a bin of all neurons, observed and forward bins.

        Args:
            counts: Spikes of held-in neurons.
            passes: Draws, averaged as the switches say; the release takes 50. 0: one pass along the mean.
            generators: One a trial, for draws.

        Raises:
            InputError: draws without generators.
        """
        if passes == 0:
            return self(counts).exp()
        rows = self.check_generators(counts, generators)
        s = self.switches
        drawn = torch.stack(
            [self(counts, self.draw(rows, dropout=s.dropout_at_prediction)) for _ in range(passes)]
        )
        return drawn.mean(0).exp() if s.geometric_mean else drawn.exp().mean(0)

    def windows(self, rates: Float[Tensor, "batch time neuron"]) -> Windows:
        """Rates cut into held-in and held-out neurons, observed and forward bins."""
        seen, ahead = rates[:, : self.bins], rates[:, self.bins :]
        n = self.heldin
        return Windows(seen[..., :n], seen[..., n:], ahead[..., :n], ahead[..., n:])
