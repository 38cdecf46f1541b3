"""The decoder and a frozen generator: neutral until trained, one picture at a time, the same from a file."""

from dataclasses import replace

import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulation_network import ManipulationNetwork
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_decoder import FrozenGenerator, Manipulated, SurfaceDecoder, drawn_pictures
from radiata_decode.model.surface_encoder import SurfaceEncoder

SHAPE = (3, 8, 8)


def awake(module, seed, spread=0.2):
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=source))
    return module


@pytest.fixture
def prior():
    with torch.random.fork_rng(devices=[]):
        unet = UNet(
            dims=2,
            in_channels=3,
            out_channels=3,
            channels=(8, 8),
            down_blocks=(1, 1),
            up_blocks=(1, 1),
            attention=(False, False),
            embedding=8,
            frequencies=8,
        )
    denoiser = NetworkDenoiser(awake(unet, 0), LinearPath(), "velocity").requires_grad_(False)
    return FrozenGenerator(denoiser, SHAPE)


@pytest.fixture
def codec(generator):
    return PcaCodec.fit(torch.rand(20, *SHAPE, generator=generator), 6)


@pytest.fixture
def decoder(prior, codec):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SurfaceEncoder((16, 16), 8, 8, 1, 2)
        control = ManipulationNetwork.of(prior.denoiser, SHAPE[1:], encoder.tokens, 8, 4, 3)
        network = SurfaceDecoder(encoder, SemanticTokens(encoder.tokens, 8, 2, 4), control, 6, SHAPE)
    network.set_basis(codec)
    return network.eval()


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


def test_guess_adds_up_to_the_picture(decoder, codec, cortex, generator):
    seen = torch.rand(3, *SHAPE, generator=generator)
    components = decoder.components_of(seen)
    torch.testing.assert_close(components * codec.sd, codec.encode(seen), rtol=1e-4, atol=1e-5)
    start = decoder(cortex)
    assert torch.equal(start.guess, torch.zeros(4, 6))  # the mean picture
    torch.testing.assert_close(start.first[0], codec.mean.unflatten(0, SHAPE))
    awake(decoder.guess, 3)
    said = decoder(cortex)
    torch.testing.assert_close(
        said.first, codec.decode_unclipped(said.guess * codec.sd), rtol=1e-4, atol=1e-5
    )


def test_refining_begins_where_pretraining_ended(decoder, cortex):
    awake(decoder, 1)
    before = decoder(cortex)
    with torch.random.fork_rng(devices=[]):
        refined = decoder.refined().eval()
    after = refined(cortex)
    for name in ("tokens", "context", "guess", "first"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert refined.semantic.branch is not None


def test_file_gives_the_same_decoder(decoder, cortex, tmp_path):
    awake(decoder, 1)
    save_model(tmp_path / "model.safetensors", decoder, metadata={})
    again = load_model(tmp_path).denoiser
    assert torch.equal(again(cortex).first, decoder(cortex).first)
    assert torch.equal(again(cortex).context, decoder(cortex).context)


def test_what_does_not_fit_is_refused(prior, decoder, codec, cortex):
    with torch.random.fork_rng(devices=[]), pytest.raises(InputError, match="heads for 5 tokens"):
        SurfaceDecoder(decoder.encoder, SemanticTokens(9, 8))
    with pytest.raises(InputError, match="seed"):
        drawn_pictures(prior, decoder, cortex, seeds=[1])
    with pytest.raises(InputError, match="6 components"):
        decoder.set_basis(PcaCodec(codec.mean, codec.components[:3], codec.sd[:3], SHAPE))
