"""Codecs of an image decoder: the shipped components, those of training, an autoencoder that stays where it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.decoded import read_decoded
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.image_codecs import fitted_codec
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.train import Train
from radiata_decode.model.latents import PcaCodec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder of diffusers, as save_pretrained writes it."""
    diffusers = pytest.importorskip("diffusers")
    place = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1), upsampling_scaling_factor=2,
        )  # fmt: skip
    module.save_pretrained(place, safe_serialization=True)
    return place


def test_the_first_components_of_the_shipped_basis(generator: torch.Generator) -> None:
    """Forty of three hundred are orthonormal and decode what a projection on them says."""
    pictures = torch.rand(4, 3, 32, 32, generator=generator)
    codec = fitted_codec("shipped", 40, pictures, 0)
    assert isinstance(codec, PcaCodec)
    rows = codec.components.double()
    assert torch.allclose(
        rows @ rows.T, torch.eye(40, dtype=torch.float64), atol=2e-3
    )  # stored in half precision
    latents = codec.encode(pictures)
    assert torch.allclose(codec.encode(codec.decode_unclipped(latents).clamp(0, 1)), latents, atol=0.3)


def test_an_autoencoder_trains_and_decodes_and_must_not_change(folder: Path, tmp_path: Path) -> None:
    subject = tmp_path / "subject"
    write_simulated_subject(subject, kind="image", train=60, test=10, voxels=120, repeats=1)
    Train((subject,), tmp_path / "run", basis=str(folder)).run()
    assert read_json(tmp_path / "run" / "model.json")["codec"]["kind"] == "autoencoder"
    Decode(subject, tmp_path / "run", tmp_path / "out", generator="none").run()
    found = read_decoded(tmp_path / "out").arrays["images"]
    assert found.shape == (10, 32, 32, 3) and np.unique(found.reshape(10, -1), axis=0).shape[0] == 10
    with pytest.raises(InputError, match="reliability of the guess"):
        Decode(subject, tmp_path / "run", tmp_path / "own").run()
    with pytest.raises(InputError, match="with --posterior"):
        Train((subject,), tmp_path / "other", basis=str(folder), posterior=True).run()
    weights = folder / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\x00\x00\x80\x3f")
    try:
        with pytest.raises(InputError, match="got another one"):
            Decode(subject, tmp_path / "run", tmp_path / "changed", generator="none").run()
    finally:
        weights.write_bytes(kept)


def test_what_is_no_codec_is_told(tmp_path: Path) -> None:
    pictures = torch.full((4, 3, 16, 16), 0.5)
    with pytest.raises(InputError, match="pictures of 32 pixels"):
        fitted_codec("shipped", 40, pictures, 0)
    with pytest.raises(InputError, match=r"config.json and diffusion_pytorch_model"):
        fitted_codec(str(tmp_path), 40, pictures, 0)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="AutoencoderKL, AutoencoderTiny; got UNet2DModel"):
        fitted_codec(str(tmp_path), 40, pictures, 0)
