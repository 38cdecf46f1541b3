"""The generator that ships: seeds, what it ignores, what it refuses; its weights on pictures they never saw."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of, rng_of
from radiata_core.shipped_weights import shipped_weights
from radiata_decode.data.loading import unit_images
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.own_generator import OwnGenerator, own_generator
from radiata_decode.model.picture_prior import CENTRE, SPREAD, banded, build_picture_prior, guessed

SMALL = {"channels": (8, 16), "down_blocks": (1, 1), "up_blocks": (1, 1), "attention": (False, False)}
R2 = torch.linspace(0.9, 0.0, 20)


@pytest.fixture
def small() -> OwnGenerator:
    """Untrained but not zero, pictures of 8 pixels."""
    denoiser = build_picture_prior(3, **SMALL)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return OwnGenerator(denoiser, size=8)


@pytest.fixture
def guess(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(3, 3, 8, 8, generator=generator)


def test_a_seed_is_a_picture(small: OwnGenerator, guess: torch.Tensor) -> None:
    condition = Condition(init_image=guess, reliability=R2)
    together = small(condition, seeds=[5, 6, 7], steps=3)
    alone = small(condition.rows(slice(1, 2)), seeds=[6], steps=3)
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(
        together[1:2], small(condition.rows(slice(1, 2)), seeds=[8], steps=3), atol=1e-3
    )
    assert isinstance(small, Generator)


def test_an_unreliable_guess_says_nothing(small: OwnGenerator, guess: torch.Tensor) -> None:
    """With R² = 0 every guess gives the same picture; with R² > 0 it does not."""
    other = 1 - guess
    nothing = [
        small(Condition(init_image=g, reliability=0 * R2), seeds=[1, 2, 3], steps=2) for g in (guess, other)
    ]
    assert torch.equal(*nothing)
    told = [small.expected(Condition(init_image=g, reliability=R2)) for g in (guess, other)]
    assert not torch.allclose(*told, atol=1e-3)


def test_guidance_of_one_is_the_category_alone(small: OwnGenerator) -> None:
    weights = torch.eye(8)[:2]
    plain = small(Condition(class_weights=weights), seeds=[1, 2], guidance=1.0, steps=2)
    guided = small(Condition(class_weights=weights), seeds=[1, 2], guidance=3.0, steps=2)
    unknown = small(Condition(class_weights=torch.full((2, 8), 0.0)), seeds=[1, 2], guidance=1.0, steps=2)
    assert not torch.allclose(plain, guided, atol=1e-4)
    assert not torch.allclose(plain, unknown, atol=1e-5)


def test_what_does_not_fit_is_refused(small: OwnGenerator, guess: torch.Tensor) -> None:
    with pytest.raises(InputError, match="first guesses of 3 x 8 x 8"):
        small(Condition(init_image=torch.zeros(1, 3, 16, 16), reliability=R2), seeds=[0])
    with pytest.raises(InputError, match="8 categories"):
        small(Condition(class_weights=torch.ones(1, 3)), seeds=[0])
    with pytest.raises(InputError, match="3 seeds"):
        small(Condition(init_image=guess, reliability=R2), seeds=[0])
    with pytest.raises(InputError, match="at least one step"):
        small(Condition(init_image=guess, reliability=R2), seeds=[0, 1, 2], steps=0)


def test_the_shipped_prior_beats_the_best_linear_guess_on_new_pictures() -> None:
    """The guess itself is the best linear estimate from the prediction (r of the law); one evaluation comes closer."""
    codec = PcaCodec.load(shipped_weights("radiata_decode")["picture-basis"])
    made = own_generator()
    pictures = unit_images(photograph_crops(48, "test", 32, rng_of(1, 9)).pictures)
    r2 = torch.sigmoid((torch.tensor(20.0).log() - torch.arange(1, 301).log()) / 0.8)
    noise = torch.stack([torch.randn(300, generator=g) for g in generators_of(range(48))])
    latents = guessed(codec.encode(pictures), r2.expand(48, -1), codec.sd, noise)
    guess = codec.decode_unclipped(latents)
    error = (guess - pictures).square().mean()
    found = made.expected(Condition(init_image=guess.clamp(0, 1), reliability=r2))
    assert float((found - pictures).square().mean()) < 0.95 * float(error)
    draw = made(Condition(init_image=guess.clamp(0, 1), reliability=r2), seeds=range(48))
    assert float(draw.std((2, 3)).mean()) > 1.1 * float(
        found.std((2, 3)).mean()
    )  # a draw is sharper than the mean
    assert banded(r2).shape == (16,) and CENTRE == 0.5 and SPREAD == 0.25
