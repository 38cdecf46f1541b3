"""Pictures from one image vector, by Kandinsky 2.2 and by unCLIP: diffusers' own calls on tiny networks, batches, ends."""

from dataclasses import replace

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_decode.model.conditions import Condition, features_of
from radiata_decode.model.diffusers_images import StableDiffusionImages
from radiata_decode.model.kandinsky_images import KandinskyImages

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

WIDTH, EMBED, SEEDS = 16, 12, [3, 4]


@pytest.fixture(scope="module")
def kandinsky():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            sample_size=8,
            in_channels=4,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            encoder_hid_dim=EMBED,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
        )
        movq = diffusers.VQModel(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            num_vq_embeddings=12,
            norm_num_groups=8,
            norm_type="spatial",
            vq_embed_dim=4,
        )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, variance_type="learned_range", clip_sample=False, steps_offset=1
    )
    found = diffusers.KandinskyV22Pipeline(unet=unet.eval(), scheduler=scheduler, movq=movq.eval())
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def condition(generator):
    return Condition(
        init_image=torch.rand((2, 3, 16, 16), generator=generator),
        image_embeds=torch.randn((2, 1, EMBED), generator=generator),
        negative_image_embeds=torch.randn((2, 1, EMBED), generator=generator),
    )


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_from_noise_it_is_the_pipeline(kandinsky, condition):
    generate = KandinskyImages(kandinsky)
    blind = replace(condition, init_image=None)
    theirs = kandinsky(
        condition.image_embeds[:, 0],
        condition.negative_image_embeds[:, 0],
        height=16,
        width=16,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=generators_of(SEEDS),
        output_type="pt",
    ).images
    close(generate(blind, seeds=SEEDS, steps=2), theirs)
    assert [each.dim for each in features_of(generate)] == [EMBED]


def test_a_first_guess_counts_by_strength_and_a_seed_is_a_picture(kandinsky, condition):
    generate = KandinskyImages(kandinsky)
    both = generate(condition, seeds=SEEDS, steps=4, strength=0.5)
    alone = generate(condition.rows(slice(1, 2)), seeds=[4], steps=4, strength=0.5)
    close(both[1:], alone)
    assert both.shape == (2, 3, 16, 16)
    other = replace(condition, init_image=1 - condition.init_image)
    assert (generate(other, seeds=SEEDS, steps=4, strength=0.5) - both).abs().max() > 1e-2
    with torch.no_grad():
        latents = kandinsky.movq.encode(2 * condition.init_image - 1).latents
        expected = kandinsky.movq.decode(latents, force_not_quantize=True).sample / 2 + 0.5
    close(generate(condition, seeds=SEEDS, steps=4, strength=0.1), expected.clamp(0, 1))


def test_without_the_unconditional_vector_only_guidance_one(kandinsky, condition):
    generate = KandinskyImages(kandinsky)
    told = replace(condition, negative_image_embeds=None)
    with pytest.raises(InputError, match="all-zero picture"):
        generate(told, seeds=SEEDS)
    with pytest.raises(InputError, match="one vector"):
        generate(Condition(image_embeds=torch.zeros(2, 2, EMBED)), seeds=SEEDS, guidance=1.0)
    assert generate(told, seeds=SEEDS, steps=4, strength=0.25, guidance=1.0).shape == (2, 3, 16, 16)


@pytest.fixture(scope="module")
def unclip():
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * EMBED,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
        normalizer = StableUnCLIPImageNormalizer(embedding_dim=EMBED)
    found = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=normalizer,  # asked for its dtype only
        image_normalizer=normalizer,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=None,
        text_encoder=None,
        unet=unet.eval(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        vae=vae.eval(),
    )
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize("level", [0, 300])
def test_unclip_is_that_of_diffusers(unclip, generator, level):
    draw = lambda *shape: torch.randn((2, *shape), generator=generator)  # noqa: E731
    told = Condition(
        image_embeds=draw(1, EMBED), prompt_embeds=draw(3, WIDTH), negative_prompt_embeds=draw(3, WIDTH)
    )
    generators = generators_of(SEEDS)
    # Ours draws the latents first, theirs the noise of the embedding.
    latents = torch.cat([torch.randn((1, 4, 8, 8), generator=one) for one in generators])
    theirs = unclip(
        image_embeds=told.image_embeds[:, 0],
        prompt_embeds=told.prompt_embeds,
        negative_prompt_embeds=told.negative_prompt_embeds,
        noise_level=level,
        latents=latents,
        generator=generators,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="pt",
    ).images
    generate = StableDiffusionImages(unclip, noise_level=level)
    assert generate.requires == {"image_embeds"}
    found = generate(told, seeds=SEEDS, steps=2, guidance=3.0)
    close(found, theirs)
    alone = generate(told.rows(slice(1, 2)), seeds=[4], steps=2, guidance=3.0)
    close(alone, theirs[1:])
    with pytest.raises(InputError, match="one vector"):
        generate(replace(told, image_embeds=torch.zeros(2, 2, EMBED)), seeds=SEEDS)
