"""Flow beside the latents: nothing changes at the start, diffusers' denoiser and loss, units of flow, learning it."""

import copy
from types import SimpleNamespace

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_decode.model.flow_conditioned_video import (
    FlowConditionedVideo,
    WidenedConv,
    flow_beside,
    flow_channels,
    flow_maps,
    widened,
)

diffusers = pytest.importorskip("diffusers")

FRAMES = 3
UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "sample_size": 4,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "cross_attention_dim": 16,
    "num_attention_heads": 4,
    "projection_class_embeddings_input_dim": 48,
    "addition_time_embed_dim": 16,
    "num_frames": FRAMES,
}


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNetSpatioTemporalConditionModel(**UNET).eval()


@pytest.fixture(scope="module")
def vae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return (
            diffusers.AutoencoderKLTemporalDecoder(
                block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
            )
            .requires_grad_(False)
            .eval()
        )


@pytest.fixture
def pipeline(unet, vae):
    """The parts that the objective uses; the encoder of the first frame is its mean colour."""

    def encode(pictures, device, number, guided):
        assert number == 1 and not guided
        values = [torch.tensor(one.resize((1, 1)).getpixel((0, 0))) / 255.0 for one in pictures]
        return torch.stack(values).repeat(1, 6)[:, :16].unsqueeze(1)

    return SimpleNamespace(unet=copy.deepcopy(unet), vae=vae, _encode_image=encode)


@pytest.fixture
def films(generator):
    clip = torch.rand((2, FRAMES, 3, 8, 8), generator=generator)
    return clip[:, 0], torch.randn((2, 2, 2, 8, 8), generator=generator), clip


def inputs(generator, channels):
    return {
        "sample": torch.randn((2, FRAMES, channels, 4, 4), generator=generator),
        "timestep": torch.tensor(0.3),
        "encoder_hidden_states": torch.randn((2, 1, 16), generator=generator),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]] * 2),
    }


@torch.no_grad()
def test_a_new_widening_changes_no_bit_whatever_the_flow(unet, generator):
    told = inputs(generator, 8)
    sample = told.pop("sample")
    wide = widened(copy.deepcopy(unet))
    flow = torch.randn((2, FRAMES, 3, 4, 4), generator=generator)
    before = unet(sample, **told).sample
    assert torch.equal(wide(torch.cat([sample, flow], 2), **told).sample, before)
    with flow_beside(wide, flow):
        assert torch.equal(wide(sample, **told).sample, before)


@torch.no_grad()
def test_weights_are_those_of_an_ordinary_convolution(unet, generator, tmp_path):
    """Saved and loaded by diffusers without this module, the network is the same to rounding; loaded back, the same bits."""
    wide = widened(copy.deepcopy(unet))
    wide.conv_in.weight[:, 8:] = torch.randn((32, 3, 3, 3), generator=generator)
    told = inputs(generator, 11)
    found = wide(**told).sample
    wide.save_pretrained(tmp_path)
    with torch.random.fork_rng(devices=[]):
        plain = diffusers.UNetSpatioTemporalConditionModel.from_pretrained(tmp_path, local_files_only=True)
    assert flow_channels(plain) == 3 and not isinstance(plain.conv_in, WidenedConv)
    torch.testing.assert_close(plain(**told).sample, found, atol=1e-5, rtol=1e-4)
    assert torch.equal(widened(plain)(**told).sample, found)
    assert widened(wide) is wide and wide.config.in_channels == 11


@torch.no_grad()
def test_both_branches_are_told_the_flow(unet, generator):
    wide = widened(copy.deepcopy(unet))
    wide.conv_in.weight[:, 8:] = 1.0
    told = inputs(generator, 8)
    sample = told.pop("sample")
    flow = torch.randn((1, FRAMES, 3, 4, 4), generator=generator)
    with flow_beside(wide, flow):
        found = wide(sample, **told).sample
    expected = wide(torch.cat([sample, flow.expand(2, -1, -1, -1, -1)], 2), **told).sample
    assert torch.equal(found, expected)


