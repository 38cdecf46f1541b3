"""PixCorr against numpy, SSIM against what the published line computes, sizes against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from radiata_core.errors import InputError
from radiata_decode.model.image_scores import PRESETS, image_scores, pixcorr, resized, ssim


@pytest.fixture
def pictures(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth coloured pictures and noisy versions of them."""
    coarse = torch.rand(3, 3, 8, 8, generator=generator)
    truth = resized(coarse, (40, 48))
    noisy = (truth + 0.15 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    return truth, noisy


def test_pixcorr_is_numpys_correlation(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, noisy = pictures
    expected = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(truth.numpy(), noisy.numpy(), strict=True)
    ]
    np.testing.assert_allclose(image_scores(truth, noisy).pixcorr, expected, atol=1e-6)
    np.testing.assert_allclose(pixcorr(truth, 0.2 + 0.5 * truth), 1, atol=1e-6)
    np.testing.assert_allclose(pixcorr(truth, 1 - truth), -1, atol=1e-6)


def test_a_picture_of_one_colour_has_no_correlation(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    """NaN, also where rounding makes it not quite constant; SSIM stays a number."""
    truth, _ = pictures
    flat = torch.full_like(truth, 0.3)
    flat[1, 0, 0, 0] += 1e-8
    found = image_scores(truth, flat)
    assert np.isnan(found.pixcorr).all() and np.isfinite(found.ssim).all()


def test_ssim_is_two_dimensional_and_legacy_is_the_mean_over_columns(
    pictures: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Legacy SSIM is what each column's one-dimensional SSIM averages to: the convention of the older papers."""
    truth, noisy = pictures
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    grey = [[rgb2gray(x.permute(1, 2, 0).double().numpy()) for x in images] for images in pictures]
    flat = [structural_similarity(a, b, **options) for a, b in zip(*grey, strict=True)]
    columns = [
        np.mean([structural_similarity(a[:, c], b[:, c], **options) for c in range(a.shape[1])])
        for a, b in zip(*grey, strict=True)
    ]
    found = image_scores(truth, noisy)
    np.testing.assert_allclose(found.ssim, flat, atol=1e-6)
    np.testing.assert_allclose(found.ssim_legacy, columns, atol=1e-6)
    assert (np.abs(found.ssim - found.ssim_legacy) > 0.01).all()
    np.testing.assert_allclose(ssim(truth, truth), 1)


def test_brain_diffuser_resizes_the_decoded_picture_as_pillow(generator: torch.Generator) -> None:
    """Within the rounding of 8-bit values, which Pillow does twice; upward and downward."""
    for side in (32, 512):
        coarse = 0.2 + 0.6 * torch.rand(
            1, 3, 8, 8, generator=generator
        )  # Pillow clips between its two passes
        picture = (resized(coarse, (side, side)) * 255).round() / 255
        stored = Image.fromarray((picture[0].permute(1, 2, 0) * 255).round().byte().numpy())
        reference = np.array(stored.resize((425, 425))) / 255.0
        truth = torch.rand(1, 3, 425, 425, generator=generator)
        same, made = PRESETS["brain-diffuser"].pairs(truth, picture)
        assert same is truth
        error = np.abs(made[0].permute(1, 2, 0).numpy() - reference) * 255
        assert error.max() < 1.6 and error.mean() < 0.4


def test_mindeye_takes_both_through_256_pixels(generator: torch.Generator) -> None:
    """Detail that 256 pixels cannot hold is gone from the truth too."""
    fine = torch.zeros(1, 3, 425, 425)
    fine[..., ::2] = 1.0
    truth, made = PRESETS["mindeye"].pairs(fine, fine[..., :400, :400])
    assert truth.shape == made.shape == (1, 3, 425, 425)
    assert truth[..., 20:-20, 20:-20].std() < 0.3 < 0.49 < fine.std()


def test_a_score_does_not_depend_on_the_other_pictures(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, noisy = pictures
    together = image_scores(truth, noisy)
    alone = [image_scores(truth[i : i + 1], noisy[i : i + 1]) for i in range(3)]
    for name in ("pixcorr", "ssim", "ssim_legacy"):
        np.testing.assert_array_equal(
            getattr(together, name), np.concatenate([getattr(one, name) for one in alone])
        )


def test_refuses(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, noisy = pictures
    for a, b, message in (
        (truth, noisy[:2], "as many decoded pictures as true ones; got 2 and 3"),
        (truth, noisy * 255, r"decoded pictures in \[0, 1\]; got 0 to 255"),
        (truth[:, :1], noisy, r"true pictures \(n, 3, y, x\); got \(3, 1, 40, 48\)"),
        (truth * torch.nan, noisy, "true pictures"),
        (truth[..., :8, :8], noisy, "at least 11 pixels for SSIM"),
    ):
        with pytest.raises(InputError, match=message):
            image_scores(a, b)
