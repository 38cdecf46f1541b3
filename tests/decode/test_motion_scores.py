"""Scores of motion by hand, and what each control must get; the permutation test keeps its level."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.controls import mean_flow, permuted_brain, zero_flow
from radiata_decode.model.motion_scores import (
    endpoint_errors,
    motion_scores,
    motion_table,
    skill_interval,
    zero_flow_margin,
)


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(30, 2, 2, 4, 4, generator=generator)


def test_by_hand() -> None:
    """Two cells: (3, 4) predicted as (3, 0), and rest predicted as (0, 1)."""
    truth = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).T.reshape(1, 1, 2, 1, 2)
    predicted = torch.tensor([[3.0, 0.0], [0.0, 1.0]]).T.reshape(1, 1, 2, 1, 2)
    found = motion_scores(truth, predicted, threshold=1.0)
    assert found.epe[0] == pytest.approx((4 + 1) / 2)
    assert found.epe_zero[0] == pytest.approx(5 / 2)
    assert found.epe_moving[0] == pytest.approx(4)
    assert found.cosine[0] == pytest.approx(0.6)
    assert found.angle[0] == pytest.approx(np.rad2deg(np.arccos(0.6)))
    flat = np.array([3, 0, 4, 0]), np.array([3, 0, 0, 1])
    assert found.correlation[0] == pytest.approx(np.corrcoef(*flat)[0, 1])


def test_the_truth_is_perfect(truth: torch.Tensor, rng: np.random.Generator) -> None:
    found = motion_scores(truth, truth)
    assert found.epe.max() == 0
    assert found.two_way.min() == 1
    assert found.angle.max() < 0.1
    assert skill_interval(found, rng).mean == 1


def test_nothing_predicted_is_the_baseline(truth: torch.Tensor, rng: np.random.Generator) -> None:
    found = motion_scores(truth, zero_flow(truth))
    np.testing.assert_allclose(found.epe, found.epe_zero)
    assert np.abs(found.cosine).max() == 0
    np.testing.assert_allclose(found.angle, 90)
    assert np.abs(found.correlation).max() == 0
    assert np.abs(found.field_cosine).max() == 0
    assert found.two_way.max() == 0  # ties are lost
    margin = zero_flow_margin(found, rng)
    assert (margin.mean, margin.low, margin.high) == (0, 0, 0)


def test_confident_hallucination_is_worse_than_nothing(
    truth: torch.Tensor, generator: torch.Generator
) -> None:
    made_up = torch.randn(truth.shape, generator=generator)
    found = motion_scores(truth, made_up)
    assert found.epe.mean() > 1.2 * found.epe_zero.mean()


def test_all_pairings_have_the_pairs_on_their_diagonal(
    truth: torch.Tensor, generator: torch.Generator
) -> None:
    predicted = truth + torch.randn(truth.shape, generator=generator)
    np.testing.assert_allclose(
        np.diagonal(endpoint_errors(truth, predicted)), motion_scores(truth, predicted).epe, rtol=1e-5
    )
    swapped = endpoint_errors(truth, predicted)[3, 5]
    assert swapped == pytest.approx(motion_scores(truth[3:4], predicted[5:6]).epe[0], rel=1e-5)


def test_the_table_tells_a_decoder_from_its_controls(
    truth: torch.Tensor, generator: torch.Generator, rng: np.random.Generator
) -> None:
    decoded = 0.5 * truth + 0.4 * torch.randn(truth.shape, generator=generator)
    controls = {
        "zero flow": zero_flow(truth),
        "mean flow": mean_flow(torch.randn(truth.shape, generator=generator), len(truth)),
        "permuted brain": permuted_brain(decoded, rng),
    }
    rows = motion_table(truth, {"ours": decoded}, rng, controls=controls, draws=200)
    of = {(row.decoder, row.metric): row for row in rows}
    assert of["ours", "flow correlation"].p == pytest.approx(1 / 201)
    assert of["ours", "epe"].p == pytest.approx(1 / 201)
    assert of["ours", "epe skill"].low > 0
    assert of["permuted brain", "flow correlation"].p > 0.05
    assert of["permuted brain", "epe skill"].high < 0
    assert of["mean flow", "flow correlation"].mean == pytest.approx(0, abs=0.1)
    assert of["zero flow", "epe skill"].mean == 0
    assert of["zero flow", "epe"].control
    assert "cosine >= 0.25 cells" in {row.metric for row in rows}  # the threshold is stated


def test_chance_is_found_significant_at_the_level_that_is_stated(rng: np.random.Generator) -> None:
    """40 tables of noise at 5 %: more than six significant ones have a chance of .5 %."""
    generator, significant = torch.Generator().manual_seed(8), 0
    for _ in range(40):
        truth, noise = torch.randn(2, 12, 1, 2, 3, 3, generator=generator)
        rows = motion_table(truth, {"noise": noise}, rng, draws=60)
        significant += next(row.p for row in rows if row.metric == "flow correlation") <= 0.05
    assert significant <= 6


def test_skill_is_that_of_the_sums_and_its_interval_covers(
    generator: torch.Generator, rng: np.random.Generator
) -> None:
    """A known skill of 1/4: its 95 % interval holds it in at least 33 of 40 experiments (P = .3 % otherwise)."""
    held = 0
    for _ in range(40):
        truth = torch.randn(25, 1, 2, 3, 3, generator=generator)
        scale = truth.norm(dim=2, keepdim=True) * torch.rand(25, 1, 1, 1, 1, generator=generator) * 1.5
        found = motion_scores(truth, truth + scale * truth / truth.norm(dim=2, keepdim=True))
        interval = skill_interval(found, rng, draws=300)
        held += interval.low <= 0.25 <= interval.high
    assert held >= 33


def test_flows_that_cannot_be_compared(truth: torch.Tensor, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="one grid"):
        motion_scores(truth, truth[:, :1])
    with pytest.raises(InputError, match="two films"):
        motion_table(truth[:1], {"a": truth[:1]}, rng)
    with pytest.raises(InputError, match="finite"):
        motion_scores(truth, truth / 0)


def test_uniform_motions_are_compared_by_their_angle() -> None:
    """Pearson's r of (3, 1) and (1, 0) to the right is 1, of (3, 1) and (0, 1) it is -1: only the field cosine is graded."""
    flow = [
        torch.tensor(v).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 4, 4)
        for v in ([3.0, 1.0], [1.0, 0.0], [0.0, 1.0])
    ]
    near, far = motion_scores(flow[0], flow[1]), motion_scores(flow[0], flow[2])
    assert (near.correlation[0], far.correlation[0]) == (pytest.approx(1), pytest.approx(-1))
    assert near.field_cosine[0] == pytest.approx(3 / np.sqrt(10))
    assert far.field_cosine[0] == pytest.approx(1 / np.sqrt(10))


def test_slow_cells_are_no_moving_ones_and_slow_films_count_little(rng: np.random.Generator) -> None:
    """Speeds .1 and 2 with errors .1 and 1: the cell above the threshold alone; the skill is that of the sums."""
    truth = torch.tensor([0.1, 2.0]).reshape(1, 1, 1, 1, 2) * torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)
    predicted = truth * torch.tensor([0.0, 0.5])
    assert motion_scores(truth, predicted, 0.25).epe_moving[0] == pytest.approx(1.0)
    assert motion_scores(truth, predicted, 0.0).epe_moving[0] == pytest.approx(0.55)
    films = torch.cat([truth[..., :1], truth[..., 1:], truth[..., 1:]])
    decoded = torch.cat([0 * truth[..., :1], 0.5 * truth[..., 1:], 0.5 * truth[..., 1:]])
    assert skill_interval(motion_scores(films, decoded), rng).mean == pytest.approx(1 - 2.1 / 4.1)
