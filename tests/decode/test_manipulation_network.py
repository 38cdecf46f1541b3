"""Control of a frozen generator: nothing at the start, nothing at scale 0, in proportion in between."""

import pytest
import torch

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.specs import describe, rebuild
from radiata_decode.model.manipulation_network import (
    ManipulationNetwork,
    level_scales,
    residuals_added,
    the_unet,
)

from .surface_world import awake

TOKENS, WIDTH, DIM = 5, 8, 4


@pytest.fixture
def generator_net():
    with torch.random.fork_rng(devices=[]):
        unet = UNet(
            dims=2,
            in_channels=3,
            out_channels=3,
            channels=(8, 16),
            down_blocks=(1, 1),
            up_blocks=(1, 1),
            attention=(False, True),
            embedding=16,
            frequencies=8,
            shape=(8, 8),
        )
    return NetworkDenoiser(awake(unet, 0), LinearPath(), "velocity").requires_grad_(False)


@pytest.fixture
def network(generator_net):
    with torch.random.fork_rng(devices=[]):
        return ManipulationNetwork.of(generator_net, (8, 8), TOKENS, WIDTH, DIM, 3)


@pytest.fixture
def inputs(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return draw(3, 3, 8, 8), draw(3, TOKENS, WIDTH), draw(3, 2, DIM)


def controlled(denoiser, network, inputs, scale=1.0):
    x, tokens, context = inputs
    with torch.no_grad(), residuals_added(the_unet(denoiser), network, tokens, scale, context, 0.5 * x):
        return denoiser(x, torch.tensor(0.4))


def test_new_manipulation_changes_no_bit(generator_net, network, inputs):
    before = {name: value.clone() for name, value in generator_net.state_dict().items()}
    plain = generator_net(inputs[0], torch.tensor(0.4))
    assert torch.equal(controlled(generator_net, network, inputs), plain)
    assert list(generator_net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in generator_net.state_dict().items())


def test_copy_starts_with_the_generators_weights(generator_net, network):
    own = the_unet(generator_net).state_dict()
    copied = network.copy.state_dict()
    assert copied and all(torch.equal(value, own[name]) for name, value in copied.items())
    assert {name.split(".")[0] for name in own} - {name.split(".")[0] for name in copied} == {
        "up",
        "grow",
        "head",
        "head_norm",
    }


def test_scale_zero_is_the_generator_alone(generator_net, network, inputs):
    awake(network, 1)
    plain = generator_net(inputs[0], torch.tensor(0.4))
    assert torch.equal(controlled(generator_net, network, inputs, 0.0), plain)
    assert torch.equal(controlled(generator_net, network, inputs, [0.0, 0.0]), plain)
    assert not torch.equal(controlled(generator_net, network, inputs), plain)
    assert torch.equal(generator_net(inputs[0], torch.tensor(0.4)), plain)  # no hook is left behind


def test_small_scales_act_in_proportion(generator_net, network, inputs):
    awake(network, 1)
    generator_net.double(), network.double()
    inputs = tuple(value.double() for value in inputs)
    plain = generator_net(inputs[0], torch.tensor(0.4))
    once = controlled(generator_net, network, inputs, 1e-5) - plain
    twice = controlled(generator_net, network, inputs, 2e-5) - plain
    assert float((twice - 2 * once).norm() / once.norm()) < 1e-3
    fine = controlled(generator_net, network, inputs, [1e-5, 0.0]) - plain
    coarse = controlled(generator_net, network, inputs, [0.0, 1e-5]) - plain
    assert float((fine + coarse - once).norm() / once.norm()) < 1e-3
    assert float(fine.norm()) > 0 and float(coarse.norm()) > 0


def test_tokens_and_context_reach_the_output_and_rows_stay_apart(generator_net, network, inputs):
    awake(network, 1)
    x, tokens, context = inputs
    whole = controlled(generator_net, network, inputs)
    moved = controlled(
        generator_net, network, (x, tokens, context + torch.tensor([1.0, 0, 0]).reshape(3, 1, 1))
    )
    assert not torch.allclose(moved[0], whole[0]) and torch.allclose(moved[1:], whole[1:])
    alone = controlled(generator_net, network, tuple(value[1:2] for value in inputs))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-5, atol=1e-5)


def test_only_the_manipulation_learns(generator_net, network, inputs):
    x, tokens, context = inputs
    with residuals_added(the_unet(generator_net), network, tokens, 1.0, context):
        generator_net(x, torch.tensor(0.4)).square().sum().backward()
    assert all(parameter.grad is None for parameter in generator_net.parameters())
    assert all(float(outlet.weight.grad.abs().sum()) > 0 for outlet in network.outlets)


def test_description_rebuilds_it(network, inputs):
    awake(network, 2)
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(network))
    again.load_state_dict(network.state_dict())
    x, tokens, context = inputs
    for a, b in zip(
        network(x, torch.tensor(0.1), tokens, context=context),
        again(x, torch.tensor(0.1), tokens, context=context),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_what_does_not_fit_is_refused(generator_net):
    assert level_scales(0.5, 3) == [0.5, 0.5, 0.5]
    with pytest.raises(InputError, match="3 levels"):
        level_scales([1.0, 2.0], 3)
    with pytest.raises(InputError, match="finite"):
        level_scales(float("nan"), 2)
    with pytest.raises(InputError, match="one U-Net"):
        the_unet(torch.nn.Identity())
    with pytest.raises(InputError, match="dims 2"):
        ManipulationNetwork({"dims": 3}, (8, 8), TOKENS, WIDTH)
