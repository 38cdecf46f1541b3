"""The DDPM schedule against MedForJ's, multiplied out in numpy."""

import math

import numpy as np
import pytest
import torch

from radiata_core.discrete_path import DiscreteVPPath


def test_discrete_nodes_are_medforjs_cumulative_product() -> None:
    path = DiscreteVPPath()
    mean = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    c = path.coefficients(path.time_of_index(torch.arange(1000)))
    np.testing.assert_allclose(c.alpha, np.sqrt(mean), rtol=1e-12)
    np.testing.assert_allclose(c.sigma, np.sqrt(1 - mean), rtol=1e-12)
    # MONAI and MedForJ multiply in float32; this is how far they are from the schedule they mean.
    single = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000, dtype=np.float32), dtype=np.float32)
    np.testing.assert_allclose(c.alpha, np.sqrt(single), rtol=2e-5)


def test_discrete_path_is_log_linear_between_nodes() -> None:
    path = DiscreteVPPath(1e-3, 0.2, 10)
    low, high = path.time_of_index(3), path.time_of_index(4)
    logs = [2 * math.log(path.coefficients(t).alpha.item()) for t in (low, 0.75 * low + 0.25 * high, high)]
    assert logs[1] == pytest.approx(0.75 * logs[0] + 0.25 * logs[2], rel=1e-12)
    slope = 2 * path.coefficients(high).d_alpha / path.coefficients(high).alpha
    assert slope.item() == pytest.approx((logs[2] - logs[0]) * 10, rel=1e-9)


def test_discrete_times_and_indices() -> None:
    path = DiscreteVPPath()
    index = torch.arange(-1, 1000)
    torch.testing.assert_close(
        path.model_time(path.time_of_index(index)), index.to(torch.float64), atol=1e-9, rtol=0
    )
    assert path.time_of_index(-1).item() == 0
    assert path.time_of_index(999).item() == 1
