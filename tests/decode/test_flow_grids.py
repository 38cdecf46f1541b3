"""Motion keeps its meaning on other grids and with other steps."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.optical_flow import grid_flow
from radiata_decode.model.flow_grids import resampled_flow


def test_tensors_and_files_agree(generator: torch.Generator) -> None:
    flow = torch.randn(2, 3, 2, 12, 16, generator=generator)
    ours = resampled_flow(flow, (6, 8))
    theirs = np.stack([[grid_flow(step.numpy(), (6, 8)) for step in film] for film in flow])
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_there_and_back_is_the_same_for_uniform_motion() -> None:
    flow = torch.tensor([1.5, -0.5]).reshape(1, 1, 2, 1, 1).expand(1, 2, 2, 8, 8)
    torch.testing.assert_close(resampled_flow(resampled_flow(flow, (32, 32)), (8, 8)), flow)


def test_steps_are_averaged_in_groups_and_repeated() -> None:
    flow = torch.arange(6.0).reshape(1, 6, 1, 1, 1).expand(1, 6, 2, 2, 2)
    assert resampled_flow(flow, steps=3)[0, :, 0, 0, 0].tolist() == [0.5, 2.5, 4.5]
    assert resampled_flow(flow[:, :3], steps=6)[0, :, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert resampled_flow(flow, steps=4)[0, :, 0, 0, 0].mean() == pytest.approx(2.5, abs=0.3)


def test_what_is_no_flow() -> None:
    with pytest.raises(InputError, match="x component first"):
        resampled_flow(torch.zeros(1, 2, 8, 8, 2))
    with pytest.raises(InputError, match="finite"):
        resampled_flow(torch.full((1, 1, 2, 4, 4), torch.nan))
    with pytest.raises(InputError, match="1 or more"):
        resampled_flow(torch.zeros(1, 1, 2, 4, 4), steps=0)
