r"""From a picture of the cortex to what a generator is given: a context, a control, a first guess.

    cortex (n, 1, y, x) → encoder → tokens ─┬─ semantic tokens → context (n, T, D)      `Condition.prompt_embeds`
                                            ├─ manipulation    → residuals, at every step of the generator
                                            └─ guess           → components of a picture basis → first picture, the hint

The generator stays frozen and is not part of this module: it is passed in where pictures are made. `Manipulated` is the
generator under control, a denoiser like any other, so the core's solvers and objectives take it as it is. With guidance the
control stays in both branches and only the context is emptied.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (both heads, the control scale at inference).
    J. Ho, T. Salimans (2022). Classifier-free diffusion guidance. https://arxiv.org/abs/2207.12598, eq. 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel
from radiata_core.paths import Path
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import dpmpp_2m, integrate
from radiata_core.specs import buildable
from radiata_core.times import LogSNRGrid
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulation_network import ManipulationNetwork, residuals_added, the_unet
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_encoder import SurfaceEncoder

__all__ = [
    "FrozenGenerator",
    "GuessHead",
    "Manipulated",
    "SurfaceDecoder",
    "SurfacePrediction",
    "drawn_pictures",
]


@dataclass(frozen=True)
class FrozenGenerator:
    """A denoiser of pictures that is never trained here, and in which units its state is.

    Attributes:
        denoiser: With a U-Net of the core inside.
        shape: Of a picture, (3, y, x).
        centre: The state is (picture − centre) / spread.
        spread: See `centre`, > 0.
    """

    denoiser: NetworkDenoiser
    shape: tuple[int, int, int]
    centre: float = 0.5
    spread: float = 0.5

    def state(self, images: Tensor) -> Tensor:
        """State of pictures in [0, 1]."""
        return (images - self.centre) / self.spread

    def images(self, state: Tensor) -> Tensor:
        """Pictures in [0, 1]; what lies outside is cut."""
        return (state * self.spread + self.centre).clamp(0, 1)


@dataclass(frozen=True)
class SurfacePrediction:
    """What the cortex says.

    Attributes:
        tokens: Of the encoder, (n, 1 + p, width): what the manipulation is controlled by.
        context: (n, T, D): what stands for a text.
        guess: Components of the picture basis in units of their standard deviation, (n, d); None without that head.
        first: The picture that they add up to, (n, 3, y, x) around [0, 1]; None without.
    """

    tokens: Tensor
    context: Tensor
    guess: Tensor | None = None
    first: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> "SurfacePrediction":
        """The same for some rows."""
        guess = None if self.guess is None else self.guess[rows]
        first = None if self.first is None else self.first[rows]
        return SurfacePrediction(self.tokens[rows], self.context[rows], guess, first)


class GuessHead(nn.Module):
    """Components (n, d) from tokens: tokens are mixed to a few, then all features count. It starts at the mean picture."""

    def __init__(self, tokens: int, width: int, components: int, mixed: int = 32) -> None:
        super().__init__()
        self.mix = nn.Conv1d(tokens, min(tokens, mixed), 1)
        self.out = nn.Linear(min(tokens, mixed) * width, components)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """The components."""
        return self.out(self.mix(tokens).flatten(1))


@buildable("surface-decoder")
class SurfaceDecoder(nn.Module):
    """Encoder and heads, all of what is trained.

    Args:
        encoder: Of pictures of the cortex.
        semantic: Its tokens and width are the encoder's.
        manipulation: Of the generator; None for contexts and guesses alone.
        components: Of the picture basis, d; 0 for no guess.
        picture: Shape of a picture, (3, y, x), where there is a guess.

    Raises:
        InputError: heads of another encoder.
    """

    basis_mean: Tensor
    basis_rows: Tensor
    basis_sd: Tensor

    def __init__(
        self,
        encoder: SurfaceEncoder,
        semantic: SemanticTokens,
        manipulation: ManipulationNetwork | None = None,
        components: int = 0,
        picture: tuple[int, int, int] = (3, 32, 32),
    ) -> None:
        super().__init__()
        for head in (semantic, manipulation):
            if head is not None and (head.options["tokens"], head.options["width"]) != (
                encoder.tokens,
                encoder.width,
            ):
                raise InputError(
                    f"expected heads for {encoder.tokens} tokens of width {encoder.width}; got "
                    f"{head.options['tokens']} of {head.options['width']}. Make them for this encoder."
                )
        self.encoder, self.semantic, self.manipulation = encoder, semantic, manipulation
        self.components = components
        self.picture: tuple[int, int, int] = (int(picture[0]), int(picture[1]), int(picture[2]))
        self.guess = GuessHead(encoder.tokens, encoder.width, components) if components else None
        numbers = torch.Size(self.picture).numel() if components else 0
        self.register_buffer("basis_mean", torch.zeros(numbers))
        self.register_buffer("basis_rows", torch.zeros(components, numbers))
        self.register_buffer("basis_sd", torch.ones(components))

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild it."""
        return {
            "encoder": self.encoder,
            "semantic": self.semantic,
            "manipulation": self.manipulation,
            "components": self.components,
            "picture": self.picture,
        }

    def set_basis(self, codec: PcaCodec) -> None:
        """Give it the picture basis of its guess; it is stored with the weights.

        Raises:
            InputError: a basis of other pictures or of another size.
        """
        if codec.dimensions != self.components or tuple(codec.shape) != self.picture:
            raise InputError(
                f"expected {self.components} components of pictures {self.picture}; got {codec.dimensions} of {codec.shape}."
            )
        self.basis_mean.copy_(codec.mean)
        self.basis_rows.copy_(codec.components)
        self.basis_sd.copy_(codec.sd)

    def components_of(self, images: Tensor) -> Tensor:
        """What the guess is trained on: components of pictures, in units of their standard deviation, (n, d)."""
        return (images.flatten(1) - self.basis_mean) @ self.basis_rows.T / self.basis_sd

    def refined(self) -> "SurfaceDecoder":
        """The same decoder with the semantic branch of refining, at zero: the same predictions, to the bit.

        Parts are shared, not copied.
        """
        fresh = SurfaceDecoder(
            self.encoder, self.semantic.refined(), self.manipulation, self.components, self.picture
        )
        fresh.guess = self.guess
        for name, value in self.named_buffers(recurse=False):
            getattr(fresh, name).copy_(value)
        return fresh

    def forward(self, cortex: Tensor) -> SurfacePrediction:
        """What pictures of the cortex (n, 1, y, x) say."""
        tokens = self.encoder(cortex)
        context = self.semantic(tokens)
        if self.guess is None:
            return SurfacePrediction(tokens, context)
        guess = self.guess(tokens)
        first = torch.addmm(self.basis_mean, guess * self.basis_sd, self.basis_rows)
        return SurfacePrediction(tokens, context, guess, first.unflatten(1, self.picture))


