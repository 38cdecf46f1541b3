"""What the cortex says: a guess that adds up, refining that starts where it ended, the same from a file."""

import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_decoder import SurfaceDecoder

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


def test_reliability_is_held_out_r2(decoder, cortex, generator):
    """A guess that is right, one that is the mean, and one that is worse than the mean: 1, 0 and 0."""
    seen = torch.rand(4, *SHAPE, generator=generator)
    truth = decoder.components_of(seen)
    said = truth.clone()
    said[:, 1], said[:, 2] = 0, -truth[:, 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(decoder.guess), "forward", lambda self, tokens: said)
        found = decoder.measure_reliability(cortex, seen)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(decoder.reliability, found)


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
    with pytest.raises(InputError, match="6 components"):
        decoder.set_basis(PcaCodec(codec.mean, codec.components[:3], codec.sd[:3], SHAPE))
