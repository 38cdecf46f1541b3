r"""The nearest training picture: no generation at all, and often hard to beat.

    s(q, k) = ⟨q, k⟩ / (|q| |k|)          cosine
    s(q, k) = s_cosine(q − q̄, k − k̄)      correlation: each vector about its own mean

A decoder predicts latents or embeddings of the picture that was seen; the training picture whose own latents are most
similar is a reconstruction made of a real photograph. It shows what a generator adds, and how much of a good score comes
from a test set that resembles the training set.

References:
    K. Shirakawa et al. (2024). Spurious reconstruction from brain activity. https://arxiv.org/abs/2405.10078.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.conditions import Condition, check_requirements

__all__ = ["Neighbours", "Retrieval", "nearest"]

Similarity = Literal["cosine", "correlation"]


@dataclass(frozen=True)
class Neighbours:
    """The most similar rows of a gallery, best first; equal ones in the gallery's order.

    Attributes:
        rows: (n, k), int64.
        similarity: (n, k), in [-1, 1].
    """

    rows: Tensor
    similarity: Tensor


def nearest(
    queries: Tensor, gallery: Tensor, k: int = 1, *, similarity: Similarity = "cosine", chunk: int = 1024
) -> Neighbours:
    """The k rows of the gallery most similar to each query. A vector without length is similar to nothing, 0.

    Args:
        queries: (n, ...), flattened.
        gallery: (m, ...), flattened.
        k: 1 to m.
        similarity: cosine or correlation.
        chunk: Queries at a time.

    Raises:
        InputError: other lengths, NaN, or k outside 1 to m.
    """
    q, g = queries.flatten(1).float(), gallery.flatten(1).float()
    if q.shape[1] != g.shape[1] or not len(g):
        raise InputError(
            f"expected queries and a gallery of the same numbers; got {tuple(queries.shape)} and {tuple(gallery.shape)}."
        )
    if not 1 <= k <= len(g):
        raise InputError(f"expected k from 1 to the {len(g)} pictures of the gallery; got {k}.")
    if not (torch.isfinite(q).all() and torch.isfinite(g).all()):
        raise InputError("expected finite latents; got NaN or infinity. Check the decoder.")
    unit_q, unit_g = _units(q, similarity), _units(g, similarity)
    rows, found = [], []
    for part in unit_q.split(chunk):
        value = part @ unit_g.T
        order = value.argsort(dim=1, descending=True, stable=True)[:, :k]
        rows.append(order)
        found.append(value.gather(1, order).clamp(-1, 1))
    if not rows:
        return Neighbours(torch.zeros(0, k, dtype=torch.int64), torch.zeros(0, k))
    return Neighbours(torch.cat(rows), torch.cat(found))


def _units(x: Tensor, similarity: Similarity) -> Tensor:
    if similarity not in ("cosine", "correlation"):
        raise InputError(f"expected similarity cosine or correlation; got {similarity}.")
    centred = x - x.mean(1, keepdim=True) if similarity == "correlation" else x
    norm = centred.norm(dim=1, keepdim=True)
    # Rounding of the mean leaves about 1e-7 of a constant vector; that is no direction.
    return torch.where(norm > 1e-6 * x.norm(dim=1, keepdim=True), centred / norm.clamp_min(1e-30), 0.0)


class Retrieval:
    """A generator that answers with the nearest training picture; seeds, strength and guidance change nothing.

    Args:
        pictures: Training pictures (m, 3, y, x) in [0, 1].
        gallery: Their own latents or embeddings, (m, ...), of the same encoder as the decoder's targets.
        part: Part of the condition that is compared: init_latents, image_embeds, prompt_embeds or init_image.
        similarity: cosine or correlation.

    Raises:
        InputError: not one row of the gallery a picture.
    """

    provides = "image"
    optional: frozenset[str] = frozenset()

    def __init__(
        self,
        pictures: Tensor,
        gallery: Tensor,
        *,
        part: str = "init_latents",
        similarity: Similarity = "correlation",
    ) -> None:
        if pictures.ndim != 4 or len(pictures) != len(gallery) or not len(pictures):
            raise InputError(
                f"expected as many latents as training pictures; got {len(gallery)} and {tuple(pictures.shape)}."
            )
        self.pictures, self.gallery, self.part = pictures, gallery, part
        self.similarity: Similarity = similarity

    @property
    def requires(self) -> frozenset[str]:
        """The part that is compared."""
        return frozenset({self.part})

    def neighbours(self, condition: Condition, k: int = 5) -> Neighbours:
        """The k nearest training pictures of each row, for reports."""
        return nearest(getattr(condition, self.part), self.gallery, k, similarity=self.similarity)

    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """The nearest training picture of each row, (n, 3, y, x)."""
        check_requirements(self, condition, seeds)
        return self.pictures[self.neighbours(condition, 1).rows[:, 0]].float()
