"""Rotary places: Flux's angles and turn, differences only, physical lengths."""

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.nets.rotary import rotated, rotation_at, token_coordinates, widths_of_axes


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("axes", "head"), [(1, 8), (2, 12), (3, 64)])
def test_it_is_flux(axes: int, head: int, generator: torch.Generator) -> None:
    """diffusers' angles, axis by axis as Flux puts them together, and its turn of q and k, to its float32."""
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    ids = token_coordinates((2, 3, 4)[:axes], spacing=(1.0, 2.0, 0.5)[:axes])[0]
    lines = [
        embeddings.get_1d_rotary_pos_embed(width, line, theta=100, use_real=True)
        for width, line in zip(widths_of_axes(head, axes), ids.T, strict=True)
    ]
    theirs = tuple(torch.cat(parts, -1) for parts in zip(*lines, strict=True))
    ours = rotation_at(ids[None], head)
    for given, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(given[0, 0], expected, rtol=0, atol=1e-5)
    q = torch.randn(2, 5, len(ids), head, generator=generator)
    torch.testing.assert_close(rotated(q, ours), embeddings.apply_rotary_emb(q, theirs), rtol=0, atol=1e-5)


def test_logits_know_differences_only(generator: torch.Generator) -> None:
    """Any translation of all places leaves every logit as it was; another spacing does not. Norms stay."""
    grid, head = (3, 4, 2), 20
    q, k = _draw(generator, 1, 2, 24, head), _draw(generator, 1, 2, 24, head)

    def logits(**geometry: tuple[float, ...]) -> Tensor:
        rotation = rotation_at(token_coordinates(grid, **geometry), head, dtype=torch.float64)  # type: ignore[arg-type]
        return rotated(q, rotation) @ rotated(k, rotation).mT

    here = logits()
    torch.testing.assert_close(logits(origin=(-71.3, 12.9, 1000.0)), here, rtol=0, atol=1e-10)
    assert (logits(spacing=(1.0, 1.0, 1.5)) - here).abs().max() > 0.1
    turned = rotated(q, rotation_at(token_coordinates(grid), head, dtype=torch.float64))
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1), rtol=1e-12, atol=0)
    distance = token_coordinates(grid)[0]
    torch.testing.assert_close(distance[0], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(distance[-1], torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64))


def test_finer_voxels_lie_where_the_coarse_ones_were() -> None:
    """Half the spacing over the same field: a patch of twice the edge lies where it did, and two small ones around it."""
    coarse = token_coordinates((4, 3), (2, 2), spacing=(1.0, 3.0), origin=(5.0, -2.0))
    origin = (5.0 - 0.25, -2.0 - 0.75)  # the first centre of half a voxel
    same = token_coordinates((4, 3), (4, 4), spacing=(0.5, 1.5), origin=origin)
    torch.testing.assert_close(same, coarse, rtol=0, atol=1e-12)
    fine = token_coordinates((8, 6), (2, 2), spacing=(0.5, 1.5), origin=origin)
    mean = fine.reshape(4, 2, 3, 2, 2).mean((1, 3)).reshape(1, 12, 2)
    torch.testing.assert_close(mean, coarse, rtol=0, atol=1e-12)
    phases = rotation_at(coarse, 8, dtype=torch.float64)
    torch.testing.assert_close(rotation_at(same, 8, dtype=torch.float64), phases, rtol=0, atol=1e-12)


def test_each_axis_has_its_channels_and_the_rest_stands_still(generator: torch.Generator) -> None:
    assert widths_of_axes(64, 3) == (20, 22, 22)
    assert widths_of_axes(32, 1) == (32,)
    q = _draw(generator, 1, 1, 1, 11)  # 5 pairs and one channel over
    for axis, changed in enumerate([slice(0, 2), slice(2, 6), slice(6, 10)]):
        place = torch.zeros(1, 1, 3, dtype=torch.float64)
        place[..., axis] = 0.7
        moved = (rotated(q, rotation_at(place, 11, dtype=torch.float64)) != q)[0, 0, 0]
        expected = torch.zeros(11, dtype=torch.bool)
        expected[changed] = True
        assert torch.equal(moved, expected)


def test_rows_may_lie_elsewhere() -> None:
    spacing = torch.tensor([[1.0, 1.0], [2.0, 0.5]])
    both = token_coordinates((3, 2), spacing=spacing)
    assert torch.equal(both[1:], token_coordinates((3, 2), spacing=(2.0, 0.5)))
    assert both.shape == (2, 6, 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 channels an axis; got 4 channels for 3"):
        widths_of_axes(4, 3)
    with pytest.raises(InputError, match="spacing of 2 finite numbers"):
        token_coordinates((3, 2), spacing=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="wrap the network in `Placed`"):
        token_coordinates((3, 2), spacing=torch.full((2,), torch.nan))
    with pytest.raises(InputError, match="> 0 mm"):
        token_coordinates((3, 2), spacing=(1.0, -1.0))
