"""Windows in slabs: the same numbers as the whole volume, without holding it."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_medical.model.window_streaming import WindowGrid, padded_shape, stream_windows

SHAPES = [((32, 48, 40), (24, 24, 24)), ((48, 32, 32), (24, 32, 16)), ((16, 24, 56), (24, 24, 24))]
MULTIPLE, HALO = 8, 3


def joined(slabs, shape, channels: int) -> torch.Tensor:
    """All planes, each written once and in order."""
    out = torch.full((channels, *shape), torch.nan)
    follows = 0
    for slab in slabs:
        assert slab.start == follows and bool(out[(slice(None), *slab.box)].isnan().all())
        out[(slice(None), *slab.box)] = slab.values
        follows += slab.values.shape[1 + slab.axis]
    assert follows == max(shape)
    return out


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_weights_of_all_windows_sum_to_one(shape, size) -> None:
    grid = WindowGrid(shape, size, MULTIPLE, HALO)
    whole = joined(stream_windows(lambda w: torch.ones((2, *w.shape)), torch.zeros(shape), grid, 2), shape, 2)
    torch.testing.assert_close(whole, torch.ones((2, *shape)))


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_local_network_gives_what_it_gives_on_the_whole(shape, size, generator: torch.Generator) -> None:
    """Three convolutions reach 3 voxels, zero outside of what they see, and so does the halo."""
    kernels = [torch.randn((n, m, 3, 3, 3), generator=generator) / 5 for m, n in ((1, 4), (4, 4), (4, 3))]

    def network(window: torch.Tensor) -> torch.Tensor:
        h = window[None, None]
        for kernel in kernels:
            h = torch.tanh(torch.conv3d(h, kernel, padding=1))
        return h[0]

    image = torch.randn(shape, generator=generator)
    tiled = joined(stream_windows(network, image, WindowGrid(shape, size, MULTIPLE, HALO), 3), shape, 3)
    torch.testing.assert_close(tiled, network(image), atol=1e-5, rtol=1e-4)


def test_windows_begin_at_multiples_and_cover_everything() -> None:
    grid = WindowGrid((176, 208, 224), (128, 128, 96))
    assert [grid.starts(axis) for axis in range(3)] == [[0, 80], [0, 96], [0, 80, 128]]
    assert grid.count == 12 and grid.size == (96, 112, 96)  # as few windows, and as short as that allows
    assert WindowGrid((32, 32, 32), (128, 128, 128)).count == 1
    assert padded_shape((1, 16, 17), 16) == (16, 16, 32)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="divide by 16"):
        WindowGrid((30, 32, 32), (32, 32, 32))
    with pytest.raises(InputError, match="longer than two halos"):
        WindowGrid((64, 64, 64), (32, 32, 32), halo=12)
