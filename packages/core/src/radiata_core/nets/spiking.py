r"""An n-dimensional spiking U-Net for denoising, and its twin without spikes by one option.

The order within a block is activation, convolution, norm, and sums are of floats ("pre-spike residual"):

    h <- h + norm(conv(spike(norm(conv(spike(h))) + e)))

so every convolution of the body reads zeros and ones, which a sum of spikes (0, 1, 2) would not be. Encoding is direct: the
stem reads the floats of x once, and its answer is the current of all T steps. The output is the weighted mean over steps,
weights proportional to 0.8^(T-1-n), of the last maps after a SiLU, through one convolution; taken before the convolution,
which is linear, it is the same and costs 1/T.

**Norm.** The authors use batch norm, with statistics over rows and steps. Then in training a row depends on the others and
an early step on a late one. Here it is group norm, of each row and step alone: the same in training and at inference, at
the price that it cannot be folded into the weights of a chip, as a batch norm's frozen statistics can.

`activation="relu"` or `"silu"` is the twin: the same graph and the same names of weights, one step.

References:
    Cao et al., "Spiking diffusion models", 2024, https://arxiv.org/abs/2408.16467 (pre-spike residual learning).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_core.spiking import IntegrateFire, SpikingActivation, decoding_weights
from radiata_core.spiking_networks import decoded

__all__ = ["SpikingUNet"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PLAIN: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class Layer(nn.Module):
    """norm(conv(activation(h)))."""

    def __init__(self, activation: nn.Module, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.activation, self.conv, self.norm = activation, conv, _norm(channels)

    def forward(self, h: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.conv(self.activation(h)))
        return answer


class Block(nn.Module):
    """h + second(first(h) + e); the second norm starts at zero, and the block as the identity."""

    def __init__(self, first: Layer, second: Layer, channels: int, embedding: int, steps: int) -> None:
        super().__init__()
        self.first, self.second, self.steps = first, second, steps
        self.shift = nn.Linear(embedding, channels)
        nn.init.zeros_(second.norm.weight)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        shift = torch.cat([self.shift(e)] * self.steps)
        inner = self.first(h) + shift.reshape(len(h), -1, *[1] * (h.ndim - 2))
        return h + self.second(inner)


@buildable("spiking-unet")
class SpikingUNet(nn.Module):
    """Denoising network `(x, noise_level, covariates) -> ` tensor of `out_channels` on the grid of x.

    Args:
        dims: Spatial dimensions, 1, 2 or 3.
        in_channels: Channels of x.
        out_channels: Channels of the output.
        channels: Channels a level, finest first; every grid axis must divide by 2^(levels - 1).
        blocks: Residual blocks a level, on the way down and again on the way up.
        covariates: Number of covariates K; 0 for none. NaN is not given.
        embedding: Width of the conditioning embedding.
        frequencies: Fourier features of the noise level.
        activation: "spike"; or "relu" or "silu", the twin.
        steps: T of the spiking network; a twin has one.
        threshold: theta of all neurons.
        leak: Of all neurons, 1 for none lost.
        reset: "zero" or "subtract".
        decay: Of the weights of the steps in the output.

    Raises:
        InputError: options out of range.
    """

    octaves: Tensor

    def __init__(
        self,
        *,
        dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        covariates: int = 0,
        embedding: int = 128,
        frequencies: int = 64,
        activation: str = "spike",
        steps: int = 4,
        threshold: float = 1.0,
        leak: float = 1.0,
        reset: str = "zero",
        decay: float = 0.8,
    ) -> None:
        super().__init__()
        if activation not in ("spike", *_PLAIN):
            raise InputError(f"expected activation spike, relu or silu; got {activation!r}. Use one of them.")
        if dims not in _CONV:
            raise InputError(f"expected 1, 2 or 3 dims; got {dims}. Fold further axes into channels.")
        decoding_weights(steps, decay)
        self.options: dict[str, Any] = {
            "dims": dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": tuple(channels),
            "blocks": blocks,
            "covariates": covariates,
            "embedding": embedding,
            "frequencies": frequencies,
            "activation": activation,
            "steps": steps,
            "threshold": threshold,
            "leak": leak,
            "reset": reset,
            "decay": decay,
        }
        conv = _CONV[dims]
        self.covariates, self.decay = covariates, decay
        self.steps = steps if activation == "spike" else 1
        self.multiple = 2 ** (len(channels) - 1)
        self.register_buffer("octaves", torch.linspace(-2.5, 1.5, frequencies // 2).exp(), persistent=False)
        self.embed_noise = nn.Linear(frequencies, embedding)
        self.embed_covariates = nn.Linear(2 * covariates, embedding) if covariates else None
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = conv(in_channels, channels[0], 3, padding=1)
        self.stem_norm = _norm(channels[0])

        def fire() -> nn.Module:
            if activation != "spike":
                return _PLAIN[activation]()
            return SpikingActivation(steps, IntegrateFire(threshold, leak, reset))

        def block(width: int) -> Block:
            first, second = (Layer(fire(), conv(width, width, 3, padding=1), width) for _ in range(2))
            return Block(first, second, width, embedding, self.steps)

        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(nn.ModuleList(block(c) for _ in range(blocks)) for c in channels)
        self.up = nn.ModuleList(nn.ModuleList(block(c) for _ in range(blocks)) for c in channels)
        self.shrink = nn.ModuleList(Layer(fire(), conv(a, b, 2, stride=2), b) for a, b in pairs)
        self.grow = nn.ModuleList(Layer(fire(), conv(b, a, 1), a) for a, b in pairs)
        self.head = conv(channels[0], out_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def twin(self, activation: str = "silu") -> "SpikingUNet":
        """A network of the same graph without spikes, with these weights, on their device."""
        with torch.random.fork_rng(devices=[]):  # its first weights are not used
            twin = SpikingUNet(**{**self.options, "activation": activation})
        state = {
            key: value for key, value in self.state_dict().items() if not key.endswith("activation.gain")
        }
        twin.load_state_dict(state)
        return twin.to(self.stem.weight).train(self.training)

    def _embedding(self, noise_level: Tensor, covariates: Tensor | None, batch: int) -> Tensor:
        angles = noise_level.to(self.octaves).reshape(-1, 1).expand(batch, 1) * self.octaves
        e = self.embed_noise(torch.cat([angles.sin(), angles.cos()], 1).to(self.embed_noise.weight.dtype))
        if self.embed_covariates is not None:
            if covariates is None:
                covariates = e.new_full((batch, self.covariates), torch.nan)
            missing = covariates.isnan()
            known = torch.cat([covariates.masked_fill(missing, 0.0), missing.to(covariates)], -1)
            e = e + self.embed_covariates(known.to(e.dtype))
        embedded: Tensor = self.embed(e)
        return embedded

    def forward(self, x: Tensor, noise_level: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Output `(batch, out_channels, *grid)`.

        Args:
            x: `(batch, in_channels, *grid)`.
            noise_level: Scalar or `(batch,)`; the denoiser gives the log-SNR.
            covariates: `(batch, K)`, standardised; NaN where not given. None for none.

        Raises:
            InputError: a grid that does not divide by 2^(levels - 1).
        """
        if any(size % self.multiple for size in x.shape[2:]):
            raise InputError(
                f"expected a grid divisible by {self.multiple}; got {tuple(x.shape[2:])}. Pad it or use fewer levels."
            )
        e = self._embedding(noise_level, covariates, len(x))
        h = torch.cat([self.stem_norm(self.stem(x))] * self.steps)
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, e)
            skips.append(h)
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = F.interpolate(self.grow[level](h), scale_factor=2.0, mode="nearest") + skips[level]
            for block in self.up[level]:  # type: ignore[attr-defined]
                h = block(h, e)
        output: Tensor = self.head(decoded(F.silu(h), self.steps, self.decay))
        return output
