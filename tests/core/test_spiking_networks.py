"""A user's network made spiking, quantised networks converted, and the account of energy on layers counted by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.specs import describe, rebuild
from radiata_core.spiking import SpikingActivation
from radiata_core.spiking_conversion import QuantisedReLU, convert, level_of
from radiata_core.spiking_energy import synaptic_energy
from radiata_core.spiking_networks import SpikingNetwork, spiking


class Body(nn.Module):
    def __init__(self, activation: nn.Module, dims: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.stem, self.activation, self.conv = conv(1, 3, 3, padding=1), activation, conv(3, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self.conv(self.activation(self.stem(x) + level.reshape(-1, *[1] * (x.ndim - 1))))


def body(activation: nn.Module, dims: int = 2) -> Body:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Body(activation, dims).double()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_users_network_answers_as_its_steps_written_out(dims: int) -> None:
    network = body(nn.SiLU(), dims)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    snn, x, level = spiking(network, nn.SiLU, steps=3), drawn(2, 1, *[4] * dims), drawn(2)
    current = network.stem(x) + level.reshape(-1, *[1] * (dims + 1))
    potential, answer = torch.zeros_like(current), 0.0
    for weight in (0.64, 0.8, 1.0):
        potential = potential + current
        spikes = (potential >= 1).double()
        potential = potential * (1 - spikes)
        answer = answer + weight / 2.44 * network.conv(spikes)
    torch.testing.assert_close(snn(x, level), answer)
    torch.testing.assert_close(snn(x[1:], level=level[1:]), answer[1:])
    assert snn.twin() is network and isinstance(network.activation, nn.SiLU)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_parts_can_be_kept() -> None:
    network = nn.ModuleDict({"embed": nn.Sequential(nn.SiLU()), "body": nn.SiLU()})
    snn = SpikingNetwork(network, "SiLU", keep=("embed",))
    assert isinstance(snn.network["body"], SpikingActivation) and isinstance(snn.network["embed"][0], nn.SiLU)
    with pytest.raises(InputError, match="modules of the class ReLU in Body; got none"):
        spiking(body(nn.SiLU()), nn.ReLU)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_spikes_of_a_converted_layer_are_the_levels_exactly(bits: int) -> None:
    layer = nn.Sequential(QuantisedReLU(bits, threshold=0.8)).double()
    x = drawn(20_000, 1)
    theta, levels = layer[0].threshold.item(), 2**bits - 1
    expected = torch.clamp(torch.floor(levels * x / theta + 0.5), 0, levels)
    assert torch.equal(level_of(x, bits, theta), expected)
    converted = convert(layer)
    counts = converted.network(torch.cat([x] * levels)).unflatten(0, (levels, -1)).ne(0).sum(0)
    assert torch.equal(counts.double(), expected)
    torch.testing.assert_close(converted(x), layer(x))


def test_a_network_with_steady_input_is_converted_exactly() -> None:
    network, x, level = body(QuantisedReLU(2, 0.9)), drawn(3, 1, 6, 6), drawn(3)
    torch.testing.assert_close(convert(network)(x, level), network(x, level))
    with pytest.raises(InputError, match="QuantisedReLU modules of equal bits"):
        convert(body(nn.ReLU()))
    with pytest.raises(InputError, match="equal bits"):
        convert(nn.Sequential(QuantisedReLU(2), QuantisedReLU(3)))


def test_quantised_relu_passes_its_derivative_within_the_clip() -> None:
    layer = QuantisedReLU(2, 1.0).double()
    x = torch.tensor([-0.5, 0.3, 0.9, 1.4], dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(layer(x), torch.tensor([0, 1 / 3, 1, 1]).double(), atol=1e-7, rtol=0)
    assert x.grad is not None and x.grad.round(decimals=6).tolist() == [0, 1, 1, 0]
    assert layer.log_threshold.grad is not None and float(layer.log_threshold.grad) > 1


def test_energy_of_a_layer_counted_by_hand() -> None:
    """Half of 24 inputs are ones: E = 0.9 rate T MAC; the stem before it reads floats."""
    spikes = torch.zeros(4 * 2, 6)
    spikes[:, ::2] = 1  # T = 4 steps of 2 rows
    linear = torch.nn.utils.skip_init(nn.Linear, 6, 5)
    nn.init.ones_(linear.weight)
    nn.init.ones_(linear.bias)
    account = synaptic_energy(_Told(linear), spikes, torch.zeros(()))
    mac = 6 * 5
    assert account.acs * 8 == 0.5 * 4 * 2 * mac and account.macs == 0
    assert account.picojoule * 8 == pytest.approx(0.9 * 0.5 * 4 * 2 * mac) and math.isnan(account.ratio)
    assert account.rate == {"inner": 0.5}
    floats = synaptic_energy(_Told(linear), spikes + 0.5, torch.zeros(()), twin=_Told(linear))
    assert floats.macs == mac and floats.acs == 0 and floats.picojoule == pytest.approx(4.6 * mac)
    assert floats.ratio == pytest.approx(1.0)
    assert synaptic_energy(_Told(linear), 0.3 * spikes, torch.zeros(())).acs == 0  # a size no neuron sends


def test_energy_of_a_network_and_its_twin() -> None:
    network, x = body(nn.SiLU()), drawn(2, 1, 8, 8)
    snn = spiking(network, steps=4)
    account = synaptic_energy(snn, x, drawn(2))
    stem, conv = 64 * 9 * 3, 64 * 9 * 3 * 2
    assert account.macs == 4 * stem  # each step again, in a network that was not made for it
    rate = account.rate["network.conv"]
    assert account.acs == pytest.approx(rate * 4 * conv) and 0 < rate < 1
    assert account.twin_picojoule == pytest.approx(4.6 * (stem + conv))
    converted = synaptic_energy(convert(body(QuantisedReLU(2, 0.7))), x, drawn(2))
    assert converted.macs == 3 * stem and 0 < converted.acs < 3 * conv  # spikes of size theta are spikes


def test_energy_sees_attention() -> None:
    tokens = drawn(1, 2, 5, 4)
    account = synaptic_energy(
        _Told(lambda x: F.scaled_dot_product_attention(x, x, x)), tokens, torch.zeros(())
    )
    assert account.macs == 2 * (2 * 5 * 5 * 4)
    with pytest.raises(InputError, match="energies > 0"):
        synaptic_energy(_Told(nn.Identity()), tokens, torch.zeros(()), mac_pj=0.0)


class _Told(nn.Module):
    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_built_by_name() -> None:
    from radiata_core.nets.unet import UNet

    small = {"dims": 2, "channels": (8,), "down_blocks": (0,), "up_blocks": (1,), "attention": (False,)}
    with torch.random.fork_rng(devices=[]):
        made = SpikingNetwork(UNet(**small, patch=1, embedding=8, frequencies=8), steps=2)
        again = rebuild(describe(made))
    assert isinstance(again, SpikingNetwork) and again.steps == 2
    again.load_state_dict(made.state_dict())
