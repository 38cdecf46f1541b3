"""Films on tiny networks with random weights: diffusers' own calls, what the first frame and the flow change, batches."""

import copy

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.diffusers_video import AnimateDiffVideo, StableVideo
from radiata_decode.model.flow_conditioned_video import pictures_of, widened

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # diffusers on numpy 2
)

FRAMES, SEEDS = 3, [3, 4]


@pytest.fixture(scope="module")
def pipeline():
    import transformers
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    # The one without torchvision; before transformers 5 there was one only.
    processor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=8,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=16,
            num_attention_heads=4,
            projection_class_embeddings_input_dim=48,
            addition_time_embed_dim=16,
            num_frames=FRAMES,
        )
        vae = diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
        )
        encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=16,
                projection_dim=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=224,
                intermediate_size=16,
                patch_size=112,
            )
        )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_max=700.0,
        sigma_min=0.002,
        interpolation_type="linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    found = diffusers.StableVideoDiffusionPipeline(
        vae=vae.eval(),
        image_encoder=encoder.eval(),
        unet=unet.eval(),
        scheduler=scheduler,
        feature_extractor=processor(crop_size=224, size=224),
    )
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def told_flow(pipeline):
    """A widened network whose further weights are not zero any more."""
    own = copy.copy(pipeline)
    own.unet = widened(copy.deepcopy(pipeline.unet))
    with torch.no_grad():
        own.unet.conv_in.weight[:, 8:] = 0.3
    return own


@pytest.fixture
def condition(generator):
    return Condition(
        first_frame=torch.rand((2, 3, 16, 16), generator=generator),
        flow=torch.randn((2, 4, 2, 16, 16), generator=generator),
    )


def test_a_film_is_that_of_diffusers(pipeline, condition):
    done: list[float] = []
    generate = StableVideo(pipeline, batch=2, progress=done.append)
    assert isinstance(generate, Generator) and generate.optional == frozenset()
    found = generate(condition, seeds=SEEDS, steps=2)
    theirs = pipeline(
        pictures_of(condition.first_frame),
        height=16,
        width=16,
        num_frames=FRAMES,
        num_inference_steps=2,
        generator=(generators := generators_of(SEEDS)),
        latents=torch.stack([torch.randn(FRAMES, 4, 8, 8, generator=g) for g in generators]),
        output_type="pt",
    ).frames
    assert found.shape == (2, FRAMES, 3, 16, 16)
    torch.testing.assert_close(found, theirs)
    assert done == [0.5, 1.0]


def test_a_seed_is_a_film_and_the_first_frame_counts(pipeline, condition):
    generate = StableVideo(pipeline)
    both = generate(condition, seeds=SEEDS, steps=1)
    alone = StableVideo(pipeline, batch=2)(condition.rows(slice(1, 2)), seeds=[4], steps=1)
    torch.testing.assert_close(both[1:], alone, atol=2e-5, rtol=0)
    other = Condition(first_frame=1 - condition.first_frame)
    assert (generate(other, seeds=SEEDS, steps=1) - both).abs().max() > 1e-2
    assert (generate(condition, seeds=[7, 8], steps=1) - both).abs().max() > 1e-2


def test_a_widened_network_makes_the_same_film_bit_for_bit(pipeline, condition):
    own = copy.copy(pipeline)
    own.unet = widened(copy.deepcopy(pipeline.unet))
    generate = StableVideo(own)
    assert generate.optional == {"flow"}
    before = StableVideo(pipeline)(condition, seeds=SEEDS, steps=1)
    assert torch.equal(generate(condition, seeds=SEEDS, steps=1), before)


def test_flow_changes_the_film_of_a_network_that_was_taught(told_flow, condition):
    generate = StableVideo(told_flow, batch=2)
    found = generate(condition, seeds=SEEDS, steps=1)
    still = Condition(first_frame=condition.first_frame)
    assert (generate(still, seeds=SEEDS, steps=1) - found).abs().max() > 1e-3
    withheld = generate(condition, seeds=SEEDS, steps=1, control_scale=0.0)
    assert torch.equal(generate(still, seeds=SEEDS, steps=1), withheld)
    alone = generate(condition.rows(slice(1, 2)), seeds=[4], steps=1)
    torch.testing.assert_close(found[1:], alone, atol=2e-5, rtol=0)
    assert not told_flow.unet._forward_pre_hooks


def test_a_saved_pipeline_is_found_with_its_flow(told_flow, condition, tmp_path):
    """Through its folder: diffusers' own format, the same films to the bit; without its image encoder it is refused."""
    import shutil

    from radiata_decode.model.generators import generator as by_name

    told_flow.save_pretrained(tmp_path)
    made = by_name(f"diffusers:{tmp_path}", batch=2)
    assert made.provides == "video" and made.optional == {"flow"} and made.frames == FRAMES
    expected = StableVideo(told_flow, batch=2)(condition, seeds=SEEDS, steps=1)
    assert torch.equal(made(condition, seeds=SEEDS, steps=1), expected)
    shutil.rmtree(tmp_path / "image_encoder")
    with pytest.raises(InputError, match=r"expected the folder .*image_encoder"):
        by_name(f"diffusers:{tmp_path}")


@pytest.fixture(scope="module")
def animated():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        adapter = diffusers.MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_norm_num_groups=8,
            motion_num_attention_heads=2,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
        found = diffusers.AnimateDiffPipeline(
            vae=vae.eval(),
            text_encoder=None,
            tokenizer=None,
            unet=unet.eval(),
            motion_adapter=adapter.eval(),
            scheduler=diffusers.DDIMScheduler(
                beta_schedule="linear", clip_sample=False, steps_offset=1, set_alpha_to_one=False
            ),
        )
    found.set_progress_bar_config(disable=True)
    return found


def test_films_of_text_embeddings(animated, generator):
    draw = lambda: torch.randn((2, 3, 16), generator=generator)  # noqa: E731
    told = Condition(prompt_embeds=draw(), negative_prompt_embeds=draw())
    generate = AnimateDiffVideo(animated, frames=2, batch=2)
    both = generate(told, seeds=SEEDS, steps=2)
    assert both.shape == (2, 2, 3, 16, 16) and both.min() >= 0 and both.max() <= 1
    alone = generate(told.rows(slice(1, 2)), seeds=[4], steps=2)
    torch.testing.assert_close(both[1:], alone, atol=2e-5, rtol=0)
    other = Condition(prompt_embeds=draw(), negative_prompt_embeds=told.negative_prompt_embeds)
    assert (generate(other, seeds=SEEDS, steps=2) - both).abs().max() > 1e-3
    with pytest.raises(InputError, match="no text encoder"):
        generate(Condition(prompt_embeds=draw()), seeds=SEEDS, steps=2)


def test_what_is_missing_is_one_line(pipeline, condition):
    with pytest.raises(InputError, match="expected first_frame"):
        StableVideo(pipeline)(Condition(flow=condition.flow), seeds=SEEDS)
    with pytest.raises(InputError, match="divides the 3 frames"):
        StableVideo(pipeline, decode_chunk=2)
    odd = copy.copy(pipeline)
    odd.unet = copy.deepcopy(pipeline.unet)
    odd.unet.register_to_config(in_channels=9)
    with pytest.raises(InputError, match="got 9"):
        StableVideo(odd)
