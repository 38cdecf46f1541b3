"""Control of a tiny diffusers U-Net with random weights: neutral at the start and at scale 0, guided in both branches."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.diffusers_manipulation import DiffusersManipulation, manipulated_unet

pytest.importorskip("diffusers")

TOKENS, WIDTH = 5, 8


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
        ).requires_grad_(False)


@pytest.fixture(scope="module")
def network(unet):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return DiffusersManipulation(unet, TOKENS, WIDTH)


@pytest.fixture
def inputs(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return draw(2, 4, 8, 8), torch.tensor(500), draw(2, 3, 16), draw(2, TOKENS, WIDTH)


@torch.no_grad()
def test_new_manipulation_changes_no_bit(unet, network, inputs):
    latents, time, context, _ = inputs
    plain = unet(latents, time, encoder_hidden_states=context).sample
    assert torch.equal(manipulated_unet(unet, network, *inputs), plain)


@torch.no_grad()
def test_map_enters_after_the_first_layer(unet, network, inputs):
    """The copy's first skip is its first layer plus the map, through a zero convolution set to one."""
    import copy

    latents, time, context, tokens = inputs
    own = copy.deepcopy(network)
    torch.nn.init.dirac_(own.copy.controlnet_down_blocks[0].weight)
    own.entry.out.weight.fill_(0.1)
    down, _ = own(latents, time, context, tokens, 2.0)
    wanted = unet.conv_in(latents) + own.entry(tokens)
    torch.testing.assert_close(down[0], 2.0 * wanted, rtol=1e-5, atol=1e-5)
    assert float(own.entry(tokens).abs().max()) > 0.01


@torch.no_grad()
def test_scales_and_guidance(unet, network, inputs):
    """Scale 0 is the U-Net alone; guidance extrapolates from the empty context with the control in both."""
    import copy

    latents, time, context, tokens = inputs
    own = copy.deepcopy(network)
    for zero in (*own.copy.controlnet_down_blocks, own.copy.controlnet_mid_block):
        zero.weight.fill_(0.02)
    plain = unet(latents, time, encoder_hidden_states=context).sample
    assert torch.equal(manipulated_unet(unet, own, *inputs, scale=0.0), plain)
    given = manipulated_unet(unet, own, *inputs)
    assert not torch.allclose(given, plain)
    count = len(own.copy.controlnet_down_blocks) + 1
    assert torch.equal(manipulated_unet(unet, own, *inputs, scale=[1.0] * count), given)
    empty = torch.zeros(1, 3, 16)
    free = manipulated_unet(unet, own, latents, time, empty.expand(2, -1, -1), tokens)
    guided = manipulated_unet(unet, own, *inputs, empty=empty, guidance=5.0)
    torch.testing.assert_close(guided, free + 5 * (given - free), rtol=1e-4, atol=1e-4)


def test_another_network_is_refused():
    with pytest.raises(InputError, match="UNet2DConditionModel"):
        DiffusersManipulation(torch.nn.Identity(), TOKENS, WIDTH)
