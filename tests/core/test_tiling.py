"""A local denoiser in blocks against the denoiser on the whole grid."""

import itertools

import pytest
import torch
from torch import nn

from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.tiling import TiledDenoiser, blocks_of_line

T = torch.tensor(0.3, dtype=torch.float64)


def local_denoiser(dims: int, norm: str = "channel") -> EDMDenoiser:
    """A small U-Net with weights that are not 0; multiple 4, and a receptive field of less than 40 voxels each way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = UNet(
            dims=dims,
            channels=(8, 8),
            down_blocks=(0, 1),
            up_blocks=(1, 1),
            attention=(False, False),
            covariates=2,
            embedding=16,
            frequencies=8,
            norm=norm,
        )
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return EDMDenoiser(network, LinearPath(), 0.5).eval()


def image(*space: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, *space, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", [8, 40, 96, 104, 200])
@pytest.mark.parametrize(("tile", "halo"), [(8, 0), (16, 8), (32, 24), (64, 8)])
def test_the_middles_of_blocks_cut_a_line_with_a_halo_on_each_side(length: int, tile: int, halo: int) -> None:
    blocks = blocks_of_line(length, tile, halo, 8)
    kept = [index for _, grid, _ in blocks for index in range(length)[grid]]
    assert kept == list(range(length))
    for block, grid, inside in blocks:
        assert block.start % 8 == 0
        assert block.stop - block.start == blocks[0][0].stop <= tile + 2 * halo
        assert block.stop <= length
        assert list(range(length)[block])[inside] == list(range(length)[grid])
        assert block.start == 0 or grid.start - block.start >= halo
        assert block.stop == length or block.stop - grid.stop >= halo


@torch.no_grad()
def test_blocks_with_a_halo_give_the_values_of_the_whole() -> None:
    denoiser, x = local_denoiser(2), image(144, 88)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    covariates = torch.tensor([[0.1, 0.5], [1.0, float("nan")]])
    whole = denoiser(x, t, covariates=covariates)
    for tile, together in itertools.product([8, 24, 64], [1, 3]):
        tiled = TiledDenoiser(denoiser, tile, 40, together)
        found = tiled(x, t, covariates=covariates)
        torch.testing.assert_close(found, whole, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_volumes_too_and_without_a_halo_there_are_seams() -> None:
    denoiser, x = local_denoiser(3), image(96, 16, 8, batch=1)
    whole = denoiser(x, T)
    torch.testing.assert_close(TiledDenoiser(denoiser, 8, 40)(x, T), whole, atol=2e-6, rtol=1e-5)
    assert float((TiledDenoiser(denoiser, 8, 0)(x, T) - whole).abs().max()) > 1e-2


@torch.no_grad()
def test_a_norm_over_the_grid_is_not_local() -> None:
    """What the halo cannot repair, and why the network has a norm of its own."""
    denoiser, x = local_denoiser(2, "group"), image(144, 88)
    assert float((TiledDenoiser(denoiser, 24, 40)(x, T) - denoiser(x, T)).abs().max()) > 1e-3


@torch.no_grad()
def test_any_grid_is_continued_to_the_multiple_and_cut_again() -> None:
    denoiser, x = local_denoiser(2), image(45, 30, batch=1)
    found = TiledDenoiser(denoiser, 16, 40)(x, T)
    mirrored = torch.cat([x, x[:, :, -3:].flip(2)], 2)
    mirrored = torch.cat([mirrored, mirrored[..., -2:].flip(3)], 3)
    torch.testing.assert_close(found, denoiser(mirrored, T)[:, :, :45, :30], atol=2e-6, rtol=1e-5)


class Scarce(nn.Module):
    """Triples x, and has memory for so many voxels a call only."""

    def __init__(self, voxels: int, error: Exception) -> None:
        super().__init__()
        self.path, self.voxels, self.error = LinearPath(), voxels, error
        self.calls: list[int] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x.numel() > self.voxels:
            raise self.error
        self.calls.append(x.numel())
        return 3 * x


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_memory_that_does_not_suffice_halves_the_tile_and_says_so(error: Exception) -> None:
    said: list[str] = []
    x = image(64, 64, batch=1)
    tiled = TiledDenoiser(Scarce(500, error), 0, 2, say=said.append)
    torch.testing.assert_close(tiled(x, T), 3 * x)
    assert (tiled.tile, tiled.together) == (16, 1)
    assert said[0].endswith("one block at a time")
    assert said[-1].endswith("tiles of 16 voxels in place of 32")
    assert len(said) == 3
    tiled(x, T)
    assert len(said) == 3


def test_other_errors_pass_and_no_memory_at_all_is_one_line() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        TiledDenoiser(Scarce(0, RuntimeError("shape")), 8, 0)(image(16, 16), T)
    with pytest.raises(InputError, match="smaller halo"):
        TiledDenoiser(Scarce(0, MemoryError()), 8, 2, say=lambda line: None)(image(16, 16), T)


def test_empty_blocks_are_skipped_only_when_asked() -> None:
    x = torch.zeros(1, 1, 64, 8)
    x[:, :, 2] = 1.0
    scarce = Scarce(10_000, MemoryError())
    torch.testing.assert_close(TiledDenoiser(scarce, 8, 0, 1, empty=0.0)(x, T), 3 * x)
    assert len(scarce.calls) == 1
    TiledDenoiser(scarce, 8, 0, 1)(x, T)
    assert len(scarce.calls) == 9


def test_it_is_a_denoiser_and_passes_gradients() -> None:
    denoiser = local_denoiser(2)
    x = image(48, 48).requires_grad_()
    tiled = TiledDenoiser(denoiser, 8, 40)
    assert tiled.path == denoiser.path
    (slope,) = torch.autograd.grad(tiled(x, T).square().sum(), x)
    (expected,) = torch.autograd.grad(denoiser(x, T).square().sum(), x)
    torch.testing.assert_close(slope, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("tile", "halo", "together", "empty"),
    [(-1, 0, 1, None), (8, -1, 1, None), (8, 0, 0, None), (8, 0, 1, -1.0)],
)
def test_numbers_out_of_range(tile: int, halo: int, together: int, empty: float | None) -> None:
    with pytest.raises(InputError, match="expected a tile"):
        TiledDenoiser(local_denoiser(2), tile, halo, together, empty)
