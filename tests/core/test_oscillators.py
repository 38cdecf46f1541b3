"""Linear Langevin steps: the matrix exponential, the covariance, fluctuation and dissipation, the autocovariance."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_lyapunov
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.oscillators import Bath, LinearStep, autocovariance, baoab, oscillator
from radiata_core.seeds import generators_of, noise_of

# frequency, friction: free, undamped, under-, just under-, critically, just over-, over- and heavily overdamped
REGIMES = [
    (0.0, 0.0),
    (0.0, 0.7),
    (3.0, 0.0),
    (3.0, 0.5),
    (3.0, 5.9999),
    (3.0, 6.0),
    (3.0, 6.000000000001),
    (3.0, 6.0001),
    (3.0, 20.0),
    (0.01, 300.0),
    (50.0, 1e-6),
]
over_regimes = pytest.mark.parametrize(("omega", "gamma"), REGIMES)
over_steps = pytest.mark.parametrize("h", [1e-4, 0.01, 0.3, 4.0])


def _van_loan(h: float, omega: float, gamma: float, heat: float) -> tuple[np.ndarray, np.ndarray]:
    """Transition and covariance by one matrix exponential of 4 x 4: another derivation, another program."""
    drift = np.array([[0.0, 1.0], [-(omega**2), -gamma]])
    block = np.zeros((4, 4))
    block[:2, :2], block[2:, 2:] = -drift, drift.T
    block[1, 3] = 2 * gamma * heat
    whole = expm(block * h)
    transition = whole[2:, 2:].T
    return transition, transition @ whole[:2, 2:]


def _covariance(step: LinearStep) -> Tensor:
    return torch.einsum("ik...,jk...->ij...", step.noise, step.noise)


@over_regimes
@over_steps
def test_the_transition_is_the_matrix_exponential(h: float, omega: float, gamma: float) -> None:
    """scipy's, to 1e-12 of its largest entry a row, which at omega h = 200 is what scipy itself keeps."""
    found = oscillator(h, omega, Bath(gamma)).transition.numpy()
    wanted = expm(np.array([[0.0, 1.0], [-(omega**2), -gamma]]) * h)
    scale = np.abs(wanted).max(1, keepdims=True)
    assert np.abs((found - wanted) / scale).max() < 1e-12 * max(1.0, gamma * h, omega * h)


@over_regimes
@over_steps
def test_the_noise_has_the_covariance_of_the_integral(h: float, omega: float, gamma: float) -> None:
    """Against Van Loan's exponential where that keeps its digits (it grows as exp(gamma h)), entry by entry."""
    step = oscillator(h, omega, Bath(gamma, temperature=1.3, mass=0.7))
    found = _covariance(step).numpy()
    if gamma == 0:
        assert step.draws == 0
    elif gamma * h < 3:
        wanted = _van_loan(h, omega, gamma, 1.3 / 0.7)[1]
        roots = np.sqrt(np.diag(wanted))
        assert np.abs((found - wanted) / np.outer(roots, roots)).max() < (1e-6 if h < 1e-3 else 1e-9)
    if omega > 0 and gamma > 0:
        # Where there is rest, the step keeps it: E Sigma E' + Q = Sigma, with Sigma from scipy.
        drift = np.array([[0.0, 1.0], [-(omega**2), -gamma]])
        rest = solve_continuous_lyapunov(drift, -np.diag([0.0, 2 * gamma * 1.3 / 0.7]))
        exact = np.diag([1.3 / 0.7 / omega**2, 1.3 / 0.7])
        assert np.allclose(rest, exact, rtol=1e-6, atol=1e-6 * exact.max())
        transition = step.transition.numpy()
        kept = transition @ exact @ transition.T + found
        roots = np.sqrt(np.diag(exact))
        assert np.abs((kept - exact) / np.outer(roots, roots)).max() < 1e-12


