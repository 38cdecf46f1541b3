"""Denoisers: one posterior mean whatever the network predicts; anchors, preconditioning, guidance."""

import pytest
import torch
from torch import nn

from radiata_core.anchors import PooledGaussian
from radiata_core.denoisers import (
    Autoguided,
    EDMDenoiser,
    Guided,
    MedForJInput,
    NetworkDenoiser,
    UnitVariance,
)
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction, convert
from radiata_core.specs import describe, rebuild

MEAN, VARIANCE = 0.4, 2.0


class _Oracle(nn.Module):
    """A "network" that answers exactly for Gaussian data, in the units it is asked for."""

    def __init__(self, path, prediction, flip=False) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.path, self.prediction, self.flip = path, prediction, flip
        self.t = torch.zeros(())

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor, covariates=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
        c = self.path.coefficients(self.t)
        gain = c.alpha * VARIANCE / (c.alpha**2 * VARIANCE + c.sigma**2)
        x0 = MEAN + gain.to(x) * (x - c.alpha.to(x) * MEAN)
        value = convert(x0, x, self.t, self.path, Prediction.X0, self.prediction)
        return -value if self.flip else value


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), DiscreteVPPath()])
def test_every_prediction_gives_the_same_posterior_mean(path, prediction, generator) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64)
    network = _Oracle(path, prediction, flip=True)
    network.t = t
    c = path.coefficients(t)
    gain = c.alpha * VARIANCE / (c.alpha**2 * VARIANCE + c.sigma**2)
    exact = MEAN + gain * (x - c.alpha * MEAN)
    denoiser = NetworkDenoiser(network, path, prediction, MedForJInput(flip=True))
    assert torch.allclose(denoiser(x, t), exact, atol=1e-9)


class _Zero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor, covariates=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
        self.seen.append((x, noise_level))
        return torch.zeros_like(x[:, :1])


@pytest.mark.parametrize("kind", [Prediction.VELOCITY, Prediction.V, Prediction.X0, Prediction.EPSILON])
def test_a_silent_network_leaves_the_anchor(kind: Prediction, generator: torch.Generator) -> None:
    """With zero correction the denoiser *is* the Gaussian one, whatever the prediction, and the network was shown it."""
    anchor = PooledGaussian(shape=(1, 4, 4, 4), rank=2)
    anchor.mean.normal_(generator=generator)
    anchor.basis.copy_(torch.eye(8)[:2])
    network = _Zero()
    denoiser = NetworkDenoiser(network, LinearPath(), kind, UnitVariance(0.5), anchor)
    x = torch.randn(2, 1, 4, 4, 4, generator=generator)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    linear = anchor(x, 1 - t, t)
    assert torch.allclose(denoiser(x, t), linear, atol=1e-4)
    seen, level = network.seen[0]
    assert torch.equal(seen[:, 1:], linear)
    assert torch.allclose(level, torch.log((1 - t) / t).float())
    assert torch.allclose(seen[:, :1].square().mean(), x.square().mean() / (0.49 * 0.25 + 0.09), rtol=2.0)


def test_scaled_input_has_unit_variance(generator: torch.Generator) -> None:
    """x_t of data with sd 0.5, at any noise: variance 1 within 3 % (n = 2e5)."""
    path = VPPath()
    for time in (0.05, 0.4, 0.95):
        t = torch.tensor(time, dtype=torch.float64)
        c = path.coefficients(t)
        x0, noise = torch.randn(2, 200_000, 1, generator=generator)
        x = float(c.alpha) * 0.5 * x0 + float(c.sigma) * noise
        scaled, _ = UnitVariance(0.5)(x, t, path)
        assert abs(scaled.var() - 1) < 0.03


def test_levels_are_finite_at_the_ends() -> None:
    for path in (LinearPath(), VPPath(), VEPath()):
        for end in (0.0, 1.0):
            _, level = UnitVariance()(torch.ones(1, 2), torch.tensor(end, dtype=torch.float64), path)
            assert torch.isfinite(level)


def test_medforj_counts_steps_from_zero() -> None:
    path = DiscreteVPPath()
    x = torch.ones(1, 2)
    for index in (0, 137, 999):
        same, level = MedForJInput()(x, path.time_of_index(index), path)
        assert same is x and float(level) == pytest.approx(index, abs=1e-9)


