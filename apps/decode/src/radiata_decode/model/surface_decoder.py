r"""From a picture of the cortex to what a generator is given: a context, a control, a first guess.

    cortex (n, 1, y, x) → encoder → tokens ─┬─ semantic tokens → context (n, T, D)      `Condition.prompt_embeds`
                                            ├─ manipulation    → residuals, at every step of the generator
                                            └─ guess           → components of a picture basis → first picture, the hint

The generator stays frozen and is not part of this module: `manipulated_generator` joins the two. The guess is the mean of
what may have been seen, as far as the network knows; how far that is, component by component, is its `reliability`, measured
on held-out pictures and kept with the weights.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (the two heads; the guess is ours).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_decode.model.conditions import Condition
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulation_network import ManipulationNetwork
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_encoder import SurfaceEncoder

__all__ = ["GuessHead", "SurfaceDecoder", "SurfacePrediction", "joined"]


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


def joined(parts: Sequence[SurfacePrediction]) -> SurfacePrediction:
    """Predictions one after the other."""

    def cat(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    tokens, context = (torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "context"))
    return SurfacePrediction(tokens, context, cat("guess"), cat("first"))


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
    reliability: Tensor

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
        self.register_buffer("reliability", torch.zeros(components))

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

    @torch.no_grad()
    def measure_reliability(self, cortex: Tensor, images: Tensor) -> Tensor:
        """R2 of each component of the guess on held-out pictures, (d,), cut at 0; it is kept with the weights.

        Args:
            cortex: Pictures of the cortex that were not trained on, (n, 1, y, x).
            images: What was seen, (n, 3, y, x).

        Raises:
            InputError: a decoder without a guess.
        """
        guess = self(cortex).guess
        if guess is None:
            raise InputError(
                "expected a decoder with a guess; got one without. Train it with components > 0."
            )
        truth = self.components_of(images)
        lost = (truth - guess).square().mean(0) / truth.square().mean(0).clamp_min(1e-12)
        self.reliability.copy_((1 - lost).clamp(0, 1))
        return self.reliability

    def condition(self, said: SurfacePrediction) -> Condition:
        """The prediction as any generator takes it: context, control (the tokens), first picture, its components and their
        reliability."""
        if said.guess is None or said.first is None:
            return Condition(prompt_embeds=said.context, control=[said.tokens])
        return Condition(
            prompt_embeds=said.context,
            control=[said.tokens],
            init_image=said.first.clamp(0, 1),
            init_latents=said.guess * self.basis_sd,
            reliability=self.reliability,
        )

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
