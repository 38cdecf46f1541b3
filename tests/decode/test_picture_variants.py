"""Variants of pictures: which are what, and that nothing else comes in."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.picture_variants import SHIFT, picture_variants

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_copies_are_plain_mirrored_recoloured_and_moved() -> None:
    plain, mirrored, coloured, both, moved = picture_variants(IMAGES, 5, rng_of(0, 1)).split(3)
    assert torch.equal(plain, IMAGES)
    assert torch.equal(mirrored, IMAGES.flip(-1))
    dark = IMAGES < 0.2  # far from where brightening clips
    ratio = torch.where(dark, coloured / IMAGES, torch.nan)
    for picture in ratio:
        for channel in picture:
            values = channel[~channel.isnan()]
            assert torch.allclose(values, values[0].expand_as(values), rtol=1e-3)
    assert not torch.allclose(both, mirrored, atol=1e-3)
    assert moved.shape == IMAGES.shape and float(moved.min()) >= 0 and float(moved.max()) <= 1


def test_a_moved_picture_is_a_window_of_the_mirrored_surroundings() -> None:
    """A horizontal ramp, moved by at most SHIFT of its width: values differ by at most that, but for the border."""
    ramp = torch.linspace(0.2, 0.4, 16).expand(1, 3, 16, 16)
    moved = picture_variants(ramp, 5, rng_of(3, 1))[-1]
    steps = (moved[:, :, 1:] - moved[:, :, :-1]).abs() / moved.mean((1, 2), keepdim=True)
    inside = steps[:, :, 4:-4]
    assert torch.allclose(inside, inside[:, :1, :1].expand_as(inside), rtol=1e-3)
    assert SHIFT <= 0.25


def test_the_same_generator_makes_the_same_variants() -> None:
    one, other, third = (picture_variants(IMAGES, 6, rng_of(seed, 1)) for seed in (5, 5, 6))
    assert torch.equal(one, other) and not torch.equal(one, third)


def test_no_copy_is_refused() -> None:
    with pytest.raises(InputError, match="at least one copy"):
        picture_variants(IMAGES, 0, rng_of(0, 1))
