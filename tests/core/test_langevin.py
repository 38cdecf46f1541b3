"""Langevin dynamics: stationary laws in closed form, order, reversibility, gradients, one generator a row."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.langevin import (
    Bath,
    LinearStep,
    PhasePoint,
    adjusted_langevin,
    baoab,
    oscillator,
    simulate,
    unadjusted_langevin,
)
from radiata_core.seeds import generators_of, noise_of


def _one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _start(*shape: int, seed: int = 0) -> PhasePoint:
    q, v = (noise_of(generators_of(range(shape[0]), seed, k), shape[1:], torch.float64) for k in (0, 1))
    return PhasePoint(q, v)


def _stationary(force: Callable[[Tensor], Tensor] | None, step: LinearStep) -> np.ndarray:
    """Covariance of (q, v) that a linear step keeps, from its responses to unit inputs; no Monte Carlo."""

    def after(q: float, v: float, xi: list[float]) -> np.ndarray:
        noise = torch.tensor(xi, dtype=torch.float64).reshape(1, 1, step.draws, 1)
        end = simulate(force, PhasePoint(_one(q), _one(v)), step, 1, noise=noise).end
        return np.array([end.position.item(), end.velocity.item()])

    silence = [0.0] * step.draws
    transition = np.stack([after(1, 0, silence), after(0, 1, silence)], 1)
    gains = [after(0, 0, [float(k == j) for j in range(step.draws)]) for k in range(step.draws)]
    gain = np.stack(gains, 1)
    return solve_discrete_lyapunov(transition, gain @ gain.T)


@pytest.mark.parametrize("h", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("gamma", [0.2, 4.0, 50.0])
def test_baoab_is_exact_for_the_position_of_a_harmonic_force(h: float, gamma: float) -> None:
    """omega = 2, so that 0.95 is nearly the limit of stability: Var q = T/k to 1e-9, Var v = T/m (1 - omega² h²/4)."""
    mass, stiffness, heat = 1.5, 6.0, 0.8
    found = _stationary(lambda q: -stiffness * q, baoab(h, Bath(gamma, heat, mass)))
    assert found[0, 0] == pytest.approx(heat / stiffness, rel=1e-9)
    assert found[1, 1] == pytest.approx(heat / mass * (1 - h**2), rel=1e-9)


@pytest.mark.parametrize("h", [0.1, 3.0, 100.0])
def test_an_oscillator_keeps_both_variances_at_any_step(h: float) -> None:
    found = _stationary(None, oscillator(h, 2.0, Bath(0.3, 0.8, 1.5)))
    np.testing.assert_allclose(found, np.diag([0.8 / 6.0, 0.8 / 1.5]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["baoab", "oscillator"])
def test_the_law_of_a_double_well(kind: str) -> None:
    """U = q⁴/4 - q²/2, 20 000 coordinates, T = 0.5: E q² and E q⁴ of quadrature within 4.5 standard errors.

    1 seed in 70 000. The oscillator's step contains + q²/2, so the force left over is 2 q - q³. The bias of order h² is
    below 0.2 percent at h = 0.1.
    """
    n, heat, bath = 20_000, 0.5, Bath(1.0, 0.5)
    step, force = (
        (baoab(0.1, bath), lambda q: q - q**3)
        if kind == "baoab"
        else (oscillator(0.1, 1.0, bath), lambda q: 2 * q - q**3)
    )
    end = simulate(force, _start(1, n), step, 300, generators=generators_of([1])).end.position
    grid = np.linspace(-5, 5, 4001)
    density = np.exp(-(grid**4 / 4 - grid**2 / 2) / heat)
    density /= density.sum()
    for power in (2, 4):
        moment, square = (float((density * grid ** (power * k)).sum()) for k in (1, 2))
        error = math.sqrt((square - moment**2) / n)
        assert abs(float((end**power).mean()) - moment) < 4.5 * error + 0.002 * moment


def _quartic(q: Tensor) -> Tensor:
    return -q - q**3


def _energy(point: PhasePoint) -> Tensor:
    return point.velocity**2 / 2 + point.position**2 / 2 + point.position**4 / 4


@pytest.mark.parametrize("kind", ["baoab", "oscillator"])
def test_without_friction_energy_stays_to_second_order(kind: str) -> None:
    """U = q²/2 + q⁴/4: error 4 times smaller at half the step, no drift over 300 periods, and no generator is needed."""
    start, worst = PhasePoint(_one(1.0), _one(0.5)), []
    for h in (0.1, 0.05):
        step = baoab(h, Bath(0.0)) if kind == "baoab" else oscillator(h, 1.0, Bath(0.0))
        force = _quartic if kind == "baoab" else lambda q: -(q**3)
        run = simulate(force, start, step, round(2000 / h / 5))
        energies = _energy(PhasePoint(run.position, run.velocity)) - _energy(start)
        early, late = energies[: len(energies) // 4].abs().max(), energies[-len(energies) // 4 :].abs().max()
        assert float(late) < 1.02 * float(early)
        worst.append(float(early))
    assert worst[0] / worst[1] == pytest.approx(4.0, rel=0.1)


def test_without_friction_time_can_be_turned_round() -> None:
    start = _start(2, 3)
    there = simulate(_quartic, start, baoab(0.1, Bath(0.0)), 100).end
    back = simulate(_quartic, PhasePoint(there.position, -there.velocity), baoab(0.1, Bath(0.0)), 100).end
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-10)
    torch.testing.assert_close(back.velocity, -start.velocity, rtol=0, atol=1e-10)


def test_trajectory_against_scipy() -> None:
    """T = 0, friction, a stiff spring (omega = 30) with a soft quartic: solve_ivp at 1e-10.

    The oscillator's step errs 50 times less than BAOAB's at the same h, and both are of second order.
    """
    bath, omega, end = Bath(0.4, 0.0), 30.0, 1.0

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        return np.array([y[1], -(omega**2) * y[0] - y[0] ** 3 - 0.4 * y[1]])

    truth = solve_ivp(slope, (0, end), [1.0, 0.0], rtol=1e-11, atol=1e-11).y[0, -1]
    start, errors = PhasePoint(_one(1.0), _one(0.0)), {}
    for steps in (50, 100):
        exact = simulate(lambda q: -(q**3), start, oscillator(end / steps, omega, bath), steps)
        plain = simulate(lambda q: -(omega**2) * q - q**3, start, baoab(end / steps, bath), steps)
        errors[steps] = [abs(run.end.position.item() - truth) for run in (exact, plain)]
    assert errors[50][0] < errors[50][1] / 50
    for k in (0, 1):
        assert errors[50][k] / errors[100][k] == pytest.approx(4.0, rel=0.2)


def test_euler_steps_have_their_known_bias() -> None:
    """N(0, s²): Var = s²/(1 - h/2s²), 4/3 s² at h = s²/2; 40 000 coordinates within 4.5 standard errors."""
    n, variance = 40_000, 2.0
    chain = unadjusted_langevin(
        lambda x: -x / variance, _start(1, n).position, variance / 2, 40, generators=generators_of([3])
    )
    wanted = variance / (1 - 1 / 4)
    assert abs(float(chain.x.var()) - wanted) < 4.5 * wanted * (2 / n) ** 0.5


def test_adjusted_steps_have_none() -> None:
    """exp(-x⁴/4), whose E x² is 2 Gamma(3/4)/Gamma(1/4), at h = 0.4, and N(0, 1) at h = 1, where Euler's variance is 2.

    1000 rows, 60 steps, within 4.5 standard errors of the second moment.
    """
    start, generators = 0.3 * _start(1000, 1).position, generators_of(range(1000), 4)
    for log_density, h, wanted, square in (
        (lambda x: -(x**4).sum(1) / 4, 0.4, 2 * math.gamma(0.75) / math.gamma(0.25), 1.0),
        (lambda x: -(x**2).sum(1) / 2, 1.0, 1.0, 3.0),
    ):
        chain = adjusted_langevin(log_density, start, h, 60, generators=generators)
        error = math.sqrt((square - wanted**2) / 1000)
        assert abs(float(chain.x.square().mean()) - wanted) < 4.5 * error
        assert 0.3 < float(chain.accepted.mean()) < 0.95


def test_acceptance_is_the_ratio_of_densities() -> None:
    """One step by hand with the proposal densities of torch.distributions, the same draws, 200 rows of 2 x 3."""
    x, h = _start(200, 2, 3).position, 0.8

    def log_density(x: Tensor) -> Tensor:
        return -(x**4).flatten(1).sum(1) / 4

    def proposal(x: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(x - h * x**3, math.sqrt(2 * h))

    generators = generators_of(range(200), 6)
    drawn = proposal(x).mean + math.sqrt(2 * h) * noise_of(generators, (2, 3), torch.float64)
    coins = torch.stack([torch.rand((), generator=g) for g in generators])
    forth, back = proposal(x).log_prob(drawn), proposal(drawn).log_prob(x)
    ratio = log_density(drawn) - log_density(x) + (back - forth).flatten(1).sum(1)
    taken = coins < ratio.exp()
    found = adjusted_langevin(log_density, x, h, 1, generators=generators_of(range(200), 6))
    assert 10 < int(taken.sum()) < 190
    assert torch.equal(found.accepted == 1, taken)
    torch.testing.assert_close(found.x, torch.where(taken[:, None, None], drawn, x))


def test_rows_know_only_their_generator() -> None:
    """A row is the same alone; a longer run goes on from a shorter one; records are thinned, not changed."""
    start, step = _start(3, 2, 2), baoab(0.2, Bath(0.7))
    long = simulate(_quartic, start, step, 12, generators=generators_of([5, 6, 7]))
    short = simulate(_quartic, start, step, 6, generators=generators_of([5, 6, 7]))
    torch.testing.assert_close(long.position[:7], short.position, rtol=0, atol=0)
    alone = simulate(
        _quartic,
        PhasePoint(start.position[1:2], start.velocity[1:2]),
        step,
        12,
        generators=generators_of([6]),
    )
    torch.testing.assert_close(alone.velocity[:, 0], long.velocity[:, 1])
    thin = simulate(_quartic, start, step, 12, generators=generators_of([5, 6, 7]), every=4)
    assert torch.equal(thin.position, long.position[::4])
    torch.testing.assert_close(thin.times, long.times[::4])
    torch.testing.assert_close(long.times, 0.2 * torch.arange(13, dtype=torch.float64))


def test_chains_know_only_their_generator() -> None:
    x = _start(3, 2).position
    for chain in (
        lambda x, g: unadjusted_langevin(lambda x: -x, x, 0.3, 5, generators=g).x,
        lambda x, g: adjusted_langevin(lambda x: -(x**2).sum(1) / 2, x, 1.5, 5, generators=g).x,
    ):
        together = chain(x, generators_of([1, 2, 3]))
        torch.testing.assert_close(chain(x[2:], generators_of([3]))[0], together[2])


@pytest.mark.parametrize("kind", ["baoab", "oscillator"])
def test_given_noise_is_drawn_noise(kind: str) -> None:
    """float32: the state keeps its dtype; step by step from the generators, or the same numbers as a tensor."""
    step = baoab(0.2, Bath(0.7)) if kind == "baoab" else oscillator(0.2, 1.0, Bath(0.7))
    start = _start(2, 3)
    start = PhasePoint(start.position.float(), start.velocity.float())
    drawn = simulate(None, start, step, 4, generators=generators_of([1, 2]))
    generators = generators_of([1, 2])
    noise = torch.stack([noise_of(generators, (step.draws, 3)) for _ in range(4)])
    given = simulate(None, start, step, 4, noise=noise)
    assert drawn.position.dtype == torch.float32
    assert torch.equal(given.position, drawn.position)
    assert torch.equal(given.velocity, drawn.velocity)


def test_a_drive_is_a_force_of_each_step() -> None:
    """A constant one is a constant force; with friction alone it ends at F / (m omega²)."""
    start, step = _start(2, 3), oscillator(0.1, 2.0, Bath(3.0, 0.0, 0.5))
    drive = torch.full((400, 2, 3), 1.4, dtype=torch.float64)
    driven, pushed = (
        simulate(None, start, step, 400, drive=drive),
        simulate(lambda q: torch.full_like(q, 1.4), start, step, 400),
    )
    torch.testing.assert_close(driven.position, pushed.position)
    torch.testing.assert_close(
        driven.end.position, torch.full((2, 3), 1.4 / 2, dtype=torch.float64), rtol=0.01, atol=0
    )
    once = drive.clone()
    once[1:] = 0
    kicked = simulate(None, start, step, 2, drive=once[:2])
    halves = PhasePoint(start.position, start.velocity + 0.1 * 1.4 / 2 / 0.5)
    by_hand = simulate(None, halves, step, 1).end
    after = PhasePoint(by_hand.position, by_hand.velocity + 0.1 * 1.4 / 2 / 0.5)
    torch.testing.assert_close(kicked.end.position, simulate(None, after, step, 1).end.position)


def test_gradients_flow_through_a_simulation() -> None:
    """By frequency, friction, temperature, mass, stiffness, start, noise and drive: autograd against differences."""
    noise = noise_of(generators_of(range(6)), (2, 2, 1), torch.float64)
    drive = noise_of(generators_of(range(6), 1), (2, 1), torch.float64)

    def end(parameters: Tensor, q: Tensor, noise: Tensor, drive: Tensor) -> Tensor:
        omega, gamma, heat, mass, stiffness = parameters
        step = oscillator(0.3, omega, Bath(gamma, heat, mass))
        first = simulate(
            lambda q: -stiffness * q**3, PhasePoint(q, torch.zeros_like(q)), step, 6, noise=noise, drive=drive
        )
        other = simulate(
            lambda q: -stiffness * q, first.end, baoab(0.2, Bath(gamma, heat, mass)), 6, noise=noise[:, :, :1]
        )
        return other.end.position

    inputs = (
        torch.tensor([1.2, 0.4, 0.9, 1.1, 0.3], dtype=torch.float64, requires_grad=True),
        torch.tensor([[0.3], [-0.4]], dtype=torch.float64, requires_grad=True),
        noise.requires_grad_(True),
        drive.requires_grad_(True),
    )
    assert torch.autograd.gradcheck(end, inputs)


def test_bad_input() -> None:
    start, step = _start(2, 3), baoab(0.1, Bath(1.0))
    generators = generators_of([0, 1])
    with pytest.raises(InputError, match="one generator a row, 2 here; got 1"):
        simulate(None, start, step, 3, generators=generators[:1])
    with pytest.raises(InputError, match="one generator a row, 2 here; got 0"):
        simulate(None, start, step, 3)
    for steps, every in ((0, 1), (3, 0)):
        with pytest.raises(InputError, match="steps >= 1 and every >= 1"):
            simulate(None, start, step, steps, generators=generators, every=every)
    with pytest.raises(InputError, match=r"noise of shape \(3, 2, 1, 3\); got \(3, 2, 3\)"):
        simulate(None, start, step, 3, noise=torch.zeros(3, 2, 3))
    with pytest.raises(InputError, match=r"drive of shape \(3, 2, 3\); got \(2, 2, 3\)"):
        simulate(None, start, step, 3, generators=generators, drive=torch.zeros(2, 2, 3))
    with pytest.raises(InputError, match="position and velocity of one shape"):
        simulate(None, PhasePoint(start.position, start.velocity[:1]), step, 3, generators=generators)
    with pytest.raises(InputError, match=r"a force of the position's shape \(2, 3\); got \(2, 1\)"):
        simulate(lambda q: q[:, :1], start, step, 3, generators=generators)
    calls = iter([0.0, 1.0, math.nan, 0.0])
    with pytest.raises(
        InputError, match=r"finite values from the force; got NaN or infinity at step 2, t=0\.2"
    ):
        simulate(lambda q: q * next(calls), start, step, 3, generators=generators)
    for h, steps in ((0.0, 1), (-1.0, 1), (math.nan, 1), (0.1, 0)):
        with pytest.raises(InputError, match="step > 0 and steps >= 1"):
            unadjusted_langevin(lambda x: -x, start.position, h, steps, generators=generators)
        with pytest.raises(InputError, match="step > 0 and steps >= 1"):
            adjusted_langevin(lambda x: -x.sum(1), start.position, h, steps, generators=generators)
    with pytest.raises(InputError, match="one generator a row"):
        unadjusted_langevin(lambda x: -x, start.position, 0.1, 1, generators=generators[:1])
    with pytest.raises(InputError, match="the log-density"):
        adjusted_langevin(lambda x: x.sum(1) * math.nan, start.position, 0.1, 1, generators=generators)
    with pytest.raises(InputError, match="the score; got NaN or infinity at step 0"):
        unadjusted_langevin(lambda x: x * math.nan, start.position, 0.1, 1, generators=generators)
