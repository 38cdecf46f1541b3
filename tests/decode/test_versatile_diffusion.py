"""The dual-guided loop on a tiny network: the mixture against its equation, its ends, the first guess, batches."""

import copy

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.conditions import Condition
from radiata_decode.model.versatile_diffusion import VersatileDiffusionImages, bind_mixture

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

TEXT, IMAGE, WIDTH = 3, 5, 16
UNET = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers import VersatileDiffusionDualGuidedPipeline as Pipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**UNET, dual_cross_attention=True)
        vae = AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16,
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = dict.fromkeys(
        ("tokenizer", "image_feature_extractor", "text_encoder", "image_encoder", "text_unet")
    )
    return Pipeline(**parts, image_unet=unet.eval(), vae=vae.eval(), scheduler=scheduler)


@pytest.fixture(scope="module")
def generate(pipeline):
    return VersatileDiffusionImages(pipeline)


@pytest.fixture
def condition(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return Condition(
        init_image=torch.rand((2, 3, 16, 16), generator=generator),
        prompt_embeds=draw(2, TEXT, WIDTH),
        negative_prompt_embeds=draw(2, TEXT, WIDTH),
        image_embeds=draw(2, IMAGE, WIDTH),
        negative_image_embeds=draw(2, IMAGE, WIDTH),
    )


OPTIONS = {"steps": 4, "strength": 0.75, "guidance": 2.0}


@torch.no_grad()
def test_mixture_is_its_equation(pipeline, generator):
    from diffusers.models import DualTransformer2DModel

    unet = copy.deepcopy(pipeline.image_unet)
    mixture = bind_mixture(unet)
    mixture.image, mixture.text_tokens = 0.6, TEXT
    module = next(part for part in unet.modules() if isinstance(part, DualTransformer2DModel))
    h = torch.randn((2, 32, 4, 4), generator=generator)
    text, image = torch.randn((2, 8, WIDTH), generator=generator).split([TEXT, IMAGE], 1)
    t_img = module.transformers[0](h, encoder_hidden_states=image, return_dict=False)[0]
    t_txt = module.transformers[1](h, encoder_hidden_states=text, return_dict=False)[0]
    expected = h + 0.6 * (t_img - h) + 0.4 * (t_txt - h)
    found = module(h, encoder_hidden_states=torch.cat([text, image], 1), encoder_attention_mask=None)
    torch.testing.assert_close(found.sample, expected)


@torch.no_grad()
@pytest.mark.parametrize(("weight", "index"), [(1.0, 0), (0.0, 1)])
def test_the_ends_are_networks_of_one_condition(pipeline, generator, weight, index):
    """Against an ordinary U-Net with the transformers of that condition."""
    unet = copy.deepcopy(pipeline.image_unet)
    mixture = bind_mixture(unet)
    mixture.image, mixture.text_tokens = weight, TEXT
    with torch.random.fork_rng(devices=[]):
        single = diffusers.UNet2DConditionModel(**UNET).eval()
    kept, other = f".transformers.{index}.", f".transformers.{1 - index}."
    state = {name.replace(kept, "."): v for name, v in unet.state_dict().items() if other not in name}
    single.load_state_dict(state)
    x = torch.randn((1, 4, 8, 8), generator=generator)
    context = torch.randn((1, TEXT + IMAGE, WIDTH), generator=generator)
    own = context.tensor_split([TEXT], 1)[1 - index]
    both = unet(x, 300, encoder_hidden_states=context).sample
    torch.testing.assert_close(both, single(x, 300, encoder_hidden_states=own).sample)


def test_nothing_global_changes(pipeline):
    from diffusers.models import DualTransformer2DModel

    before = DualTransformer2DModel.forward
    other = copy.deepcopy(pipeline.image_unet)
    for part in other.modules():
        part.__dict__.pop("forward", None)
    bind_mixture(copy.deepcopy(other))
    assert DualTransformer2DModel.forward is before
    assert not any("forward" in part.__dict__ for part in other.modules())


def test_it_is_the_loop_of_the_pipeline_without_a_first_guess(pipeline, condition, generator):
    """diffusers' own call, told the same embeddings and the same noise."""
    noise = torch.randn((2, 4, 8, 8), generator=generator)
    row = lambda name: getattr(condition, name)  # noqa: E731
    own = copy.copy(pipeline)
    generate = VersatileDiffusionImages(own)
    context = torch.cat([row("negative_prompt_embeds"), row("prompt_embeds")])
    views = torch.cat([row("negative_image_embeds"), row("image_embeds")])
    own._encode_text_prompt = lambda *_: context
    own._encode_image_prompt = lambda *_: views
    own.set_transformer_params = lambda *_: None
    generate.mixture.image, generate.mixture.text_tokens = 0.6, TEXT
    theirs = own(
        ["", ""], ["", ""], num_inference_steps=3, guidance_scale=2.0, latents=noise, output_type="pt"
    )
    from radiata_decode.model.guided_sampling import guided, sampled_latents

    predict = guided(own.image_unet, {"encoder_hidden_states": torch.cat([context, views], 1)}, 2.0)
    with torch.no_grad():
        latents = sampled_latents(own.scheduler, predict, noise, [generator] * 2, steps=3)
    torch.testing.assert_close(
        generate._codec.decode(latents.flatten(1)), theirs.images, atol=1e-5, rtol=1e-5
    )


def test_a_seed_is_a_picture(generate, condition):
    both = generate(condition, seeds=[3, 4], **OPTIONS)
    alone = generate(condition.rows(slice(1, 2)), seeds=[4], **OPTIONS)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(both, generate(condition, seeds=[5, 6], **OPTIONS), atol=1e-3)


def test_mix_chooses_what_counts(generate, condition, generator):
    from dataclasses import replace

    text, image = (torch.randn((2, n, WIDTH), generator=generator) for n in (TEXT, IMAGE))
    other_text, other_image = replace(condition, prompt_embeds=text), replace(condition, image_embeds=image)
    draw = lambda told, mix: generate(told, seeds=[3, 4], mix=mix, **OPTIONS)  # noqa: E731
    assert torch.equal(draw(condition, 0.0), draw(other_text, 0.0))
    assert torch.equal(draw(condition, 1.0), draw(other_image, 1.0))
    assert not torch.allclose(draw(condition, 0.4), draw(other_text, 0.4), atol=1e-5)
    assert not torch.allclose(draw(condition, 0.4), draw(other_image, 0.4), atol=1e-5)


def test_without_strength_the_first_guess_returns(pipeline, generate, condition):
    found = generate(condition, seeds=[3, 4], steps=4, strength=0.0)
    with torch.no_grad():
        latents = pipeline.vae.encode(2 * condition.init_image - 1).latent_dist.mode()
        expected = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_unconditional_tokens_of_the_encoders(pipeline, condition):
    """Grey is 0.5: with a processor of mean 0.5 the encoder sees zeros; both are computed once and have unit length."""
    from types import SimpleNamespace

    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**small, image_size=8, patch_size=4)).eval()
        text = CLIPTextModelWithProjection(
            CLIPTextConfig(
                **small, vocab_size=20, max_position_embeddings=TEXT, eos_token_id=2, bos_token_id=1
            )
        ).eval()
    ids = torch.tensor([[1, 2, 2]])

    class Tokenizer:
        model_max_length, calls = TEXT, 0

        def __call__(self, words, **_):
            self.calls += 1
            assert words == ""
            return SimpleNamespace(input_ids=ids)

    tokenizer = Tokenizer()
    grey = SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    own = copy.copy(pipeline)
    own.image_encoder, own.image_feature_extractor = vision, grey
    own.text_encoder, own.tokenizer = text, tokenizer
    generate = VersatileDiffusionImages(own)
    told = Condition(
        prompt_embeds=condition.prompt_embeds, image_embeds=condition.image_embeds[:, :5].contiguous()
    )
    first = generate(told, seeds=[1, 2], steps=1)
    assert torch.equal(first, generate(told, seeds=[1, 2], steps=1)) and tokenizer.calls == 1
    with torch.no_grad():
        found = vision(torch.zeros(1, 3, 8, 8)).last_hidden_state
        projected = vision.visual_projection(vision.vision_model.post_layernorm(found))
    torch.testing.assert_close(generate._grey_image, projected / projected[:, :1].norm(dim=-1, keepdim=True))
    pooled = text(ids)
    expected = text.text_projection(pooled.last_hidden_state) / pooled.text_embeds.norm()
    torch.testing.assert_close(generate._empty_text, expected)


def test_what_is_missing_is_one_line(generate, condition, pipeline):
    from dataclasses import replace

    with pytest.raises(InputError, match="expected image_embeds"):
        generate(replace(condition, image_embeds=None, negative_image_embeds=None), seeds=[1, 2])
    with pytest.raises(InputError, match="negative_prompt_embeds"):
        generate(replace(condition, negative_prompt_embeds=None), seeds=[1, 2])
    with pytest.raises(InputError, match="mix"):
        generate(condition, seeds=[1, 2], mix=1.5)
    with pytest.raises(InputError, match="seeds"):
        generate(condition, seeds=[1])
    with pytest.raises(InputError, match="of 16 numbers a token"):
        generate(replace(condition, image_embeds=torch.zeros(2, IMAGE, 7)), seeds=[1, 2])
    with pytest.raises(InputError, match="dual cross-attention"):
        bind_mixture(pipeline.vae)
