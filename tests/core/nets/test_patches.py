"""Patches: where each voxel goes, there and back, and a stem that overlaps."""

import math

import pytest
import torch

from radiata_core.nets.patches import ConvStem, fold, padded, strides_of, unfold
from radiata_core.nets.unet import space_to_depth

SHAPES = [((6,), (3,)), ((4, 6), (2, 3)), ((4, 2, 6), (2, 1, 3))]


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_a_token_is_its_block(
    shape: tuple[int, ...], patch: tuple[int, ...], generator: torch.Generator
) -> None:
    x = torch.randn(2, 3, *shape, generator=generator)
    tokens = fold(x, patch)
    grid = tuple(n // p for n, p in zip(shape, patch, strict=True))
    assert torch.equal(unfold(tokens, patch, grid), x)
    last = x[(slice(None), slice(None), *[slice(-p, None) for p in patch])].flatten(1)
    assert torch.equal(tokens[:, -1], last)
    second = x[(slice(None), slice(None), *[slice(p) for p in patch[:-1]], slice(patch[-1], 2 * patch[-1]))]
    assert torch.equal(tokens[:, 1], second.flatten(1))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_cubes_are_those_of_the_unet(dims: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, *[4, 8, 2][:dims], generator=generator)
    assert torch.equal(fold(x, (2,) * dims), space_to_depth(x, 2).flatten(2).transpose(1, 2))


def test_edges_are_continued(generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 5, 4, generator=generator)
    whole = padded(x, (4, 3))
    assert whole.shape == (2, 1, 8, 6)
    assert torch.equal(whole, torch.nn.functional.pad(x, (0, 2, 0, 3), mode="replicate"))
    assert padded(x, (5, 2)) is x


def test_strides_multiply_to_the_patch() -> None:
    for edge in range(1, 17):
        assert math.prod(strides_of(edge)) == edge
    assert strides_of(16) == (4, 2, 2)
    assert strides_of(8) == (2, 2, 2)


@pytest.mark.parametrize("edge", range(1, 17))
def test_the_stem_has_a_token_a_patch_and_overlaps(edge: int, generator: torch.Generator) -> None:
    """Moving the trace by a patch moves the tokens by one (away from the ends); a token sees beyond its own patch."""
    with torch.random.fork_rng():
        stem = ConvStem(1, 8, (edge,)).double()
    x = torch.randn(1, 1, 15 * edge, generator=generator, dtype=torch.float64).requires_grad_()
    tokens = stem(x)
    assert tokens.shape == (1, 15, 8)
    moved = stem(x.roll(edge, -1))
    torch.testing.assert_close(moved[:, 5:11], tokens[:, 4:10], rtol=0, atol=1e-12)
    tokens[0, 7].sum().backward()
    assert x.grad is not None
    touched = x.grad[0, 0].nonzero().flatten()
    before, after = 7 * edge - int(touched.min()), int(touched.max()) - (8 * edge - 1)
    assert before == after > 0, "the field lies around the patch"
    assert set(range(7 * edge, 8 * edge)) <= set(touched.tolist())
