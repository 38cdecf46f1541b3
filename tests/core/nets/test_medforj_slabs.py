"""The network in slabs against the network at once, under any limit; plans that keep what they promise."""

from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.handles import tapped
from radiata_core.nets import medforj, medforj_blocks, medforj_slabs
from radiata_core.nets.feature_maps import DiskMap, MemoryMap
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.nets.medforj_blocks import Residual
from radiata_core.nets.medforj_plan import estimate, least_memory, plan_of
from radiata_core.nets.medforj_steps import last_uses, steps_of

SMALL = {
    "channels": (8, 12),
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "norm_num_groups": 4,
    "num_head_channels": 4,
}
CASES = {
    "3-D": SMALL | {"spatial_dims": 3},
    "2-D, fork's epsilon, more channels": SMALL
    | {"spatial_dims": 2, "norm_eps": 1e-5, "in_channels": 2, "out_channels": 3, "num_res_blocks": 2},
    "1-D": SMALL | {"spatial_dims": 1},
    "3-D, resolution changed by residual blocks": SMALL | {"spatial_dims": 3, "resblock_updown": True},
    "2-D, attention everywhere": SMALL | {"spatial_dims": 2, "attention_levels": (True, True)},
}


def network_of(options: dict, dtype: torch.dtype = torch.float64) -> MedForJUNet:
    network = MedForJUNet(**options).to(dtype).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return network


def input_of(options: dict, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    grid = (8, 4, 6)[: options["spatial_dims"]]
    return torch.randn(2, options.get("in_channels", 1), *grid, generator=generator, dtype=dtype)


def literally(network: MedForJUNet, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The output with every module called as it is written: nothing folded, fused or remembered where a hook watches."""
    hooks = [module.register_forward_hook(lambda *_: None) for module in network.modules()]
    with torch.no_grad():
        found = network(x, steps)
    for hook in hooks:
        hook.remove()
    return found


def least(network: MedForJUNet, x: torch.Tensor) -> int:
    return least_memory(network, x.shape[2:], x.element_size())


@pytest.mark.parametrize("name", CASES)
def test_any_thickness_gives_the_same_numbers(
    name: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision; slabs of three rows end where maps, coarser maps and pairs of rows do not."""
    network, x = network_of(CASES[name]), input_of(CASES[name], generator)[:1]
    want = literally(network, x, torch.tensor(3.25))
    network.max_memory = 2**34
    with torch.no_grad():
        for rows in (8, 3, 1):
            monkeypatch.setattr(medforj_slabs, "thickness_of", lambda *_, rows=rows: rows)
            got = network(x, torch.tensor(3.25))
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_any_limit_gives_the_same_numbers(name: str, generator: torch.Generator, tmp_path: Path) -> None:
    """In double precision, down to the least that works; rows have levels of their own."""
    network, x = network_of(CASES[name]), input_of(CASES[name], generator)
    steps = torch.tensor([3.25, 998.0])
    network.spill = tmp_path
    smallest = least(network, x)
    want = literally(network, x, steps)
    with torch.no_grad():
        assert plan_of(network, x.shape[2:], 8, None).places == {}
        for limit in (2 * smallest, smallest):
            network.max_memory = limit + x[0].numel() * 8 * 4  # rows wait with their outputs
            got = network(x, steps)
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
        assert "disk" in plan_of(network, x.shape[2:], 8, smallest).places.values()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("norm_eps", [1e-6, 1e-5])
def test_equals_monai_in_slabs(norm_eps: float, generator: torch.Generator) -> None:
    """Slow for what MONAI imports; that the modules equal MONAI's is tested in `test_medforj.py`."""
    from monai.networks.nets import DiffusionModelUNet

    options = SMALL | {"spatial_dims": 3, "norm_eps": norm_eps}
    ours = network_of(options, torch.float32)
    with torch.random.fork_rng(devices=[]):
        theirs = DiffusionModelUNet(**options, in_channels=1, out_channels=1).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, steps = input_of(options, generator, torch.float32), torch.tensor([3.25, 998.0])
    with torch.no_grad():
        want = theirs(x, steps)
        for limit in (2**34, least(ours, x) + 2**18):
            ours.max_memory = limit
            assert (ours(x, steps) - want).norm() <= 1e-5 * (want - want.mean()).norm()


def test_large_calls_go_in_slabs_by_themselves_and_watched_ones_do_not(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)
    calls = []
    run = medforj_slabs.forward_in_slabs
    monkeypatch.setattr(medforj, "forward_in_slabs", lambda *a: (calls.append(1), run(*a))[1])
    monkeypatch.setattr(medforj, "LARGE", 1)
    step = torch.tensor(5.0)
    with torch.no_grad():
        network(x, step)
        assert len(calls) == 1
        with tapped(network, "down_blocks.0.resnets.0") as taps:
            network(x, step)
        assert len(calls) == 1 and taps["down_blocks.0.resnets.0"].shape[1] == 8
    network(x, step)
    assert len(calls) == 1, "gradients need everything"


def test_maps_in_memory_never_exceed_the_plan(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted while they live; slabs come on top and are part of the plan's peak."""
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)[:1]
    live, most = [0], [0]
    make, close = MemoryMap.__init__, MemoryMap.close

    def made(self: MemoryMap, *arguments: object) -> None:
        make(self, *arguments)
        live[0] += self.values.numel() * 8
        most[0] = max(most[0], live[0])

    def closed(self: MemoryMap) -> None:
        live[0] -= self.values.numel() * 8
        close(self)

    monkeypatch.setattr(MemoryMap, "__init__", made)
    monkeypatch.setattr(MemoryMap, "close", closed)
    smallest = least(network, x)
    with torch.no_grad():
        for limit in (2**34, 2 * smallest, smallest):
            most[0], network.max_memory = 0, limit
            network(x, torch.tensor(5.0))
            assert most[0] <= plan_of(network, x.shape[2:], 8, limit).peak <= limit
            assert live[0] == 0


def test_files_go_when_a_call_is_stopped(
    generator: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)[:1]
    network.max_memory, network.spill = least(network, x), tmp_path
    opened = []
    make = DiskMap.__init__

    def made(self: DiskMap, *arguments: object) -> None:
        make(self, *arguments)
        opened.append(self)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DiskMap, "__init__", made)
    monkeypatch.setattr(medforj_slabs.Run, "_out", interrupted)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        network(x, torch.tensor(5.0))
    assert opened and all(held.file.closed for held in opened)
    assert not list(tmp_path.iterdir())


def test_too_small_a_limit_says_what_is_needed(generator: torch.Generator) -> None:
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)
    smallest = least(network, x)
    assert plan_of(network, x.shape[2:], 8, smallest).peak == smallest
    with pytest.raises(InputError, match="expected at least 1 MiB for a grid of 8x4x6; got"):
        plan_of(network, x.shape[2:], 8, smallest - 1)


