"""What a transformer is told besides the image: noise level, destination, covariates, context; each may be absent.

Noise level and covariates become one embedding e that modulates every block; context becomes tokens. NaN is *not given*:
a covariate's value is replaced by zero and a flag says so, a word with a NaN in it is masked. So classifier-free guidance
needs no null token, and samples of which different things are known share a batch.

The embedding of a flow map's destination starts at zero, so that weights of a denoiser start a flow map.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from radiata_core.errors import InputError

__all__ = ["Conditioned", "words_of"]


def _mlp(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inner, outer), nn.SiLU(), nn.Linear(outer, outer))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weight and bias 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def words_of(
    context: Float[Tensor, "batch words features"] | None, embed: nn.Linear | None, like: Tensor
) -> tuple[Float[Tensor, "batch words width"] | None, Bool[Tensor, "batch words"] | None]:
    """Embedded context tokens, and which of them are there.

    Raises:
        InputError: context that the network was not built for.
    """
    features = 0 if embed is None else embed.in_features
    if context is None:
        return None, None
    if embed is None or context.shape[-1] != features:
        raise InputError(
            f"expected context tokens of {features} features; got {context.shape[-1]}. "
            "Build the network with context=features."
        )
    given = ~context.isnan().any(-1)
    return embed(context.masked_fill(~given[..., None], 0.0).to(like)), given


class Conditioned(nn.Module):
    """Base of the transformers: noise level, destination and covariates as one embedding e.

    Args:
        width: Width of e.
        frequencies: Fourier features of the noise level.
        covariates: Number of covariates K; 0 for none.
        destination: Whether the network takes the noise level of a destination.
    """

    octaves: Tensor

    def __init__(self, width: int, frequencies: int, covariates: int, destination: bool) -> None:
        super().__init__()
        self.covariates = covariates
        self.register_buffer("octaves", torch.linspace(-2.5, 1.5, frequencies // 2).exp(), persistent=False)
        self.embed_noise = _mlp(frequencies, width)
        self.embed_destination = nn.Linear(frequencies, width) if destination else None
        self.embed_covariates = _mlp(2 * covariates, width) if covariates else None

    def _waves(self, level: Tensor, batch: int) -> Tensor:
        # Phases in float32 or finer: bf16 would merge neighbouring levels.
        phase = level.reshape(-1, 1).float() * self.octaves.float()
        return torch.cat([phase.sin(), phase.cos()], -1).to(self.octaves.dtype).expand(batch, -1)

    def _embedding(
        self, level: Tensor, covariates: Tensor | None, target_level: Tensor | None, batch: int
    ) -> Tensor:
        e = self.embed_noise(self._waves(level, batch))
        if self.embed_destination is not None:
            e = e + self.embed_destination(
                self._waves(level if target_level is None else target_level, batch)
            )
        if self.embed_covariates is not None:
            values = (
                e.new_full((batch, self.covariates), torch.nan) if covariates is None else covariates.to(e)
            )
            missing = values.isnan()
            e = e + self.embed_covariates(torch.cat([values.masked_fill(missing, 0.0), missing.to(e)], -1))
        return e
