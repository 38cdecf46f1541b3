"""A frozen generator under control: neutral until trained, guided by the context alone, one picture at a time."""

from dataclasses import replace

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulated_generator import (
    ControlledGenerator,
    FrozenGenerator,
    Manipulated,
    drawn_pictures,
)
from radiata_decode.model.manipulation_network import ManipulationNetwork
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_decoder import SurfaceDecoder
from radiata_decode.model.surface_encoder import SurfaceEncoder

from .surface_world import SHAPE, awake, frozen_generator, surface_decoder


@pytest.fixture
def prior():
    return frozen_generator()


@pytest.fixture
def codec(generator):
    return PcaCodec.fit(torch.rand(20, *SHAPE, generator=generator), 6)


@pytest.fixture
def decoder(prior, codec):
    return surface_decoder(prior, codec)


@pytest.fixture
def cortex(generator):
    return torch.randn(4, 1, 16, 16, generator=generator)


def pictures(prior, decoder, cortex, **options):
    return drawn_pictures(prior, decoder, cortex, seeds=range(len(cortex)), draws=2, steps=3, **options)


def test_untrained_control_and_scale_zero_are_the_generator_alone(prior, decoder, cortex):
    alone = SurfaceDecoder(decoder.encoder, decoder.semantic)
    plain = pictures(prior, alone, cortex)
    assert torch.equal(pictures(prior, decoder, cortex), plain)
    awake(decoder, 1)
    assert torch.equal(pictures(prior, decoder, cortex, scale=0.0), plain)
    assert not torch.equal(pictures(prior, decoder, cortex), plain)


def test_a_seed_is_a_sample_not_a_batch(prior, decoder, cortex):
    awake(decoder, 1)
    whole = pictures(prior, decoder, cortex)
    one = drawn_pictures(prior, decoder, cortex[2:3], seeds=[2], draws=2, steps=3)
    torch.testing.assert_close(one, whole[2:3], rtol=1e-4, atol=1e-5)
    parts = pictures(prior, decoder, cortex, batch=3)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_guidance_empties_the_context_and_keeps_the_control(prior, decoder, cortex, generator):
    awake(decoder, 1)
    said = decoder(cortex)
    x, t = torch.randn(4, *SHAPE, generator=generator), torch.tensor(0.6)
    given = Manipulated(prior, decoder.manipulation, said)(x, t)
    free = Manipulated(prior, decoder.manipulation, replace(said, context=torch.zeros_like(said.context)))(
        x, t
    )
    guided = Manipulated(prior, decoder.manipulation, said, guidance=3.0)(x, t)
    torch.testing.assert_close(guided, free + 3 * (given - free), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(free, prior.denoiser(x, t))


def test_generator_is_told_what_the_cortex_says(prior, decoder, cortex):
    """Conditions of a generator follow from the prediction, row by row."""
    heard = []

    def told(said):
        heard.append(said.first)
        return {"covariates": None}

    told_prior = replace(prior, told=told)
    assert torch.equal(pictures(told_prior, decoder, cortex), pictures(prior, decoder, cortex))
    assert len(heard) == 3 and torch.equal(heard[0], decoder(cortex).first.repeat_interleave(2, 0))


def test_little_strength_stays_at_the_first_picture(prior, decoder, cortex):
    awake(decoder, 1, 0.05)
    first = decoder(cortex).first.detach().clamp(0, 1)
    near = pictures(prior, decoder, cortex, strength=1e-4)
    assert float((near - first[:, None]).abs().max()) < 1e-2
    far = pictures(prior, decoder, cortex)
    assert float((far - first[:, None]).abs().mean()) > 0.1
    with pytest.raises(InputError, match="guess"):
        pictures(prior, SurfaceDecoder(decoder.encoder, decoder.semantic), cortex, strength=0.5)


def test_seeds_are_counted(prior, decoder, cortex):
    with pytest.raises(InputError, match="seed"):
        drawn_pictures(prior, decoder, cortex, seeds=[1])


def test_generator_of_the_protocol_draws_the_same(prior, decoder, cortex):
    """Through a `Condition` as straight from the decoder; another control is refused."""
    awake(decoder, 1, 0.05)
    with torch.no_grad():
        condition = decoder.condition(decoder(cortex))
    made = ControlledGenerator(prior, decoder.manipulation)
    assert isinstance(made, Generator)
    straight = drawn_pictures(prior, decoder, cortex, seeds=range(4), steps=3, strength=0.8, scale=0.5)[:, 0]
    found = made(condition, seeds=range(4), steps=3, strength=0.8, control_scale=0.5)
    clipped = decoder(cortex).first.detach().clamp(0, 1) == decoder(cortex).first.detach()
    rows = clipped.flatten(1).all(1)
    assert rows.any()
    torch.testing.assert_close(found[rows], straight[rows], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="tokens of the cortex"):
        made(Condition(control=[torch.zeros(4, 3, 8, 8)]), seeds=range(4))
    with pytest.raises(InputError, match="control"):
        made(Condition(init_image=torch.full((4, 3, 8, 8), 0.5)), seeds=range(4))


def test_own_prior_of_pictures_is_controlled_like_any_other(cortex):
    """The shipped kind of network, a U-Net inside a network that is told a guess: neutral first, then not."""
    prior_of = pytest.importorskip("radiata_decode.model.picture_prior")
    denoiser = prior_of.build_picture_prior(
        channels=(8, 8), down_blocks=(0, 1), up_blocks=(1, 1), attention=(False, False)
    )
    awake(denoiser, 0).requires_grad_(False)
    own = FrozenGenerator(denoiser, SHAPE, prior_of.CENTRE, prior_of.SPREAD)
    with torch.random.fork_rng(devices=[]):
        encoder = SurfaceEncoder((16, 16), 8, 8, 1, 2)
        control = ManipulationNetwork.of(denoiser, SHAPE[1:], encoder.tokens, 8, 4)
        network = SurfaceDecoder(encoder, SemanticTokens(encoder.tokens, 8, 2, 4), control).eval()
    plain = pictures(own, SurfaceDecoder(encoder, network.semantic), cortex)
    assert torch.equal(pictures(own, network, cortex), plain)
    awake(control, 1)
    assert not torch.equal(pictures(own, network, cortex), plain)
