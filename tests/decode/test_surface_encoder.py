"""The transformer on the cortex: places that are fixed, patches that are where they were, pictures that stay apart."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.specs import describe, rebuild
from radiata_decode.model.surface_encoder import SIZES, SurfaceEncoder, TransformerBlock, grid_positions


@pytest.fixture
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SurfaceEncoder((32, 48), 16, 24, 2, 4).eval()


def test_positions_are_sines_of_row_and_column():
    table = grid_positions((3, 4), 16)
    for row, column in ((0, 0), (2, 1), (1, 3)):
        omega = [10 ** (-4 * k / 4) for k in range(4)]
        wanted = [f(w * place) for place in (row, column) for f in (math.sin, math.cos) for w in omega]
        torch.testing.assert_close(table[row * 4 + column], torch.tensor(wanted), atol=1e-6, rtol=0)
    assert torch.unique(table, dim=0).shape[0] == 12


def test_positions_are_not_learned(encoder):
    assert not any("positions" in name for name in encoder.state_dict())
    assert encoder.tokens == 1 + 2 * 3


def test_patches_are_read_where_they_are(encoder):
    """Without blocks a token is the linear image of its own patch plus its place."""
    encoder.blocks, encoder.norm = torch.nn.ModuleList(), torch.nn.Identity()
    picture = torch.zeros(1, 1, 32, 48)
    picture[0, 0, 16:, 32:] = torch.arange(256.0).reshape(16, 16) / 256
    tokens = encoder(picture)[0]
    wanted = encoder.embed(torch.arange(256.0) / 256) + encoder.positions[5]
    torch.testing.assert_close(tokens[6], wanted)
    torch.testing.assert_close(tokens[1], encoder.embed.bias + encoder.positions[0])


def test_block_is_pytorchs_own_layer(generator):
    """The same weights in `TransformerEncoderLayer` give the same tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        block = TransformerBlock(16, 4).eval()
        layer = torch.nn.TransformerEncoderLayer(
            16, 4, 64, 0.0, torch.nn.functional.gelu, batch_first=True, norm_first=True
        )
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.qkv.weight,
            "self_attn.in_proj_bias": block.qkv.bias,
            "self_attn.out_proj.weight": block.out.weight,
            "self_attn.out_proj.bias": block.out.bias,
            "linear1.weight": block.mlp[0].weight,
            "linear1.bias": block.mlp[0].bias,
            "linear2.weight": block.mlp[2].weight,
            "linear2.bias": block.mlp[2].bias,
            "norm1.weight": block.norm1.weight,
            "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight,
            "norm2.bias": block.norm2.bias,
        }
    )
    x = torch.randn(2, 5, 16, generator=generator)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-5, atol=1e-5)


def test_a_picture_is_the_same_alone_and_in_a_batch(encoder, generator):
    pictures = torch.randn(4, 1, 32, 48, generator=generator)
    torch.testing.assert_close(encoder(pictures)[2:3], encoder(pictures[2:3]), rtol=1e-5, atol=1e-5)


def test_description_rebuilds_it(encoder, generator):
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(encoder)).eval()
    again.load_state_dict(encoder.state_dict())
    picture = torch.randn(1, 1, 32, 48, generator=generator)
    assert torch.equal(again(picture), encoder(picture))


def test_sizes_divide_and_the_papers_has_its_width():
    assert SIZES["paper"]["width"] == 1024
    assert all(size["width"] % size["heads"] == 0 and size["width"] % 4 == 0 for size in SIZES.values())
    with pytest.raises(InputError, match="divides by patches"):
        SurfaceEncoder((100, 128))
    with pytest.raises(InputError, match="canvas"), torch.random.fork_rng(devices=[]):
        SurfaceEncoder((32, 32), width=8, heads=2)(torch.zeros(1, 1, 64, 64))
