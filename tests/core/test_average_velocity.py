"""MeanFlow: the identity against a closed form, a solver and finite differences; the objective against its pieces."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, gaussian_flow
from radiata_core.average_velocity import AverageVelocity, average_velocity, mean_flow_target
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import UnitVariance
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap, SolvedFlowMap
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, VPPath
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import LogNormalSNR, UniformTime

# torch warns about itself when torch.func.jvp is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

PATH = LinearPath()
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
VARIANCE = torch.tensor([4.0, 0.25], dtype=torch.float64)
DENOISER = GaussianDenoiser(MEAN, Diagonal(VARIANCE), PATH)


@dataclass(frozen=True)
class AsItIs:
    """State and time enter a network unchanged."""

    sign = 1.0

    def __call__(self, x, t, path):
        return x, t


class GaussianH(nn.Module):
    """h of Gaussian data: (x_s - x_t) / (s - t) in the form that is finite at s = t; `wrong` scales it."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(wrong, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x, level, *, target_level):
        t, s = (v.expand(len(x))[:, None] for v in (level, target_level))
        before, after = ((1 - v) ** 2 * VARIANCE + v**2 for v in (t, s))
        # (sqrt(after / before) - 1) / (s - t), with after - before = (s - t) (s + t - (2 - s - t) VARIANCE).
        growth = (s + t - (2 - s - t) * VARIANCE) / (before * ((after / before).sqrt() + 1))
        return self.scale * (-MEAN + growth * (x - (1 - t) * MEAN)) + self.shift


