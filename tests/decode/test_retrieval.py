"""Nearest training pictures against scipy, and the ends of similarity."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from radiata_core.errors import InputError
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.retrieval import Retrieval, nearest


@pytest.mark.parametrize("similarity", ["cosine", "correlation"])
def test_neighbours_are_those_of_scipy(generator, similarity):
    queries = torch.randn((7, 30), generator=generator) + 0.5
    gallery = torch.randn((40, 30), generator=generator) + 0.5
    found = nearest(queries, gallery, 5, similarity=similarity, chunk=3)
    expected = 1 - cdist(queries.double(), gallery.double(), similarity)
    order = np.argsort(-expected, 1, kind="stable")[:, :5]
    assert np.array_equal(found.rows.numpy(), order)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(expected, order, 1), atol=1e-6)


def test_offset_and_scale_do_not_count_in_correlation(generator):
    queries = torch.randn((4, 20), generator=generator)
    gallery = torch.randn((9, 20), generator=generator)
    one = nearest(queries, gallery, 3, similarity="correlation")
    other = nearest(3 * queries + 7, gallery, 3, similarity="correlation")
    assert torch.equal(one.rows, other.rows)
    torch.testing.assert_close(one.similarity, other.similarity, atol=1e-5, rtol=0)


def test_what_has_no_direction_is_similar_to_nothing():
    """And equal similarities are in the gallery's order."""
    gallery = torch.tensor([[1.0, 2.0], [3.0, 3.0], [2.0, 4.0]])
    found = nearest(torch.full((1, 2), 5.0), gallery, 3, similarity="correlation")
    assert found.rows.tolist() == [[0, 1, 2]] and found.similarity.tolist() == [[0.0, 0.0, 0.0]]
    assert nearest(torch.tensor([[1.0, 2.0]]), gallery, 2).rows.tolist() == [[0, 2]]


def test_a_picture_finds_itself(generator):
    pictures = torch.rand((6, 3, 4, 4), generator=generator)
    latents = torch.randn((6, 10), generator=generator)
    retrieve = Retrieval(pictures, latents)
    assert isinstance(retrieve, Generator) and retrieve.requires == {"init_latents"}
    order = torch.tensor([4, 1, 0])
    condition = Condition(init_latents=latents[order], reliability=torch.ones(10))
    assert torch.equal(retrieve(condition, seeds=[0, 1, 2]), pictures[order])
    assert torch.equal(retrieve(condition, seeds=[7, 8, 9], strength=0.1), pictures[order])
    assert torch.equal(retrieve(condition.rows(slice(1, 2)), seeds=[1]), pictures[[1]])
    assert retrieve.neighbours(condition, 2).rows.shape == (3, 2)


def test_tokens_are_compared_as_one_vector(generator):
    tokens = torch.randn((5, 3, 4), generator=generator)
    retrieve = Retrieval(torch.rand((5, 3, 2, 2), generator=generator), tokens, part="image_embeds")
    found = retrieve.neighbours(Condition(image_embeds=tokens + 0.01), 1)
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_bad_input_is_one_line(generator):
    gallery = torch.randn((4, 5), generator=generator)
    with pytest.raises(InputError, match="same numbers"):
        nearest(torch.zeros(1, 3), gallery)
    with pytest.raises(InputError, match="from 1 to the 4"):
        nearest(gallery, gallery, 5)
    with pytest.raises(InputError, match="finite"):
        nearest(torch.full((1, 5), float("nan")), gallery)
    with pytest.raises(InputError, match="cosine or correlation"):
        nearest(gallery, gallery, similarity="euclid")
    with pytest.raises(InputError, match="as many latents"):
        Retrieval(torch.zeros(3, 3, 2, 2), gallery)
    with pytest.raises(InputError, match="expected init_latents"):
        Retrieval(torch.zeros(4, 3, 2, 2), gallery)(Condition(image_embeds=torch.zeros(1, 1, 5)), seeds=[0])
