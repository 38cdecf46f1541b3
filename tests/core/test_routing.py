"""Routing: the formula on every residual block of five networks, and the windows it is made of."""

import copy

import pytest
import torch
from backbones import MAKERS, answer, backbone, picture, told
from torch import nn

from radiata_core.errors import InputError
from radiata_core.handles import first_of
from radiata_core.routing import Routed, channel_window, random_channels, routed
from radiata_core.sites import sites_of
from radiata_core.specs import describe, rebuild

LEVELS = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64)


def shortcut(block):
    """The block with the end of its branch at zero: what is left is its shortcut."""
    bare = copy.deepcopy(block)
    ends = [bare.image.out, bare.image.mlp[2]] if hasattr(bare, "image") else [bare.conv2]
    for end in ends:
        for parameter in end.parameters():
            nn.init.zeros_(parameter)
    return bare


@pytest.mark.parametrize("name", MAKERS)
def test_every_block_is_its_shortcut_plus_its_branch_of_the_masked_input(name):
    """y = s(x) + f(m x), s and f taken apart by setting the branch's last layer to zero."""
    network, x = backbone(name), picture(name)
    met, last = [], []

    def before(module, args):
        last.append([part.clone() if isinstance(part, torch.Tensor) else part for part in args])

    def after(module, args, output):
        met.append((module, last.pop(), first_of(output).clone()))

    sites = sites_of(network, "residual")
    modules = dict(network.named_modules())
    hooks = [modules[site].register_forward_pre_hook(before) for site in sites]
    with routed(network, shared=0.5, power=1.0):
        hooks += [modules[site].register_forward_hook(after) for site in sites]
        answer(network, x, told(name))
    [hook.remove() for hook in hooks]
    assert len(met) == len(sites)
    channels = {modules[s.name]: (s.channels, s.axis) for s in sites.values()}
    for module, (given, *rest), output in met:
        width, axis = channels[module]
        mask = channel_window(LEVELS, width, shared=0.5, power=1.0).double()
        mask = mask[:, None] if axis == -1 else mask.reshape(3, width, *[1] * (given.ndim - 2))
        assert 0.3 < mask.mean() < 0.7
        with torch.no_grad():
            bare = shortcut(module)
            whole, masked, plain = (
                first_of(part(z, *rest))
                for part, z in ((bare, given), (bare, given * mask), (module, given * mask))
            )
        torch.testing.assert_close(output, whole + plain - masked)


def test_the_window_moves_as_the_power_says():
    """w = 8 of 10 channels; i = round(2 l^4): the window moves where l^4 crosses 1/4 and 3/4."""
    level = torch.tensor([0.0, 0.7, 0.72, 0.92, 0.94, 1.0])
    assert 0.7**4 < 0.25 < 0.72**4 and 0.92**4 < 0.75 < 0.94**4
    starts = channel_window(level, 10).argmax(1)
    assert starts.tolist() == [0, 0, 1, 1, 2, 2]
    assert channel_window(level, 10).sum(1).tolist() == [8] * 6


def test_groups_are_never_cut():
    masks = channel_window(torch.linspace(0, 1, 50), 32, shared=0.5, power=1.0, group=4)
    assert set(masks.reshape(50, 8, 4).mean(-1).unique().tolist()) == {0.0, 1.0}
    assert len(masks.unique(dim=0)) == 5


def test_random_channels_are_as_many_and_nothing_else():
    """Two neighbouring levels share what chance lets them: 0.8^2 of the channels, binomially."""
    masks = random_channels(0.8, seed=3)
    found = masks(torch.linspace(0, 1, 1000), 50)
    assert found.sum(1).tolist() == [40] * 1000
    shared = (found[1:] * found[:-1]).sum(1).mean() / 50
    assert abs(shared - 0.64) < 0.005  # 7 standard errors of the hypergeometric draw
    assert torch.equal(found, masks(torch.linspace(0, 1, 1000), 50))
    assert not torch.equal(found, random_channels(0.8, seed=4)(torch.linspace(0, 1, 1000), 50))


def test_gradients_leave_masked_channels_alone():
    """The first convolution of a block learns nothing of channels that it was not shown."""
    network = backbone("unet")
    with routed(network, shared=0.5, power=1.0):
        network(picture("unet"), torch.full((3,), -60.0).double()).square().sum().backward()
    seen = network.up[0].blocks[0].conv1.weight.grad.abs().sum((0, 2, 3))
    # Pure noise: the last half of the channels. Group norm mixes what it is given, zeros included.
    norm = network.up[0].blocks[0].norm1.weight.grad
    assert (norm[:8] == 0).all() and (norm[8:] != 0).all() and seen.shape == (16,)


def test_a_network_that_is_always_routed_is_rebuilt_from_its_card():
    x, level, plain = picture("unet"), told("unet"), backbone("unet")
    wrapped = Routed(backbone("unet"), shared=0.5, power=1.0)
    with torch.random.fork_rng():
        again = rebuild(describe(wrapped)).double()
    again.load_state_dict(wrapped.state_dict())
    with routed(plain, shared=0.5, power=1.0):
        wanted = answer(plain, x, level)
    assert torch.equal(answer(wrapped, x, level), wanted)
    assert torch.equal(answer(again, x, level), wanted)
    assert not torch.equal(answer(plain, x, level), wanted)


@pytest.mark.parametrize(
    "options", [{"shared": 0.0}, {"shared": 1.1}, {"power": 0.0}, {"group": 3}, {"shared": float("nan")}]
)
def test_bad_input_is_one_line(options):
    with pytest.raises(InputError, match="expected shared in") as caught:
        channel_window(torch.zeros(1), 16, **options)
    assert "\n" not in str(caught.value)
