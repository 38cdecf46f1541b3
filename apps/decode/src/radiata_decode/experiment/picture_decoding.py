r"""The default way from responses to pictures: two decoders, their mean, and draws about it.

    responses -- ridge (learnt from real pairs) ------------------\
                                                                   mean -> guess -> generator -> pictures
    responses -- posterior mean (learnt from simulated responses) -/

The ridge is linear and knows nothing that its pairs do not show. The posterior mean (`model.posterior_mean`) inverts an
encoding model under the law of pictures, is not linear, and inherits the encoding model's errors. Their errors differ, so
the mean of both is nearer than either. A generator that is told this guess adds what pictures look like: its mean, or one
draw, sharp and partly invented.

It takes pictures: with 1000 of a simulated person the joined guess is nearer by every score, with 400 it is as near as
the ridge and easier to identify, with 150 it is farther away. With fewer than 400, leave the posterior mean out.

Pictures for the posterior mean are those of training and variants of them (mirrored, recoloured, moved), or more, if there
are any: nothing but their predicted responses is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radiata_decode.model.image_decoder import DecodedLatents
    from radiata_decode.model.latents import ImageCodec
    from radiata_decode.model.posterior_mean import PosteriorMean

__all__ = ["PosteriorOptions", "Reconstruction", "fit_picture_posterior", "joined_latents", "reconstruct"]

TRUST = 0.6
"""Weight of the posterior mean beside the ridge: chosen on two simulated subjects (seeds 50, 51) that no table is about."""


@dataclass(frozen=True)
class PosteriorOptions:
    """How the posterior mean is learnt.

    Attributes:
        copies: Variants of each training picture, itself included.
        coordinates: Directions of the responses that it sees.
        steps: Of training.
        hidden: Width of its perceptron.
        seed: Of variants, weights and noise.
        device: Where the perceptron is trained.
    """

    copies: int = 12
    coordinates: int = 400
    steps: int = 2500
    hidden: int = 768
    seed: int = 0
    device: str = "cpu"


def fit_picture_posterior(
    pictures: "Tensor",
    responses: "np.ndarray",
    codec: "ImageCodec",
    options: PosteriorOptions | None = None,
    *,
    more: "Tensor | None" = None,
) -> "PosteriorMean":
    """Learn the posterior mean of a person.

    Args:
        pictures: Training pictures, (n, 3, y, x) in [0, 1].
        responses: To them, standardised, (n, v).
        codec: Of pictures.
        options: None: the defaults.
        more: Further pictures (m, 3, y, x), never shown.

    Raises:
        InputError: not one response a picture.
    """
    import torch

    from radiata_core.seeds import rng_of
    from radiata_decode.data.contrast_features import contrast_features
    from radiata_decode.data.picture_variants import picture_variants
    from radiata_decode.model.posterior_mean import fit_posterior_mean
    from radiata_decode.model.response_model import fit_response_model, response_coordinates

    chosen = options or PosteriorOptions()
    if len(pictures) != len(responses):
        raise InputError(
            f"expected a response for each of {len(pictures)} pictures; got {len(responses)}. Average repeats first."
        )
    model = fit_response_model(contrast_features(pictures), responses)
    seen = picture_variants(pictures, chosen.copies, rng_of(chosen.seed, 81))
    pool = seen if more is None else torch.cat([seen, more])
    signal = torch.cat([model.signal(contrast_features(part)) for part in pool.split(1024)])
    coordinates = response_coordinates(signal, model.residuals, chosen.coordinates)
    return fit_posterior_mean(
        coordinates, signal, codec.encode(pool), steps=chosen.steps, hidden=chosen.hidden, seed=chosen.seed,
        device=chosen.device,
    )  # fmt: skip


def joined_latents(ridge: "Tensor", posterior: "Tensor | None", trust: float = TRUST) -> "Tensor":
    """Latents of both decoders together, (m, d).

    Args:
        ridge: Of the ridge, (m, d).
        posterior: Of the posterior mean, (m, d); None: the ridge alone.
        trust: Weight of the posterior mean, 0 to 1.

    Raises:
        InputError: another shape, or a weight out of range.
    """
    if not 0 <= trust <= 1:
        raise InputError(f"expected a weight of the posterior mean from 0 to 1; got {trust}.")
    if posterior is None:
        return ridge
    if posterior.shape != ridge.shape:
        raise InputError(
            f"expected latents of one codec from both decoders; got {tuple(ridge.shape)} and {tuple(posterior.shape)}."
        )
    return ridge.lerp(posterior, trust)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Pictures of stimuli, (m, 3, y, x) in [0, 1] each.

    Attributes:
        guess: What both decoders say, without a generator.
        mean: The generator's mean: nearest in squared error.
        draw: One draw of it: sharp, partly invented.
    """

    guess: "Tensor"
    mean: "Tensor"
    draw: "Tensor"


def reconstruct(
    decoded: "DecodedLatents",
    codec: "ImageCodec",
    generator: Any,
    *,
    seeds: Sequence[int],
    posterior: "Tensor | None" = None,
    trust: float = TRUST,
) -> Reconstruction:
    """The default pipeline: from the decoders' latents to pictures.

    Args:
        decoded: Of the ridge.
        codec: Of the latents.
        generator: Of pictures; with `expected`, as our own has, its mean is exact, else the mean is the draw's.
        seeds: One a row.
        posterior: Latents of the posterior mean of the same responses.
        trust: Weight of the posterior mean.

    Raises:
        InputError: see `joined_latents`, and the generator.
    """
    from radiata_decode.model.conditions import Condition

    latents = joined_latents(decoded.low_level, posterior, trust)
    guess = codec.decode(latents)
    condition = Condition(init_image=guess, init_latents=latents, reliability=decoded.loo_r2.clamp(0, 1))
    draw = generator(condition, seeds=seeds)
    mean = generator.expected(condition) if hasattr(generator, "expected") else draw
    return Reconstruction(guess, mean, draw)