def test_skips_are_let_go_at_their_use() -> None:
    steps = steps_of(network_of(CASES["3-D"]))
    last = last_uses(steps, set())
    joined = [index for index, step in enumerate(steps) if len(step.inputs) == 2]
    assert [last[steps[index].inputs[1].number] for index in joined] == joined


def test_checkpointing_changes_no_gradient(generator: torch.Generator) -> None:
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)
    found = []
    for again in (False, True):
        network.checkpointing = again
        assert network.checkpointing is again
        network.zero_grad(set_to_none=True)
        with tapped(network, "up_blocks.1.resnets.0"):
            network(x, torch.tensor([3.0, 900.0])).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in network.parameters()])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_rows_computed_again_one_by_one_change_no_gradient(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every map counts as large: a block is then called with one row at a time, and gives the gradients of all."""
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)
    found, rows = [], []
    called = Residual.forward
    monkeypatch.setattr(Residual, "forward", lambda self, x, s: (rows.append(len(x)), called(self, x, s))[1])
    monkeypatch.setattr(medforj_blocks, "ROW", 1)
    for again in (False, True):
        network.checkpointing = again
        network.zero_grad(set_to_none=True)
        rows.clear()
        network(x, torch.tensor([3.0, 900.0])).square().mean().backward()
        assert set(rows) == {1 if again else 2}
        found.append([parameter.grad.clone() for parameter in network.parameters()])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_functional_transforms_see_the_operations_as_they_are_written(generator: torch.Generator) -> None:
    """`torch.func` refuses a function of autograd that is written for one gradient."""
    network, x = network_of(CASES["3-D"]), input_of(CASES["3-D"], generator)
    step, found = torch.tensor([3.0, 900.0]), []
    for again in (False, True):
        for module in network.modules():
            module.frugal = again  # checkpointing itself knows no transforms
        slopes = torch.func.grad(lambda x: network(x, step).square().sum())
        found.append(slopes(x))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.slow
def test_time_and_memory_are_foretold() -> None:
    """Where a call takes half a second, with a factor of two left to what else the machine does."""
    import time

    network = MedForJUNet()
    network.max_memory = 60 * 2**20
    foretold = estimate(network, (64, 48, 48), 1, network.max_memory)
    x = torch.zeros(1, 1, 64, 48, 48)
    with torch.no_grad():
        start = time.perf_counter()
        network(x, torch.tensor(5.0))
        seconds = time.perf_counter() - start
    assert 0.5 < foretold.seconds / seconds < 2
    assert foretold.mebibytes <= 60
