"""Stable Diffusion on tiny networks with random weights: the same pictures as diffusers' own pipelines, batches, ends."""

import copy
from dataclasses import replace

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_decode.model.conditions import Condition, features_of
from radiata_decode.model.diffusers_images import StableDiffusionImages, with_adapter

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

WIDTH, EMBED, SEEDS = 16, 12, [3, 4]
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
ABSENT = {
    "text_encoder": None,
    "tokenizer": None,
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
OPTIONS = {"steps": 4, "strength": 0.75, "guidance": 2.0}
THEIRS = {"num_inference_steps": 4, "strength": 0.75, "guidance_scale": 2.0, "output_type": "pt"}


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(**UNET)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16,
        )
        controlnet = diffusers.ControlNetModel.from_unet(unet, conditioning_channels=3)
        for module in controlnet.controlnet_down_blocks:
            torch.nn.init.normal_(module.weight, std=0.1)
        # The hint is 8 times coarser than the picture in Stable Diffusion; the tiny autoencoder has a factor of 2.
        hint = controlnet.controlnet_cond_embedding
        torch.nn.init.normal_(hint.conv_out.weight, std=0.1)
        hint.conv_in.stride = (1, 1)
        for block in list(hint.blocks)[3:]:
            block.stride = (1, 1)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    for part in (unet, vae, controlnet):
        part.requires_grad_(False).eval()
    return {"unet": unet, "vae": vae, "scheduler": scheduler}, controlnet