def test_short_steps_and_little_friction_keep_their_digits() -> None:
    """Leading orders in h: 2/3 gamma T/m h³, gamma T/m h², 2 gamma T/m h, where subtraction would leave nothing."""
    h, gamma = 1e-6, 1e-9
    found = _covariance(oscillator(h, 1.0, Bath(gamma, 2.0, 4.0)))
    wanted = gamma * 0.5 * torch.tensor([[2 / 3 * h**3, h**2], [h**2, 2 * h]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@over_regimes
def test_two_half_steps_are_one(omega: float, gamma: float) -> None:
    """The semigroup, of transition and covariance, to 1e-12 of the scale."""
    bath = Bath(gamma, 0.8, 2.0)
    half, whole = oscillator(0.35, omega, bath), oscillator(0.7, omega, bath)
    e = half.transition
    torch.testing.assert_close(e @ e, whole.transition, rtol=1e-11, atol=1e-12)
    if whole.draws:
        q = _covariance(half)
        torch.testing.assert_close(q + e @ q @ e.mT, _covariance(whole), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("h", [0.01, 1.0, 30.0])
def test_heat_that_comes_is_heat_that_goes(h: float) -> None:
    """Fluctuation and dissipation: a free particle keeps Var v = T/m exactly at any step, for both steps."""
    bath = Bath(torch.tensor([0.1, 1.0, 7.0]), torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 3.0, 1.0]))
    for step in (baoab(h, bath), oscillator(h, 0.0, bath)):
        keep, gain = step.transition[1, 1], _covariance(step)[1, 1]
        wanted = torch.tensor([1.0, 2 / 3, 0.0], dtype=torch.float64)
        torch.testing.assert_close(keep.square() * wanted + gain, wanted, rtol=1e-7, atol=1e-14)


def test_baoab_is_half_drift_heat_half_drift() -> None:
    """Written out on numbers."""
    h, gamma, heat = 0.4, 1.5, 2.0
    q, v, xi = (torch.tensor([[value]], dtype=torch.float64) for value in (0.3, -1.2, 0.7))
    middle = q + h / 2 * v
    after = math.exp(-gamma * h) * v + math.sqrt(heat * (1 - math.exp(-2 * gamma * h))) * xi
    found = baoab(h, Bath(gamma, 2 * heat, 2.0))(q, v, xi[:, None])
    torch.testing.assert_close(found[0], middle + h / 2 * after)
    torch.testing.assert_close(found[1], after)


@pytest.mark.parametrize("gamma", [0.3, 8.0])
def test_autocovariance_of_a_simulated_oscillator(gamma: float) -> None:
    """Underdamped it oscillates, overdamped it does not; 20 000 coordinates at rest, within 4.5 standard errors of 12 lags.

    That is 1 seed in 6000. The standard error of a covariance of Gaussians is below sqrt(2 / n) times the variance.
    """
    omega, h, n = 2.0, 0.5, 20_000
    bath = Bath(gamma, 1.5, 0.5)
    step = oscillator(h, omega, bath)
    generators = generators_of(range(1))
    q = (3.0 / omega**2) ** 0.5 * noise_of(generators, (n,), torch.float64)
    v = 3.0**0.5 * noise_of(generators, (n,), torch.float64)
    first, lags = q, torch.arange(1, 13) * h
    found = []
    for _ in lags:
        q, v = step(q, v, noise_of(generators, (2, n), torch.float64))
        found.append(float((first * q).mean()))
    wanted = autocovariance(lags, omega, bath)
    decay = torch.exp(-gamma * lags.double() / 2)
    nu = math.sqrt(abs(omega**2 - gamma**2 / 4))
    wave = (torch.cos, torch.sin) if gamma < 2 * omega else (torch.cosh, torch.sinh)
    textbook = 0.75 * decay * (wave[0](nu * lags.double()) + gamma / (2 * nu) * wave[1](nu * lags.double()))
    torch.testing.assert_close(wanted, textbook, rtol=1e-10, atol=1e-12)
    assert bool((wanted < 0).any()) == (gamma < 2 * omega)
    assert float((torch.tensor(found) - wanted).abs().max()) < 4.5 * 0.75 * (2 / n) ** 0.5


@over_regimes
def test_derivatives_are_right_across_the_critical_point(omega: float, gamma: float) -> None:
    """Central differences of every number by frequency and friction; finite where there is no friction or no frequency."""
    parameters = torch.tensor([omega, gamma, 1.3], dtype=torch.float64, requires_grad=True)

    def numbers(p: Tensor) -> Tensor:
        step = oscillator(0.3, p[0], Bath(p[1], p[2]))
        return torch.cat(
            [step.transition.flatten(), _covariance(step).flatten() if step.draws else p.new_zeros(4)]
        )

    gradient = torch.autograd.functional.jacobian(numbers, parameters)
    assert bool(gradient.isfinite().all())
    if omega > 0 and gamma > 1e-3:
        for k in range(3):
            shift = torch.zeros(3, dtype=torch.float64)
            shift[k] = 1e-5 * max(1.0, float(parameters[k].detach()))
            with torch.no_grad():
                slope = (numbers(parameters + shift) - numbers(parameters - shift)) / (2 * shift[k])
            torch.testing.assert_close(gradient[:, k], slope, rtol=2e-5, atol=2e-7 * max(1.0, omega**2))


def test_coordinates_without_a_bath_have_derivatives_too() -> None:
    """Friction 0 in one coordinate, temperature 0 in another: finite, and 0 where no noise begins."""
    gamma = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    heat = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    for make in (baoab, lambda h, bath: oscillator(h, 1.0, bath)):
        step = make(0.3, Bath(gamma, heat))
        assert torch.equal(step.noise.detach().abs().sum((0, 1)) > 0, torch.tensor([False, False, True]))
        for slope in torch.autograd.grad(step.noise.sum() + step.transition.sum(), (gamma, heat)):
            assert bool(slope.isfinite().all())


def test_heavy_friction_keeps_its_slow_rate() -> None:
    """gamma = 1e6, omega = 1: q relaxes at omega²/gamma, which the difference of two large rates would not know."""
    found = oscillator(1e6, 1.0, Bath(1e6)).transition[0, 0]
    assert float(found) == pytest.approx(math.exp(-1), rel=1e-10)


def test_parameters_broadcast_against_the_event() -> None:
    """A frequency a coordinate and a friction a row, each as if alone."""
    omega = torch.tensor([0.0, 1.0, 5.0])
    gamma = torch.tensor([[0.2], [3.0]])
    q, v = torch.ones(2, 3, dtype=torch.float64), torch.full((2, 3), -0.5, dtype=torch.float64)
    xi = noise_of(generators_of(range(2)), (2, 3), torch.float64)
    found = oscillator(0.3, omega, Bath(gamma))(q, v, xi)
    for i in range(2):
        for j in range(3):
            alone = oscillator(0.3, omega[j], Bath(gamma[i, 0]))
            single = alone(q[i : i + 1, j], v[i : i + 1, j], xi[i : i + 1, :, j])
            torch.testing.assert_close(found[0][i, j], single[0][0])
            torch.testing.assert_close(found[1][i, j], single[1][0])


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"friction >= 0.*got -0.1.*softplus"):
        Bath(torch.tensor([1.0, -0.1]))
    with pytest.raises(InputError, match="temperature >= 0 and finite everywhere; got nan"):
        Bath(1.0, math.nan)
    with pytest.raises(InputError, match="mass > 0 and finite everywhere; got 0"):
        Bath(1.0, 1.0, 0.0)
    for step in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="step > 0"):
            baoab(step, Bath(1.0))
    with pytest.raises(InputError, match="frequency >= 0"):
        oscillator(0.1, -1.0, Bath(1.0))
    with pytest.raises(InputError, match="frequency > 0"):
        autocovariance(0.1, 0.0, Bath(1.0))
