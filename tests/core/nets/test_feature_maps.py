"""Moments in slabs against the whole, and maps that lie where they lie."""

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from radiata_core.errors import InputError
from radiata_core.nets.feature_maps import ComputedMap, DiskMap, MemoryMap, Moments, group_affine, slabs_of

CPU = torch.device("cpu")


def test_a_group_norm_across_three_maps_is_that_of_their_concatenation(generator: torch.Generator) -> None:
    """Groups of 4 straddle maps of 2, 5 and 5 channels; a mean of 1000 sd leaves no cancellation."""
    parts = [torch.randn(7, 4, 3, c, generator=generator) * 10.0**-c + 10.0 ** (3 - c) for c in (2, 5, 5)]
    norm = nn.GroupNorm(3, 12, eps=1e-6).double()
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    moments = []
    for part in parts:
        moments.append(Moments(part.shape[-1], CPU))
        for lo, hi in slabs_of(7, 3):
            moments[-1].add(part[lo:hi])
    with torch.no_grad():
        scale, shift = group_affine(norm, moments)
        whole = torch.cat(parts, -1).double()
        want = norm(whole.movedim(-1, 0)[None])[0].movedim(0, -1)
    torch.testing.assert_close(whole * scale + shift, want, rtol=1e-5, atol=1e-5)


def test_maps_give_back_what_was_written(generator: torch.Generator, tmp_path: Path) -> None:
    values = torch.randn(6, 3, 4, generator=generator)
    maps = [MemoryMap(values.shape, values.dtype, CPU), DiskMap(values.shape, values.dtype, CPU, tmp_path)]
    for held in maps:
        for lo, hi in slabs_of(6, 4):
            held.write(lo, values[lo:hi])
        assert torch.equal(held.read(1, 5), values[1:5])
    computed = ComputedMap(values.shape, values.dtype, CPU, lambda lo, hi: values[lo:hi])
    computed.survey(4)
    for held in (*maps, computed):
        torch.testing.assert_close(held.moments.mean, values.double().mean((0, 1)), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(
            held.moments.variance, values.double().var((0, 1), correction=0), rtol=1e-6, atol=1e-7
        )
        held.close()
    assert not list(tmp_path.iterdir()), "nothing is left on disk"


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    held = DiskMap((4, 2, 2), torch.float32, CPU, tmp_path)
    held.file.close()

    class Full:
        def seek(self, place: int) -> None:
            pass

        def write(self, values: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    held.file = Full()
    with pytest.raises(InputError, match="got a full disk") as caught:
        held.write(0, torch.zeros(4, 2, 2))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        DiskMap((4, 2), torch.float32, CPU, tmp_path / "nowhere")
