"""Names and folders of generators: what is saved makes the same pictures, what is missing is one line, no network."""

import json
import shutil

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.weights import write_tensors
from radiata_decode.model.conditions import Condition, Generator
from radiata_decode.model.diffusers_images import StableDiffusionImages
from radiata_decode.model.generators import ADAPTER_FILE, KINDS, class_weights, diffusers_generator, generator
from radiata_decode.model.pipeline_folders import read_pipeline_folder

WIDTH, EMBED, SEEDS = 16, 12, [3, 4]


@pytest.fixture(scope="module")
def pipeline():
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
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
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
    found = diffusers.StableDiffusionPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture
def condition(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return Condition(
        init_image=torch.rand((2, 3, 16, 16), generator=generator),
        prompt_embeds=draw(2, 3, WIDTH),
        negative_prompt_embeds=draw(2, 3, WIDTH),
    )


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever opens a connection fails."""
    import socket

    def refused(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_a_saved_pipeline_makes_the_same_pictures(pipeline, saved, condition):
    made = generator(f"diffusers:{saved}", batch=2)
    assert isinstance(made, Generator) and made.provides == "image"
    options = {"seeds": SEEDS, "steps": 2, "guidance": 2.0}
    expected = StableDiffusionImages(pipeline)(condition, **options)
    torch.testing.assert_close(made(condition, **options), expected, atol=1e-6, rtol=0)
    assert not any(p.requires_grad for p in made.unet.parameters())


def test_an_adapter_in_the_folder_is_used(folder, condition):
    source = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(shape, generator=source)  # noqa: E731
    tensors = {
        "image_proj.proj.weight": draw(4 * WIDTH, EMBED),
        "image_proj.proj.bias": draw(4 * WIDTH),
        "image_proj.norm.weight": torch.ones(WIDTH),
        "image_proj.norm.bias": torch.zeros(WIDTH),
    }
    for index in range(1, 8, 2):
        tensors[f"ip_adapter.{index}.to_k_ip.weight"] = draw(32, WIDTH)
        tensors[f"ip_adapter.{index}.to_v_ip.weight"] = draw(32, WIDTH)
    write_tensors(folder / ADAPTER_FILE, tensors)
    made = diffusers_generator(folder)
    assert made.requires == {"image_embeds"}
    with pytest.raises(InputError, match="expected image_embeds"):
        made(condition, seeds=SEEDS)


@pytest.mark.parametrize("conversion", [False, True])
def test_versatile_diffusion_from_its_folder(tmp_path, condition, conversion, generator):
    """As its dual pipeline saves it, and as the older pipeline: an image network and a text network apart."""
    diffusers = pytest.importorskip("diffusers")
    from dataclasses import replace

    from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel

    shape = {
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "sample_size": 8,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    names = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    parts = dict.fromkeys(("tokenizer", "image_feature_extractor", "text_encoder", "image_encoder"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = diffusers.UNet2DConditionModel(
            **shape, down_block_types=names[0], up_block_types=names[1], dual_cross_attention=not conversion
        )
        text = None
        if conversion:
            flat = [tuple(n.replace("Block2D", "BlockFlat") for n in each) for each in names]
            text = UNetFlatConditionModel(
                **shape,
                in_channels=(4, 1, 1),
                out_channels=(4, 1, 1),
                down_block_types=flat[0],
                up_block_types=flat[1],
                mid_block_type="UNetMidBlockFlatCrossAttn",
            )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(16, 16),
            latent_channels=4,
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
        scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
        kind = "VersatileDiffusionPipeline" if conversion else "VersatileDiffusionDualGuidedPipeline"
        getattr(diffusers, kind)(
            **parts, image_unet=image, text_unet=text, vae=vae, scheduler=scheduler
        ).save_pretrained(tmp_path)
    if conversion:  # names that diffusers 0.42 and transformers 5 do not resolve
        index = tmp_path / "model_index.json"
        content = json.loads(index.read_text())
        index.write_text(
            json.dumps(content | {"text_unet": ["versatile_diffusion", "UNetFlatConditionModel"]})
        )
    made = generator_of(tmp_path)
    embeds = {
        name: torch.randn((2, 5, WIDTH), generator=generator)
        for name in ("image_embeds", "negative_image_embeds")
    }
    told = replace(condition, **embeds)
    found = made(told, seeds=SEEDS, steps=2, guidance=2.0)
    assert found.shape == (2, 3, 16, 16)
    other = replace(told, prompt_embeds=told.prompt_embeds + 1)
    assert (made(other, seeds=SEEDS, steps=2, guidance=2.0) - found).abs().max() > 1e-5
    assert torch.equal(*(made(each, seeds=SEEDS, steps=2, guidance=2.0, mix=0.0) for each in (told, other)))


def generator_of(folder):
    return generator(f"diffusers:{folder}")


def test_a_folder_of_another_class(folder):
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match="got FluxPipeline") as caught:
        generator(f"diffusers:{folder}")
    assert "\n" not in str(caught.value) and "StableDiffusionPipeline" in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (
            "unet/diffusion_pytorch_model.safetensors",
            "expected the weights .*unet/diffusion_pytorch_model.safetensors",
        ),
        ("vae/config.json", "expected the file .*vae/config.json"),
        ("vae", r"expected the folder .*vae \(AutoencoderKL\)"),
        ("model_index.json", "with model_index.json"),
    ],
)
def test_a_missing_file_is_named(folder, gone, message):
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message) as caught:
        generator(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)
    assert "hf download" in str(caught.value) or gone == "model_index.json"


def test_a_pickle_is_not_read(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"no \.safetensors"):
        generator(f"diffusers:{folder}")


def test_broken_weights_are_one_line(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        generator(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_looked_up_in_the_cache_only(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="--online") as caught:
        generator("diffusers:nobody/no-such-pipeline")
    assert "\n" not in str(caught.value) and "hf download nobody/no-such-pipeline" in str(caught.value)
    with pytest.raises(InputError, match="Check the path"):
        generator("diffusers:/no/such/folder")


def test_parts_that_are_not_needed_may_be_absent(folder):
    """A text encoder that was not fetched, and any safety checker."""
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    content |= {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    }
    index.write_text(json.dumps(content))
    found = read_pipeline_folder(folder, tuple(KINDS))
    assert {"text_encoder", "tokenizer", "safety_checker"} <= set(found.absent)
    assert set(found.components) == {"unet", "vae", "scheduler"}
    assert "prompt_embeds" in generator(f"diffusers:{folder}").requires


def test_plain_names(condition):
    first = generator("none")(condition, seeds=SEEDS)
    assert torch.equal(first, condition.init_image)
    pictures = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    latents = torch.eye(2, 6)
    found = generator("retrieval", gallery=(pictures, latents))(
        Condition(init_latents=latents[[1]]), seeds=[0]
    )
    assert torch.equal(found, pictures[[1]])
    with pytest.raises(InputError, match="retrieval"):
        generator("retrieval")
    with pytest.raises(InputError, match="expected one of none"):
        generator("gan")


def test_a_still_frame_without_flow_stays(condition):
    warp = generator("warp", frames=3)
    assert isinstance(warp, Generator) and warp.provides == "video"
    told = Condition(first_frame=condition.init_image, flow=torch.ones(2, 2, 2, 16, 16))
    film = warp(told, seeds=SEEDS, control_scale=0.0)
    torch.testing.assert_close(film, condition.init_image.unsqueeze(1).expand(-1, 3, -1, -1, -1))
    moved = warp(told, seeds=SEEDS)
    torch.testing.assert_close(
        moved[:, 1, :, 2:, 2:], condition.init_image[..., 1:-1, 1:-1], atol=1e-4, rtol=0
    )


def test_categories_go_to_the_columns_of_the_generator():
    CATEGORIES = pytest.importorskip("radiata_decode.model.picture_prior").CATEGORIES
    names = ("shoe", "cat")
    found = class_weights(names, torch.tensor([[0.75, 0.25]]))
    assert found.shape == (1, len(CATEGORIES)) and found.sum() == 1
    assert found[0, CATEGORIES.index("shoe")] == 0.75 and found[0, CATEGORIES.index("cat")] == 0.25
    with pytest.raises(InputError, match="dragon"):
        class_weights(("dragon",), torch.ones(1, 1))
