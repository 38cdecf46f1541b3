"""The default restorer: which method it takes, what its spread means, and that a draw is a function of its seed."""

import importlib.util
import math
import sys
from pathlib import Path as File

import pytest
import torch
from torch import nn

from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.operator_families import Holes
from radiata_core.paths import LinearPath
from radiata_core.pointwise import Identity
from radiata_core.posterior import misfit, sample_posterior
from radiata_core.posterior_calibration import calibration
from radiata_core.posterior_presets import relaxed_prox
from radiata_core.posterior_spread import UnitSpread
from radiata_core.restoration import RestorationModels, restore
from radiata_core.seeds import generator_of
from radiata_core.tiling import TiledDenoiser
from radiata_core.times import KarrasGrid
from radiata_core.unrolled import UnrolledRestorer

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", File(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)
ROUND = known.Problem(known.round_covariance(), known.mixer())


def models(problem=ROUND, **more) -> RestorationModels:
    return RestorationModels(problem.denoiser, **({"spread": UnitSpread(), "data_sd": 1.0} | more))


def small() -> EDMDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(
            dims=2,
            channels=(8, 8),
            down_blocks=(0, 0),
            up_blocks=(1, 1),
            attention=(False, False),
            embedding=16,
            frequencies=8,
            norm="channel",
        )
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return EDMDenoiser(network, LinearPath(), 0.5).eval()


@pytest.mark.parametrize("mode", ["mean", "fast"])
def test_denoising_is_one_evaluation_and_the_posterior_mean(mode) -> None:
    problem = known.Problem(known.long_covariance(), Identity(known.EVENT))
    restorer = UnrolledRestorer(small())
    found = restore(models(problem, restorer=restorer), problem.operator, problem.y, problem.noise, mode)
    torch.testing.assert_close(found.x, problem.exact.mean, atol=1e-9, rtol=1e-9)
    assert (found.method, found.evaluations) == ("denoise-once", 1)
    assert found.sd is None
    assert found.draws is None
    expected = misfit(problem.operator, found.x, problem.y) / problem.noise
    torch.testing.assert_close(found.misfit, expected)


def test_an_unrolled_restorer_is_taken_if_there_is_one() -> None:
    denoiser = small()
    restorer = UnrolledRestorer(denoiser)
    operator = Holes().draw((1, 16, 16), generator_of(1)).operator
    y = operator(torch.randn(3, 1, 16, 16, generator=generator_of(2)))
    found = restore(RestorationModels(denoiser, restorer), operator, y, 0.1, batch_size=2)
    with torch.no_grad():
        torch.testing.assert_close(found.x, restorer.restore(operator, y, 0.1))
    assert (found.method, found.evaluations) == ("unrolled", 4)


@pytest.mark.parametrize(("mode", "steps"), [("mean", 24), ("fast", 8)])
def test_else_it_is_the_relaxed_prox_which_is_near_the_posterior_mean(mode, steps: int) -> None:
    found = restore(models(), ROUND.operator, ROUND.y, ROUND.noise, mode)
    assert (found.method, found.evaluations) == ("relaxed-prox", steps)
    times = KarrasGrid(sigma_min=0.02, sigma_max=10.0)(steps, LinearPath())
    direct = sample_posterior(
        ROUND.denoiser, ROUND.operator, ROUND.y, ROUND.noise, times, relaxed_prox(), [generator_of(0, 11, 0)]
    )
    torch.testing.assert_close(found.x, direct.x)
    scale = ROUND.exact.covariance.trace().sqrt()
    assert float((found.x - ROUND.exact.mean).norm() / scale) < 0.8


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    """600 draws of round data, for which the sampler is exact: 5 standard errors of means, and of variances."""
    count = 600
    found = restore(models(), ROUND.operator, ROUND.y, ROUND.noise, "sample", draws=count, batch_size=600)
    exact = ROUND.exact.covariance.diagonal().reshape(1, *known.EVENT)
    assert found.sd is not None
    assert float(((found.x - ROUND.exact.mean) / (exact / count).sqrt()).abs().max()) < 5
    ratio = found.sd.square() / (exact * (1 + 1 / count))
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / count)
    assert (found.method, found.evaluations) == ("calibrated", 12 * count)


def test_spread_and_error_agree_over_measurements() -> None:
    """120 truths with 19 draws each: variance over error within 4 standard errors of 1, 90 % coverage within 5 points."""
    rows = 120
    truth = known.prior_draws(ROUND, rows)
    clean = ROUND.operator(truth)
    y = clean + ROUND.noise * known.normal(*clean.shape, seed=8)
    found = restore(models(), ROUND.operator, y, ROUND.noise, "sample", draws=19, batch_size=1000)
    assert found.draws is not None and found.sd is not None
    measured = calibration(found.draws, truth)
    # Three free directions a row carry nearly all of the error: 360 squares of normal numbers.
    assert abs(measured.ratio - 1) < 4 * math.sqrt(2 / 360)
    assert abs(measured.coverage - 0.9) < 0.05
    assert 0.85 < float(found.sd.square().mean() / (found.x - truth).square().mean()) < 1.2


