"""The laws of heads against torch's distributions, their minimisers, and what is missing."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.modality_laws import ClassLaw, CountLaw, DirectionLaw, Law, MaskLaw, RealLaw

LAWS = [RealLaw(2), ClassLaw(3), MaskLaw(2), CountLaw(2), DirectionLaw(2)]


def values_of(law: Law, n: int, g: torch.Generator, grid: tuple[int, ...] = (4,)) -> torch.Tensor:
    if isinstance(law, ClassLaw):
        return torch.randint(law.classes, (n, *grid), generator=g)
    drawn = torch.randn(n, 2, *grid, generator=g)
    if isinstance(law, MaskLaw):
        return (drawn > 0).float()
    return torch.poisson(drawn.exp(), generator=g) if isinstance(law, CountLaw) else drawn


def test_surprise_is_minus_log_p_of_torchs_distributions(generator):
    said = torch.randn(5, 2, 4, generator=generator)
    real = RealLaw(2, mean=0.3, rms=1.7, sd=0.6)
    x = values_of(real, 5, generator)
    wanted = -torch.distributions.Normal(0.3 + 1.7 * said, 0.6).log_prob(x)
    torch.testing.assert_close(real.surprise(said, x), wanted.mean((1, 2)))
    mask = values_of(MaskLaw(2), 5, generator)
    wanted = -torch.distributions.Bernoulli(logits=said).log_prob(mask)
    torch.testing.assert_close(MaskLaw(2).surprise(said, mask), wanted.mean((1, 2)))
    count = values_of(CountLaw(2), 5, generator)
    wanted = -torch.distributions.Poisson(2.5 * said.exp()).log_prob(count)
    torch.testing.assert_close(CountLaw(2, rate=2.5).surprise(said, count), wanted.mean((1, 2)))


def test_classes_of_voxels_and_of_whole_images(generator):
    law = ClassLaw(3)
    field, said = values_of(law, 5, generator), torch.randn(5, 3, 4, generator=generator)
    wanted = -torch.distributions.Categorical(logits=said.movedim(1, -1)).log_prob(field)
    torch.testing.assert_close(law.surprise(said, field), wanted.mean(1))
    whole, words = field[:, 0], said[:, :, 0]
    wanted = -torch.distributions.Categorical(logits=words).log_prob(whole)
    torch.testing.assert_close(law.surprise(words, whole), wanted)
    assert law.guess(words).shape == (5,) and law.numbers(whole).shape == (5, 3)


def test_directions_are_scored_by_the_cosine_and_their_length_is_no_matter(generator):
    law = DirectionLaw(3, concentration=2.0)
    said, x = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    cosine = (said * x).sum(1) / said.norm(dim=1) / x.norm(dim=1)
    torch.testing.assert_close(law.surprise(said, x), -2 * cosine)
    torch.testing.assert_close(law.surprise(5 * said, 0.1 * x), -2 * cosine)
    assert (law.surprise(x, x) <= law.surprise(said, x)).all()


def test_dice_is_0_for_a_sure_and_right_mask_and_1_for_a_wrong_one():
    truth = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    sure = 40 * (2 * truth - 1)
    plain, with_dice = MaskLaw(1), MaskLaw(1, dice=1.0)
    assert float(with_dice.surprise(sure, truth)) == pytest.approx(0.0, abs=1e-6)
    assert float(with_dice.surprise(-sure, truth) - plain.surprise(-sure, truth)) == pytest.approx(
        1.0, abs=1e-5
    )


@pytest.mark.parametrize("law", [ClassLaw(2), ClassLaw(7), MaskLaw(1), DirectionLaw(2)], ids=repr)
def test_numbers_have_unit_mean_square_exactly(law, generator):
    n = 7 * 2 * 20
    value = torch.arange(n) % law.classes if isinstance(law, ClassLaw) else values_of(law, n, generator, ())
    assert float(law.numbers(value).square().mean()) == pytest.approx(1.0, abs=1e-5)


def test_counts_are_brought_to_about_unit_variance(generator):
    """Anscombe: 2 sqrt(n) has variance near 1 for rates of 4 and more."""
    for rate in (6.0, 30.0):
        counts = torch.poisson(torch.full((20000, 1), rate), generator=generator)
        numbers = CountLaw(1, rate).numbers(counts)
        assert float(numbers.var()) == pytest.approx(1.0, abs=0.25)
        assert abs(float(numbers.mean())) < 0.3


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_what_is_missing_is_said_and_counts_nothing(law, generator):
    """Rows of NaN, or of negative classes, are not known; their numbers are zeros and their surprise is finite."""
    value = values_of(law, 3, generator).float()
    value[1] = -1.0 if isinstance(law, ClassLaw) else math.nan
    assert law.known(value).tolist() == [True, False, True]
    numbers = law.numbers(value)
    assert torch.isfinite(numbers).all() and not numbers[1].any() and numbers[0].any()
    said = torch.randn(3, law.outputs, 4, generator=generator)
    alone = law.surprise(said[:1], value[:1])
    assert torch.isfinite(law.surprise(said, value)).all()
    torch.testing.assert_close(law.surprise(said, value)[:1], alone)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RealLaw(1, rms=0.0), "rms > 0"),
        (lambda: ClassLaw(1), "at least 2 classes"),
        (lambda: MaskLaw(1, dice=-1.0), "dice >= 0"),
        (lambda: CountLaw(1, rate=0.0), "rate > 0"),
        (lambda: DirectionLaw(1), "at least 2 channels"),
        (lambda: ClassLaw(3).numbers(torch.tensor([3])), r"classes 0 … 2; got 3"),
    ],
)
def test_laws_that_are_none(make, words):
    with pytest.raises(InputError, match=words):
        make()
