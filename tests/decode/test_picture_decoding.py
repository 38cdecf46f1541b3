"""The default way from responses to pictures: what is told to the generator, and a small person whose mean is not linear."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.contrast_features import contrast_features
from radiata_decode.data.loading import unit_images
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.experiment.picture_decoding import (
    PosteriorOptions,
    fit_picture_posterior,
    joined_latents,
    reconstruct,
)
from radiata_decode.model.conditions import Condition
from radiata_decode.model.image_decoder import DecodedLatents
from radiata_decode.model.latents import PcaCodec


class Echo:
    """A generator that remembers what it was told, and draws the guess plus a thousandth of the seed."""

    def __call__(self, condition: Condition, *, seeds: Sequence[int]) -> Tensor:
        self.told = condition
        return condition.init_image + torch.tensor(seeds).view(-1, 1, 1, 1) / 1000


class Mean(Echo):
    def expected(self, condition: Condition) -> Tensor:
        return condition.init_image * 0.5


@pytest.fixture
def codec(generator: torch.Generator) -> PcaCodec:
    return PcaCodec.fit(torch.rand(30, 3, 16, 16, generator=generator), 20)


def test_latents_are_joined_by_trust() -> None:
    ridge, other = torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(joined_latents(ridge, None), ridge)
    assert torch.allclose(joined_latents(ridge, other, 0.3), torch.full((2, 3), 0.3))
    with pytest.raises(InputError, match="from 0 to 1"):
        joined_latents(ridge, other, 1.5)
    with pytest.raises(InputError, match="one codec"):
        joined_latents(ridge, torch.ones(2, 4))


def test_a_generator_is_told_the_joined_guess_and_how_reliable_it_is(codec: PcaCodec) -> None:
    r2 = torch.linspace(1.2, -0.2, 20)
    decoded = DecodedLatents(torch.zeros(2, 20), r2, {}, {})
    posterior = torch.full((2, 20), 0.02)
    made = Echo()
    found = reconstruct(decoded, codec, made, seeds=[1, 2], posterior=posterior, trust=0.5)
    assert torch.allclose(found.guess, codec.decode(posterior / 2))
    assert torch.equal(made.told.reliability, r2.clamp(0, 1))
    assert torch.equal(found.mean, found.draw)
    assert torch.equal(
        reconstruct(decoded, codec, Mean(), seeds=[1, 2]).mean, codec.decode(torch.zeros(2, 20)) / 2
    )


def test_simulated_responses_teach_what_pairs_do_not() -> None:
    """Voxels that answer to contrast alone, whatever its sign: few pairs, and the inverse of their model beats nothing."""
    train, test = (
        unit_images(photograph_crops(count, part, 16, rng_of(3, 1)).pictures)
        for count, part in ((150, "train"), (40, "test"))
    )
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((contrast_features(train[:1], 4).shape[1], 60)).astype(np.float32)

    def answers(pictures: Tensor) -> np.ndarray:
        signal = contrast_features(pictures, 4) @ mixing
        return (signal - signal.mean(0)) / signal.std(0) + 0.5 * rng.standard_normal(signal.shape).astype(
            np.float32
        )

    codec = PcaCodec.fit(train, 40)
    options = PosteriorOptions(copies=4, coordinates=30, steps=60, hidden=64)
    made = fit_picture_posterior(train, answers(train), codec, options)
    found = made.predict(answers(test))
    truth = codec.encode(test)
    mean = codec.encode(train).mean(0)
    assert float((found - truth).square().mean()) < 0.8 * float((mean - truth).square().mean())
    with pytest.raises(InputError, match="a response for each of 150"):
        fit_picture_posterior(train, np.zeros((3, 60), np.float32), codec)
