"""Translation between contrasts: exact where one image is a curve of the other, and on pairs rendered of one anatomy."""

import dataclasses

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.posterior_spread import UnitSpread
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_medical.data.structures import tissue_channels
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise
from radiata_medical.model.translation import (
    TranslationOptions,
    curve_image,
    painted,
    quantile_mapping,
    tissue_means,
    translate,
)

from .small_head import small_head

BRAIN = (1, 2, 3, 4, 5, 6, 7)
COUNT = 9


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One slice of one anatomy as T1 and as T2, and its tissues."""
    quiet = ScanSpec(texture=(0.0, 0.02), grain=(0.0, 0.0), bias=(0.0, 0.02), inside=1.0)
    spec = dataclasses.replace(quiet, shape=(48, 56, 1), warp=1.0, rotation=5.0)
    head, images = head_of(small_head()), []
    for name in ("t1", "t2"):
        scan = synthesise(head, dataclasses.replace(spec, contrasts=((name, 1.0),)), generator_of(seed))
        images.append(scan.image[None, None, :, :, 0])
    tissues = torch.from_numpy(tissue_channels())[scan.labels.long()].long()[None, :, :, 0]
    return images[0], images[1], tissues


def rms(error: torch.Tensor) -> float:
    return float(error.square().mean().sqrt())


def test_means_are_medians_of_the_tissues_and_nan_where_there_are_too_few_voxels() -> None:
    image = torch.arange(100.0).reshape(1, 1, 100)
    tissues = torch.zeros(1, 100, dtype=torch.int64)
    tissues[0, 60:] = 1
    tissues[0, 95:] = 2
    found = tissue_means(image, tissues, 3)
    assert found[0, :2].tolist() == [29.0, 77.0]
    assert found[0, 2].isnan()


def test_curve_is_exact_where_the_wanted_image_is_a_curve_of_the_given_one() -> None:
    """Also for voxels between two tissues, and although the order of brightness turns."""
    means = torch.tensor([[0.0, 0.2, 0.5, 0.9]])
    wanted = torch.tensor([[0.0, 1.0, 0.6, 0.4]])
    x = torch.rand(1, 1, 500, generator=generator_of(1)) * 0.7 + 0.2
    tissues = 1 + (x[:, 0] > 0.35).long() + (x[:, 0] > 0.7).long()
    truth = torch.where(x < 0.5, 1.0 - 0.4 * (x - 0.2) / 0.3, 0.6 - 0.2 * (x - 0.5) / 0.4)
    found = curve_image(x, tissues, means, wanted, (1, 2, 3), blur=0.0, detail=1.0)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
    bare = curve_image(x, tissues, means, wanted, (1, 2, 3), blur=0.0, detail=0.0)
    assert torch.equal(bare, painted(tissues, wanted, 0.0))


def test_outside_of_the_brain_the_scan_is_scaled() -> None:
    x = torch.rand(1, 1, 30, generator=generator_of(2))
    tissues = torch.full((1, 30), 3)
    means, wanted = torch.tensor([[0, 0.2, 0.6, 0.5]]), torch.tensor([[0, 1.0, 0.5, 0.25]])
    found = curve_image(x, tissues, means, wanted, (1, 2), 0.0, 1.0)
    torch.testing.assert_close(found, x / 2)


def test_quantile_mapping_of_equal_counts_sorts_one_into_the_other() -> None:
    image, reference = torch.randn(64, generator=generator_of(3)), torch.rand(64, generator=generator_of(4))
    found = quantile_mapping(image, reference, bins=64)
    torch.testing.assert_close(found.sort().values, reference.sort().values, atol=1e-6, rtol=0)
    assert torch.equal(found.argsort(), image.argsort())


def test_painting_is_the_mean_of_each_tissue_and_keeps_the_sum_when_blurred() -> None:
    tissues = torch.zeros(1, 20, 20, dtype=torch.int64)
    tissues[0, 8:12, 8:12] = 1
    means = torch.tensor([[0.0, 0.7]])
    assert torch.equal(painted(tissues, means, 0.0)[0, 0], 0.7 * tissues[0])
    assert float(painted(tissues, means, 1.0).sum()) == pytest.approx(0.7 * 16, rel=1e-4)


def test_translated_t1_is_nearer_to_the_t2_of_the_same_head_than_the_baselines() -> None:
    """Mean root mean square error over 4 slices: curve < painting < histogram matching, which cannot turn the order."""
    errors = {"matched": 0.0, "painted": 0.0, "curve": 0.0}
    for seed in range(4):
        t1, t2, tissues = pair(seed)
        means, wanted = tissue_means(t1, tissues, COUNT), tissue_means(t2, tissues, COUNT)
        brain = (tissues > 0)[:, None]
        errors["matched"] += rms((quantile_mapping(t1, t2) - t2)[brain])
        errors["painted"] += rms((painted(tissues, wanted) - t2)[brain])
        errors["curve"] += rms((curve_image(t1, tissues, means, wanted, BRAIN) - t2)[brain])
    assert errors["curve"] < 0.95 * errors["painted"] < 0.5 * errors["matched"]


def test_prior_refines_as_its_closed_form_says() -> None:
    """One step from kappa: the mean over draws of D(alpha (x + kappa n)), for a Gaussian prior linear in the noise."""
    variance, level = 0.2, 0.3
    covariance = Diagonal(torch.full((1, 50), variance).double())
    prior = GaussianDenoiser(torch.zeros(1, 50).double(), covariance, LinearPath())
    start = torch.rand(2, 1, 50, generator=generator_of(5)).double()
    options = TranslationOptions(level=level, steps=1, draws=3)
    found = translate(prior, start, options, generators_of((7, 8)))
    streams = generators_of((7, 8))
    noise = sum(noise_of(streams, (1, 50), torch.float64) for _ in range(3)) / 3
    by_hand = variance / (variance + level**2) * (start + level * noise)
    assert rms(found - by_hand.clamp_min(0)) < 0.02  # clamped after, not before, the mean over draws
    assert torch.equal(translate(prior, start, TranslationOptions(level=0.0), ()), start)
    plain = translate(prior, start, TranslationOptions(level=level), ())
    torch.testing.assert_close(plain, variance / (variance + level**2) * start)


def test_rows_do_not_depend_on_their_batch_and_a_guide_moves_the_result() -> None:
    prior = GaussianDenoiser(torch.zeros(1, 30).double(), Diagonal(torch.ones(1, 30).double()), LinearPath())
    start = torch.rand(3, 1, 30, generator=generator_of(6)).double()
    options = TranslationOptions(level=0.4, steps=3, draws=1)
    batch = translate(prior, start, options, generators_of((1, 2, 3)))
    alone = translate(prior, start[1:2], options, generators_of((2,)))
    torch.testing.assert_close(batch[1:2], alone)
    guide = lambda x0: x0.flatten(1).sum(1)  # noqa: E731
    moved = translate(prior, start, options, generators_of((1, 2, 3)), guide=guide, spread=UnitSpread(1.0))
    assert float((moved - batch).mean()) > 0.05


def test_what_is_missing_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="level >= 0"):
        TranslationOptions(level=-1.0)
    x, tissues = torch.rand(1, 1, 9, generator=generator_of(9)), torch.ones(1, 9, dtype=torch.int64)
    with pytest.raises(InputError, match="at least two tissues"):
        curve_image(
            x, tissues, torch.tensor([[0.0, 0.3, torch.nan]]), torch.tensor([[0.0, 1.0, 0.5]]), (1, 2)
        )
    prior = GaussianDenoiser(torch.zeros(1, 9), Diagonal(torch.ones(1, 9)), LinearPath())
    with pytest.raises(InputError, match="spread with a guide"):
        translate(prior, x, TranslationOptions(), generators_of((1,)), guide=lambda v: v.flatten(1).sum(1))
