"""Spiking neurons against snntorch and closed forms; nothing is left from one call to the next."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.spiking import (
    AtanWindow,
    BoxWindow,
    IntegrateFire,
    SpikingActivation,
    decoding_weights,
    free_gains,
    thresholds,
)

snntorch = pytest.importorskip("snntorch")


def currents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed)) + 0.3


@pytest.mark.parametrize(("reset", "leak"), [("zero", 1.0), ("zero", 0.8), ("subtract", 1.0)])
def test_spikes_and_gradients_are_those_of_snntorch(reset: str, leak: float) -> None:
    given = currents(6, 3, 2, 5)
    weight = torch.rand(given.shape, generator=generator_of(1))
    ours, theirs = given.clone().requires_grad_(), given.clone().requires_grad_()
    spikes = IntegrateFire(0.9, leak, reset)(ours)
    oracle = snntorch.Leaky(leak, 0.9, snntorch.surrogate.atan(2.0), reset_mechanism=reset)
    potential, fired = torch.zeros_like(given[0]), []
    for current in theirs:
        spike, potential = oracle(current, potential)
        fired.append(spike)
    assert torch.equal(spikes, torch.stack(fired))
    assert 0.1 < float(spikes.detach().mean()) < 0.9
    (spikes * weight).sum().backward()
    (torch.stack(fired) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_leaky_soft_reset_is_that_of_snntorch_without_its_delay() -> None:
    """What is left after the reset leaks; with its usual delay snntorch takes the threshold from what has leaked."""
    given, potential = currents(7, 4, 9, seed=2).clamp(max=0.79), torch.zeros(4, 9)
    oracle = snntorch.Leaky(0.7, 0.8, reset_mechanism="subtract", reset_delay=False)
    for spikes, current in zip(IntegrateFire(0.8, 0.7, "subtract")(given), given, strict=True):
        fired, potential = oracle(current, potential)
        assert torch.equal(spikes, fired)
    assert float(potential.max()) < 0.8


def test_soft_reset_fires_as_often_as_its_charge_holds_the_threshold() -> None:
    """Currents in [0, theta]: floor(sum/theta) spikes, in whatever order they come."""
    given = 0.7 * torch.rand(50, 4, 3, 5, generator=generator_of(3)).double()
    spikes = IntegrateFire(0.7, reset="subtract")(given)
    assert torch.equal(spikes.sum(0), (given.sum(0) / 0.7).floor())


def test_hard_reset_of_a_steady_current_fires_every_kth_step() -> None:
    spikes = IntegrateFire()(torch.full((12, 1, 1), 0.3, dtype=torch.float64))[:, 0, 0]
    assert spikes.nonzero()[:, 0].tolist() == [
        3,
        7,
        11,
    ]  # 4 x 0.3 reaches 1; subtraction would fire at 3, 6, 9


def test_calls_are_independent_and_rows_too() -> None:
    layer, one, other = SpikingActivation(4), currents(8, 3, 5), currents(8, 3, 5, seed=1)
    first, between, again = layer(one), layer(other), layer(one)
    assert torch.equal(first, again) and torch.equal(first, SpikingActivation(4)(one))
    assert torch.equal(between, SpikingActivation(4)(other))
    rows = torch.cat([layer(one[i::2]) for i in range(2)]).unflatten(0, (2, 4)).transpose(0, 1).flatten(0, 1)
    assert torch.equal(first, rows)
    assert list(layer.state_dict()) == ["gain"] and not list(layer.buffers())


def test_no_step_knows_a_later_one() -> None:
    given = currents(5, 2, 3)
    changed = torch.cat([given[:3], given[3:] + 1.0])
    assert torch.equal(IntegrateFire()(given)[:3], IntegrateFire()(changed)[:3])


def test_windows_have_unit_area_and_box_is_a_box() -> None:
    u = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    for window in (AtanWindow(), AtanWindow(5.0), BoxWindow(), BoxWindow(0.5)):
        assert float(torch.trapezoid(window(u), u)) == pytest.approx(1.0, abs=2e-3)
    excess = torch.tensor([[[0.4]], [[2.0]]]).requires_grad_()
    IntegrateFire(window=BoxWindow(2.0))(excess).sum().backward()
    # U = 0.4, then 2.4: only the first is within 1 of the threshold.
    assert excess.grad is not None and excess.grad.flatten().tolist() == [0.5, 0.0]


def test_gains_at_one_change_nothing_and_scale_the_current_of_their_step() -> None:
    layer, given = SpikingActivation(3), currents(6, 4)
    assert torch.equal(layer(given), layer.neuron(given.unflatten(0, (3, 2))).flatten(0, 1))
    layer.gain.data = torch.tensor([0.5, 2.0, 1.5])
    scaled = given.unflatten(0, (3, 2)) * torch.tensor([0.5, 2.0, 1.5]).reshape(3, 1, 1)
    assert torch.equal(layer(given), layer.neuron(scaled).flatten(0, 1))
    assert not layer.gain.requires_grad
    (gain,) = free_gains(layer)
    layer(given).sum().backward()
    assert gain.grad is not None and (gain.grad != 0).all()


def test_thresholds_are_restored_exactly_also_after_an_error() -> None:
    network = torch.nn.Sequential(SpikingActivation(2), SpikingActivation(2, IntegrateFire(0.3)))
    given = currents(40, 50)
    before = network(given)
    with thresholds(network, 1.0):
        assert torch.equal(network(given), before)
    with pytest.raises(KeyError), thresholds(network, 0.9), thresholds(network, 1.7):
        assert network(given).sum() < before.sum()
        raise KeyError
    assert [layer.neuron.threshold for layer in network] == [1.0, 0.3]
    assert torch.equal(network(given), before)


def test_decoding_weights() -> None:
    weights = decoding_weights(4)
    torch.testing.assert_close(weights[:-1] / weights[1:], torch.full((3,), 0.8).double())
    assert float(weights.sum()) == pytest.approx(1) and decoding_weights(1).tolist() == [1.0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: IntegrateFire(0.0), "threshold > 0; got 0.0"),
        (lambda: IntegrateFire(leak=1.5), r"leak in \[0, 1\]; got 1.5"),
        (lambda: IntegrateFire(reset="soft"), "zero or subtract; got 'soft'"),
        (lambda: SpikingActivation(0), "at least one step; got 0"),
        (lambda: SpikingActivation(2, size=0.0), "size > 0; got 0.0"),
        (lambda: SpikingActivation(4)(torch.zeros(6, 1)), "rows for 4 steps; got 6 rows"),
        (lambda: free_gains(torch.nn.ReLU()), "expected a spiking network; got ReLU"),
        (lambda: thresholds(SpikingActivation(1), -1.0).__enter__(), "got -1.0"),
        (lambda: decoding_weights(2, 0.0), "decay in"),
    ],
)
def test_what_it_cannot_do_it_says(make, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
