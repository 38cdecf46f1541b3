"""Maps in bfloat16 with statistics in float32: near float32 where the device can, and never used where it can not."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.nets import medforj_slabs, medforj_storage
from radiata_core.nets.feature_maps import MemoryMap, group_affine
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.nets.medforj_plan import DEVICE_SLAB, SLAB, least_memory, plan_of
from radiata_core.nets.medforj_storage import BOUND, trial

SMALL = {
    "channels": (8, 16),
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "norm_num_groups": 4,
    "num_head_channels": 8,
}
STEP = torch.tensor([3.25, 998.0])


def network_of(options: dict) -> MedForJUNet:
    """With no tensor zero, each keeping the size of what it is given."""
    network = MedForJUNet(**options).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            parameter.add_(1.0 if parameter.ndim < 2 else 0.0)
    return network


def output(network: MedForJUNet, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(x, STEP[: len(x)])


def apart(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / (want - want.mean()).norm())


@pytest.mark.parametrize(
    "options",
    [
        SMALL | {"spatial_dims": 3},
        SMALL | {"spatial_dims": 2, "resblock_updown": True, "in_channels": 2},
        SMALL | {"spatial_dims": 1},
    ],
    ids=["3-D", "2-D, residual blocks between grids", "1-D"],
)
def test_output_is_near_float32(options: dict, generator: torch.Generator) -> None:
    """A dozen roundings of 2⁻⁹ one after the other, and the limit of memory changes roundings only."""
    network, x = (
        network_of(options),
        torch.randn(
            2, options.get("in_channels", 1), *(8, 4, 6)[: options["spatial_dims"]], generator=generator
        ),
    )
    want = output(network, x)
    network.storage = torch.bfloat16
    got = output(network, x)
    assert got.dtype == torch.float32
    assert 1e-5 < apart(got, want) < BOUND
    smallest = least_memory(network, x.shape[2:], 2)
    assert "disk" in plan_of(network, x.shape[2:], 2, smallest).places.values()
    network.max_memory = smallest + 2 * x.numel() * 8
    assert apart(output(network, x), want) < BOUND


@pytest.mark.parametrize("naive", [False, True])
def test_statistics_survive_a_large_mean(naive: bool, generator: torch.Generator) -> None:
    """Mean 100, deviation 1, where bfloat16's neighbours are 1/2 apart: ours to 1e-3, bfloat16's own not to 5e-2."""
    values = (100.2 + torch.randn(16, 8, 8, 8, generator=generator)).bfloat16()
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6)
    want = norm.double()(values.double().movedim(-1, 0)[None])[0].movedim(0, -1)
    if naive:
        groups = values.unflatten(-1, (4, 2))
        mean = groups.mean((0, 1, 2, 4), keepdim=True)
        variance = (groups - mean).square().mean((0, 1, 2, 4), keepdim=True)
        got = ((groups - mean) * (variance + 1e-6).rsqrt()).flatten(-2)
        assert (got.double() - want).abs().max() > 5e-2
        return
    held = MemoryMap(values.shape, torch.bfloat16, values.device)
    for lo in range(0, 16, 3):
        held.write(lo, values[lo : lo + 3])
    every = values.double().flatten(0, 2)
    torch.testing.assert_close(held.moments.mean, every.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(held.moments.variance, every.var(0, correction=0), rtol=1e-5, atol=0)
    scale, shift = (v.float() for v in group_affine(norm, [held.moments]))
    got = held.read(0, 16).float().mul_(scale).add_(shift)
    assert (got.double() - want).abs().max() < 1e-3


def test_maps_take_half() -> None:
    """The full head's: what is beside the maps (slabs, copies of weights) stays as it is."""
    with torch.device("meta"):
        network = MedForJUNet()
    assert plan_of(network, (192, 224, 192), 4).slab == DEVICE_SLAB > SLAB
    big, half = (plan_of(network, (192, 224, 192), item).peak for item in (4, 2))
    maps = 2 * (big - half)
    assert maps > 2.5 * 2**30 and math.isclose(big - maps, half - maps / 2, rel_tol=1e-9)


def test_this_machine_passes_the_trial() -> None:
    assert all(trial(torch.device("cpu"), dims) is None for dims in (1, 2, 3))


@pytest.mark.parametrize("fault", ["scaled", "one voxel", "not a number", "no kernel"])
def test_a_broken_convolution_is_found_and_float32_used(
    fault: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = network_of(SMALL | {"spatial_dims": 2}), torch.randn(1, 1, 8, 8, generator=generator)
    want = output(network, x)
    right = medforj_storage.convolved

    def broken(slab: torch.Tensor, *arguments: object) -> torch.Tensor:
        made = right(slab, *arguments)
        if slab.dtype != torch.bfloat16:
            return made
        if fault == "no kernel":
            raise RuntimeError("not implemented for 'BFloat16'\nmore")
        if fault == "one voxel":
            made[0, 0, 0] += made.abs().max() / 8
            return made
        return made * (1.05 if fault == "scaled" else torch.nan)

    monkeypatch.setattr(medforj_storage, "convolved", broken)
    network.storage = torch.bfloat16
    with pytest.warns(UserWarning, match="float32 maps on cpu: in bfloat16 a convolution") as found:
        got = output(network, x)
    assert len(found) == 1 and "\n" not in str(found[0].message)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    output(network, x)  # without a second warning, which would be an error


def test_a_broken_normalisation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means left in the map."""
    monkeypatch.setattr(medforj_slabs, "group_affine", lambda *a: (group_affine(*a)[0], torch.zeros(())))
    assert "residual block" in trial(torch.device("cpu"))


def test_gradients_and_other_numbers(generator: torch.Generator) -> None:
    network, x = network_of(SMALL | {"spatial_dims": 2}), torch.randn(1, 1, 8, 8, generator=generator)
    assert network.storage is None, "nobody gets bfloat16 unasked"
    want = network(x, STEP[:1])
    network.storage = torch.bfloat16
    assert torch.equal(network(x, STEP[:1]), want), "with gradients all stays as it was"
    network.storage = torch.float16
    with pytest.raises(InputError, match=r"expected storage None or torch.bfloat16; got torch.float16"):
        output(network, x)
