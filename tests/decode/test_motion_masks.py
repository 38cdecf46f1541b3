"""Masks know the prediction or the first frame, keep their share, and are scored alike for all."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.motion_masks import frame_mask, masked_flow, predicted_mask
from radiata_decode.model.motion_scores import motion_scores


def test_the_fastest_cells_are_kept_film_by_film(generator: torch.Generator) -> None:
    flow = torch.randn(5, 2, 2, 6, 6, generator=generator)
    mask = predicted_mask(flow, 0.25)
    assert mask.flatten(1).sum(1).tolist() == [9] * 5
    speed = flow.norm(dim=2).mean(1)
    for row in range(5):
        assert speed[row][mask[row]].min() >= speed[row][~mask[row]].max()
    torch.testing.assert_close(predicted_mask(100 * flow, 0.25), mask)  # says nothing about how much moved
    assert torch.equal(predicted_mask(flow[2:3], 0.25), mask[2:3])


def test_contrast_of_the_first_frame_is_a_mask_too(generator: torch.Generator) -> None:
    features = torch.rand(2, 3, 4, 4, generator=generator)
    features[:, :, 1, 2] = 5.0
    assert frame_mask(features, 1 / 16).nonzero().tolist() == [[0, 1, 2], [1, 1, 2]]
    assert frame_mask(features, 1.0).all()


def test_outside_of_the_mask_nothing_moves_and_nothing_is_scored(generator: torch.Generator) -> None:
    truth, decoded = torch.randn(2, 4, 1, 2, 6, 6, generator=generator)
    mask = predicted_mask(decoded, 0.5)
    inside = masked_flow(decoded, mask)
    assert inside.movedim(2, -1)[~mask[:, None]].abs().max() == 0
    first = motion_scores(truth, decoded, mask=mask)
    spoilt = torch.where(mask[:, None, None], decoded, 99.0)
    second = motion_scores(truth, spoilt, mask=mask)
    for name in ("epe", "epe_zero", "epe_moving", "cosine", "correlation", "field_cosine"):
        assert getattr(first, name) == pytest.approx(getattr(second, name))
    expected = (decoded - truth).norm(dim=2)[:, 0][mask].reshape(4, -1).mean(1)
    assert first.epe == pytest.approx(expected.numpy(), rel=1e-5)


def test_masks_that_do_not_go(generator: torch.Generator) -> None:
    flow = torch.randn(2, 1, 2, 4, 4, generator=generator)
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        predicted_mask(flow, 0.0)
    with pytest.raises(InputError, match="flow's grid"):
        masked_flow(flow, torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="grid"):
        motion_scores(flow, flow, mask=torch.ones(2, 5, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="finite features"):
        frame_mask(flow)
