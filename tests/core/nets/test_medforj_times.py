"""What blocks are told at remembered noise levels is what they would be told without memory, whatever happens to weights."""

import copy
from collections.abc import Callable

import pytest
import torch

from radiata_core.handles import tapped
from radiata_core.nets import medforj, medforj_times
from radiata_core.nets.medforj import MEDFORJ, MedForJUNet
from radiata_core.nets.medforj_times import TimeTable

SMALL = {
    "channels": (16, 32),
    "num_res_blocks": 1,
    "attention_levels": (False, False),
    "norm_num_groups": 8,
    "spatial_dims": 2,
}
LEVELS = torch.tensor([999.0, 500.5, 3.25])


def network_of(options: dict) -> MedForJUNet:
    """In evaluation mode, with no tensor zero."""
    network = MedForJUNet(**options).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def plain(network: MedForJUNet, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The output without memory: in training mode, which changes nothing else here."""
    with torch.no_grad():
        return copy.deepcopy(network).train()(x, levels)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many levels were worked out, one entry a time."""
    counts: list[int] = []
    rows = medforj_times._rows
    monkeypatch.setattr(
        medforj_times, "_rows", lambda network, values: (counts.append(len(values)), rows(network, values))[1]
    )
    return counts


@pytest.mark.parametrize("options", [SMALL, SMALL | {"resblock_updown": True, "spatial_dims": 1}])
@pytest.mark.parametrize("in_slabs", [False, True])
def test_a_prepared_schedule_changes_no_number(
    options: dict,
    in_slabs: bool,
    generator: torch.Generator,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of(options)
    monkeypatch.setattr(medforj, "LARGE", 1 if in_slabs else 2**40)
    network.prepare_times(LEVELS)
    x = torch.randn(1, 1, *(8, 12)[: options["spatial_dims"]], generator=generator)
    for level in LEVELS:
        with torch.no_grad():
            torch.testing.assert_close(network(x, level), plain(network, x, level), rtol=1e-6, atol=1e-6)
    assert computed == [3], "one pass for the whole schedule"


def test_rows_have_levels_of_their_own_and_repeats_are_found(
    generator: torch.Generator, computed: list[int]
) -> None:
    network = network_of(SMALL)
    x, levels = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([7.0, 800.0, 7.0])
    with torch.no_grad():
        first = network(x, levels)
        torch.testing.assert_close(first, plain(network, x, levels), rtol=1e-5, atol=1e-5)
        assert torch.equal(network(x, levels), first) and computed == [2]
        torch.testing.assert_close(network(x[1:2], levels[1:2]), first[1:2], rtol=1e-5, atol=1e-5)
        network(x, torch.tensor([7.0, 800.0, 1.0]))
    assert computed == [2, 1]


def test_the_released_network_is_told_the_same_to_the_bit() -> None:
    """A level's row is the product that the layers give for it alone, however many are worked out with it."""
    network = MedForJUNet(**MEDFORJ | {"channels": (16, 32, 64), "attention_levels": (False,) * 3}).eval()
    network.prepare_times(LEVELS)
    found = network._times.shifts(network, LEVELS)
    for row, level in enumerate(LEVELS):
        with torch.no_grad():
            h = network.time_embed(medforj.sinusoid(level[None], 16))
            want = network.middle_block.resnet_1.time_emb_proj(torch.nn.functional.silu(h))[0]
        got = found[row].rows[found.places[network.middle_block.resnet_1.time_emb_proj]]
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)
        alone = TimeTable()
        alone.prepare(network, level[None])
        assert torch.equal(alone.shifts(network, level[None]).rows[0], found.rows[row])


def stepped(network: MedForJUNet) -> None:
    with torch.no_grad():
        network.down_blocks[0].resnets[0].time_emb_proj.bias.add_(1.0)


def loaded(network: MedForJUNet) -> None:
    network.load_state_dict({name: 1.1 * tensor for name, tensor in network.state_dict().items()})


def replaced(network: MedForJUNet) -> None:
    network.time_embed[0].weight = torch.nn.Parameter(2 * network.time_embed[0].weight.detach())


def written_over(network: MedForJUNet) -> None:
    network.time_embed[0].weight.data.mul_(2.0)
    network.eval()


def doubled(network: MedForJUNet) -> None:
    network.double()


@pytest.mark.parametrize("change", [stepped, loaded, replaced, written_over, doubled])
def test_nothing_is_remembered_of_older_weights(
    change: Callable[[MedForJUNet], None], generator: torch.Generator
) -> None:
    network, x = network_of(SMALL), torch.randn(1, 1, 8, 8, generator=generator)
    network.prepare_times(LEVELS)
    change(network)
    x = x.to(network.conv_in.conv.weight.dtype)
    with torch.no_grad():
        got = network(x, LEVELS[1])
    torch.testing.assert_close(got, plain(network, x, LEVELS[1]), rtol=1e-5, atol=1e-5)
    assert got.dtype == x.dtype


def test_training_gradients_and_covariates_go_without(
    generator: torch.Generator, computed: list[int]
) -> None:
    network = network_of(SMALL | {"covariates": 2})
    x, level = torch.randn(1, 1, 8, 8, generator=generator), LEVELS[:1]
    network(x, level).sum().backward()
    assert network.time_embed[0].weight.grad.abs().sum() > 0
    with torch.no_grad():
        network(x, level, torch.ones(1, 2))
        network.train()
        network(x, level)
    assert computed == []


def test_a_watched_layer_is_called(generator: torch.Generator, computed: list[int]) -> None:
    network, x = network_of(SMALL), torch.randn(1, 1, 8, 8, generator=generator)
    with torch.no_grad(), tapped(network, "middle_block.resnet_1.time_emb_proj") as taps:
        network(x, LEVELS[0])
    assert taps["middle_block.resnet_1.time_emb_proj"].shape == (1, 32) and computed == []


def test_a_copy_starts_anew_and_old_levels_are_let_go(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medforj_times, "CAPACITY", 2)
    network, x = network_of(SMALL), torch.randn(1, 1, 8, 8, generator=generator)
    with torch.no_grad():
        for level in (1.0, 2.0, 1.0, 3.0):
            network(x, torch.tensor(level))
    assert list(network._times.rows) == [1.0, 3.0], "the latest used stay"
    assert not copy.deepcopy(network)._times.rows
    network.prepare_times(torch.arange(5.0))
    assert len(network._times.rows) >= 5, "a schedule stays whole"
