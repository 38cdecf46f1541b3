"""Principal components of flow, against numpy's singular values."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.flow_basis import FlowBasis


@pytest.mark.parametrize("count", [10, 60])  # fewer films than numbers of a flow, and more
def test_components_are_those_of_the_singular_values(count: int, generator: torch.Generator) -> None:
    flow = torch.randn(count, 1, 2, 4, 4, generator=generator) @ torch.diag(torch.tensor([3.0, 2, 1, 0.5]))
    basis = FlowBasis.fit(flow, 5)
    flat = (flow - flow.mean(0)).flatten(1).double().numpy()
    _, values, rows = np.linalg.svd(flat, full_matrices=False)
    overlap = np.abs(basis.components.double().numpy() @ rows[:5].T)
    np.testing.assert_allclose(overlap, np.eye(5), atol=1e-4)
    assert basis.variance == pytest.approx((values[:5] ** 2).sum() / (values**2).sum(), rel=1e-6)


def test_all_components_give_the_flow_back(generator: torch.Generator) -> None:
    flow = torch.randn(12, 2, 2, 3, 3, generator=generator)
    basis = FlowBasis.fit(flow, 100)
    assert basis.size == 11
    torch.testing.assert_close(basis.decode(basis.encode(flow)), flow, atol=1e-5, rtol=0)


def test_what_has_no_basis(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="two films"):
        FlowBasis.fit(torch.zeros(1, 1, 2, 4, 4))
    with pytest.raises(InputError, match="same in all"):
        FlowBasis.fit(torch.ones(3, 1, 2, 4, 4))
    with pytest.raises(InputError, match="Resample"):
        FlowBasis.fit(torch.randn(4, 1, 2, 4, 4, generator=generator)).encode(torch.zeros(1, 1, 2, 8, 8))
