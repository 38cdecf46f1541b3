r"""Choose among draws by what the brain would have answered: an encoding model as judge.

    x_1 … x_s ~ generator(condition)        r̂(x) = encode(x)        x* = argmax_i  corr_w(r̂(x_i), r)

The corr is over voxels with weights w (of the noise ceiling, say); `encode` is any function from pictures to responses.
With more rounds the winner becomes the next first guess and the strength falls, so the search narrows about it: the
inference of brain-optimised reconstructions. The winner is optimal for the encoding model, errors of that model
included: score it with another one, or with pictures.

References:
    R. Kneeland, J. Ojeda, G. St-Yves, T. Naselaris (2023). Brain-optimized inference improves reconstructions of fMRI brain
    activity. https://arxiv.org/abs/2312.07705.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import seed_of
from radiata_decode.model.conditions import Condition, Generator

__all__ = ["Reranked", "brain_optimised", "reranked"]

Encode = Callable[[Tensor], Tensor]
"""From pictures (n, 3, y, x) in [0, 1] to responses (n, voxel)."""


@dataclass(frozen=True)
class Reranked:
    """The best of several draws.

    Attributes:
        pictures: (n, 3, y, x).
        rows: Which draw won, (n,).
        scores: Of each draw, (n, draw): correlation over voxels, in [-1, 1].
    """

    pictures: Tensor
    rows: Tensor
    scores: Tensor


def reranked(
    draws: Tensor, responses: Tensor, encode: Encode, *, weights: Tensor | None = None, batch: int = 64
) -> Reranked:
    """The draw of each row whose predicted response is most like the measured one; ties go to the earlier.

    Args:
        draws: (n, draw, 3, y, x) in [0, 1].
        responses: (n, voxel), standardised as the encoding model's targets were.
        encode: See `Encode`.
        weights: Of the voxels, (voxel,), >= 0; None: equal.
        batch: Pictures at a time.

    Raises:
        InputError: other shapes, or an encoding model of other voxels.
    """
    if draws.ndim != 5 or responses.ndim != 2 or len(draws) != len(responses) or not draws.shape[1]:
        raise InputError(
            f"expected draws (n, draw, 3, y, x) and responses (n, voxel); got {tuple(draws.shape)} and "
            f"{tuple(responses.shape)}."
        )
    flat = draws.flatten(0, 1)
    predicted = torch.cat([encode(part).float() for part in flat.split(batch)])
    if predicted.shape != (len(flat), responses.shape[1]):
        raise InputError(
            f"expected predicted responses of {responses.shape[1]} voxels; got {tuple(predicted.shape)}. "
            "Use the encoding model of this subject."
        )
    scores = _correlation(predicted.unflatten(0, draws.shape[:2]), responses.float().unsqueeze(1), weights)
    rows = scores.argmax(1)
    return Reranked(draws[torch.arange(len(draws)), rows], rows, scores)


def brain_optimised(
    generator: Generator,
    condition: Condition,
    responses: Tensor,
    encode: Encode,
    *,
    seeds: Sequence[int],
    draws: int = 8,
    strengths: Sequence[float] = (0.75, 0.5, 0.3),
    weights: Tensor | None = None,
    guidance: float | None = None,
    mix: float = 0.4,
    control_scale: float = 1.0,
    steps: int | None = None,
) -> Reranked:
    """The best draw of the last round; each round starts from the winner before, which stays in the race as draw 0.

    Args:
        generator: Of pictures; it has to take `init_image` where there is more than one round.
        condition: What was predicted.
        responses: (n, voxel).
        encode: See `Encode`.
        seeds: One a row; draw and round are derived from it.
        draws: Draws a round, >= 1.
        strengths: Of each round, in (0, 1], falling.
        weights: Of the voxels.
        guidance: Passed on, like the rest.
        mix: Passed on.
        control_scale: Passed on.
        steps: Passed on.

    Raises:
        InputError: a generator of films, one without first guess, no draws or rounds.
    """
    if draws < 1 or not strengths:
        raise InputError(f"expected at least one draw and one round; got {draws} and {len(strengths)}.")
    if generator.provides != "image":
        raise InputError(f"expected a generator of pictures; got one of {generator.provides}.")
    if len(strengths) > 1 and "init_image" not in generator.requires | generator.optional:
        raise InputError("expected a generator that starts from a picture for several rounds; got another.")
    told = condition
    kept: list[Tensor] = []
    for index, strength in enumerate(strengths):
        found = [
            generator(
                told,
                seeds=[seed_of(seed, index, draw) % 2**31 for seed in seeds],
                strength=strength,
                guidance=guidance,
                mix=mix,
                control_scale=control_scale,
                steps=steps,
            )
            for draw in range(draws)
        ]
        best = reranked(torch.stack(kept + found, 1), responses, encode, weights=weights)
        told, kept = replace(condition, init_image=best.pictures), [best.pictures]
    return best


def _correlation(a: Tensor, b: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted correlation over the last axis; 0 where one side does not vary."""
    w = torch.ones(a.shape[-1]) if weights is None else weights.float()
    if w.shape != a.shape[-1:] or (w < 0).any() or not w.sum() > 0:
        raise InputError(f"expected {a.shape[-1]} weights >= 0, not all 0; got {tuple(w.shape)}.")
    w = (w / w.sum()).to(a)
    x, y = a - (w * a).sum(-1, keepdim=True), b - (w * b).sum(-1, keepdim=True)
    norm = ((w * x * x).sum(-1) * (w * y * y).sum(-1)).sqrt()
    return torch.where(norm > 1e-12, (w * x * y).sum(-1) / norm.clamp_min(1e-12), 0.0)