def test_a_draw_is_a_function_of_its_seed_whatever_the_batch() -> None:
    y = torch.cat([ROUND.y, ROUND.y + 0.3])
    whole = restore(models(), ROUND.operator, y, ROUND.noise, "sample", draws=5, batch_size=7, seeds=[4, 9])
    again = restore(models(), ROUND.operator, y, ROUND.noise, "sample", draws=5, batch_size=1, seeds=[4, 9])
    alone = restore(models(), ROUND.operator, y[1:], ROUND.noise, "sample", draws=5, seeds=[9])
    more = restore(models(), ROUND.operator, y[1:], ROUND.noise, "sample", draws=7, seeds=[9])
    assert whole.draws is not None and more.draws is not None
    assert whole.sd is not None and again.sd is not None
    torch.testing.assert_close(whole.draws, again.draws)
    torch.testing.assert_close(whole.sd, again.sd)
    torch.testing.assert_close(whole.draws[:, 1:], alone.draws)
    torch.testing.assert_close(more.draws[:5], alone.draws)
    torch.testing.assert_close(whole.x, whole.draws.mean(0))
    torch.testing.assert_close(whole.sd, (whole.draws.var(0) * (1 + 1 / 5)).sqrt())


def test_widening_and_what_is_kept() -> None:
    plain = restore(models(), ROUND.operator, ROUND.y, ROUND.noise, "sample", draws=4)
    wide = restore(models(widening=1.5), ROUND.operator, ROUND.y, ROUND.noise, "sample", draws=4)
    lean = restore(models(), ROUND.operator, ROUND.y, ROUND.noise, "sample", draws=4, keep_draws=False)
    assert plain.draws is not None and wide.draws is not None and plain.sd is not None
    torch.testing.assert_close(wide.x, plain.x)
    torch.testing.assert_close(wide.sd, 1.5 * plain.sd)
    torch.testing.assert_close(wide.draws - wide.x, 1.5 * (plain.draws - plain.x))
    assert lean.draws is None
    torch.testing.assert_close(lean.sd, plain.sd)


def test_in_blocks_it_is_the_same() -> None:
    denoiser = small()
    plain = RestorationModels(denoiser, UnrolledRestorer(denoiser, (0.8, 0.3)))
    tiled = plain.tiled(16, 24)
    assert isinstance(tiled.prior, TiledDenoiser)
    operator = Holes().draw((1, 96, 64), generator_of(1)).operator
    y = operator(torch.randn(1, 1, 96, 64, generator=generator_of(2)))
    a, b = (restore(m, operator, y, 0.1) for m in (plain, tiled))
    torch.testing.assert_close(a.x, b.x, atol=1e-5, rtol=1e-5)
    whole = Identity((1, 96, 64))
    image = torch.randn(1, 1, 96, 64, generator=generator_of(3))
    a, b = (restore(m, whole, image, 0.2) for m in (plain, tiled))
    torch.testing.assert_close(a.x, b.x, atol=1e-5, rtol=1e-5)


def test_conditions_go_with_their_rows_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []

    class Shifted:
        path = LinearPath()

        def __call__(self, x, t, covariates=None, other=None):
            assert len(covariates) == len(x)
            assert other is None
            return ROUND.denoiser(x, t) * 0 + covariates[:, :1, None].to(x)

    y = ROUND.y.expand(3, -1).contiguous()
    shifted = RestorationModels(Shifted(), spread=UnitSpread(1e-12))
    found = restore(
        shifted,
        ROUND.operator,
        y,
        1.0,
        "sample",
        draws=2,
        batch_size=4,
        callback=lambda done, total: told.append((done, total)),
        covariates=torch.tensor([[1.0], [2.0], [3.0]]),
        other=None,
    )
    torch.testing.assert_close(found.x.mean((1, 2)).round(), torch.tensor([1.0, 2.0, 3.0]).double())
    assert told == [(4, 6), (6, 6)]


def test_misfit_without_noise_is_relative() -> None:
    y = ROUND.operator(ROUND.mean[None])
    found = restore(models(), ROUND.operator, y, 0.0)
    assert float(found.misfit) < 1e-6


@pytest.mark.parametrize(
    "more",
    [
        {"batch_size": 0},
        {"evaluations": 0},
        {"mode": "sample", "draws": 1},
        {"seeds": [1, 2]},
    ],
    ids=str,
)
def test_options_out_of_range(more) -> None:
    with pytest.raises(InputError, match="expected a seed"):
        restore(models(), ROUND.operator, ROUND.y, ROUND.noise, **more)


def test_numbers_of_the_models_out_of_range() -> None:
    with pytest.raises(InputError, match="widening"):
        models(widening=0.0)
    with pytest.raises(InputError, match="widening"):
        models(data_sd=math.inf)