def test_edm_with_a_silent_network_is_its_skip(generator: torch.Generator) -> None:
    """F = 0: D = sd^2 / (kappa^2 + sd^2) x / alpha, the linear shrinkage of Karras et al., on a path with alpha < 1 too."""
    path = VPPath()
    x = torch.randn(4, 1, 3, generator=generator)
    t = torch.tensor(0.5, dtype=torch.float64)
    c = path.coefficients(t)
    kappa = float(c.sigma / c.alpha)
    given = EDMDenoiser(_Zero(), path, 0.5)(x, t)
    assert torch.allclose(given, x / float(c.alpha) * 0.25 / (kappa**2 + 0.25), rtol=1e-5)
    with pytest.raises(InputError, match="alpha > 0"):
        EDMDenoiser(_Zero(), LinearPath())(x, torch.ones(()))


class _Given(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor) -> torch.Tensor:
        return self.value


@pytest.mark.parametrize("time", [1e-3, 0.5, 0.999])
@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
def test_edms_f_and_x0_are_each_other(path: Path, time: float, generator: torch.Generator) -> None:
    """The network whose raw answer is F = (x0 - c_skip y) / c_out, table 1 of Karras et al., denoises to x0."""
    x, x0 = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor(time, dtype=torch.float64)
    c, sd = path.coefficients(t), 0.5
    kappa, y = c.sigma / c.alpha, x / c.alpha
    raw = (x0 - sd**2 / (kappa**2 + sd**2) * y) / (kappa * sd / (kappa**2 + sd**2).sqrt())
    torch.testing.assert_close(EDMDenoiser(_Given(raw), path, sd)(x, t), x0, rtol=1e-10, atol=1e-10)


def test_guidance_extrapolates_and_one_is_free(generator: torch.Generator) -> None:
    class Mean:
        path = LinearPath()
        calls = 0

        def __call__(self, x, t, covariates):  # type: ignore[no-untyped-def]
            Mean.calls += 1
            return x + torch.nan_to_num(covariates, nan=0.0)

    x, c = torch.randn(2, 3, generator=generator), torch.full((2, 3), 0.5)
    t = torch.tensor(0.5)
    assert torch.allclose(Guided(Mean(), 3.0)(x, t, covariates=c), x + 1.5)
    assert Mean.calls == 2
    assert torch.equal(Guided(Mean(), 1.0)(x, t, covariates=c), x + 0.5)
    assert Mean.calls == 3


def test_a_worse_denoiser_guides_away_from_itself(generator: torch.Generator) -> None:
    """D_worse + w (D - D_worse), conditions as they are; the score of p^w / p_worse^(w - 1); one costs nothing."""

    class Normal:
        """x_0 of variance v on the linear path."""

        path = LinearPath()

        def __init__(self, variance: float) -> None:
            self.variance, self.calls = variance, 0

        def __call__(self, x, t, shift):  # type: ignore[no-untyped-def]
            self.calls += 1
            return (1 - t) * self.variance * x / ((1 - t) ** 2 * self.variance + t**2) + shift

    x, t, shift = torch.randn(5, 3, generator=generator), torch.tensor(0.5), torch.full((5, 3), 0.25)
    good, bad = Normal(1.0), Normal(3.0)
    told = Autoguided(good, bad, 2.0)(x, t, shift=shift)
    # Scores of p_t: -x / var_t with var_t = (1 - t)^2 v + t^2; E[x_0 | x_t] = (x + t^2 score) / (1 - t).
    score = 2.0 * (-x / 0.5) - 1.0 * (-x / 1.0)
    torch.testing.assert_close(told, (x + 0.25 * score) / 0.5 + shift)
    assert (good.calls, bad.calls) == (1, 1)
    assert torch.equal(Autoguided(good, bad, 1.0)(x, t, shift=shift), good(x, t, shift=shift))
    assert bad.calls == 1
    other = Normal(1.0)
    other.path = DiscreteVPPath()  # type: ignore[assignment]
    with pytest.raises(InputError, match="two denoisers of one path"):
        Autoguided(good, other)


def test_a_denoiser_is_rebuilt_from_its_description(generator: torch.Generator) -> None:
    from radiata_core.nets.unet import UNet

    with torch.random.fork_rng():
        network = UNet(
            in_channels=2, channels=(8, 8), down_blocks=(0, 1), up_blocks=(1, 1), attention=(False, True)
        )
    anchor = PooledGaussian(shape=(1, 4, 4, 4), rank=2)
    denoiser = NetworkDenoiser(network, DiscreteVPPath(), "v", UnitVariance(0.7), anchor)
    with torch.random.fork_rng():
        again = rebuild(describe(denoiser))
    again.load_state_dict(denoiser.state_dict())
    x = torch.randn(2, 1, 4, 4, 4, generator=generator)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(again(x, t), denoiser(x, t))
