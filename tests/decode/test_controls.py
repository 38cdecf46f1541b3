"""Controls know less than a decoder: what each still holds, and what it must not."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.controls import (
    mean_flow,
    mean_image,
    permuted_brain,
    retrieved,
    retrieved_rows,
    zero_flow,
)


def test_the_mean_is_the_best_constant_guess(generator: torch.Generator) -> None:
    training = torch.rand(20, 3, 4, 4, generator=generator)
    mean = mean_image(training, 5)
    assert mean.shape == (5, 3, 4, 4)
    other = mean[0] + 0.01 * torch.randn(3, 4, 4, generator=generator)
    assert ((training - mean[0]) ** 2).mean() < ((training - other) ** 2).mean()
    mean[0] = 0.0
    assert mean[1].min() > 0  # rows are apart
    flow = torch.randn(6, 2, 2, 3, 3, generator=generator)
    torch.testing.assert_close(mean_flow(flow, 2)[1], flow.mean(0))
    assert zero_flow(flow).abs().max() == 0 and zero_flow(flow).shape == flow.shape


def test_nobody_keeps_its_own_picture(rng: np.random.Generator) -> None:
    decoded = torch.arange(11.0)[:, None, None, None].expand(11, 3, 2, 2)
    runs = np.array([1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4])
    for _ in range(20):
        order = permuted_brain(decoded, rng, runs)[:, 0, 0, 0].numpy().astype(int)
        assert (runs[order] == runs).all() and sorted(order) == list(range(11))
        assert (order[:10] != np.arange(10)).all()  # the eleventh is alone in its run
    with pytest.raises(InputError, match="at least two stimuli to exchange; got 1"):
        permuted_brain(decoded[:1], rng)


def test_retrieval_is_the_most_correlated_response(rng: np.random.Generator) -> None:
    training, responses = rng.normal(size=(30, 12)), rng.normal(size=(7, 12))
    expected = np.corrcoef(responses, training)[:7, 7:].argmax(1)
    np.testing.assert_array_equal(retrieved_rows(training, responses), expected)
    np.testing.assert_array_equal(retrieved_rows(training * 3 + 1, responses * 0.1 - 2), expected)
    pictures = torch.arange(30.0)[:, None, None, None].expand(30, 3, 2, 2)
    np.testing.assert_array_equal(retrieved(pictures, training, responses)[:, 0, 0, 0], expected)
    with pytest.raises(InputError, match="of the same voxels"):
        retrieved_rows(training[:, 1:], responses)
    with pytest.raises(InputError, match="a picture for each training response; got 29 and 30"):
        retrieved(pictures[1:], training, responses)
