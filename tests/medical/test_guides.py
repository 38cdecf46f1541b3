"""Guides against closed forms: what their gradient moves, and where guided sampling ends."""

import math
from pathlib import Path

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.checkpoint import load_model
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.generated_sets import generated_set
from radiata_core.noise_experts import (
    ClassifierGuided,
    ExpertLogProbability,
    KnowledgeTransfer,
    NoiseExperts,
    SkippedGradient,
)
from radiata_core.paths import LinearPath
from radiata_core.posterior_spread import UnitSpread
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import ddim, integrate
from radiata_core.times import KarrasGrid
from radiata_core.train import TrainOptions, train
from radiata_medical.model.guides import (
    EdgeMapGuide,
    Guides,
    IntensityClassifier,
    TissueMapGuide,
    VolumeGuide,
    gradient_magnitude,
)
from radiata_medical.model.prior import build_prior
from radiata_medical.model.segmenter_network import SegmenterNetwork

MEANS = torch.tensor([0.1, 0.5, 0.9])
CLASSIFIER = IntensityClassifier(MEANS, 0.15)


def test_classifier_is_bayes_rule() -> None:
    x = torch.rand(2, 1, 5, generator=generator_of(1))
    shares = torch.tensor([0.2, 0.5, 0.3])
    found = IntensityClassifier(MEANS, 0.15, shares)(x).softmax(1)
    densities = [torch.distributions.Normal(m, 0.15).log_prob(x[:, 0]).exp() for m in MEANS]
    joint = torch.stack([s * d for s, d in zip(shares, densities, strict=True)], 1)
    torch.testing.assert_close(found, joint / joint.sum(1, keepdim=True))


def test_tissue_map_pulls_towards_the_class_and_ignores_free_voxels() -> None:
    x = torch.full((1, 1, 3), 0.5).requires_grad_()
    guide = TissueMapGuide(CLASSIFIER, torch.tensor([[0, 2, -1]]), tempering=4.0)
    value = guide(x)
    slope = torch.autograd.grad(value.sum(), x)[0].flatten()
    assert slope[0] < 0 < slope[1]
    assert slope[2] == 0
    by_hand = CLASSIFIER(x).log_softmax(1)
    torch.testing.assert_close(value, (by_hand[:, 0, 0] + by_hand[:, 2, 1]) / 4)


def test_volume_is_counted_in_millilitres() -> None:
    """Ten voxels of 8 mm3 that are certainly of class 2."""
    x = torch.full((1, 1, 20), 0.1)
    x[..., :10] = 0.9
    guide = VolumeGuide(IntensityClassifier(MEANS, 0.03), (2,), 0.05, 0.008, sd=0.01)
    assert float(guide.volume(x)) == pytest.approx(0.08, rel=1e-5)
    assert float(guide(x)) == pytest.approx(-0.5 * 3**2, rel=1e-3)


def test_a_guided_prior_grows_the_class_to_the_volume_wanted() -> None:
    """Voxels of a Gaussian prior about class 1: without a guide a sixth is of class 2, with it as many as were asked for."""
    variance, event = 0.04, (1, 64)
    prior = GaussianDenoiser(
        torch.full(event, 0.5).double(), Diagonal(torch.full(event, variance).double()), LinearPath()
    )
    guide = VolumeGuide(CLASSIFIER, (2,), 28.0, 1.0, sd=0.7)
    guided = SkippedGradient(prior, guide, UnitSpread(variance), largest=1.0)
    times = KarrasGrid(sigma_min=0.01, sigma_max=5.0)(24, LinearPath())
    x = noise_of(generators_of(range(4)), event, torch.float64)
    free = guide.volume(integrate(prior, x, ddim(times, LinearPath())))
    held = guide.volume(integrate(guided, x, ddim(times, LinearPath())))
    assert free.max() < 18
    assert (held - 28).abs().mean() < 2.5


def test_edges_are_the_slope_of_a_ramp_and_have_no_sign() -> None:
    ramp = torch.arange(6.0).mul(0.3).expand(1, 1, 4, 6)
    torch.testing.assert_close(gradient_magnitude(ramp), torch.full((1, 1, 4, 6), 0.3), atol=1e-5, rtol=0)
    guide = EdgeMapGuide(gradient_magnitude(ramp), sd=0.1)
    assert float(guide(1.5 - ramp)) == pytest.approx(0, abs=1e-6)
    assert float(guide(torch.zeros_like(ramp))) == pytest.approx(-24 * 0.299**2 / 0.02, rel=1e-2)


def test_sum_of_guides() -> None:
    x = torch.rand(2, 1, 4, generator=generator_of(2))
    first, second = (lambda v: v.flatten(1).sum(1)), (lambda v: v.flatten(1).square().sum(1))
    torch.testing.assert_close(Guides((first, second), (2.0, -1.0))(x), 2 * first(x) - second(x))
    torch.testing.assert_close(Guides((first, second))(x), first(x) + second(x))


@pytest.mark.parametrize("numbers", [(-1.0, 0.001, 1.0), (5.0, 0.0, 1.0), (5.0, 0.001, math.nan)])
def test_volumes_that_cannot_be_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="volume >= 0 ml"):
        VolumeGuide(CLASSIFIER, (1,), *numbers)


@pytest.mark.slow
def test_experts_of_a_segmenter_are_trained_on_what_a_prior_made_and_travel_in_one_file(
    tmp_path: Path,
) -> None:
    """Data-free transfer by the house's training loop; a run stopped halfway and resumed ends in the same bits."""
    prior = build_prior(2, channels=(8, 16))
    table = ddim(KarrasGrid(sigma_min=0.02, sigma_max=5.0)(3, prior.path), prior.path)
    images = generated_set(prior, 4, (1, 16, 16), table)
    finals = []
    for name, stops in (("whole", (4,)), ("halves", (2, 4))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            segmenter = SegmenterNetwork(3, (4, 8), dims=2, residual_units=1)
        experts = NoiseExperts(segmenter, prior.path, (0.3, 0.6), rank=2, sigma_data=0.45)
        for number, steps in enumerate(stops):
            options = TrainOptions(
                steps=steps, batch_size=4, learning_rate=1e-2, warmup=1, ema=(), tensorboard=False,
                resume=number > 0, checkpoint_every=2,
            )  # fmt: skip
            train(experts, KnowledgeTransfer(prior.path), images, tmp_path / name, options)
        finals.append(load_model(tmp_path / name / "model.safetensors").denoiser)
    x, t = images.images, torch.tensor([0.1, 0.4, 0.8, 0.2], dtype=torch.float64)
    torch.testing.assert_close(finals[0](x, t), finals[1](x, t), rtol=0, atol=0)
    assert (finals[0](x, t) - finals[0].clean(x)).abs().max() > 1e-3
    taught = ClassifierGuided(
        prior, ExpertLogProbability(finals[0], torch.ones(1, 16, 16, dtype=torch.int64)), 0.1
    )
    assert torch.isfinite(taught(x, t)).all()
