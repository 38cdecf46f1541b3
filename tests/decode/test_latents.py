"""Codecs: principal components against scikit-learn, autoencoders through diffusers."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from radiata_core.errors import InputError
from radiata_decode.model import latents
from radiata_decode.model.latents import AutoencoderCodec, ImageCodec, PcaCodec


def pictures(generator, count=60, side=8):
    smooth = nn.functional.interpolate(
        torch.rand(count, 3, 3, 3, generator=generator), side, mode="bilinear", align_corners=True
    )
    return (smooth + 0.05 * torch.rand(count, 3, side, side, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("count", [60, 300])
def test_components_are_those_of_scikit_learn(generator, count):
    """With fewer pictures than numbers in a picture, and with more."""
    images = pictures(generator, count)
    codec = PcaCodec.fit(images, 10)
    theirs = PCA(10, svd_solver="full").fit(images.flatten(1).double().numpy())
    same = np.abs((codec.components.numpy() * theirs.components_).sum(1))
    assert np.allclose(same, 1, atol=1e-4)
    assert np.allclose(codec.sd, theirs.explained_variance_**0.5, rtol=1e-3)
    assert isinstance(codec, ImageCodec)


def test_the_randomised_path_finds_the_same_subspace(generator, monkeypatch):
    images = pictures(generator, 200)
    exact = PcaCodec.fit(images, 12)
    monkeypatch.setattr(latents, "_EXACT", 5)
    drawn = PcaCodec.fit(images, 12)
    assert torch.allclose(drawn.components @ drawn.components.T, torch.eye(12), atol=1e-5)
    assert torch.allclose(drawn.sd, exact.sd, rtol=1e-3)
    assert torch.linalg.svdvals(drawn.components @ exact.components.T).min() > 0.999
    assert torch.equal(PcaCodec.fit(images, 12).components, drawn.components)


def test_all_components_bring_pictures_back(generator):
    images = pictures(generator, 20)
    codec = PcaCodec.fit(images, 300)
    assert codec.dimensions == 19
    assert torch.allclose(codec.decode(codec.encode(images)), images, atol=1e-5)
    assert torch.allclose(codec.decode(torch.zeros(1, 19))[0], images.mean(0), atol=1e-6)
    assert codec.decode(torch.full((1, 19), 100.0)).max() <= 1


def test_a_basis_comes_back_from_its_files(generator, tmp_path):
    codec = PcaCodec.fit(pictures(generator), 5)
    codec.save(tmp_path / "basis.safetensors")
    back = PcaCodec.load(tmp_path / "basis.safetensors")
    assert torch.equal(back.components, codec.components)
    assert back.shape == (3, 8, 8)
    with pytest.raises(InputError, match="safetensors"):
        codec.save(tmp_path / "basis.npy")


def test_bad_pictures_are_refused(generator):
    images = pictures(generator)
    codec = PcaCodec.fit(images, 5)
    refused = [
        (lambda: PcaCodec.fit(images * 255), "Divide 8-bit"),
        (lambda: PcaCodec.fit(images[:1]), "two pictures"),
        (lambda: PcaCodec.fit((images * 255).byte()), "Divide 8-bit"),
        (lambda: PcaCodec.fit(images[:, :1]), "expected pictures"),
        (lambda: codec.encode(images * float("nan")), "in \\[0, 1\\]"),
        (lambda: codec.encode(images[..., 1:]), "Resize"),
        (lambda: codec.decode(torch.zeros(2, 6)), "Use their own basis"),
        (lambda: AutoencoderCodec(nn.Identity(), (3, 8, 8)), "encode and decode"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_an_autoencoder_of_diffusers_is_a_codec(generator, kind):
    """Latents are the module's own, scaled as its diffusion model expects; batches change nothing."""
    diffusers = pytest.importorskip("diffusers")
    options = {
        "AutoencoderKL": {
            "block_out_channels": (8, 8),
            "latent_channels": 4,
            "norm_num_groups": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "scaling_factor": 0.2,
        },
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = getattr(diffusers, kind)(**options[kind]).eval()
    images = pictures(generator, 5, 16)
    codec = AutoencoderCodec(module, (3, 16, 16), batch=2)
    z = codec.encode(images)
    with torch.no_grad():
        found = module.encode(2 * images[:1] - 1)
        own = found.latent_dist.mean * 0.2 if kind == "AutoencoderKL" else found.latents
        picture = module.decode(own / (0.2 if kind == "AutoencoderKL" else 1)).sample / 2 + 0.5
    assert torch.allclose(z[:1], own.flatten(1), atol=1e-5)
    assert torch.allclose(codec.decode(z)[:1], picture.clamp(0, 1), atol=1e-4)
    assert torch.allclose(codec.encode(images[3:4]), z[3:4], atol=1e-5)
    assert codec.groups.bincount().tolist() == [64] * 4