@dataclass(frozen=True)
class Manipulated:
    """E[x_0 | x_t, cortex]: a frozen denoiser under control.

    Attributes:
        generator: Frozen.
        network: The manipulation; None leaves the generator as it is.
        said: Prediction of the decoder, one row a row of the state.
        scale: Control scale, one or one a level; 0 is the generator alone, to the bit.
        guidance: Weight of the context against an empty one; 1 is none and costs one evaluation, not two.
    """

    generator: FrozenGenerator
    network: ManipulationNetwork | None
    said: SurfacePrediction
    scale: float | Sequence[float] = 1.0
    guidance: float = 1.0

    @property
    def path(self) -> Path:
        return self.generator.denoiser.path

    @property
    def prediction(self) -> Prediction:
        return self.generator.denoiser.prediction

    @property
    def kernel(self) -> Kernel:
        return self.generator.denoiser.kernel

    def predict(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """In units of `prediction`."""
        if self.network is None:
            return self.generator.denoiser.predict(x, t, **conditions)
        given = self._under(self.network, self.said.context, x, t, conditions)
        if self.guidance == 1.0:
            return given
        free = self._under(self.network, torch.zeros_like(self.said.context), x, t, conditions)
        return torch.lerp(free, given, self.guidance)

    def _under(
        self, network: ManipulationNetwork, context: Tensor, x: Tensor, t: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        # The hint is what the guess says; what it costs to be wrong is the guess's own loss.
        hint = None if self.said.first is None else self.generator.state(self.said.first.detach())
        unet = the_unet(self.generator.denoiser)
        with residuals_added(unet, network, self.said.tokens, self.scale, context, hint):
            return self.generator.denoiser.predict(x, t, **conditions)

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """E[x_0 | x_t, cortex], (n, 3, y, x)."""
        return convert(self.predict(x, t, **conditions), x, t, self.path, self.prediction, Prediction.X0)


@torch.no_grad()
def drawn_pictures(
    generator: FrozenGenerator,
    decoder: SurfaceDecoder,
    cortex: Tensor,
    *,
    seeds: Sequence[int],
    draws: int = 8,
    steps: int = 12,
    scale: float | Sequence[float] = 1.0,
    guidance: float = 1.0,
    batch: int = 256,
    **conditions: Tensor,
) -> Tensor:
    """Pictures that the generator draws under control, (n, draw, 3, y, x) in [0, 1].

    Picture i depends on its own cortex and seed only, whatever else is in the batch.

    Args:
        generator: Frozen.
        decoder: Trained with it.
        cortex: (n, 1, y, x).
        seeds: One a picture.
        draws: Samples of each; their mean is the best single picture by squared error, one of them the most plausible.
        steps: Of the solver (DPM-Solver++ of order 2), >= 1.
        scale: Control scale.
        guidance: Weight of the context.
        batch: Rows at a time: memory, not results.
        conditions: Of the generator, (n, ...) each.

    Raises:
        InputError: not one seed a picture, or no draws.
    """
    if len(seeds) != len(cortex) or draws < 1:
        raise InputError(
            f"expected a seed for each of {len(cortex)} pictures and a draw; got {len(seeds)}, {draws}."
        )
    table = dpmpp_2m(LogSNRGrid()(steps, generator.denoiser.path), generator.denoiser.path)
    sources = [source for seed in seeds for source in generators_of(range(draws), seed)]
    rows = torch.arange(len(cortex)).repeat_interleave(draws)
    found = []
    for part in torch.arange(len(rows)).split(batch):
        inside = rows[part]
        unique, back = torch.unique(inside, return_inverse=True)
        said = decoder(cortex[unique]).rows(back)
        denoiser = Manipulated(generator, decoder.manipulation, said, scale, guidance)
        noise = noise_of([sources[int(i)] for i in part], generator.shape).to(cortex.device)
        given = {name: value[inside] for name, value in conditions.items()}
        found.append(generator.images(integrate(denoiser, noise, table, **given)))
    return torch.cat(found).unflatten(0, (len(cortex), draws))
