"""The layer against torch's own, values and all gradients."""

import pytest
import torch
from torch import nn

from radiata_latents.model.gru_scan import bidirectional_gru


def layer_of(features: int, hidden: int) -> nn.GRU:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.GRU(features, hidden, batch_first=True, bidirectional=True).double()


@pytest.mark.parametrize(("rows", "bins"), [(1, 1), (3, 7)])
def test_values_and_gradients_are_torchs(rows: int, bins: int) -> None:
    layer = layer_of(4, 5)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(rows, bins, 4, generator=g, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(rows, bins, 10, generator=g, dtype=torch.float64)
    wanted = [x, *layer.parameters()]
    ours, theirs = bidirectional_gru(layer, x), layer(x)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, torchs in zip(
        torch.autograd.grad((ours * pull).sum(), wanted),
        torch.autograd.grad((theirs * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, torchs, rtol=1e-10, atol=1e-12)


def test_without_gradients_it_is_torchs_own_call() -> None:
    layer, x = layer_of(3, 4), torch.ones(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(bidirectional_gru(layer, x), layer(x)[0], rtol=0, atol=0)
