r"""Tokens that stand where a generator expects those of a text: T × D from the tokens of the cortex.

    (n, 1 + p, width) → Conv1d over tokens 1 + p → hidden → T → linear width → D → LayerNorm → (n, T, D)

For Stable Diffusion T × D is 77 × 1024, and the prompt is no longer words. In refining on one person a second branch
runs beside it, a convolution of kernel 3 along the channels that starts at zero:

$$ c = c_0 + \text{Conv}_0(c_0), \qquad \text{Conv}_0 = 0 \text{ at the start}, $$

so that refining begins with exactly the context that pre-training ended with. The semantic loss, 0.1 times the mean squared
error against an embedding of text or picture, keeps the tokens where the generator's own are.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (high-level modulation; 257 → 128 → 77 tokens).
"""

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["SEMANTIC_WEIGHT", "SemanticTokens", "semantic_error"]

SEMANTIC_WEIGHT = 0.1


@buildable("semantic-tokens")
class SemanticTokens(nn.Module):
    """A context `(n, count, dim)` from tokens of the cortex `(n, tokens, width)`.

    Args:
        tokens: Of the encoder, 1 + p.
        width: Of the encoder.
        count: T, tokens of the context.
        dim: D, their width.
        hidden: Tokens between the two convolutions; None: halfway, geometrically.
        refining: Whether the extra branch is there.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        count: int = 8,
        dim: int = 32,
        hidden: int | None = None,
        refining: bool = False,
    ) -> None:
        super().__init__()
        hidden = hidden or max(count, round((tokens * count) ** 0.5))
        self.options = {
            "tokens": tokens,
            "width": width,
            "count": count,
            "dim": dim,
            "hidden": hidden,
            "refining": refining,
        }
        self.mix = nn.Sequential(nn.Conv1d(tokens, hidden, 1), nn.GELU(), nn.Conv1d(hidden, count, 1))
        self.project, self.norm = nn.Linear(width, dim), nn.LayerNorm(dim)
        self.branch: nn.Conv1d | None = None
        if refining:
            self._open_branch()

    def _open_branch(self) -> None:
        count = int(self.options["count"] or 0)
        self.branch = nn.Conv1d(count, count, 3, padding=1)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(self.branch.bias)  # type: ignore[arg-type]

    def refined(self) -> "SemanticTokens":
        """The same weights with the extra branch, at zero: the same context, to the bit."""
        fresh = SemanticTokens(**(self.options | {"refining": True}))  # type: ignore[arg-type]
        fresh.load_state_dict(self.state_dict(), strict=self.branch is not None)
        return fresh

    def forward(self, tokens: Tensor) -> Tensor:
        """The context.

        Raises:
            InputError: tokens of another encoder.
        """
        if tokens.ndim != 3 or tokens.shape[1:] != (self.options["tokens"], self.options["width"]):
            raise InputError(
                f"expected tokens (n, {self.options['tokens']}, {self.options['width']}); got {tuple(tokens.shape)}. "
                "Use the encoder that the model was made for."
            )
        context = self.norm(self.project(self.mix(tokens)))
        return context if self.branch is None else context + self.branch(context)


def semantic_error(context: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each context against its embedding, (n,).

    Args:
        context: (n, T, D).
        target: (n, T, D), or (n, D): the mean over tokens is compared.

    Raises:
        InputError: an embedding of another shape.
    """
    found = context.mean(1) if target.ndim == 2 else context
    if found.shape != target.shape:
        raise InputError(
            f"expected embeddings {tuple(context.shape)} or one token each; got {tuple(target.shape)}. Choose T and D of "
            "the embedding."
        )
    return torch.square(found.float() - target.float()).flatten(1).mean(1)
