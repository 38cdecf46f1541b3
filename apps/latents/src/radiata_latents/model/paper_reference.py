r"""The released LangevinFlow as a slow literal loop: what `paper_flow` is tested and timed against.

A `GRUCell` a bin, the gradient of the potential by automatic differentiation a bin, attention a head, KL a bin, in the order
of the equations:

    h_t = D[GRUCell(x_{t-1}, h_{t-1})],   u = dU/dz(z_{t-1})
    z_t = z_{t-1} + h v_{t-1},   v' = v_{t-1} - h u,   v_t = (1 - gamma) v' + sqrt(variance) eps
    U = sum_{i,j} <conv(z, K / |K|)_i, z_j>

It shares parameters with no module of `paper_flow`; `copy_from` and `pairs` say which number is which. Nothing but tests and
`benchmarks/latents_speed.py` should use it.

References:
    Song et al., 2025, https://arxiv.org/abs/2507.11531 (the model, as released).
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from radiata_latents.model.coordinated_dropout import CountMasks
from radiata_latents.model.paper_flow import Draws, PaperLangevinFlow

__all__ = ["ReferenceFlow"]


class ReferenceFlow(nn.Module):
    """The model of a `PaperLangevinFlow`, with a copy of its numbers."""

    def __init__(self, model: PaperLangevinFlow) -> None:
        super().__init__()
        self.switches, self.bins, self.ahead = model.switches, model.bins, model.forward_bins
        self.heldin, self.size = model.heldin, model.hidden
        wide = 3 * model.hidden
        self.cell = nn.GRUCell(model.heldin, model.hidden)
        self.z_mean, self.z_log_variance, self.v_mean, self.v_log_variance = (
            nn.Linear(model.hidden, model.hidden) for _ in range(4)
        )
        self.kernel = nn.Parameter(torch.zeros(4, 4, 3))
        self.mix, self.out = nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.inner, self.outer = nn.Linear(wide, model.inner), nn.Linear(model.inner, wide)
        self.norm_mixed, self.norm_outer = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.readout = nn.Linear(wide, model.neurons)
        self.to(model.start.weight)
        with torch.no_grad():
            for mine, theirs, rows in self.pairs(model):
                mine.copy_(theirs[rows])

    def pairs(self, model: PaperLangevinFlow) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """(parameter here, parameter there, its rows there)."""
        everything, gru = slice(None), model.encoder
        yield self.kernel, model.potential.kernel, everything
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            yield getattr(self.cell, name), getattr(gru, f"{name}_l0"), everything
        for k, head in enumerate((self.z_mean, self.z_log_variance, self.v_mean, self.v_log_variance)):
            rows = slice(k * self.size, (k + 1) * self.size)
            yield head.weight, model.start.weight, rows
            yield head.bias, model.start.bias, rows
        for name in ("mix", "out", "inner", "outer", "norm_mixed", "norm_outer", "readout"):
            mine, theirs = getattr(self, name), getattr(model.decoder, name)
            yield mine.weight, theirs.weight, everything
            yield mine.bias, theirs.bias, everything

    def hidden(self, seen: Float[Tensor, "batch bins heldin"], draws: Draws) -> list[Tensor]:
        """h_t of every bin."""
        s = self.switches
        states: list[Tensor] = []
        for t in range(self.bins + self.ahead):
            if t >= self.bins:
                x = seen[:, self.bins - 1] if s.feed_last_bin else torch.zeros_like(seen[:, 0])
            else:
                x = seen[:, max(t - 1, 0)] if s.lagged else seen[:, t]
            if t == 0:
                h = self.cell(x)
            elif s.dropout_inside:
                h = self.cell(x, states[-1])
            else:
                h = self.cell(x, h)
            kept = h if draws.encoder is None else h * draws.encoder[:, t]
            states.append(kept)
        return states

    def potential(self, z: Tensor) -> Tensor:
        """U, summed over the batch."""
        kernel: Tensor = self.kernel
        if self.switches.normalised_kernel:
            kernel = functional.normalize(kernel, p=2.0, dim=2, eps=self.switches.kernel_epsilon)
        sites = z.reshape(len(z), 4, self.size // 4)
        felt = functional.conv1d(sites, kernel, padding=1)
        return (felt[:, :, None] * sites[:, None]).sum()  # over rows, i, j and sites

    def dynamics(
        self, z: Tensor, v: Tensor, noise: Float[Tensor, "batch steps hidden"]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """z_t, v_t of all bins, and the mean of each v_t."""
        s, positions, velocities, means = self.switches, [z], [v], []
        for t in range(noise.shape[1]):
            with torch.enable_grad():
                at = z if z.requires_grad else z.requires_grad_(True)
                (u,) = torch.autograd.grad(self.potential(at), at, create_graph=True)
            z = z + s.step * v
            mean = (1 - s.gamma) * (v - s.step * u)
            v = mean + math.sqrt(s.noise_variance) * noise[:, t]
            positions.append(z)
            velocities.append(v)
            means.append(mean)
        return positions, velocities, means

    def decode(self, x: Float[Tensor, "batch time features"], draws: Draws) -> Tensor:
        """Log-rates, head by head."""
        wide, drop = x.shape[2], draws.decoder
        half = wide // 2
        projected, heads = self.mix(x), []
        for k in range(2):
            q, key, value = (
                projected[..., part * wide + k * half : part * wide + (k + 1) * half] for part in range(3)
            )
            weights = torch.softmax(torch.bmm(q, key.transpose(1, 2)) / math.sqrt(half), 2)
            if drop is not None:
                weights = weights * drop.attention[:, k]
            heads.append(torch.bmm(weights, value))
        mixed = self.out(torch.cat(heads, 2))
        y = self.norm_mixed(x + (mixed if drop is None else mixed * drop.mixed))
        inner = torch.relu(self.inner(y))
        outer = self.outer(inner if drop is None else inner * drop.inner)
        return self.readout(self.norm_outer(y + (outer if drop is None else outer * drop.outer)))

    def forward(
        self,
        counts: Float[Tensor, "batch time neuron"],
        masks: CountMasks,
        draws: Draws,
        weight: float,
        observed: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(log-rates, loss) of a batch with given masks and noise; the mean negative log-likelihood and the summed KL."""
        s = self.switches
        if observed is None:
            observed = torch.ones(counts.shape[:2], dtype=torch.bool, device=counts.device)
        counts = torch.where(observed[..., None], counts, 0.0)
        states = self.hidden(counts[:, : self.bins, : self.heldin] * masks.keep / masks.share, draws)
        first = states[0]
        z_mean, z_log, v_mean, v_log = (
            head(first) for head in (self.z_mean, self.z_log_variance, self.v_mean, self.v_log_variance)
        )
        z = z_mean + torch.exp(z_log / 2) * draws.start[:, 0]
        v = v_mean + torch.exp(v_log / 2) * draws.start[:, 1]
        positions, velocities, means = self.dynamics(z, v, draws.noise)
        features = [torch.cat(parts, 1) for parts in zip(positions, velocities, states, strict=True)]
        log_rates = self.decode(torch.stack(features, 1), draws)
        kl = _normal_kl(z_mean, z_log, 1.0) + _normal_kl(v_mean, v_log, 1.0)
        if s.transition_term:
            log_variance = s.noise_variance if s.variance_as_log_variance else math.log(s.noise_variance)
            for velocity, mean in zip(velocities[1:], means, strict=True):
                centre = velocity if s.sample_as_mean else mean
                kl = kl + _normal_kl(centre, torch.full_like(centre, log_variance), s.prior_variance)
        cost = torch.exp(log_rates) - counts * log_rates
        scored = torch.ones_like(cost, dtype=torch.bool)
        scored[:, : self.bins, : self.heldin] = masks.scored
        cost = torch.where(scored, cost, cost.detach()) * observed[..., None]
        means_of_trials = cost.sum((1, 2)) / (observed.sum(1) * counts.shape[2])
        return log_rates, (means_of_trials + weight * kl).mean()


def _normal_kl(mean: Tensor, log_variance: Tensor, prior: float) -> Tensor:
    kl = math.log(prior) - log_variance + (torch.exp(log_variance) + mean**2) / prior - 1
    return 0.5 * kl.sum(1)
