"""Unrolled restoration against closed forms of Gaussian data, and its training on random operators."""

import importlib.util
import math
import sys
from pathlib import Path as File
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.linear_gaussian_posterior import gaussian_posterior
from radiata_core.logs import read_log
from radiata_core.nets.unet import UNet
from radiata_core.objectives import SquaredError
from radiata_core.operator_families import Denoising, Holes, KSpaceLines, standard_families
from radiata_core.operators import LinearOperator
from radiata_core.paths import LinearPath, VPPath
from radiata_core.pointwise import Identity, Scaling
from radiata_core.posterior import denoise_once
from radiata_core.seeds import generator_of, generators_of
from radiata_core.separable import gaussian_blur
from radiata_core.train import TrainOptions, train
from radiata_core.unrolled import LogSquaredError, UnrolledRegression, UnrolledRestorer

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", File(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)
SIZE = known.SIZE
over_paths = pytest.mark.parametrize("path", [LinearPath(), VPPath()], ids=lambda path: type(path).__name__)


class Exact(nn.Module):
    """The exact denoiser of a Gaussian, as a module."""

    def __init__(self, problem: Any) -> None:
        super().__init__()
        self.exact, self.path = problem.denoiser, problem.path

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        return self.exact(x, t)


def small(dims: int = 2, seed: int = 0) -> EDMDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(
            dims=dims,
            channels=(16, 16),
            down_blocks=(0, 1),
            up_blocks=(1, 1),
            attention=(False, False),
            covariates=2,
            embedding=32,
            frequencies=16,
            norm="channel",
        )
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.08)
    return EDMDenoiser(network, LinearPath(), 0.5)


