"""Handles on five networks of three libraries: nothing is left behind, they compose, and every row has its own level."""

import copy
import threading

import pytest
import torch
from backbones import MAKERS, TOLD_STEPS, answer, backbone, picture, told
from torch import nn

from radiata_core.attention_windows import windowed
from radiata_core.denoisers import EDMDenoiser, MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.handles import attached, level_of_log_snr, level_of_step, tapped
from radiata_core.paths import LinearPath, VPPath
from radiata_core.routing import routed
from radiata_core.sites import Site, sites_of

HANDLES = {
    "routed": lambda net: routed(net, shared=0.5, power=1.0),
    "windowed": lambda net: windowed(net, 2),
    "both": lambda net: (routed(net, shared=0.5, power=1.0), windowed(net, 2))[-1],
}


@pytest.mark.parametrize("name", MAKERS)
def test_after_a_handle_all_is_as_before_to_the_bit(name):
    network, x, level = backbone(name), picture(name), told(name)
    keys, state = list(network.state_dict()), torch.get_rng_state()
    before = answer(network, x, level)
    for change in (lambda: routed(network, shared=0.5), lambda: windowed(network, 2)):
        with change():
            assert list(network.state_dict()) == keys
            assert not torch.allclose(answer(network, x, level), before, atol=1e-6)
        assert torch.equal(answer(network, x, level), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("name", MAKERS)
def test_neutral_settings_change_nothing(name):
    """To the bit; but for the network that computes in another order, to rounding, what a hook looks at."""
    network, x, level = backbone(name), picture(name), told(name)
    before = answer(network, x, level)
    with routed(network, shared=1.0), windowed(network, 1), tapped(network, next(iter(sites_of(network)))):
        found = answer(network, x, level)
    rounding = 1e-14 if name == "medforj" else 0.0
    torch.testing.assert_close(found, before, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_have_levels_of_their_own(name):
    """A batch of different levels is a loop over its rows."""
    network, x, level = backbone(name), picture(name), told(name)
    with routed(network, shared=0.5, power=1.0), windowed(network, 2):
        together = answer(network, x, level)
        for row in range(3):
            alone = answer(network, x[row : row + 1], level[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("name", MAKERS)
def test_handles_commute(name):
    network, x, level = backbone(name), picture(name), told(name)
    site = list(sites_of(network, "residual"))[-1]
    with routed(network, shared=0.5), windowed(network, 2), tapped(network, site) as one:
        first = answer(network, x, level)
    with tapped(network, site) as other, windowed(network, 2), routed(network, shared=0.5):
        second = answer(network, x, level)
    assert torch.equal(first, second)
    read = [taps[site] for taps in (one, other)]
    assert read[0].ndim == x.ndim and torch.equal(read[0], read[1])


def test_the_level_is_t_on_the_linear_path():
    t = torch.tensor([0.0, 0.1, 0.5, 0.999, 1.0], dtype=torch.float64)
    torch.testing.assert_close(level_of_log_snr(LinearPath().log_snr(t)), t)
    torch.testing.assert_close(
        level_of_step(torch.tensor([0, 499, 999])), torch.tensor([0.001, 0.5, 1.0]).double()
    )


@pytest.mark.parametrize("name", ["unet", "mmdit", "monai"])
def test_a_hook_is_told_the_level_of_its_row(name):
    """Whatever the network calls it, positional or by name, scalar or one a row."""
    network, x = backbone(name), picture(name)
    word = "timesteps" if name in TOLD_STEPS else "noise_level"
    site, seen = next(iter(sites_of(network))), []
    with attached(network, {site: (lambda call, *rest: seen.append(call), None)}), torch.no_grad():
        network(x, told(name))
        network(x, **{word: told(name, (0.3,) * 3)})
    torch.testing.assert_close(seen[0].level, torch.tensor([0.1, 0.5, 0.95]).double())
    torch.testing.assert_close(seen[1].level, torch.full((3,), 0.3).double())
    assert seen[0].grid == (16, 16)


@pytest.mark.parametrize("path", [LinearPath(), VPPath()])
@pytest.mark.parametrize("kind", ["network", "edm", "step"])
def test_the_level_of_a_denoiser_is_that_of_its_state(path, kind):
    """sigma/(alpha + sigma) of the path, whatever the denoiser tells its network; the step counts t itself."""
    t, x = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), picture("unet")
    network = backbone("unet")
    denoiser = {
        "network": lambda: NetworkDenoiser(network, path, "v"),
        "edm": lambda: EDMDenoiser(network, path),
        "step": lambda: NetworkDenoiser(network, path, "v", MedForJInput()),
    }[kind]()
    seen = []
    with attached(denoiser, {"network.head": (lambda call, *rest: seen.append(call), None)}), torch.no_grad():
        denoiser.predict(x, t)
    c = path.coefficients(t)
    wanted = t + 0.001 if kind == "step" else c.sigma / (c.alpha + c.sigma)
    torch.testing.assert_close(seen[0].level, wanted)


def test_taps_read_what_modules_answer_with_gradients():
    network, x = backbone("mmdit"), picture("mmdit")
    with tapped(network, "blocks.1", "embed_patch") as taps:
        network(x, told("mmdit"))
    assert taps["blocks.1"].shape == (3, 32, 8, 8)
    taps["blocks.1"].sum().backward()
    assert network.blocks[1].image.qkv.weight.grad.abs().max() > 0
    assert network.blocks[2].image.qkv.weight.grad is None
    # Tokens lie on the grid as patches do: the token of a changed corner is the corner cell.
    other = x.clone()
    other[:, :, :2, -2:] += 1
    with tapped(network, "embed_patch") as taps:
        network(x, told("mmdit"))
        first = taps["embed_patch"]
        network(other, told("mmdit"))
    changed = (taps["embed_patch"] - first).abs().sum(-1)[0].unflatten(0, (8, 8)).nonzero()
    assert changed.tolist() == [[0, 7]]


def test_threads_do_not_meet():
    """Two threads share a routed network, each at its own level."""
    network, x = backbone("unet"), picture("unet")
    with routed(network, shared=0.5, power=1.0), windowed(network, 2):
        wanted = {level: answer(network, x, told("unet", (level,) * 3)) for level in (0.1, 0.9)}
        wrong = []

        def work(level):
            for _ in range(10):
                if not torch.equal(answer(network, x, told("unet", (level,) * 3)), wanted[level]):
                    wrong.append(level)

        threads = [threading.Thread(target=work, args=(level,)) for level in wanted]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert wrong == []


def test_an_error_inside_leaves_nothing_behind():
    network, x, level = backbone("unet"), picture("unet"), told("unet")
    with windowed(network, 2), routed(network, shared=0.5):
        good = answer(network, x, level)
        broken = network.up[-1].attention[0].register_forward_pre_hook(lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            network(x, level)
        broken.remove()
        assert torch.equal(answer(network, x, level), good)
    torch.nn.functional.scaled_dot_product_attention(*(torch.zeros(1, 1, 3, 2) for _ in range(3)))


@pytest.mark.parametrize("name", ["unet", "medforj"])
def test_a_copy_keeps_its_handles_and_its_own_weights(name):
    """An average of the weights is a copy: what it routes is its own shortcut."""
    network, x, level = backbone(name), picture(name), told(name)
    with routed(network, shared=0.5), windowed(network, 2):
        twin = copy.deepcopy(network)
        assert torch.equal(answer(twin, x, level), answer(network, x, level))
        with torch.no_grad():
            [parameter.mul_(0.5) for parameter in twin.parameters()]
        halved = answer(twin, x, level)
    with torch.no_grad():
        [parameter.mul_(0.5) for parameter in network.parameters()]
    with routed(network, shared=0.5), windowed(network, 2):
        assert torch.equal(answer(network, x, level), halved)


class Own(nn.Module):
    """A user's network, which nobody here knows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, sigma):
        h = self.first(x)
        return h + self.second(h)


def test_bad_input_is_one_line():
    network = backbone("unet")
    with torch.random.fork_rng():
        own = Own()
    for call, message in [
        (lambda: sites_of(own), "known here; got Own"),
        (lambda: routed(network, sites=["nowhere"]), "got 'nowhere'"),
        (lambda: routed(network, sites=[Site("nowhere", "residual", 4)]), "'nowhere'"),
        (lambda: routed(own, sites=[Site("second", "residual", 8)]), "told noise_level"),
        (lambda: routed(own, sites=[Site("second", "residual", 8)], told="sigma"), "Give level="),
        (lambda: Site("x", "block", 3), "residual or attention"),
        (lambda: tapped(network, "nowhere").__enter__(), "got 'nowhere'"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    with routed(network, shared=0.5), pytest.raises(InputError, match="a block alone"):
        network.up[1].blocks[0](torch.zeros(1, 32, 4, 4).double(), torch.zeros(1, 256).double())


def test_a_removed_handle_is_removed_once():
    network = backbone("unet")
    handle, other = routed(network, shared=0.5), routed(network, shared=0.9)
    handle.remove()
    handle.remove()
    x, level = picture("unet"), told("unet")
    alone = answer(network, x, level)
    other.remove()
    with routed(network, shared=0.9):
        assert torch.equal(answer(network, x, level), alone)


def test_blocks_that_are_computed_again_are_computed_with_their_handles():
    """Gradients of a routed, windowed transformer do not depend on checkpointing."""
    gradients = []
    for checkpointing in (False, True):
        network = backbone("transformer").train()
        network.checkpointing = checkpointing
        with routed(network, shared=0.5, power=1.0), windowed(network, 2):
            network(picture("transformer"), told("transformer")).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
