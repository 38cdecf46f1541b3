"""Scores of restored images: closed forms, MONAI as a second implementation, invariants."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_imaging.features import HistogramFeatures, RandomConvFeatures
from radiata_imaging.image_quality import (
    Encoder,
    hfen,
    image_quality,
    laplacian_of_gaussian,
    perceptual_distance,
    ssim_map,
)


def test_a_known_error_has_its_decibels(rng: np.random.Generator) -> None:
    """An error of ±0.1 everywhere on a range of 2 is 20 log10(20) dB, and its MAE and RMSE are 0.1."""
    truth = rng.normal(size=(20, 24))
    found = image_quality(truth + 0.1 * rng.choice([-1.0, 1.0], truth.shape), truth, data_range=2.0)
    assert found.psnr == pytest.approx(20 * np.log10(20), abs=1e-9)
    assert found.mae == pytest.approx(0.1) and found.rmse == pytest.approx(0.1)
    assert found.nrmse == pytest.approx(0.1 / np.sqrt(np.mean(truth**2)))
    assert np.isnan(found.perceptual) and found.voxels == 480


def test_equal_images_are_perfect(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(12, 13, 14)).astype(np.float32)
    found = image_quality(truth, truth, data_range=1.0)
    assert (found.psnr, found.ssim, found.hfen, found.mae) == (np.inf, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(30, 26), (17, 15, 19)])
def test_ssim_is_monais(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    from monai.metrics.regression import compute_ssim_and_cs

    x, y = rng.normal(size=(2, *shape)).astype(np.float32)
    y = 0.6 * x + 0.4 * y
    there = compute_ssim_and_cs(
        torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None], len(shape),
        [11] * len(shape), [1.5] * len(shape), data_range=3.0,
    )[0]  # fmt: skip
    ours = ssim_map(x.astype(np.float64), y.astype(np.float64), 3.0)
    assert np.allclose(ours, there[0, 0].numpy(), atol=2e-5)
    assert image_quality(x, y, data_range=3.0).ssim == pytest.approx(float(there.mean()), abs=2e-5)


@pytest.mark.parametrize("shape", [(30, 26), (17, 18, 19)])
def test_a_constant_shift_has_no_high_frequency_error(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    truth = rng.normal(size=shape)
    assert hfen(truth + 5.0, truth) < 1e-12
    assert hfen(np.zeros(shape), truth) == pytest.approx(1.0), "no edges at all: all of them are missing"
    assert np.isnan(hfen(truth, np.full(shape, 3.0)))


def test_laplacian_is_scipys_and_knows_a_parabola(rng: np.random.Generator) -> None:
    """∇²(x² + 3y²) = 8 far from the edges; scipy's filter differs only where 15 taps cut it."""
    from scipy.ndimage import gaussian_laplace

    at = np.arange(40.0)
    parabola = laplacian_of_gaussian(at[:, None] ** 2 + 3 * at[None, :] ** 2)
    assert np.allclose(parabola[12:-12, 12:-12], 8.0, atol=0.02)
    x = rng.normal(size=(32, 32))
    assert np.allclose(laplacian_of_gaussian(x)[8:-8, 8:-8], gaussian_laplace(x, 1.5)[8:-8, 8:-8], atol=2e-3)


def test_only_the_mask_counts(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(24, 24, 12))
    mask = np.zeros(truth.shape, bool)
    mask[4:20, 4:20, 4:8] = True
    spoilt = np.where(mask, truth + 0.1, 1e3)
    found = image_quality(spoilt, truth, data_range=1.0, mask=mask)
    assert found.psnr == pytest.approx(20.0) and found.mae == pytest.approx(0.1)
    assert found.voxels == mask.sum()
    scaled = image_quality(3 * spoilt, 3 * truth, data_range=3.0, mask=mask)
    assert scaled.psnr == pytest.approx(found.psnr) and scaled.ssim == pytest.approx(found.ssim)


def test_thin_volumes_have_no_ssim(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(20, 20, 5))
    assert np.isnan(image_quality(truth + 1, truth, data_range=1.0).ssim)


def test_blur_costs_more_edges_than_noise_of_the_same_error(rng: np.random.Generator) -> None:
    """HFEN is not PSNR in disguise: at one RMSE, missing edges weigh more in the edges than a smooth shading."""
    truth = np.kron(rng.normal(size=(8, 8)), np.ones((6, 6)))
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(truth, 2.0) - truth
    shading = np.linspace(-1, 1, 48)[:, None] * np.ones((1, 48))
    shading *= np.linalg.norm(blurred) / np.linalg.norm(shading)
    assert hfen(truth + blurred, truth) > 5 * hfen(truth + shading, truth)


def test_perceptual_distance_on_any_encoder(rng: np.random.Generator) -> None:
    volume = rng.uniform(-1, 1, size=(20, 20, 20)).astype(np.float32)
    for encoder in (RandomConvFeatures(), HistogramFeatures()):
        assert isinstance(encoder, Encoder)
        assert perceptual_distance(encoder, volume, volume) == 0
    noisy = volume + rng.normal(size=volume.shape).astype(np.float32)
    near = image_quality(volume + 0.1 * (noisy - volume), volume, data_range=2, encoder=RandomConvFeatures())
    far = image_quality(noisy, volume, data_range=2, encoder=RandomConvFeatures())
    assert 0 < near.perceptual < far.perceptual


@pytest.mark.parametrize(
    ("shape", "data_range", "mask", "said"),
    [
        ((8, 9), 1.0, None, "one shape"),
        ((8, 8), 0.0, None, "data range > 0"),
        ((8, 8), 1.0, np.zeros((8, 8), bool), "with voxels in it"),
        ((8, 8), 1.0, np.ones((4, 8), bool), "expected a mask of shape 8×8"),
    ],
)
def test_bad_input(shape: tuple[int, int], data_range: float, mask: np.ndarray | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        image_quality(np.zeros(shape), np.ones((8, 8)), data_range=data_range, mask=mask)
