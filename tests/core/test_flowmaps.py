"""Flow maps: what holds for any network, and what holds for the exact map (T8, T18)."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal
from radiata_core.denoisers import Denoiser, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import (
    FlowMap,
    GaussianFlowMap,
    NetworkFlowMap,
    SolvedFlowMap,
    euler_jump,
    sample_flow_map,
    trapezoid_step,
)
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction
from radiata_core.runge_kutta import adaptive
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim
from radiata_core.times import LinearGrid

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(0.002, 20.0)]
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
VARIANCE = torch.tensor([4.0, 0.09], dtype=torch.float64)
GAUSSIAN = Diagonal(VARIANCE)


def time(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def mixture(path: Path) -> MixtureDenoiser:
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
    tilted = Dense(torch.tensor([[0.2, 0.1], [0.1, 0.3]], dtype=torch.float64))
    round_ = Diagonal(torch.full((2,), 0.1, dtype=torch.float64))
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]).double(), means, [tilted, round_, round_], path)


@dataclass(frozen=True)
class AsItIs:
    """State and time enter a network unchanged."""

    sign = 1.0

    def __call__(self, x, t, path):
        return x, t


class Perceptron(nn.Module):
    """Any network: random weights, of state, time and destination."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.layers = nn.Sequential(nn.Linear(features + 2, 16), nn.Tanh(), nn.Linear(16, features))
        self.double()

    def forward(self, x, level, *, target_level):
        both = torch.stack([level.expand(len(x)), target_level.expand(len(x))], 1)
        return self.layers(torch.cat([x, both], 1))


