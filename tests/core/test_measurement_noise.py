"""Noise: draws against scipy's laws (Kolmogorov–Smirnov or chi-square, level 1e-3 each, fixed seeds), densities, rows."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from radiata_core.errors import InputError
from radiata_core.measurement_noise import GaussianNoise, MeasurementNoise, PoissonNoise, RicianNoise
from radiata_core.seeds import generator_of, generators_of

LEVEL = 1e-3
COUNT = 20_000
NOISES: list[MeasurementNoise] = [GaussianNoise(0.3), RicianNoise(0.3), PoissonNoise(7.0)]
over_noises = pytest.mark.parametrize("noise", NOISES, ids=lambda n: type(n).__name__)


def _draws(noise: MeasurementNoise, value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return noise(torch.full((1, COUNT), value, dtype=dtype), [generator_of(1)])[0]


def test_gaussian_draws() -> None:
    assert stats.kstest(_draws(GaussianNoise(0.3), 1.5).numpy(), stats.norm(1.5, 0.3).cdf).pvalue > LEVEL
    parts = torch.view_as_real(_draws(GaussianNoise(0.3), 1.5, torch.complex128))
    assert stats.kstest(parts[:, 0].numpy(), stats.norm(1.5, 0.3).cdf).pvalue > LEVEL
    assert stats.kstest(parts[:, 1].numpy(), stats.norm(0.0, 0.3).cdf).pvalue > LEVEL
    # Correlation of independent parts: five standard errors.
    assert abs(float(torch.corrcoef(parts.T)[0, 1])) < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("signal", [0.0, 0.2, 2.0])
def test_rician_draws(signal: float) -> None:
    """Rayleigh without a signal; the second moment a² + 2 sigma² within five standard errors; the phase does not matter."""
    sigma = 0.5
    drawn = _draws(RicianNoise(sigma), signal)
    assert stats.kstest(drawn.numpy(), stats.rice(signal / sigma, scale=sigma).cdf).pvalue > LEVEL
    error = 5 * float(drawn.square().std()) / math.sqrt(COUNT)
    assert float(drawn.square().mean()) == pytest.approx(signal**2 + 2 * sigma**2, abs=error)
    clean = torch.full((1, COUNT), signal * complex(math.cos(1), math.sin(1)), dtype=torch.complex128)
    turned = RicianNoise(sigma)(clean, [generator_of(2)])[0]
    assert stats.kstest(turned.numpy(), stats.rice(signal / sigma, scale=sigma).cdf).pvalue > LEVEL


@pytest.mark.parametrize("signal", [1.5, 2.0, 6.0])
def test_debiased_magnitudes_have_the_mean_of_the_signal(signal: float) -> None:
    """From 3 sigma on to 2 % of sigma and five standard errors; magnitudes themselves are off by sigma²/2a."""
    sigma, noise = 0.5, RicianNoise(0.5)
    drawn = _draws(noise, signal)
    error = 5 * sigma / math.sqrt(COUNT)
    assert float(drawn.mean()) - signal > 0.8 * sigma**2 / (2 * signal) - error
    assert float(noise.debiased(drawn).mean()) == pytest.approx(signal, abs=0.02 * sigma + error)
    assert float(noise.debiased(torch.full((1, 1), 0.9 * sigma))) == 0


def test_poisson_draws() -> None:
    """Counts in cells of expected 5 or more against their law; mean a and variance a / c within five standard errors."""
    counts, a = 7.0, 0.6
    drawn = _draws(PoissonNoise(counts), a)
    k = (drawn * counts).round().long()
    torch.testing.assert_close(k.double() / counts, drawn)
    law = stats.poisson(counts * a)
    top = int(law.ppf(1 - 10 / COUNT))
    expected = np.append(law.pmf(np.arange(top)), law.sf(top - 1)) * COUNT
    found = torch.bincount(k.clamp_max(top), minlength=top + 1).numpy()
    assert stats.chisquare(found, expected).pvalue > LEVEL
    assert float(drawn.mean()) == pytest.approx(a, abs=5 * math.sqrt(a / counts / COUNT))
    assert float(drawn.var()) == pytest.approx(a / counts, rel=5 * math.sqrt(3 / COUNT))


def test_likelihoods_are_those_of_scipy() -> None:
    y = torch.rand(2, 5, generator=generator_of(1), dtype=torch.float64) + 0.1
    a = torch.rand(2, 5, generator=generator_of(2), dtype=torch.float64)
    expected = stats.norm(a.numpy(), 0.3).logpdf(y.numpy()).sum(1)
    torch.testing.assert_close(GaussianNoise(0.3).log_likelihood(y, a), torch.as_tensor(expected))
    both = torch.complex(y, a), torch.complex(a, y)
    expected = expected + stats.norm(y.numpy(), 0.3).logpdf(a.numpy()).sum(1)
    torch.testing.assert_close(GaussianNoise(0.3).log_likelihood(*both), torch.as_tensor(expected))
    expected = stats.rice(a.numpy() / 0.2, scale=0.2).logpdf(y.numpy()).sum(1)
    torch.testing.assert_close(RicianNoise(0.2).log_likelihood(y, a), torch.as_tensor(expected))
    k = torch.tensor([[0.0, 1, 4], [9, 2, 0]], dtype=torch.float64)
    expected = stats.poisson(7 * a[:, :3].numpy()).logpmf(k.numpy()).sum(1)
    torch.testing.assert_close(PoissonNoise(7.0).log_likelihood(k / 7, a[:, :3]), torch.as_tensor(expected))


def test_rician_likelihood_of_a_strong_signal_is_finite_and_has_a_slope() -> None:
    a = torch.full((1, 3), 50.0, dtype=torch.float64, requires_grad=True)
    value = RicianNoise(0.01).log_likelihood(torch.full((1, 3), 50.01, dtype=torch.float64), a)
    (slope,) = torch.autograd.grad(value.sum(), a)
    torch.testing.assert_close(slope, torch.full((1, 3), 100.0, dtype=torch.float64), rtol=1e-3, atol=0)


@over_noises
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_alone_and_in_any_batch(noise: MeasurementNoise, dtype: torch.dtype) -> None:
    clean = torch.rand(3, 2, 4, generator=generator_of(1), dtype=dtype)
    whole = noise(clean, generators_of([5, 6, 7]))
    assert whole.dtype == dtype
    assert torch.equal(noise(clean[1:2], generators_of([6])), whole[1:2])
    assert not torch.equal(noise(clean, generators_of([8, 6, 7]))[0], whole[0])
    assert torch.equal(noise(clean, generators_of([8, 6, 7]))[1:], whole[1:])


@over_noises
def test_noises_are_frozen_and_follow_the_protocol(noise: MeasurementNoise) -> None:
    assert isinstance(noise, MeasurementNoise)
    assert hash(noise) == hash(type(noise)(*vars(noise).values()))  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        noise.sigma = 1.0  # type: ignore[attr-defined]


def test_no_noise_changes_nothing() -> None:
    clean = torch.rand(2, 3, generator=generator_of(1))
    for noise in (GaussianNoise(0.0), RicianNoise(0.0)):
        torch.testing.assert_close(noise(clean, generators_of([1, 2])), clean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-0.1), "expected sigma >= 0; got -0.1"),
        (lambda: RicianNoise(math.nan), "expected sigma >= 0"),
        (lambda: PoissonNoise(0.0), "expected counts > 0"),
        (
            lambda: GaussianNoise(0.1)(torch.ones(2, 3), generators_of([1])),
            "expected one generator a row, 2; got 1",
        ),
        (
            lambda: PoissonNoise(1.0)(torch.ones(2, 3), generators_of([1])),
            "expected one generator a row, 2; got 1",
        ),
        (lambda: PoissonNoise(1.0)(-torch.ones(1, 3), generators_of([1])), "expected a real signal >= 0"),
        (
            lambda: GaussianNoise(0.0).log_likelihood(torch.ones(1, 3), torch.ones(1, 3)),
            "there is no density",
        ),
        (
            lambda: RicianNoise(1.0).log_likelihood(-torch.ones(1, 3), torch.ones(1, 3)),
            "expected magnitudes >= 0",
        ),
    ],
)
def test_bad_noise_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
