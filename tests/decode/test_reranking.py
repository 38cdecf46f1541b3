"""The judge of draws: against numpy's correlation, with a known winner, and rounds that never get worse."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of, noise_of
from radiata_decode.model.conditions import Condition
from radiata_decode.model.reranking import brain_optimised, reranked


@pytest.fixture
def encode(generator):
    weights = torch.randn((48, 20), generator=generator)
    return lambda pictures: pictures.flatten(1) @ weights


class Noisy:
    """The first guess with noise of size strength."""

    requires, optional, provides = frozenset({"init_image"}), frozenset(), "image"

    def __call__(self, condition, *, seeds, strength=0.75, **_):
        picture = condition.init_image
        noise = noise_of(generators_of(seeds), picture.shape[1:])
        return (picture + 0.3 * strength * noise).clamp(0, 1)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_numpys_correlation(generator, encode, weighted):
    draws = torch.rand((3, 4, 3, 4, 4), generator=generator)
    responses = torch.randn((3, 20), generator=generator)
    weights = torch.rand(20, generator=generator) if weighted else None
    found = reranked(draws, responses, encode, weights=weights, batch=5)
    predicted = encode(draws.flatten(0, 1)).reshape(3, 4, 20).numpy()
    for row in range(3):
        for draw in range(4):
            both = np.cov(predicted[row, draw], responses[row], aweights=None if weights is None else weights)
            expected = both[0, 1] / np.sqrt(both[0, 0] * both[1, 1])
            assert found.scores[row, draw] == pytest.approx(expected, abs=1e-5)
    assert torch.equal(found.rows, found.scores.argmax(1))


def test_what_was_seen_wins(generator, encode):
    draws = torch.rand((4, 5, 3, 4, 4), generator=generator)
    seen = draws[torch.arange(4), torch.tensor([3, 0, 4, 1])]
    found = reranked(draws, encode(seen), encode)
    assert found.rows.tolist() == [3, 0, 4, 1]
    assert torch.equal(found.pictures, seen)
    torch.testing.assert_close(found.scores.amax(1), torch.ones(4))


def test_rounds_never_get_worse_and_rows_are_their_own(generator, encode):
    seen = torch.rand((3, 3, 4, 4), generator=generator)
    told = Condition(init_image=torch.full_like(seen, 0.5))
    ask = lambda rows, strengths: brain_optimised(  # noqa: E731
        Noisy(),
        told.rows(rows),
        encode(seen)[rows],
        encode,
        seeds=[5, 6, 7][rows],
        draws=6,
        strengths=strengths,
    )
    every = slice(0, 3)
    one, three = ask(every, (0.75,)), ask(every, (0.75, 0.5, 0.3))
    assert (three.scores.amax(1) >= one.scores.amax(1)).all()
    assert (three.scores.amax(1) > one.scores.amax(1)).any()
    torch.testing.assert_close(ask(slice(1, 2), (0.75, 0.5, 0.3)).pictures, three.pictures[1:2])


def test_bad_input_is_one_line(generator, encode):
    draws = torch.rand((2, 3, 3, 4, 4), generator=generator)
    with pytest.raises(InputError, match="draws"):
        reranked(draws[0], torch.zeros(2, 20), encode)
    with pytest.raises(InputError, match="19 voxels"):
        reranked(draws, torch.zeros(2, 19), encode)
    with pytest.raises(InputError, match="weights"):
        reranked(draws, torch.zeros(2, 20), encode, weights=torch.zeros(20))
    told = Condition(init_image=draws[:, 0])
    with pytest.raises(InputError, match="at least one draw"):
        brain_optimised(Noisy(), told, torch.zeros(2, 20), encode, seeds=[0, 1], draws=0)
    film = Noisy()
    film.provides = "video"
    with pytest.raises(InputError, match="pictures"):
        brain_optimised(film, told, torch.zeros(2, 20), encode, seeds=[0, 1])
