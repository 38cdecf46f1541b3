"""Log-rates from latents: the formula, a ceiling that a linear read-out cannot hold, and the null model."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_latents.model.rate_readout import RateReadout


def made(units: int) -> RateReadout:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RateReadout(4, 3, units)


@torch.no_grad()
def test_it_is_the_formula() -> None:
    readout, f = made(6), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    w, v = readout.linear.weight.split([4, 6], 1)
    inner = torch.tanh(f @ readout.bounded.weight.T + readout.bounded.bias)
    torch.testing.assert_close(readout(f), f @ w.T + inner @ v.T + readout.linear.bias)
    plain = made(0)
    torch.testing.assert_close(plain(f), f @ plain.linear.weight.T + plain.linear.bias)


@torch.no_grad()
def test_bounded_units_hold_a_ceiling() -> None:
    """log r = tanh(f) is within the class; nothing linear comes nearer than 0.3 on [-3, 3] (least maximal error)."""
    readout = made(1)
    readout.linear.weight.zero_(), readout.linear.bias.zero_()
    readout.bounded.weight.copy_(torch.tensor([[1.0, 0, 0, 0]])), readout.bounded.bias.zero_()
    readout.linear.weight[:, 4] = 1
    f = torch.zeros(1, 61, 4)
    f[0, :, 0] = torch.linspace(-3, 3, 61)
    torch.testing.assert_close(readout(f)[0, :, 0], torch.tanh(f[0, :, 0]))
    slopes = torch.linspace(0, 1, 400)[:, None]
    assert float((slopes * f[0, :, 0] - torch.tanh(f[0, :, 0])).abs().amax(1).min()) > 0.3


def test_it_begins_at_the_mean_counts() -> None:
    readout = made(5)
    with torch.no_grad():
        readout.linear.weight.zero_()
        readout.bounded.bias.fill_(1.0)
    readout.set_mean_counts(torch.tensor([0.2, 1.0, 3.0]))
    torch.testing.assert_close(readout(torch.zeros(1, 2, 4)).exp()[0, 0], torch.tensor([0.2, 1.0, 3.0]))
    with pytest.raises(InputError, match="units >= 0"):
        made(-1)