@pytest.fixture(scope="module")
def pipeline(parts):
    found = diffusers.StableDiffusionImg2ImgPipeline(**parts[0], **ABSENT)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def adapted(parts):
    """With an IP-Adapter of one vector and four tokens."""
    own = {name: copy.deepcopy(part) for name, part in parts[0].items()}
    source, tokens = torch.Generator().manual_seed(5), 4
    draw = lambda *shape: torch.randn(shape, generator=source)  # noqa: E731
    tensors = {
        "image_proj.proj.weight": draw(tokens * WIDTH, EMBED),
        "image_proj.proj.bias": draw(tokens * WIDTH),
        "image_proj.norm.weight": torch.ones(WIDTH),
        "image_proj.norm.bias": torch.zeros(WIDTH),
    }
    # A key and a value for each cross-attention of the network, numbered as the adapter's authors do.
    for index in range(4):
        tensors[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"] = draw(32, WIDTH)
        tensors[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"] = draw(32, WIDTH)
    found = diffusers.StableDiffusionImg2ImgPipeline(**own, **ABSENT)
    found.set_progress_bar_config(disable=True)
    return with_adapter(found, tensors)


@pytest.fixture
def condition(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return Condition(
        init_image=torch.rand((2, 3, 16, 16), generator=generator),
        prompt_embeds=draw(2, 3, WIDTH),
        negative_prompt_embeds=draw(2, 3, WIDTH),
    )


@torch.no_grad()
def encoded(pipeline, images):
    """Latents as the pipelines accept them in place of a picture, so that no random encoding differs."""
    mode = pipeline.vae.encode(2 * images - 1).latent_dist.mode()
    return mode * pipeline.vae.config.scaling_factor


def told(pipeline, condition):
    return {
        "image": encoded(pipeline, condition.init_image),
        "prompt_embeds": condition.prompt_embeds,
        "negative_prompt_embeds": condition.negative_prompt_embeds,
        "generator": generators_of(SEEDS),
    }


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"])
def test_img2img_is_that_of_diffusers(pipeline, condition, kind):
    """With a scheduler that draws noise at each step as well."""
    own = copy.copy(pipeline)
    config = {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}
    if kind != "DDIMScheduler":
        config = {k: config[k] for k in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
    own.scheduler = getattr(diffusers, kind)(**config)
    theirs = own(**told(own, condition), **THEIRS).images
    close(StableDiffusionImages(own)(condition, seeds=SEEDS, **OPTIONS), theirs)


def test_adapter_is_that_of_diffusers(adapted, condition, generator):
    embeds = torch.randn((2, 1, EMBED), generator=generator)
    theirs = []
    for row in range(
        2
    ):  # one by one: in a batch of pictures diffusers 0.42 repeats the embeddings once too often
        adapted.set_ip_adapter_scale(0.6)
        vector = embeds[row : row + 1]
        asked = told(adapted, condition.rows(slice(row, row + 1))) | {"generator": generators_of(SEEDS)[row]}
        both = [torch.cat([torch.zeros_like(vector), vector])]
        theirs.append(adapted(**asked, ip_adapter_image_embeds=both, **THEIRS).images)
    generate = StableDiffusionImages(adapted)
    found = generate(replace(condition, image_embeds=embeds), seeds=SEEDS, mix=0.4, **OPTIONS)
    close(found, torch.cat(theirs))
    assert generate.requires == {"image_embeds"}
    assert {(each.part, each.dim) for each in features_of(generate)} == {
        ("prompt_embeds", WIDTH),
        ("image_embeds", EMBED),
    }


def test_mix_of_one_is_text_alone(adapted, pipeline, condition, generator):
    embeds = torch.randn((2, 1, EMBED), generator=generator)
    found = StableDiffusionImages(adapted)(
        replace(condition, image_embeds=embeds), seeds=SEEDS, mix=1.0, **OPTIONS
    )
    close(found, StableDiffusionImages(pipeline)(condition, seeds=SEEDS, **OPTIONS))


def test_controlnet_is_that_of_diffusers(parts, pipeline, condition, generator):
    picture = torch.rand((2, 3, 16, 16), generator=generator)
    both = diffusers.StableDiffusionControlNetImg2ImgPipeline(**parts[0], controlnet=parts[1], **ABSENT)
    both.set_progress_bar_config(disable=True)
    theirs = both(
        **told(both, condition), control_image=picture, controlnet_conditioning_scale=0.7, **THEIRS
    ).images
    generate = StableDiffusionImages(both)
    asked = replace(condition, control=picture)
    close(generate(asked, seeds=SEEDS, control_scale=0.7, **OPTIONS), theirs)
    plain = StableDiffusionImages(pipeline)(condition, seeds=SEEDS, **OPTIONS)
    close(generate(asked, seeds=SEEDS, control_scale=0.0, **OPTIONS), plain)
    assert (theirs - plain).abs().max() > 1e-3
    assert "control" in generate.requires


def test_residuals_of_a_decoder(pipeline, condition, generator):
    """Half the scale is half the residuals; none, or zeros, is no control."""
    draw = lambda *shape: 0.3 * torch.randn((2, *shape), generator=generator)  # noqa: E731
    given = [draw(16, 8, 8), draw(16, 8, 8), draw(16, 4, 4), draw(32, 4, 4), draw(32, 4, 4)]
    generate = StableDiffusionImages(pipeline)
    make = lambda control, scale: generate(  # noqa: E731
        replace(condition, control=control), seeds=SEEDS, control_scale=scale, **OPTIONS
    )
    plain = generate(condition, seeds=SEEDS, **OPTIONS)
    close(make(given, 0.5), make([part / 2 for part in given], 1.0))
    assert torch.equal(make(given, 0.0), plain)
    close(make([torch.zeros_like(part) for part in given], 1.0), plain)
    assert (make(given, 1.0) - plain).abs().max() > 1e-3
    with pytest.raises(InputError, match="one for each of 5 levels"):
        make(given, [1.0, 0.5])


@torch.no_grad()
def test_both_branches_keep_the_control(pipeline, condition, generator):
    """One step from noise by hand: with guidance the residuals do not cancel in the unconditional branch."""
    draw = lambda *shape: 0.3 * torch.randn((2, *shape), generator=generator)  # noqa: E731
    *down, middle = draw(16, 8, 8), draw(16, 8, 8), draw(16, 4, 4), draw(32, 4, 4), draw(32, 4, 4)
    told = replace(condition, init_image=None, control=[*down, middle])
    found = StableDiffusionImages(pipeline)(told, seeds=SEEDS, steps=1, guidance=2.0)
    noise = torch.cat([torch.randn((1, 4, 8, 8), generator=one) for one in generators_of(SEEDS)])
    pipeline.scheduler.set_timesteps(1)
    time = pipeline.scheduler.timesteps[0]
    residuals = {
        "down_block_additional_residuals": tuple(down),
        "mid_block_additional_residual": middle,
    }
    without, with_it = (
        pipeline.unet(noise, time, encoder_hidden_states=context, **residuals).sample
        for context in (condition.negative_prompt_embeds, condition.prompt_embeds)
    )
    latents = pipeline.scheduler.step(2 * with_it - without, time, noise).prev_sample
    picture = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    close(found, (picture / 2 + 0.5).clamp(0, 1))


def test_a_seed_is_a_picture(pipeline, condition):
    generate = StableDiffusionImages(pipeline, batch=1)
    both = StableDiffusionImages(pipeline)(condition, seeds=SEEDS, **OPTIONS)
    close(generate(condition, seeds=SEEDS, **OPTIONS), both)
    turned = generate(condition.rows(slice(1, 2)), seeds=[4], **OPTIONS)
    close(turned, both[1:])
    assert not torch.allclose(generate(condition, seeds=[4, 3], **OPTIONS), both, atol=1e-3)


def test_ends_of_the_strength(pipeline, condition, generator):
    generate = StableDiffusionImages(pipeline)
    with torch.no_grad():
        latents = encoded(pipeline, condition.init_image) / pipeline.vae.config.scaling_factor
        expected = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    close(generate(condition, seeds=SEEDS, strength=0.1, steps=4), expected)
    blind = replace(condition, init_image=None)
    from_noise = generate(blind, seeds=SEEDS, strength=0.1, steps=2, guidance=1.0)
    close(from_noise, generate(blind, seeds=SEEDS, strength=1.0, steps=2, guidance=1.0))


def test_small_guesses_are_enlarged_and_progress_is_told(pipeline, condition):
    done: list[float] = []
    generate = StableDiffusionImages(pipeline, batch=1, progress=done.append)
    small = torch.nn.functional.interpolate(condition.init_image, (8, 8), mode="area")
    assert generate(replace(condition, init_image=small), seeds=SEEDS, **OPTIONS).shape == (2, 3, 16, 16)
    assert done == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_what_is_missing_is_one_line(pipeline, condition, adapted):
    generate = StableDiffusionImages(pipeline)
    with pytest.raises(InputError, match="expected prompt_embeds"):
        generate(Condition(init_image=condition.init_image), seeds=SEEDS)
    with pytest.raises(InputError, match="no text encoder"):
        generate(replace(condition, negative_prompt_embeds=None), seeds=SEEDS)
    with pytest.raises(InputError, match="Pad both"):
        generate(replace(condition, negative_prompt_embeds=torch.zeros(2, 4, WIDTH)), seeds=SEEDS)
    with pytest.raises(InputError, match="of 16 numbers"):
        generate(replace(condition, prompt_embeds=torch.zeros(2, 3, 5)), seeds=SEEDS)
    with pytest.raises(InputError, match="ControlNet pipeline"):
        generate(replace(condition, control=condition.init_image), seeds=SEEDS)
    with pytest.raises(InputError, match="strength"):
        generate(condition, seeds=SEEDS, strength=1.5)
    with pytest.raises(InputError, match="batch"):
        StableDiffusionImages(pipeline, batch=0)(condition, seeds=SEEDS)
    with pytest.raises(InputError, match="image_proj"):
        with_adapter(adapted, {"something.weight": torch.zeros(1)})
