"""Anomaly: healthy z-scores are standard normal, thresholds keep their rate, clusters lie where they are, AP is AP."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of
from radiata_medical.model.anomaly_calibration import (
    fit_calibration,
    load_calibration,
    save_calibration,
)
from radiata_medical.model.anomaly_maps import (
    anomaly_scores,
    average_precision,
    find_clusters,
    gathered,
)
from radiata_medical.model.prior import build_prior
from radiata_medical.model.pseudo_healthy import Evidence, HealthyModel

MASK = np.ones((40, 40), bool)


def world(rng: np.random.Generator, lesion: float = 0.0) -> tuple[Evidence, np.ndarray]:
    """Residuals whose mean and sd depend on the intensity of the healthy image: .3 and .02 + .2 h."""
    ramp = np.linspace(0.1, 1.0, 40, dtype=np.float32)[:, None].repeat(40, 1)
    healthy = rng.permuted(ramp, axis=0)
    error = 0.3 * healthy + (0.02 + 0.2 * healthy) * rng.standard_normal(healthy.shape)
    truth = np.zeros_like(MASK)
    if lesion:
        truth[10:16, 20:26] = True
    features = np.abs(rng.standard_normal(healthy.shape)) + 2 * lesion * truth
    return Evidence(healthy + error + lesion * truth, healthy, MASK, features.astype(np.float32)), truth


def test_z_scores_of_other_healthy_scans_are_standard_normal(rng: np.random.Generator) -> None:
    """Overall and for the dark and the bright half alone, where plain residuals differ threefold in spread."""
    calibration = fit_calibration([world(rng)[0] for _ in range(12)])
    other = [world(rng)[0] for _ in range(12)]
    z = np.stack([calibration.z(evidence) for evidence in other])
    bright = np.stack([evidence.healthy > 0.5 for evidence in other])
    for part in (np.ones_like(bright), bright, ~bright):
        assert abs(z[part].mean()) < 0.1
        assert z[part].std() == pytest.approx(1, abs=0.1)
    smooth = np.stack([calibration.scores(evidence)["smooth"] for evidence in other])
    assert np.sqrt((smooth**2).mean()) == pytest.approx(1, abs=0.1)


def test_thresholds_keep_the_rate_of_false_positives(rng: np.random.Generator) -> None:
    calibration = fit_calibration([world(rng)[0] for _ in range(20)])
    other = [calibration.scores(world(rng)[0]) for _ in range(20)]
    for name in ("residual", "z", "features", "combined"):
        share = np.mean([(scores[name] > calibration.threshold(name, 0.01)).mean() for scores in other])
        assert share == pytest.approx(0.01, abs=0.004), name
    assert calibration.threshold("z", 1e-5) > calibration.threshold("z", 1e-4)


def test_normal_scores_of_healthy_data_are_standard_normal_and_go_on_rising(
    rng: np.random.Generator,
) -> None:
    calibration = fit_calibration([world(rng)[0] for _ in range(20)])
    normal = calibration.normal_score("features", np.abs(rng.standard_normal(20000)))
    assert abs(normal.mean()) < 0.05
    assert normal.std() == pytest.approx(1, abs=0.08)
    beyond = calibration.normal_score("features", np.array([5.0, 6.0, 50.0]))
    assert (np.diff(beyond) > 0).all()
    assert beyond[0] > 3


def test_a_scan_that_is_its_own_reference_still_finds_its_lesion(rng: np.random.Generator) -> None:
    evidence, truth = world(rng, lesion=1.0)
    calibration = fit_calibration([evidence], robust=True)
    scores = calibration.scores(evidence)
    assert calibration.robust
    assert average_precision(scores["combined"], truth, MASK) > 0.9
    marked = scores["combined"] > calibration.threshold("combined", 0.001)
    assert marked[truth].mean() > 0.8
    assert marked[~truth].mean() < 0.04


def test_calibrated_scores_find_more_than_residuals(rng: np.random.Generator) -> None:
    calibration = fit_calibration([world(rng)[0] for _ in range(12)])
    evidence, truth = world(rng, lesion=0.35)
    found = {name: average_precision(s, truth, MASK) for name, s in calibration.scores(evidence).items()}
    assert found["residual"] < found["smooth"]
    assert found["residual"] < found["combined"]


def test_average_precision_of_perfect_and_of_ignorant_maps(rng: np.random.Generator) -> None:
    truth = rng.random((200, 200)) < 0.02
    mask = rng.random((200, 200)) < 0.7
    assert average_precision(truth.astype(float), truth, mask) == 1.0
    assert average_precision(rng.random(truth.shape), truth, mask) == pytest.approx(0.02, abs=0.006)
    assert average_precision(np.zeros(truth.shape), truth, mask) == pytest.approx(truth[mask].mean())
    assert np.isnan(average_precision(truth.astype(float), np.zeros_like(truth), mask))
    by_hand = average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0]), np.ones(4, bool))
    assert by_hand == pytest.approx((1 + 2 / 3) / 2)


def test_clusters_have_volume_place_and_side() -> None:
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = [39.0, 39.0, 0.0]
    score, mask = np.zeros((40, 40, 10)), np.ones((40, 40, 10), bool)
    score[4:8, 4:6, 2:4] = 5.0  # 16 voxels at x = 39 - 2 * 5.5 = +28 mm: right
    score[5, 5, 3] = 9.0
    score[35, 20, 5] = 4.0  # one voxel at x = -31 mm: left
    score[20, 30, 5] = 0.5
    labels, table = find_clusters(score, mask, 1.0, affine)
    assert [c.voxels for c in table] == [16, 1]
    assert [c.side for c in table] == ["right", "left"]
    assert table[0].size_ml == pytest.approx(16 * 0.008)
    assert table[0].peak == 9.0
    assert table[0].centre_mm == pytest.approx((28.0, 30.0, 5.0))
    assert (labels == 1).sum() == 16
    assert len(find_clusters(score, mask, 1.0, affine, smallest_ml=0.1)[1]) == 1


def test_pseudo_healthy_is_the_mean_over_noises_of_one_jump() -> None:
    """Gaussian prior N(m, v): m + v/(v + kappa^2) (x - m + kappa n), averaged; a row needs nothing of its batch."""
    variance, level = 0.1, 0.5
    shape = (1, 6, 5)
    prior = GaussianDenoiser(
        torch.full(shape, 0.4), Diagonal(torch.full(shape, variance, dtype=torch.float64)), LinearPath()
    )
    x = torch.rand(3, *shape, generator=generator_of(1))
    many = HealthyModel(prior, level, draws=100).healthy(x, (1, 2, 3))
    expected = 0.4 + variance / (variance + level**2) * (x - 0.4)
    assert (many - expected).abs().max() < 4 * level * variance / (variance + level**2) / 10
    one = HealthyModel(prior, level, draws=2)
    torch.testing.assert_close(one.healthy(x, (1, 2, 3))[1:2], one.healthy(x[1:2], (2,)))


def test_table_of_scores_from_images_to_average_precision() -> None:
    """A Gaussian prior that knows its images; squares it does not know are found by every score but the ignorant ones."""
    shape = (1, 24, 24)
    prior = GaussianDenoiser(torch.full(shape, 0.5), Diagonal(torch.full(shape, 0.01).double()), LinearPath())
    draw = lambda seed, n: 0.5 + 0.1 * torch.randn(n, *shape, generator=generator_of(seed))  # noqa: E731
    lesions = torch.zeros(4, 24, 24, dtype=torch.bool)
    lesions[:, 8:13, 9:14] = True
    images = draw(1, 4) + 0.3 * lesions[:, None]
    brains = torch.ones(4, 24, 24, dtype=torch.bool)
    model = HealthyModel(prior, 0.3, 4, segmenter=lambda x: torch.cat([x, 1 - x], 1) * 8)
    scores, _ = anomaly_scores(model, images, lesions, brains, draw(2, 6), brains[:1].expand(6, 24, 24))
    assert set(scores) == {"residual", "z", "smooth", "tissue", "combined", "blur", "median"}
    assert scores["z"].chance == pytest.approx(25 / 576)
    assert len(scores["z"].cases) == 4
    assert scores["smooth"].average_precision > 0.7
    assert scores["smooth"].average_precision > scores["residual"].average_precision > 0.3


def test_features_of_a_prior_differ_where_the_images_do() -> None:
    prior = build_prior(2, channels=(8, 16))
    for number, parameter in enumerate(prior.parameters()):
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator_of(number))
    model = HealthyModel(prior, 0.5, 1, feature_levels=(0.2,))
    x = torch.rand(1, 1, 32, 32, generator=generator_of(3))
    other = x.clone()
    other[..., 14:18, 14:18] += 1.0
    mask = torch.ones(1, 32, 32)
    distance = model._features(other, x, mask, (0,), {})[0]
    assert distance[14:18, 14:18].mean() > 8 * distance[:4, :4].mean()
    assert float(model._features(x, x, mask, (0,), {}).max()) == 0
    whole = gathered(model, torch.cat([x, other]), mask.bool().expand(2, 32, 32), batch_size=1)
    together = gathered(model, torch.cat([x, other]), mask.bool().expand(2, 32, 32), batch_size=2)
    assert whole[1].features is not None
    assert together[1].features is not None
    np.testing.assert_allclose(whole[1].features, together[1].features, rtol=1e-4, atol=1e-5)


def test_calibration_travels_as_json(tmp_path: Path, rng: np.random.Generator) -> None:
    calibration = fit_calibration([world(rng)[0]], about={"model": "abc", "level": 0.6})
    save_calibration(tmp_path / "c.json", calibration)
    assert load_calibration(tmp_path / "c.json") == calibration
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(InputError, match="another file"):
        load_calibration(tmp_path / "d.json")
    with pytest.raises(InputError, match="with 0 voxels"):
        fit_calibration([])
    with pytest.raises(InputError, match="share of false positives"):
        calibration.threshold("z", 0.0)
    with pytest.raises(InputError, match="score out of"):
        calibration.threshold("tissue", 0.01)
