"""The loss of the decoder: its three terms by themselves, contexts emptied row by row."""

import pytest
import torch

from radiata_core.objectives import Regression
from radiata_core.predictions import Prediction
from radiata_core.times import UniformTime
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.semantic_tokens import semantic_error
from radiata_decode.model.surface_objectives import SurfaceObjective

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


@pytest.fixture
def seen(generator):
    return torch.rand(4, *SHAPE, generator=generator)


def sources(count=4):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_untrained_terms_are_the_generators_loss_the_guess_and_the_context(prior, decoder, cortex, seen):
    """Nothing is controlled yet and the guess is zero: each term has its closed form."""
    target = torch.ones(4, 2, 4)
    plain = Regression(prior.denoiser.path, UniformTime(), target=Prediction.VELOCITY)
    later = sources()
    for source in later:
        torch.rand((), generator=source)  # whether the context is shown is drawn first
    flow = plain(prior.denoiser, prior.state(seen), later).per_sample
    guess = decoder.components_of(seen).square().mean(1)
    meaning = semantic_error(decoder(cortex).context, target)
    loss = SurfaceObjective(prior, semantic=0.1, guess=2.0)(
        decoder, seen, sources(), cortex=cortex, embedding=target
    )
    torch.testing.assert_close(loss.per_sample, flow + 0.1 * meaning + 2.0 * guess, rtol=1e-5, atol=1e-5)


def test_row_is_the_same_alone_and_in_a_batch(prior, decoder, cortex, seen):
    awake(decoder, 1)
    objective = SurfaceObjective(prior, dropout=0.5)
    whole = objective(decoder, seen, sources(), cortex=cortex).per_sample
    alone = objective(decoder, seen[3:], sources()[3:], cortex=cortex[3:]).per_sample
    torch.testing.assert_close(alone, whole[3:], rtol=1e-5, atol=1e-5)


def test_emptied_contexts_teach_the_context_nothing(prior, decoder, cortex, seen):
    awake(decoder, 1)
    for dropout, learns in ((1.0, False), (0.0, True)):
        decoder.zero_grad()
        SurfaceObjective(prior, dropout=dropout)(decoder, seen, sources(), cortex=cortex).value.backward()
        gradient = decoder.semantic.project.weight.grad
        assert (gradient is not None and float(gradient.abs().sum()) > 0) == learns
        assert float(decoder.encoder.embed.weight.grad.abs().sum()) > 0  # the control stays
    assert all(parameter.grad is None for parameter in prior.denoiser.parameters())
