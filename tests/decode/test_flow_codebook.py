"""Codes of flow: k-means as scikit-learn has it, two ways back from probabilities, what quantising costs."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.flow_codebook import FlowCodebook


def clusters(generator: torch.Generator, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, -2.0], [-2.0, 1.0]])
    label = torch.randint(0, 4, (count, 1, 6, 6), generator=generator)
    flow = centres[label].movedim(-1, 2) + 0.05 * torch.randn(count, 1, 2, 6, 6, generator=generator)
    return flow, centres


def test_separate_motions_are_found_and_named(generator: torch.Generator, rng: np.random.Generator) -> None:
    flow, centres = clusters(generator)
    book = FlowCodebook.fit(flow, 4, rng=rng)
    assert torch.cdist(centres, book.vectors).amin(1).max() < 0.02
    assert book.vectors[0].norm() < 0.05  # slowest first
    assert 0.04 < book.quantisation_error(flow) < 0.09  # Rayleigh mean of 0.05: 0.063


def test_more_codes_cost_less(generator: torch.Generator, rng: np.random.Generator) -> None:
    flow = torch.randn(30, 1, 2, 6, 6, generator=generator)
    errors = [FlowCodebook.fit(flow, k, rng=rng).quantisation_error(flow) for k in (2, 8, 40)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.25


def test_certain_codes_are_themselves_and_the_mean_is_the_weighted_sum(rng: np.random.Generator) -> None:
    book = FlowCodebook(torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 4.0]]))
    sure = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 3, 1, 1)
    for way in ("mean", "median"):
        torch.testing.assert_close(
            book.decode(sure, way).flatten(), torch.tensor([-2.0, 4.0]), atol=1e-3, rtol=0
        )
    mixed = torch.tensor([0.2, 0.5, 0.3]).reshape(1, 1, 3, 1, 1)
    torch.testing.assert_close(book.decode(mixed).flatten(), torch.tensor([0.4, 1.2]))


def test_the_median_has_the_least_expected_endpoint_error(generator: torch.Generator) -> None:
    book = FlowCodebook(torch.randn(12, 2, generator=generator))
    p = torch.randn(1, 1, 12, 5, 5, generator=generator).mul(2).softmax(2)

    def expected(flow: torch.Tensor) -> torch.Tensor:
        gap = (flow.unsqueeze(2) - book.vectors.reshape(1, 1, 12, 2, 1, 1)).norm(dim=3)
        return (p * gap).sum(2)

    best = expected(book.decode(p, "median"))
    assert (best <= expected(book.decode(p, "mean")) + 1e-5).all()
    for _ in range(8):
        nudged = book.decode(p, "median") + 0.05 * torch.randn(1, 1, 2, 5, 5, generator=generator)
        assert (best <= expected(nudged) + 2e-3).all()


def test_what_makes_no_codebook(rng: np.random.Generator) -> None:
    still = torch.zeros(2, 1, 2, 4, 4)
    with pytest.raises(InputError, match="different vectors"):
        FlowCodebook.fit(still, 4, rng=rng)
    book = FlowCodebook(torch.zeros(3, 2))
    with pytest.raises(InputError, match="probabilities"):
        book.decode(torch.zeros(1, 1, 4, 2, 2))
    with pytest.raises(InputError, match="mean or median"):
        book.decode(torch.zeros(1, 1, 3, 2, 2), "mode")
