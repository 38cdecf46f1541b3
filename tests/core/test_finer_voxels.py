"""Finer voxels: the dilated convolution of the paper, the trained grid below it, and nothing left behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from backbones import MAKERS, answer, backbone, told
from torch import nn

from radiata_core.errors import InputError
from radiata_core.finer_voxels import finer, resolution_changes
from radiata_core.handles import tapped
from radiata_core.nets.unet import UNet
from radiata_core.routing import routed
from radiata_core.seeds import generator_of

NAMES = [name for name in MAKERS if name not in ("mmdit", "transformer")]


def fine_picture(name, rows=3):
    grid = (16, 16, 16) if name == "unet-3d" else (32, 32)
    return torch.randn(rows, 1, *grid, generator=generator_of(6), dtype=torch.float64)


class Halving(nn.Module):
    """One strided convolution and its up-sampling, in any dimension: what the paper changes, and nothing else."""

    def __init__(self, dims, kernel, padding):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.down = conv(1, 2, kernel, stride=2, padding=padding)
        self.up = conv(2, 1, 1)

    def forward(self, x, noise_level):
        return F.interpolate(self.up(self.down(x)), scale_factor=2.0, mode="nearest")


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (2, 0)])
@pytest.mark.parametrize("ratio", [2, 3])
def test_it_is_the_convolution_with_stride_dilation_and_padding_times_the_ratio(dims, kernel, padding, ratio):
    """F.conv with stride 2r, dilation r and padding r times its own, then nearest interpolation by 2r."""
    with torch.random.fork_rng():
        network = Halving(dims, kernel, padding).double()
    x = torch.randn(2, 1, *[12] * dims, generator=generator_of(1), dtype=torch.float64)
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    down = conv(x, network.down.weight, network.down.bias, 2 * ratio, ratio * padding, ratio)
    wanted = F.interpolate(network.up(down), scale_factor=2.0 * ratio, mode="nearest")
    with finer(network, ratio, 0.0, sites=[("down", "up")]):
        torch.testing.assert_close(network(x, torch.zeros(2)), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_deep_levels_see_the_grid_they_know(name):
    network, x = backbone(name), fine_picture(name)
    down, _ = resolution_changes(network)[0]
    with tapped(network, down) as coarse:
        answer(network, x[(..., *[slice(None, None, 2)] * (x.ndim - 2))], told(name))
        known = coarse[down].shape
        with finer(network, 2, 0.0):
            found = answer(network, x, told(name))
            assert coarse[down].shape == known
    assert found.shape == x.shape and found.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_into_the_change_is_every_second_cell_of_what_went_in(name):
    network, x = backbone(name), fine_picture(name)
    met = []
    down = network.get_submodule(resolution_changes(network)[0][0])
    hook = down.register_forward_pre_hook(lambda module, args: met.append(args[0].clone()))
    answer(network, x, told(name))
    with finer(network, 2, 0.0):
        answer(network, x, told(name))
    hook.remove()
    assert torch.equal(met[1], met[0][(..., *[slice(None, None, 2)] * (x.ndim - 2))])


@pytest.mark.parametrize("name", NAMES)
def test_ratio_1_and_leaving_are_the_network_to_the_bit(name):
    network, x, level = backbone(name), fine_picture(name), told(name)
    before, state = answer(network, x, level), copy.deepcopy(network.state_dict())
    with finer(network, 1, 0.0):
        assert torch.equal(answer(network, x, level), before)
    with finer(network, 2, 0.0):
        assert not torch.allclose(answer(network, x, level), before)
        assert network.state_dict().keys() == state.keys()
    assert torch.equal(answer(network, x, level), before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert "forward" not in vars(network)


@pytest.mark.parametrize("name", NAMES)
def test_rows_above_the_level_are_changed_and_the_others_are_not(name):
    """Levels 0.1, 0.5 and 0.95 with until 0.4: a batch is its rows, each alone."""
    network, x, level = backbone(name), fine_picture(name), told(name)
    plain = answer(network, x, level)
    with finer(network, 2, 0.4):
        mixed = answer(network, x, level)
        alone = torch.cat([answer(network, x[i : i + 1], level[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(mixed, alone)
    torch.testing.assert_close(mixed[:1], plain[:1])
    assert not torch.allclose(mixed[1], plain[1]) and not torch.allclose(mixed[2], plain[2])


@pytest.mark.parametrize("name", ["unet", "medforj"])
@pytest.mark.parametrize("inner_first", [True, False])
def test_it_composes_with_routing_in_either_order(name, inner_first):
    network, x, level = backbone(name), fine_picture(name), told(name)
    makers = [lambda: routed(network, shared=0.5, power=1.0), lambda: finer(network, 2, 0.4)]
    if inner_first:
        makers.reverse()
    plain = answer(network, x, level)
    with makers[0](), makers[1]():
        found = answer(network, x, level)
        alone = torch.cat([answer(network, x[i : i + 1], level[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(found, alone)
    assert not torch.allclose(found, plain)
    assert torch.equal(answer(network, x, level), plain)


def test_two_of_them_are_undone_in_either_order():
    network, x, level = backbone("unet"), fine_picture("unet"), told("unet")
    plain = answer(network, x, level)
    first, second = finer(network, 2, 0.9), finer(network, 2, 0.3)
    answer(network, x, level)
    second.remove()
    first.remove()
    assert torch.equal(answer(network, x, level), plain)


def test_a_copy_keeps_it_and_calls_itself():
    network, x, level = backbone("unet"), fine_picture("unet"), told("unet")
    with finer(network, 2, 0.4):
        other = copy.deepcopy(network)
        wanted = answer(network, x, level)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(answer(other, x, level), wanted)


def test_one_axis_alone(generator):
    """Thick slices: only the axis through them is finer, and the means of two voxels are what `lowpass` takes."""
    network, level = backbone("unet"), told("unet")
    x = torch.randn(3, 1, 16, 32, generator=generator, dtype=torch.float64)
    met = []
    with finer(network, (1, 2), 0.0, lowpass=True):
        hook = network.shrink[0].register_forward_pre_hook(lambda module, args: met.append(args[0]))
        answer(network, x, level)
        hook.remove()
    hook = network.shrink[0].register_forward_pre_hook(lambda module, args: met.append(args[0]))
    answer(network, x, level)
    hook.remove()
    torch.testing.assert_close(met[0], 0.5 * (met[1][..., ::2] + met[1][..., 1::2]))


def test_a_network_that_knows_its_positions_runs_on_finer_voxels_of_its_field_of_view(generator):
    """Learned positions meet the grid they were learned on, or are interpolated; without the handle the grid is refused."""
    with torch.random.fork_rng():
        network = UNet(dims=2, channels=(8, 16), down_blocks=(0, 1), up_blocks=(1, 1), attention=(False, False),
                       shape=(8, 12))  # fmt: skip
    network.positions[0].data.normal_(generator=generator)
    x = torch.randn(1, 1, 16, 24, generator=generator)
    with finer(network, 2, 1.0), tapped(network, "shrink.0") as taps:
        network(x, torch.zeros(1))
        assert taps["shrink.0"].shape[2:] == (4, 6)
    with pytest.raises(InputError, match="knows its positions"):
        network(x, torch.zeros(1))
    with finer(network, 2, 0.0), tapped(network, "shrink.0") as taps:
        network(x, torch.zeros(1))
        assert taps["shrink.0"].shape == network.positions[0].shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, x: finer(n, 0), "ratios >= 1"),
        (lambda n, x: finer(n, 2, 1.5), "until in"),
        (lambda n, x: finer(n, 2, sites=[("shrink.9", "grow.0")]), "shrink.9"),
        (lambda n, x: resolution_changes(backbone("mmdit")), "halves and doubles"),
        (lambda n, x: finer(n, (2, 2, 2), 0.0) and answer(n, x, told("unet")), "one ratio"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(backbone("unet"), fine_picture("unet"))
    assert "\n" not in str(caught.value)


def test_a_grid_that_does_not_divide_is_refused():
    network = backbone("unet")
    with finer(network, 4, 0.0), pytest.raises(InputError, match="divide by 8x8"):
        answer(network, fine_picture("unet")[..., :8], told("unet"))
