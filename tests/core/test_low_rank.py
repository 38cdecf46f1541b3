"""Low-rank additions change weights and nothing else: begin as nothing, merge exactly, and train nothing but themselves."""

import copy

import pytest
import torch
from torch import nn

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.low_rank import Adapted, adapt, adapter_state, load_adapter, merged, using
from radiata_core.nets.unet import UNet
from radiata_core.seeds import generator_of


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def small_unet(attention=(False, False)) -> UNet:
    return seeded(
        lambda: UNet(
            dims=2, channels=(8, 16), down_blocks=(0, 1), up_blocks=(1, 1), attention=attention, embedding=16
        )
    )


def filled(module: nn.Module) -> nn.Module:
    """With additions that are not zero."""
    load_adapter(
        module,
        {name: 0.3 * normal(*value.shape, seed=7) for name, value in adapter_state(module).items()},
    )
    return module


LAYERS = {
    "linear": (lambda: nn.Linear(5, 7), (2, 5)),
    "strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (2, 4, 9, 8)),
    "grouped": (lambda: nn.Conv3d(4, 6, (3, 1, 3), groups=2, dilation=2), (1, 4, 8, 5, 8)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 9)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_addition_is_a_change_of_the_weight_of_low_rank(kind: str) -> None:
    """By hand: the same layer with W + (alpha/r) U V and the shifted bias."""
    make, shape = LAYERS[kind]
    layer, x = seeded(make), normal(*shape, seed=3)
    by_hand = copy.deepcopy(layer)
    before = layer(x)
    adapt(layer, rank=2, alpha=3.0)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    filled(layer)
    addition = layer.parametrizations["weight"][0]
    change = 1.5 * addition.up[0] @ addition.down[0]
    assert torch.linalg.matrix_rank(change) == 2
    with torch.no_grad():
        by_hand.weight += change.view_as(by_hand.weight)
        by_hand.bias += layer.parametrizations["bias"][0].shift[0]
    torch.testing.assert_close(layer(x), by_hand(x))


def test_merged_network_is_plain_and_gives_the_same_bits() -> None:
    net = small_unet((False, True))
    for parameter in net.parameters():
        if not parameter.any():  # blocks that start at zero would hide what is before them
            nn.init.normal_(parameter, std=0.05, generator=generator_of(1))
    keys, plain, x, level = net.state_dict().keys(), copy.deepcopy(net), normal(2, 1, 8, 8), torch.tensor(0.3)
    adapt(net, rank=4, experts=2)
    filled(net)
    for expert in (0, 1):
        with using(net, expert):
            expected = net(x, level)
        single = merged(net, expert)
        assert single.state_dict().keys() == keys
        assert all(parameter.requires_grad for parameter in single.parameters())
        torch.testing.assert_close(single(x, level), expected, rtol=0, atol=0)
        assert not torch.allclose(expected, plain(x, level))
    torch.testing.assert_close(merged(net, None)(x, level), plain(x, level), rtol=0, atol=0)


def test_only_additions_learn() -> None:
    net = seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)))
    frozen = {name: value.clone() for name, value in net.state_dict().items()}
    adapt(net, rank=2)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        net(normal(5, 3)).square().sum().backward()
        optimiser.step()
    assert all(value.any() for value in adapter_state(net).values())
    for name, value in merged(net, None).state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_the_block_that_uses_an_expert_leaves_the_former_one_in_use() -> None:
    net = seeded(lambda: nn.Linear(3, 2))
    adapt(net, rank=1, experts=3)
    filled(net)
    x = normal(4, 3)
    with using(net, 2):
        third = net(x)
        with using(net, None):
            base = net(x)
        assert torch.equal(net(x), third)
    assert not torch.allclose(net(x), third)
    assert not torch.allclose(base, third)


def test_additions_travel_alone_and_a_checkpoint_names_them(tmp_path) -> None:
    model, x = Adapted(small_unet(), rank=2, alpha=4.0), normal(1, 1, 8, 8)
    filled(model)
    other = Adapted(small_unet(), rank=2, alpha=4.0)
    load_adapter(other, adapter_state(model))
    torch.testing.assert_close(other(x, torch.tensor(0.1)), model(x, torch.tensor(0.1)), rtol=0, atol=0)
    save_model(tmp_path / "adapted.safetensors", model, metadata={})
    loaded = load_model(tmp_path / "adapted.safetensors").denoiser
    torch.testing.assert_close(loaded(x, torch.tensor(0.1)), model(x, torch.tensor(0.1)), rtol=0, atol=0)


def test_what_cannot_be_adapted_is_refused_in_one_line() -> None:
    net = seeded(lambda: nn.Linear(3, 2))
    with pytest.raises(InputError, match="expected rank >= 1"):
        adapt(net, rank=0)
    with pytest.raises(InputError, match="got none"):
        adapt(nn.ReLU())
    adapt(net, rank=1)
    with pytest.raises(InputError, match="without additions"):
        adapt(net)
    with pytest.raises(InputError, match=r"expert in 0\.\.0; got 1"), using(net, 1):
        pass
    with pytest.raises(InputError, match="same options"):
        load_adapter(net, {})
