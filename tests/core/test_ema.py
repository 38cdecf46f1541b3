"""Averages of weights against the weighted sums they stand for."""

import numpy as np
import pytest
import torch

from radiata_core.ema import EMA, HalfLife, PowerFunction
from radiata_core.errors import InputError


def walk(ema, model, steps, generator):
    history = []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        history.append(model.weight.detach().clone())
        ema.update(model)
    return torch.stack(history)


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        return torch.nn.Linear(3, 2).double()


def test_half_life_is_the_normalised_exponential_average(model, generator):
    ema = EMA(model, (4.0,), HalfLife())
    history = walk(ema, model, 25, generator)
    weights = 0.5 ** (torch.arange(24, -1, -1, dtype=torch.float64) / 4)
    ema.copy_to(model)
    torch.testing.assert_close(
        model.weight.detach(), torch.einsum("k,kij->ij", weights / weights.sum(), history)
    )


def test_power_function_is_the_average_of_its_profile(model, generator):
    """Step k keeps (k/n)^(g+1) - ((k-1)/n)^(g+1): the integral of the power profile over its step."""
    ema = EMA(model, (0.05, 0.2))
    history = walk(ema, model, 40, generator)
    for length in ema.lengths:
        power = PowerFunction.exponent(length) + 1
        edges = (torch.arange(41, dtype=torch.float64) / 40) ** power
        ema.copy_to(model, length)
        torch.testing.assert_close(model.weight.detach(), torch.einsum("k,kij->ij", edges.diff(), history))


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_a_length_is_the_relative_standard_deviation_of_its_profile(length):
    g = PowerFunction.exponent(length)
    t = (np.arange(2_000_000) + 0.5) / 2_000_000
    weight = t**g / np.sum(t**g)
    mean = np.sum(weight * t)
    assert np.sqrt(np.sum(weight * (t - mean) ** 2)) == pytest.approx(length, rel=1e-4)


def test_a_state_goes_on_as_if_never_stored(model, generator):
    ema = EMA(model, (0.1,))
    walk(ema, model, 5, generator)
    other = EMA(model, (0.1,))
    other.load_state_dict(ema.state_dict())
    walk(ema, model, 3, torch.Generator().manual_seed(1))
    walk(other, model, 3, torch.Generator().manual_seed(1))
    assert torch.equal(
        ema.state_dict()["averages"]["0.1"]["weight"], other.state_dict()["averages"]["0.1"]["weight"]
    )


def test_applied_gives_the_weights_back_to_the_bit(model, generator):
    ema = EMA(model, (0.1,))
    walk(ema, model, 5, generator)
    before = model.weight.detach().clone()
    with ema.applied(model):
        assert not torch.equal(model.weight, before)
    assert torch.equal(model.weight, before)


def test_refuses_impossible_lengths(model):
    for lengths, profile in (((0.3,), None), ((0.0,), None), ((-1.0,), HalfLife())):
        with pytest.raises(InputError, match="usual"):
            EMA(model, lengths, profile)
    with pytest.raises(InputError, match="lengths"):
        EMA(model, (0.1,)).copy_to(model, 0.05)