class Perceptron(nn.Module):
    """Any smooth network."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.double()

    def forward(self, x, level, *, target_level):
        both = torch.stack([level.expand(len(x)), target_level.expand(len(x))], 1)
        return self.layers(torch.cat([x, both], 1))


def exact(wrong: float = 1.0) -> NetworkFlowMap:
    return NetworkFlowMap(GaussianH(wrong), PATH, Prediction.VELOCITY, AsItIs())


def data(n: int):
    return MEAN + VARIANCE.sqrt() * noise_of(generators_of(range(n), 9), (2,), torch.float64)


T = torch.tensor([1.0, 0.9, 0.6, 0.4, 0.3], dtype=torch.float64)
S = torch.tensor([0.0, 0.2, 0.6, 0.1, 0.0], dtype=torch.float64)


def states():
    c = PATH.coefficients(T)
    return c.alpha[:, None] * data(5) + c.sigma[:, None] * noise_of(
        generators_of(range(5), 1), (2,), torch.float64
    )


def velocity_at(x, t):
    return convert(DENOISER(x, t), x, t, PATH, Prediction.X0, Prediction.VELOCITY)


def test_the_closed_form_is_the_average_of_the_velocity():
    """(t - s) h is what the ODE goes: in closed form, and by a solver to its error."""
    x = states()
    h = average_velocity(exact(), x, T, S)
    way = x + (S - T)[:, None] * h
    torch.testing.assert_close(
        way, gaussian_flow(x, T, S, MEAN, Diagonal(VARIANCE), PATH), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(way, SolvedFlowMap(DENOISER, 200).jump(x, T, S), atol=2e-4, rtol=0)
    torch.testing.assert_close(h[2:3], velocity_at(x, T)[2:3], atol=1e-12, rtol=0)


def test_meanflow_identity():
    """h = v - (t - s) dh/dt for the exact map, with the marginal velocity: 1e-11."""
    x = states()
    sides = mean_flow_target(exact(), x, velocity_at(x, T), T, S)
    torch.testing.assert_close(sides.velocity, sides.target, atol=1e-11, rtol=0)
    assert sides.velocity.requires_grad and not sides.target.requires_grad
    wrong = mean_flow_target(exact(1.1), x, velocity_at(x, T), T, S)
    assert (wrong.velocity - wrong.target).abs().max() > 0.1


@pytest.mark.parametrize("prediction", [Prediction.VELOCITY, Prediction.X0, Prediction.V])
@pytest.mark.parametrize("scaling", [AsItIs(), UnitVariance()])
def test_the_derivative_is_that_of_finite_differences(prediction, scaling):
    """Along (v, 1) at fixed s, through the scaling and the conversion too, for any network and prediction."""
    flow_map = NetworkFlowMap(Perceptron(), PATH, prediction, scaling)
    x, v = states()[1:], data(4)
    t, s, e = T[1:] - 0.01, S[1:] * 0.9, 1e-5
    sides = mean_flow_target(flow_map, x, v, t, s)
    slope = (
        average_velocity(flow_map, x + e * v, t + e, s) - average_velocity(flow_map, x - e * v, t - e, s)
    ) / (2 * e)
    torch.testing.assert_close(sides.target, (v - (t - s)[:, None] * slope).detach(), atol=1e-7, rtol=1e-7)


def test_the_ends_are_finite():
    """From t = 1 to s = 0, where the log-SNR of the usual scaling is infinite before it is clipped."""
    flow_map = NetworkFlowMap(Perceptron(), PATH, Prediction.VELOCITY)
    t, s = torch.tensor([1.0, 1.0, 0.0]).double(), torch.tensor([0.0, 1.0, 0.0]).double()
    sides = mean_flow_target(flow_map, data(3), data(3), t, s)
    assert sides.target.isfinite().all()
    gradients = torch.autograd.grad(sides.velocity.square().sum(), list(flow_map.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_with_the_teachers_velocity_the_exact_map_has_no_loss():
    objective = AverageVelocity(LogNormalSNR(), diagonal=0.25, teacher=DENOISER)
    assert objective(exact(), data(32), generators_of(range(32))).value < 1e-18
    assert objective(exact(1.1), data(32), generators_of(range(32))).value > 1e-3


@pytest.mark.slow
def test_with_the_datas_velocity_the_exact_map_is_stationary():
    """Mean gradient of the squared error over 4000 rows: zero within 4 standard errors for the map, not for a wrong one.

    Three parameters; a true map fails with probability 2e-4.
    """
    n = 4000
    objective = AverageVelocity(UniformTime(), diagonal=0.25, power=0.0)

    def largest_z(flow_map):
        network = flow_map.network
        t, s = objective.draw_times(generators_of(range(n)))
        t = t.clamp_min(0.05)
        s = torch.minimum(s, t)
        noise = noise_of(generators_of(range(n), 1), (2,), torch.float64)
        x = (1 - t)[:, None] * data(n) + t[:, None] * noise
        sides = mean_flow_target(flow_map, x, noise - data(n), t, s)
        error = (sides.velocity - sides.target).detach()
        unit = (sides.velocity.detach() - network.shift) / network.scale
        rows = torch.cat([error, (error * unit).sum(1, keepdim=True)], 1).detach()
        return (rows.mean(0) / (rows.std(0) / n**0.5)).abs().max()

    assert largest_z(exact()) < 4
    assert largest_z(exact(1.1)) > 8


def test_loss_is_the_weighted_error_with_the_target_stopped():
    """Value and gradient, written out; power 0 is the squared error, power 1 nearly 1 for large errors."""
    flow_map = NetworkFlowMap(Perceptron(), PATH, Prediction.VELOCITY)
    generators = generators_of(range(6))
    objective = AverageVelocity(LogNormalSNR(-0.4, 1.0), diagonal=0.5, power=0.5, offset=0.01)
    t, s = objective.draw_times(generators)
    noise = noise_of(generators, (2,), torch.float64)
    x = (1 - t)[:, None] * data(6) + t[:, None] * noise
    h = flow_map.predict(x, t, s)
    target = mean_flow_target(flow_map, x, noise - data(6), t, s).target
    squared = (h - target).square().mean(1)
    expected = squared / (squared.detach() + 0.01).sqrt()
    loss = objective(flow_map, data(6), generators_of(range(6)))
    torch.testing.assert_close(loss.per_sample, expected, atol=1e-12, rtol=1e-12)
    parameters = list(flow_map.parameters())
    for one, two in zip(
        torch.autograd.grad(loss.value, parameters),
        torch.autograd.grad(expected.mean(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-10)
    plain = AverageVelocity(LogNormalSNR(-0.4, 1.0), diagonal=0.5, power=0.0)
    torch.testing.assert_close(plain(flow_map, data(6), generators_of(range(6))).per_sample, squared)
    alone = objective(flow_map, data(6)[2:3], generators_of([2])).per_sample
    torch.testing.assert_close(alone, loss.per_sample[2:3], atol=1e-13, rtol=0)


def test_on_the_diagonal_it_is_flow_matching():
    """diagonal = 1, power = 0: the regression of the velocity, on the same draws."""
    flow_map = NetworkFlowMap(Perceptron(), PATH, Prediction.VELOCITY)
    objective = AverageVelocity(UniformTime(), diagonal=1.0, power=0.0)
    loss = objective(flow_map, data(6), generators_of(range(6)))
    generators = generators_of(range(6))
    t, s = objective.draw_times(generators)
    assert torch.equal(t, s)
    noise = noise_of(generators, (2,), torch.float64)
    x = (1 - t)[:, None] * data(6) + t[:, None] * noise
    regression = Regression(PATH, UniformTime(), target=Prediction.VELOCITY)
    error = flow_map.predict(x, t) - (noise - data(6))
    torch.testing.assert_close(loss.per_sample, error.square().mean(1), atol=1e-12, rtol=0)
    assert regression.path == objective.path


def test_law_of_the_times():
    """s <= t; the share with s = t, the means of t (2/3) and, apart from it, of s (1/3), within 4 standard errors."""
    n = 3000
    t, s = AverageVelocity(UniformTime(), diagonal=0.4).draw_times(generators_of(range(n)))
    assert (s <= t).all()
    same = s == t
    assert abs(float(same.double().mean()) - 0.4) < 4 * (0.24 / n) ** 0.5
    error = 4 * (1 / 18 / n) ** 0.5
    assert abs(float(t.mean()) - 2 / 3) < error
    assert abs(float(s[~same].mean()) - 1 / 3) < error / 0.6**0.5


@pytest.mark.slow
def test_a_small_network_learns_to_jump():
    """1-D, 200 Adam steps on data alone: one jump from noise brings mean and sd nearer than half of what they were off."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 1))

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, level, *, target_level):
            both = torch.stack([level.expand(len(x)), target_level.expand(len(x))], 1)
            return self.network(torch.cat([x, both.to(x)], 1))

    flow_map = NetworkFlowMap(Wrapped(), PATH, Prediction.VELOCITY, AsItIs())
    objective = AverageVelocity(UniformTime(), diagonal=0.5, power=0.5, offset=0.1)
    optimiser = torch.optim.Adam(flow_map.parameters(), 1e-2)
    rows = 2.0 + 0.5 * noise_of(generators_of(range(64), 9), (1,))
    for step in range(200):
        seeds = range(64 * step, 64 * step + 64)
        optimiser.zero_grad()
        objective(flow_map, rows, generators_of(seeds)).value.backward()
        optimiser.step()
    start = noise_of(generators_of(range(500), 1), (1,))
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        x = flow_map.jump(start, one, zero)
    assert abs(float(x.mean()) - 2.0) < 0.3
    assert abs(float(x.std()) - 0.5) < 0.25


def test_bad_input():
    with pytest.raises(InputError, match="share of rows"):
        AverageVelocity(UniformTime(), diagonal=1.5)
    with pytest.raises(InputError, match="power >= 0 and offset > 0"):
        AverageVelocity(UniformTime(), offset=0.0)
    with pytest.raises(InputError, match="teacher on the linear path"):
        AverageVelocity(UniformTime(), teacher=GaussianDenoiser(MEAN, Diagonal(VARIANCE), VPPath()))
    objective = AverageVelocity(UniformTime())
    with pytest.raises(InputError, match="expected a NetworkFlowMap"):
        objective(DENOISER, data(2), generators_of(range(2)))
    other = NetworkFlowMap(Perceptron(), VPPath(), Prediction.VELOCITY)
    with pytest.raises(InputError, match="those of the straight path"):
        objective(other, data(2), generators_of(range(2)))
    with pytest.raises(InputError, match="one generator a row"):
        objective(exact(), data(2), generators_of(range(3)))