@over_paths
@pytest.mark.parametrize("operator", [known.mask(), known.mixer()], ids=["mask", "mixer"])
def test_one_step_is_the_closed_form(operator: LinearOperator, path: Any) -> None:
    """Ridge start, the Wiener filter of N(m, C) at the level, ridge about it: three dense solves."""
    problem = known.Problem(known.long_covariance(), operator, path)
    restorer = UnrolledRestorer(Exact(problem), (0.7,), (0.4,), 0.8)
    found = restorer.restore(operator, problem.y, problem.noise)
    eye, a = torch.eye(SIZE, dtype=torch.float64), operator.matrix  # type: ignore[attr-defined]
    s2, y, m = problem.noise**2, problem.y[0], problem.mean.flatten()
    start = torch.linalg.solve(a.mT @ a / s2 + eye / 0.8**2, a.mT @ y / s2)
    wiener = problem.covariance @ torch.linalg.inv(problem.covariance + 0.7**2 * eye)
    denoised = m + wiener @ (start - m)
    r2 = 0.4 * 0.7**2
    expected = torch.linalg.solve(a.mT @ a / s2 + eye / r2, a.mT @ y / s2 + denoised / r2)
    torch.testing.assert_close(found.flatten(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("operator", [known.mask(), known.mixer()], ids=["mask", "mixer"])
def test_many_steps_at_one_level_give_the_posterior_mean_of_the_widened_prior(
    operator: LinearOperator,
) -> None:
    """With c = 1 the fixed point is the posterior mean for the prior N(m, C + kappa^2): exact as kappa goes to 0."""
    operator = known.mixer()
    problem = known.Problem(known.long_covariance(), operator)
    off = []
    for level, steps in ((0.9, 60), (0.5, 150)):
        restorer = UnrolledRestorer(Exact(problem), (level,) * steps)
        with torch.no_grad():
            found = restorer.restore(operator, problem.y, problem.noise)
        wide = problem.covariance + level**2 * torch.eye(SIZE, dtype=torch.float64)
        expected = gaussian_posterior(problem.mean, wide, operator, problem.y, problem.noise).mean
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        off.append(float((found - problem.exact.mean).norm()))
    assert off[1] < 0.6 * off[0]


@over_paths
@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_denoising_is_the_posterior_mean_in_one_evaluation(path: Any, factor: float) -> None:
    operator = Identity(known.EVENT) if factor == 1 else Scaling(factor, known.EVENT)
    problem = known.Problem(known.long_covariance(), operator, path)
    restorer = UnrolledRestorer(Exact(problem))
    assert restorer.evaluations(operator) == 1
    assert restorer.evaluations(known.mask()) == 4
    found = restorer.restore(operator, problem.y, problem.noise)
    torch.testing.assert_close(found, problem.exact.mean, atol=1e-9, rtol=1e-9)
    if factor == 1:
        torch.testing.assert_close(found, denoise_once(problem.denoiser, problem.y, problem.noise))


def test_without_noise_the_measurement_is_met() -> None:
    problem = known.Problem(known.long_covariance(), known.mixer())
    y = problem.operator(problem.mean[None])
    found = UnrolledRestorer(Exact(problem)).restore(problem.operator, y, 0.0)
    torch.testing.assert_close(problem.operator(found), y, atol=2e-3, rtol=1e-3)


def test_gradients_reach_levels_gains_start_and_network() -> None:
    """Against differences of the loss: the levels act through the time, the gains through the prox."""
    problem = known.Problem(known.long_covariance(), known.mixer())
    restorer = UnrolledRestorer(Exact(problem), (0.8, 0.3)).double()

    def loss() -> Tensor:
        return restorer.restore(problem.operator, problem.y, problem.noise).square().sum()

    loss().backward()
    for parameter in (restorer.log_levels, restorer.log_gains, restorer.log_start):
        flat = parameter.data.view(-1)
        slopes = torch.zeros_like(flat)
        for i in range(len(flat)):
            ends = []
            for change in (1e-5, -1e-5):
                flat[i] += change
                ends.append(float(loss().detach()))
                flat[i] -= change
            slopes[i] = (ends[0] - ends[1]) / 2e-5
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.view(-1), slopes, atol=1e-6, rtol=1e-4)
        assert float(slopes.abs().min()) > 0


def test_levels_are_what_was_asked_and_survive_a_file(tmp_path: File) -> None:
    restorer = UnrolledRestorer(small(), (0.9, 0.2), (0.5, 2.0), 0.7)
    torch.testing.assert_close(restorer.levels, torch.tensor([0.9, 0.2]))
    torch.testing.assert_close(restorer.spreads, torch.tensor([0.5 * 0.81, 2.0 * 0.04]))
    with torch.no_grad():
        restorer.log_levels.add_(0.1)
    save_model(tmp_path / "r.safetensors", restorer, metadata={})
    again = load_model(tmp_path / "r.safetensors").denoiser
    assert isinstance(again, UnrolledRestorer)
    torch.testing.assert_close(again.levels, torch.tensor([0.9, 0.2]) * math.e)
    y = torch.randn(2, 1, 16, 16, generator=generator_of(1))
    operator = KSpaceLines().draw((1, 16, 16), generator_of(2)).operator
    covariates = torch.tensor([[0.5, float("nan")], [0.1, 0.2]])
    with torch.no_grad():
        a, b = (r.restore(operator, operator(y), 0.05, covariates) for r in (restorer, again))
        without = again.restore(operator, operator(y), 0.05)
        other = again.on(small(seed=1))
    assert torch.equal(a, b)
    assert not torch.equal(b, without)
    assert other.log_levels is again.log_levels


def batch(rows: int = 8, *space: int) -> Tensor:
    """Smooth images of order 1."""
    white = torch.randn(rows, 1, *(space or (16, 16)), generator=generator_of(4))
    return 2 * gaussian_blur([1] * (white.ndim - 2), white.shape[1:])(white) + 0.5


def test_the_loss_is_a_function_of_seeds_however_the_batch_is_cut() -> None:
    restorer, x = UnrolledRestorer(small()), batch()
    covariates = torch.rand(8, 2, generator=generator_of(5))
    objective = UnrolledRegression(standard_families(2), together=2)
    with torch.no_grad():
        whole = objective(restorer, x, generators_of(range(8)), covariates=covariates)
        again = objective(restorer, x, generators_of(range(8)), covariates=covariates)
        parts = [
            objective(restorer, x[r], generators_of(range(8))[r], covariates=covariates[r]).per_sample
            for r in (slice(0, 4), slice(4, 8))
        ]
        other = objective(restorer, x, generators_of(range(8, 16)), covariates=covariates)
    assert torch.equal(whole.per_sample, again.per_sample)
    torch.testing.assert_close(torch.cat(parts), whole.per_sample, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(whole.per_sample, other.per_sample)
    torch.testing.assert_close(whole.value, whole.per_sample.mean())
    assert len(whole.t) == 8


def test_the_loss_is_that_of_the_last_estimate_and_a_tenth_of_the_others() -> None:
    restorer, x = UnrolledRestorer(small()), batch(2)
    family = KSpaceLines(noise=(0.05, 0.05))
    with torch.no_grad():
        loss = UnrolledRegression((family,), 2, SquaredError(), 0.1)(restorer, x, generators_of([3, 4]))
        generators = generators_of([3, 4])
        torch.rand((), generator=generators[0], dtype=torch.float64)  # which family
        operator = family.draw(x.shape[1:], generators[0]).operator
        noise = [torch.randn((*operator.measurement_shape, 2), generator=g) for g in generators]
        y = operator(x) + 0.05 * torch.view_as_complex(torch.stack(noise))
        errors = [(e - x).square().mean((1, 2, 3)) for e in restorer.estimates(operator, y, 0.05)]
    expected = (errors[-1] + 0.1 * torch.stack(errors[:-1]).mean(0)) / 1.1
    torch.testing.assert_close(loss.per_sample, expected)


def test_recomputing_activations_changes_no_gradient() -> None:
    slopes = []
    for recompute in (False, True):
        restorer = UnrolledRestorer(small())
        objective = UnrolledRegression((KSpaceLines(), Holes()), 2, recompute=recompute)
        objective(restorer, batch(4), generators_of(range(4))).value.backward()
        slopes.append([p.grad for p in restorer.parameters()])
    for a, b in zip(*slopes, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-6, rtol=1e-4)


def test_a_batch_of_denoising_only_gives_every_parameter_a_gradient() -> None:
    """As several processes need it."""
    restorer = UnrolledRestorer(small())
    UnrolledRegression((Denoising(),))(restorer, batch(2), generators_of([0, 1])).value.backward()
    assert float(restorer.log_levels.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_mixed_precision_is_for_the_network_alone() -> None:
    """A Fourier transform in bfloat16 is refused by torch, and a data step in it would be worth little."""
    restorer, x = UnrolledRestorer(small()), batch(2)
    operator = KSpaceLines().draw(x.shape[1:], generator_of(1)).operator
    y = operator(x)
    with torch.no_grad():
        fine = restorer.restore(operator, y, 0.05)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = restorer.restore(operator, y, 0.05)
    assert mixed.dtype == torch.float32
    assert 0 < float((fine - mixed).abs().max()) < 0.05


class Images:
    def __init__(self) -> None:
        self.images = batch(64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {"image": self.images[item], "covariates": torch.zeros(2)}


@pytest.mark.slow
def test_training_lowers_the_loss_on_operators_it_has_not_seen(tmp_path: File) -> None:
    """40 steps of a tiny network: at least 0.3 dB less error on held-out operators and noise, and levels that moved."""
    restorer = UnrolledRestorer(small(), (0.6, 0.2))
    objective = UnrolledRegression(standard_families(2), together=2)
    options = TrainOptions(
        steps=40,
        batch_size=4,
        learning_rate=5e-3,
        warmup=5,
        cosine=True,
        ema=(),
        tensorboard=False,
        log_every=10,
    )

    def held_out() -> float:
        with torch.no_grad():
            judge = UnrolledRegression(standard_families(2), 2, earlier=0.0)
            x = batch(80)[64:]
            return float(
                judge(restorer, x, generators_of(range(500, 516)), covariates=torch.zeros(16, 2)).value
            )

    before = held_out()
    trained = train(restorer, objective, Images(), tmp_path, options)
    decibels = 10 * (before - held_out()) / math.log(10)
    assert trained.finished
    assert decibels > 0.3
    assert float((restorer.levels.detach() - torch.tensor([0.6, 0.2])).abs().max()) > 0.01
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl") if "loss" in record]
    assert losses[-1] < losses[0]
    assert isinstance(load_model(tmp_path).denoiser, UnrolledRestorer)


def test_the_logarithm_of_the_error_counts_rows_alike() -> None:
    x = torch.zeros(2, 1, 4, 4)
    estimate = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 1.0)]).requires_grad_()
    loss = LogSquaredError(1e-12)(estimate, x)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.01, 1.0]).log())
    (slope,) = torch.autograd.grad(loss.sum(), estimate)
    relative = (slope * estimate.detach()).flatten(1).sum(1)
    torch.testing.assert_close(relative, torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("levels", "gains", "start"),
    [((), None, 0.5), ((1.0,), (1.0, 1.0), 0.5), ((0.0,), None, 0.5), ((1.0,), None, -1.0)],
)
def test_levels_that_do_not_fit(
    levels: tuple[float, ...], gains: tuple[float, ...] | None, start: float
) -> None:
    with pytest.raises(InputError, match="expected levels"):
        UnrolledRestorer(small(), levels, gains, start)


def test_noise_generators_and_families_that_do_not_fit() -> None:
    restorer = UnrolledRestorer(small())
    y = torch.zeros(1, 1, 16, 16)
    for noise in (-1.0, math.nan, 0.0):
        with pytest.raises(InputError, match="standard deviation"):
            restorer.restore(Identity((1, 16, 16)), y, noise)
    with pytest.raises(InputError, match="generator"):
        UnrolledRegression((Holes(),))(restorer, y, [])
    with pytest.raises(InputError, match="families"):
        UnrolledRegression(())
    with pytest.raises(InputError, match="floor"):
        LogSquaredError(0.0)