class GaussianG(nn.Module):
    """The exact g of Gaussian data, from the gain k_l of the module's docstring."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, x, level, *, target_level):
        at, to = self.path.coefficients(level), self.path.coefficients(target_level)
        alpha, sigma, alpha_s, sigma_s = (
            c.expand(len(x))[:, None] for c in (at.alpha, at.sigma, to.alpha, to.sigma)
        )
        ratio = sigma_s / sigma
        variance = alpha**2 * VARIANCE + sigma**2
        r = ((alpha_s**2 * VARIANCE + sigma_s**2) / variance).sqrt()
        return MEAN + VARIANCE * (alpha_s + alpha * ratio) / (variance * (r + ratio)) * (x - alpha * MEAN)


def states(n: int = 16, key: int = 0) -> torch.Tensor:
    return 2 * noise_of(generators_of(range(n), key), (2,), torch.float64)


# Any network ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", [Prediction.X0, Prediction.VELOCITY, Prediction.V])
def test_boundary(path, prediction):
    """G(x, t, t) = x to the last bit, whatever the network says."""
    flow_map = NetworkFlowMap(Perceptron(), path, prediction)
    x = states(4)
    for t in (time(0.0), time(1e-3), time(0.5), time(1.0), time(0.0, 0.3, 0.7, 1.0)):
        assert torch.equal(flow_map.jump(x, t, t), x)


@pytest.mark.parametrize("path", PATHS)
def test_diagonal_is_a_denoiser(path):
    """Without s, or at s = t, it is a denoiser, and a solver walks on it as on the same network without a destination."""

    class Now(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x, level):
            return self.network(x, level, target_level=level)

    network = Perceptron()
    flow_map, denoiser = (
        NetworkFlowMap(network, path, "velocity"),
        NetworkDenoiser(Now(network), path, "velocity"),
    )
    assert isinstance(flow_map, Denoiser) and isinstance(flow_map, FlowMap)
    x, t = states(3), time(0.2, 0.6, 0.9)
    assert torch.equal(flow_map(x, t), flow_map(x, t, t))
    assert torch.equal(flow_map(x, t), denoiser(x, t))
    table = ddim(LinearGrid()(5, path), path)
    assert torch.equal(integrate(flow_map, x, table), integrate(denoiser, x, table))


def test_average_velocity_on_the_straight_path():
    """What a network that predicts velocities says is MeanFlow's h: x_s = x_t + (s - t) h, g = x_t - t h."""
    network = Perceptron()
    flow_map = NetworkFlowMap(network, LinearPath(), "velocity", scaling=AsItIs())
    x, t, s = states(4), time(1.0, 0.9, 0.5, 0.3), time(0.0, 0.4, 0.1, 0.3)
    h = network(x, t, target_level=s)
    torch.testing.assert_close(flow_map.jump(x, t, s), x + (s - t)[:, None] * h, atol=1e-13, rtol=0)
    torch.testing.assert_close(flow_map(x, t, s), x - t[:, None] * h, atol=1e-13, rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_jump_to_data_is_the_consistency_function(path):
    """G(x, t, 0) = g(x, t, 0); and in units of the data the Euler form is Kim et al.'s (s/t) x + (1 - s/t) g."""
    flow_map = NetworkFlowMap(Perceptron(), path, Prediction.X0)
    x, t, s = states(3), time(0.3, 0.6, 0.95), time(0.1, 0.6, 0.2)
    torch.testing.assert_close(
        flow_map.jump(x, t, 0 * t), flow_map(x, t, torch.zeros(3).double()), atol=0, rtol=0
    )
    at, to = path.coefficients(t), path.coefficients(s)
    ratio = ((to.sigma / to.alpha) / (at.sigma / at.alpha))[:, None]
    expected = ratio * x / at.alpha[:, None] + (1 - ratio) * flow_map(x, t, s)
    torch.testing.assert_close(flow_map.jump(x, t, s) / to.alpha[:, None], expected, atol=1e-12, rtol=1e-12)


def test_rows_that_are_data_stay_and_the_others_are_alone():
    """A row at t = 0 is returned; each row is what it is in a batch of its own; a time () is that time for every row."""
    flow_map = NetworkFlowMap(Perceptron(), VPPath(), Prediction.V)
    x, t, s = states(4), time(0.0, 0.5, 1.0, 0.2), time(0.0, 0.0, 0.4, 0.2)
    moved = flow_map.jump(x, t, s)
    assert torch.equal(moved[0], x[0])
    alone = torch.cat([flow_map.jump(x[i : i + 1], t[i : i + 1], s[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(moved, alone, atol=1e-14, rtol=0)
    together = flow_map.jump(x, time(0.7), time(0.1))
    torch.testing.assert_close(
        together, flow_map.jump(x, torch.full((4,), 0.7).double(), torch.full((4,), 0.1).double())
    )


# The exact map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.0), (0.9, 0.4), (0.3, 0.29)])
def test_closed_form_of_a_gaussian(path, t, s):
    """T8: in y = x / alpha and kappa = sigma / alpha, G = m + (y - m) sqrt((l + kappa_s^2) / (l + kappa_t^2))."""
    if path.coefficients(time(t)).alpha == 0:
        t = 0.999
    at, to = path.coefficients(time(t)), path.coefficients(time(s))
    x = states()
    growth = ((VARIANCE + (to.sigma / to.alpha) ** 2) / (VARIANCE + (at.sigma / at.alpha) ** 2)).sqrt()
    expected = to.alpha * (MEAN + (x / at.alpha - MEAN) * growth)
    for flow_map in (
        GaussianFlowMap(MEAN, GAUSSIAN, path),
        NetworkFlowMap(GaussianG(path), path, Prediction.X0, AsItIs()),
    ):
        torch.testing.assert_close(flow_map.jump(x, time(t), time(s)), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_g_tends_to_the_denoiser_at_first_order(path):
    """T8: g(x, t, s) - D(x, t) = O(t - s): ten times closer, ten times less, and equal on the diagonal."""
    exact = NetworkFlowMap(GaussianG(path), path, Prediction.X0, AsItIs())
    denoiser = GaussianDenoiser(MEAN, GAUSSIAN, path)
    x, t = states(), time(0.6)
    gaps = [(exact(x, t, share * t) - denoiser(x, t)).abs().max().item() for share in (0.99, 0.999, 0.9999)]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.01)
    torch.testing.assert_close(exact(x, t), denoiser(x, t), atol=1e-12, rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_two_jumps_are_one(path):
    """T8, semigroup: G(G(x, t, u), u, s) = G(x, t, s), in closed form and on a mixture solved finely."""
    x, t, u, s = states(4), time(0.9, 0.8, 0.5, 1.0), time(0.5, 0.8, 0.2, 0.5), time(0.1, 0.3, 0.2, 0.3)
    exact = GaussianFlowMap(MEAN, GAUSSIAN, path)
    torch.testing.assert_close(
        exact.jump(exact.jump(x, t, u), u, s), exact.jump(x, t, s), atol=1e-12, rtol=1e-12
    )


def test_two_jumps_are_one_on_a_mixture():
    """To the error of the solver, which is second order: a quarter for twice the steps."""
    x, t, u, s = states(4), time(0.9, 0.8, 0.5, 0.9), time(0.5, 0.8, 0.2, 0.3), time(0.1, 0.3, 0.2, 0.2)
    gaps = []
    for steps in (20, 40):
        solved = SolvedFlowMap(mixture(LinearPath()), steps)
        gaps.append((solved.jump(solved.jump(x, t, u), u, s) - solved.jump(x, t, s)).abs().max().item())
    assert gaps[1] < 2e-3
    assert gaps[1] < gaps[0] / 3


@pytest.mark.parametrize("path", PATHS)
def test_solved_map_is_second_order_on_a_gaussian(path):
    """Twice the steps, a quarter of the error: 1.8 to 2.2 in powers of two."""
    exact, x = GaussianFlowMap(MEAN, GAUSSIAN, path), states()
    t, s = time(0.8), time(0.1)
    denoiser = GaussianDenoiser(MEAN, GAUSSIAN, path)
    truth = exact.jump(x, t, s)
    errors = [(SolvedFlowMap(denoiser, n).jump(x, t, s) - truth).abs().max().item() for n in (64, 128)]
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2


@pytest.mark.slow
def test_solved_map_of_a_mixture_is_the_ode():
    """Against Dormand and Prince at a tolerance of 1e-7, from pure noise to data."""
    denoiser = mixture(LinearPath())
    x = states(8) / 2
    truth = adaptive(denoiser, x, LinearPath(), rtol=1e-7, atol=1e-7).x
    errors = [
        (SolvedFlowMap(denoiser, n).jump(x, time(1.0), time(0.0)) - truth).abs().max() for n in (50, 100)
    ]
    assert errors[1] < 3e-3
    assert errors[1] < errors[0] / 3


def test_trapezoid_of_the_flow_map_is_heuns_and_never_sees_the_data():
    """Written out on the straight path; a step to t = 0 is DDIM's, without a call at t = 0."""
    path = LinearPath()
    denoiser = mixture(path)
    seen: list[float] = []

    class Watched:
        def __init__(self):
            self.path = path

        def __call__(self, x, t, **conditions):
            seen.append(float(torch.as_tensor(t).min()))
            return denoiser(x, t)

    x = states(4)
    first = denoiser(x, time(0.8))
    guess = 0.625 * x + 0.375 * first
    expected = 0.625 * x + 0.375 * (first + denoiser(guess, time(0.5))) / 2
    torch.testing.assert_close(
        trapezoid_step(denoiser, x, time(0.8), time(0.5)), expected, atol=1e-12, rtol=0
    )
    last = trapezoid_step(Watched(), x, time(0.8, 0.8, 0.8, 0.8), time(0.5, 0.0, 0.5, 0.0))
    torch.testing.assert_close(last[::2], expected[::2], atol=1e-12, rtol=0)
    torch.testing.assert_close(last[1::2], first[1::2], atol=1e-12, rtol=0)
    assert min(seen) > 0


# Gamma-sampling ---------------------------------------------------------------------------------------------------------

FREQUENCIES = torch.tensor(
    [[0.7, 0.0], [0.0, 0.7], [1.5, 0.0], [0.0, 1.5], [1.0, 1.0], [1.0, -1.0], [2.5, 0.0], [0.0, 2.5]]
).double()


def largest_z(samples: torch.Tensor) -> float:
    """Largest |z| of 16 means cos(w x), sin(w x) against the mixture's characteristic function, in closed form."""
    law = mixture(LinearPath())
    spreads = [
        Dense(torch.tensor([[0.2, 0.1], [0.1, 0.3]]).double()).matrix,
        *[0.1 * torch.eye(2).double()] * 2,
    ]
    phases, found = FREQUENCIES @ law.means.T, samples @ FREQUENCIES.T
    decay = torch.stack([(-(FREQUENCIES @ S * FREQUENCIES).sum(1) / 2).exp() for S in spreads], 1)
    worst = 0.0
    for wave in (torch.cos, torch.sin):
        truth = (decay * wave(phases)) @ law.weights
        z = (wave(found).mean(0) - truth) / (wave(found).std(0) / len(samples) ** 0.5)
        worst = max(worst, z.abs().max().item())
    return worst


N = 2000
LIMIT = 4.25
"""Two-sided normal: P(|z| > 4.25) = 2.1e-5; over 16 means and 9 settings a true sampler fails with probability 0.3 %."""


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_with_the_exact_map_every_gamma_has_the_law_of_the_data(gamma, steps):
    """T18: whatever depends on gamma is the model's error."""
    start = noise_of(generators_of(range(N), 1), (2,), torch.float64)
    solved = SolvedFlowMap(mixture(LinearPath()), 40 // steps)
    x = sample_flow_map(
        solved, start, LinearGrid()(steps, LinearPath()), gamma=gamma, generators=generators_of(range(N), 2)
    )
    assert largest_z(x) < LIMIT


def test_noise_of_a_place_is_used_as_noise_of_a_row():
    """`noise` is asked once between two jumps, and what it says is what generators would have drawn."""
    start, drawn = noise_of(generators_of([1, 2], 0), (2,), torch.float64), generators_of([5, 6])
    flow_map, times, asked = SolvedFlowMap(mixture(LinearPath()), 4), LinearGrid()(3, LinearPath()), []

    def noise(step):
        asked.append(step)
        return noise_of(drawn, (2,), torch.float64)

    ours = sample_flow_map(flow_map, start, times, gamma=0.7, noise=noise)
    theirs = sample_flow_map(flow_map, start, times, gamma=0.7, generators=generators_of([5, 6]))
    assert asked == [0, 1] and torch.equal(ours, theirs)


def test_a_wrong_map_is_found_out():
    """The test above has power: one Euler step for a jump fails it by far."""
    start = noise_of(generators_of(range(N), 1), (2,), torch.float64)

    @dataclass(frozen=True)
    class OneStep:
        path: Path

        def jump(self, x, t, s, **conditions):
            return euler_jump(x, mixture(self.path)(x, t), t, s, self.path)

    x = sample_flow_map(OneStep(LinearPath()), start, LinearGrid()(4, LinearPath()))
    assert largest_z(x) > 2 * LIMIT


@pytest.mark.parametrize("path", PATHS)
def test_gamma_keeps_the_variance_of_a_gaussian_on_every_path(path):
    """From the marginal at t = 0.9: mean and variance at t = 0, n = 2000, each within 4.5 standard errors."""
    t = time(0.9, 0.6, 0.3, 0.0)
    c = path.coefficients(t[0])
    start = c.alpha * MEAN + (c.alpha**2 * VARIANCE + c.sigma**2).sqrt() * noise_of(
        generators_of(range(N), 3), (2,), torch.float64
    )
    exact = GaussianFlowMap(MEAN, GAUSSIAN, path)
    x = sample_flow_map(exact, start, t, gamma=0.8, generators=generators_of(range(N), 4))
    z = (x - MEAN) / VARIANCE.sqrt()
    assert (z.mean(0).abs() * N**0.5).max() < 4.5
    assert ((z.square().mean(0) - 1).abs() * (N / 2) ** 0.5).max() < 4.5


def test_gamma_sampling_written_out():
    """gamma = 0 is jumps in a row; gamma = 1 is a jump to the data and fresh noise (Song et al. 2023, algorithm 1)."""
    path, flow_map = VPPath(), NetworkFlowMap(Perceptron(), VPPath(), Prediction.V)
    x, times = states(3), time(0.9, 0.5, 0.0)
    one = flow_map.jump(flow_map.jump(x, times[0], times[1]), times[1], times[2])
    assert torch.equal(sample_flow_map(flow_map, x, times), one)
    c = path.coefficients(times[1])
    fresh = noise_of(generators_of([7, 8, 9]), (2,), torch.float64)
    middle = c.alpha * flow_map.jump(x, times[0], time(0.0)) + c.sigma * fresh
    many = sample_flow_map(flow_map, x, times, gamma=1.0, generators=generators_of([7, 8, 9]))
    torch.testing.assert_close(many, flow_map.jump(middle, times[1], time(0.0)), atol=1e-6, rtol=1e-6)
    alone = sample_flow_map(flow_map, x[1:2], times, gamma=1.0, generators=generators_of([8]))
    torch.testing.assert_close(many[1:2], alone, atol=1e-13, rtol=0)


# Bad input --------------------------------------------------------------------------------------------------------------


def test_jumps_towards_noise_are_refused():
    """Also for rows that are data already, which are not evaluated."""
    flow_map = NetworkFlowMap(Perceptron(), LinearPath(), Prediction.X0)
    for t, s in [(time(0.3), time(0.5)), (time(0.0), time(0.5)), (time(0.0, 0.9), time(0.3, 0.1))]:
        with pytest.raises(InputError, match="expected a destination s <= t"):
            flow_map.jump(states(2), t, s)
    with pytest.raises(InputError, match="expected a destination s <= t"):
        flow_map(states(2), time(0.3), time(0.5))
    with pytest.raises(InputError, match="at least 1 step"):
        SolvedFlowMap(mixture(LinearPath()), 0)


def test_sampling_refuses():
    flow_map, x = GaussianFlowMap(MEAN, GAUSSIAN, LinearPath()), states(2)
    for times in (time(0.0, 1.0), time(0.5, 0.5), time(1.5, 0.0), time(1.0, -0.5)):
        with pytest.raises(InputError, match="decreasing times"):
            sample_flow_map(flow_map, x, times)
    with pytest.raises(InputError, match=r"gamma in \[0, 1\]"):
        sample_flow_map(flow_map, x, time(1.0, 0.0), gamma=1.5)
    with pytest.raises(InputError, match="one generator a row"):
        sample_flow_map(flow_map, x, time(1.0, 0.0), gamma=0.5, generators=generators_of([1]))