def test_flow_is_in_latent_cells_and_frames_know_how_they_were_reached():
    flow = torch.zeros(1, 2, 2, 16, 16)
    flow[:, 0, 0], flow[:, 1, 1] = 8.0, -4.0
    maps = flow_maps(flow, 3, (2, 2))
    assert torch.equal(maps[:, 0], torch.zeros(1, 3, 2, 2))
    # 8 pixels of 16 are 1 cell of 2.
    torch.testing.assert_close(maps[0, 1, :, 0, 0], torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(maps[0, 2, :, 1, 1], torch.tensor([0.0, -0.5, 1.0]))
    with pytest.raises(InputError, match="two frames"):
        flow_maps(flow, 1, (2, 2))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
def test_the_denoiser_is_that_of_the_scheduler(pipeline, films, generator):
    """E[z_0 | z_t] against diffusers' Euler step at each of its levels."""
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_max=700.0,
        sigma_min=0.002,
        timestep_spacing="leading",
        steps_offset=1,
    )
    loss = FlowConditionedVideo(pipeline, frame_dropout=0.0, flow_dropout=0.0)
    told = loss.conditions(films[0], films[1], FRAMES, generators_of([1, 2]))
    denoise = loss.denoiser
    scheduler.set_timesteps(4)
    for time, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        z = (1 + sigma) * torch.randn((2, FRAMES, 4, 4, 4), generator=generator)
        raw = pipeline.unet(
            torch.cat([scheduler.scale_model_input(z, time), told["beside"]], 2),
            time,
            encoder_hidden_states=told["frame_embeds"],
            added_time_ids=told["time_ids"],
        ).sample
        expected = scheduler.step(raw, time, z).pred_original_sample
        at = denoise.path.time_of_log_snr(-torch.log(sigma.double()))
        found = denoise(z, at.expand(2), **told)
        torch.testing.assert_close(found, expected, atol=2e-4 * float(1 + sigma) ** 0.5, rtol=2e-4)


@torch.no_grad()
def test_the_loss_is_its_equation(pipeline, films):
    loss = FlowConditionedVideo(pipeline)
    found = loss(*films, generators_of([5, 6]))
    generators = generators_of([5, 6])
    told = loss.conditions(films[0], films[1], FRAMES, generators)
    scale = pipeline.vae.config.scaling_factor
    z0 = scale * pipeline.vae.encode(2 * films[2].flatten(0, 1) - 1).latent_dist.mode()
    z0 = z0.unflatten(0, (2, FRAMES))
    for row, generator in enumerate(generators):
        t = loss.law.sample(1, generator)
        t = loss.law.on(loss.denoiser.path, t)
        sigma = loss.denoiser.path.coefficients(t).sigma.item()
        noise = torch.randn(z0.shape[1:], generator=generator)
        z = (z0[row] + sigma * noise)[None]
        raw = pipeline.unet(
            torch.cat([z / (1 + sigma**2) ** 0.5, told["beside"][row : row + 1]], 2),
            torch.tensor(0.25 * torch.log(torch.tensor(sigma)).item()),
            encoder_hidden_states=told["frame_embeds"][row : row + 1],
            added_time_ids=told["time_ids"][row : row + 1],
        ).sample
        clean = z / (1 + sigma**2) - sigma / (1 + sigma**2) ** 0.5 * raw
        expected = (1 + sigma**-2) * (clean - z0[row]).square().mean()
        torch.testing.assert_close(found.per_sample[row].float(), expected, rtol=2e-3, atol=1e-4)
    assert found.t.min() > 0 and found.t.max() < 1


def test_the_flow_weights_learn(pipeline, films):
    """Zero at the start, with a gradient that is not."""
    loss = FlowConditionedVideo(pipeline, frame_dropout=0.0, flow_dropout=0.0)
    weight = pipeline.unet.conv_in.weight
    assert not weight[:, 8:].any()
    (slope,) = torch.autograd.grad(loss(*films, generators_of([5, 6])).value, weight)
    assert (slope[:, 8:].abs().amax((0, 2, 3)) > 0).all()


@torch.no_grad()
def test_dropped_parts_are_zero_and_rows_are_their_own(pipeline, films):
    loss = FlowConditionedVideo(pipeline, frame_dropout=1.0, flow_dropout=1.0)
    told = loss.conditions(films[0], films[1], FRAMES, generators_of([1, 2]))
    assert not told["beside"].any() and not told["frame_embeds"].any()
    half = FlowConditionedVideo(pipeline, frame_dropout=0.5, flow_dropout=0.5)
    both = half(*films, generators_of([1, 2])).per_sample
    alone = half(*(part[1:] for part in films), generators_of([2])).per_sample
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_bad_input_is_one_line(pipeline, films):
    loss = FlowConditionedVideo(pipeline)
    with pytest.raises(InputError, match="generator a row"):
        loss(*films, generators_of([1]))
    with pytest.raises(InputError, match="dropout"):
        FlowConditionedVideo(pipeline, flow_dropout=2.0)
