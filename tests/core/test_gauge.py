"""Gauge fields: large curl and exact samples, both known in closed form."""

import math

import pytest
import torch
from scipy.stats import ks_2samp

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.conservativity import asymmetry, loop_integral, path_integrals, random_plane
from radiata_core.covariances import Dense, Diagonal
from radiata_core.errors import InputError
from radiata_core.gauge import (
    GaugedDenoiser,
    GaugeField,
    KnownScore,
    SkewMatrix,
    gauge_residual,
    quarter_turn,
)
from radiata_core.jacobians import hutchinson, inner, jacobian, score_field
from radiata_core.likelihood import log_likelihood
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.straight_coordinates import FixedSteps
from radiata_core.tables import dpmpp_2m, sde_dpmpp_2m
from radiata_core.times import LogSNRGrid

F64 = torch.float64
TIME = torch.tensor(0.4, dtype=F64)
PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath()]


def mixture(size=6, path=PATHS[0]):
    g = generator_of(2, size)
    roots = torch.randn(3, size, size, generator=g, dtype=F64) / size**0.5
    covariances = [Dense(r @ r.T + 0.05 * torch.eye(size, dtype=F64)) for r in roots]
    means = 2 * torch.randn(3, size, generator=g, dtype=F64)
    return MixtureDenoiser(torch.tensor([1.0, 2.0, 3.0], dtype=F64), means, covariances, path)


def draws(law, rows, seed=0):
    """x_0 of a mixture with dense covariances, rows at once."""
    g = generator_of(seed, 77)
    which = torch.multinomial(law.weights, rows, replacement=True, generator=g)
    roots = torch.stack([torch.linalg.cholesky(c.matrix) for c in law.covariances])
    noise = torch.randn(rows, law.means.shape[1], generator=g, dtype=F64)
    return law.means[which] + (roots[which] @ noise[..., None])[..., 0]


def noisy(law, t, rows, seed=0):
    c = law.path.coefficients(t)
    noise = torch.randn(rows, law.means.shape[1], generator=generator_of(seed, 78), dtype=F64)
    return c.alpha * draws(law, rows, seed) + c.sigma * noise


def ripple(x):
    """A function h that is neither constant nor simple."""
    return (
        torch.cos(x.flatten(1) @ torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype))
        + 0.3 * x.flatten(1)[:, 0]
    )


def skew(size):
    m = torch.randn(size, size, generator=generator_of(8), dtype=F64)
    return SkewMatrix((m - m.T) / 2)


def test_quarter_turn_is_antisymmetric_and_a_turn():
    x = noise_of(generators_of(range(3)), (2, 3), F64)
    matrix = jacobian(quarter_turn, x)[0]
    assert torch.equal(matrix, -matrix.T) and torch.equal(matrix @ matrix, -torch.eye(6, dtype=F64))
    odd = quarter_turn(torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.equal(odd, torch.tensor([[-2.0, 1.0, 0.0]]))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("turn", [quarter_turn, skew(6)], ids=["quarter", "matrix"])
def test_turned_score_meets_the_gauge_condition_in_both_parts(path, turn):
    """T10. h = 1: div r = 0 and r . score = 0 each, while r is three times as long as the score (quarter turn)."""
    law = mixture(path=path)
    x, gauge = noisy(law, TIME, 50), GaugeField(law, 3.0, turn)
    gauged, score = score_field(GaugedDenoiser(law, gauge), TIME), score_field(law, TIME)
    found = gauge_residual(gauged, score, x)
    scale = float((found.size.mean() * found.reference.mean()).sqrt())
    assert found.divergence.abs().max() < 1e-9 * scale and found.work.abs().max() < 1e-9 * scale
    assert found.ratio < 1e-9
    if turn is quarter_turn:
        c = path.coefficients(TIME)
        share = 3 * float(c.alpha**2 / (c.alpha**2 + c.sigma**2))
        assert found.share == pytest.approx(share**2, rel=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_any_stream_function_gives_a_gauge_field(path):
    """T10. With h the two parts are large and cancel."""
    law = mixture(path=path)
    x, gauge = noisy(law, TIME, 50), GaugeField(law, 2.0, skew(6), ripple)
    found = gauge_residual(score_field(GaugedDenoiser(law, gauge), TIME), score_field(law, TIME), x)
    assert found.ratio < 1e-9
    assert found.work.abs().mean() > 0.02 * float((found.size.mean() * found.reference.mean()).sqrt())


def test_flux_of_the_density_has_no_divergence_by_differences():
    """A second way, without automatic derivatives: central differences of p r."""
    law = mixture(4)
    gauge, x, h = GaugeField(law, 1.0, skew(4), ripple), noisy(law, TIME, 6), 1e-4

    def flux(y):
        return law.log_density(y, TIME).exp()[:, None] * gauge(y, TIME)

    steps = h * torch.eye(4, dtype=F64)
    parts = torch.stack([((flux(x + e) - flux(x - e)) / (2 * h))[:, i] for i, e in enumerate(steps)])
    assert parts.sum(0).abs().max() < 1e-6 * parts.abs().max()


def test_residual_of_a_stretched_score():
    """r = c s of N(0, v): c (-d / v + |x|^2 / v^2) in closed form, and its mean under p_t is 0 within 4 standard errors."""
    law = GaussianDenoiser(torch.zeros(6, dtype=F64), Diagonal(torch.full((6,), 2.0, dtype=F64)), PATHS[0])
    v = 0.36 * 2 + 0.16
    x = v**0.5 * noise_of(generators_of(range(4000)), (6,), F64)
    score = score_field(law, TIME)
    found = gauge_residual(lambda y: 1.3 * score(y), score, x)
    assert torch.allclose(found.rows, 0.3 * (-6 / v + x.square().sum(1) / v**2), rtol=1e-9, atol=1e-9)
    assert abs(found.rows.mean()) < 4 * found.rows.std() / 4000**0.5
    # The mean deviation of chi^2 of 2 k degrees is 4 k^k e^-k / (k - 1)!; here k = 3, over 6.
    assert found.ratio == pytest.approx(4 * 27 * math.exp(-3) / 2 / 6, rel=0.05)
    assert found.share == pytest.approx(0.09, rel=1e-9)


def test_residual_by_hutchinson_agrees_on_average():
    law = mixture()
    x, score = noisy(law, TIME, 40), score_field(law, TIME)

    def other(y):
        return score(y) + torch.tanh(y @ skew(6).matrix + 0.2 * y)

    exact = gauge_residual(other, score, x)
    probed = gauge_residual(other, score, x, hutchinson(x, generators_of(range(40)), 400))
    assert torch.equal(probed.work, exact.work)
    assert abs(probed.divergence.mean() - exact.divergence.mean()) < 0.1
    assert (probed.divergence - exact.divergence).abs().max() < 1.0


def test_gauge_fields_are_orthogonal_to_gradients():
    """E[grad phi . r] = 0 under p_t for any phi: 20000 draws, within 4 standard errors, each product not small."""
    law = mixture()
    x, gauge = noisy(law, TIME, 20_000), GaugeField(law, 1.0, skew(6), ripple)
    slope = torch.func.grad(lambda y: torch.sin(y.sum(1) + y[:, 0] ** 2).sum())(x)
    product = inner(slope, gauge(x, TIME))
    assert abs(product.mean()) < 4 * product.std() / 20_000**0.5
    assert product.abs().mean() > 0.5


def test_known_asymmetry():
    """2 c^2 / (1 + c^2) for round data, whatever x."""
    law = GaussianDenoiser(torch.ones(6, dtype=F64), Diagonal(torch.full((6,), 2.0, dtype=F64)), PATHS[0])
    score = score_field(GaugedDenoiser(law, GaugeField(law, 3.0)), TIME)
    c = 3 * 0.36 / (0.36 + 0.16)
    x = noise_of(generators_of(range(4)), (6,), F64)
    found = asymmetry(score, x, generators_of(range(4)))
    assert found.ratio == pytest.approx(2 * c**2 / (1 + c**2), rel=1e-9)


def test_known_loop_and_work():
    """Round data: s = -(x - m)/v, r = c A s. Work around a circle is -2 pi R^2 c v^T A u / v; the way matters by it."""
    law = GaussianDenoiser(torch.zeros(2, dtype=F64), Diagonal(torch.full((2,), 2.0, dtype=F64)), PATHS[0])
    score = score_field(GaugedDenoiser(law, GaugeField(law, 3.0)), TIME)
    c, v = 3 * 0.36 / (0.36 + 0.16), 0.36 * 2 + 0.16
    x = noise_of(generators_of(range(4)), (2,), F64)
    plane = random_plane(x, generators_of(range(4)))
    found = loop_integral(score, x, plane, 0.7, 16)
    assert torch.allclose(found.signed, -2 * math.pi * 0.49 * c / v * inner(plane[1], quarter_turn(plane[0])))
    a, b, corner = (noise_of(generators_of(range(4), k), (2,), F64) for k in range(3))
    wanted = c / v * inner(b - a, quarter_turn(corner - a)).abs()
    assert torch.allclose(path_integrals(score, a, b, corner, 4).gap, wanted, rtol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_nothing_is_added_at_the_ends(path):
    law = mixture(path=path)
    gauged, x = GaugedDenoiser(law, GaugeField(law, 3.0)), noisy(law, TIME, 5)
    clean = torch.zeros((), dtype=F64)
    assert torch.equal(gauged(x, clean), law(x, clean))
    ends = torch.tensor([0.0, 1.0, 0.5, 1e-6, 1 - 1e-9], dtype=F64)
    assert gauged(x, ends).isfinite().all()
    if path.coefficients(ends).alpha[1] == 0:
        assert torch.equal(gauged(x, ends)[1], law(x, ends)[1])


def p_value(a, b, directions=12):
    """Least p of two-sample Kolmogorov-Smirnov tests along fixed directions, times their number (Bonferroni)."""
    g = generator_of(12)
    ways = torch.randn(a.shape[1], directions, generator=g, dtype=F64)
    pairs = zip((a @ ways).T.numpy(), (b @ ways).T.numpy(), strict=True)
    return directions * min(ks_2samp(p, q).pvalue for p, q in pairs)


@pytest.mark.parametrize("stream", [None, ripple], ids=["turned", "stream"])
@pytest.mark.parametrize("make", [dpmpp_2m, sde_dpmpp_2m], ids=["ode", "sde"])
def test_samples_are_exact_though_the_field_has_curl(make, stream):
    """4000 samples against 4000 draws, error rate 1e-3; trajectories of the ODE end elsewhere than without the gauge."""
    law = mixture(4)
    gauged = GaugedDenoiser(law, GaugeField(law, 2.0, skew(4), stream))
    table = make(LogSNRGrid()(80, law.path), law.path)
    noise = torch.randn(4000, 4, generator=generator_of(5), dtype=F64)
    generators = generators_of(range(4000)) if table.stochastic else None
    samples = integrate(gauged, noise, table, generators=generators)
    assert p_value(samples, draws(law, 4000)) > 1e-3
    x = noisy(law, TIME, 200)
    assert asymmetry(score_field(gauged, TIME), x, generators_of(range(200))).ratio > 0.3
    if not table.stochastic:
        moved = (samples - integrate(law, noise, table)).norm(dim=1).mean()
        assert moved > 1


def test_a_field_of_half_that_size_that_is_no_gauge_is_noticed():
    """The same test has the power: a symmetric matrix in place of the antisymmetric one gives p < 1e-9."""
    law = mixture(4)
    even = skew(4).matrix.abs()
    wrong = GaugedDenoiser(law, GaugeField(law, 1.0, lambda y: y @ even))
    noise = torch.randn(4000, 4, generator=generator_of(5), dtype=F64)
    samples = integrate(wrong, noise, dpmpp_2m(LogSNRGrid()(80, law.path), law.path))
    assert p_value(samples, draws(law, 4000)) < 1e-9
    x = noisy(law, TIME, 50)
    assert gauge_residual(score_field(wrong, TIME), score_field(law, TIME), x).ratio > 0.1


@pytest.mark.slow
def test_density_of_the_flow_is_exact_though_the_field_has_curl():
    """The flow of a gauged score ends elsewhere and still carries log p: the likelihood of data plus a little noise."""
    law = mixture(4)
    x0, gauged = draws(law, 4), GaugedDenoiser(law, GaugeField(law, 1.0, skew(4)))
    t_min = float(law.path.time_of_log_snr(torch.tensor(math.log(10.0), dtype=F64)))
    plain, turned = (log_likelihood(d, x0, solver=FixedSteps(40), t_min=t_min) for d in (law, gauged))
    c = law.path.coefficients(torch.tensor(t_min, dtype=F64))
    noise = [
        Dense(part.matrix + float(c.sigma / c.alpha) ** 2 * torch.eye(4, dtype=F64))
        for part in law.covariances
    ]
    smooth = MixtureDenoiser(law.weights, law.means, noise, law.path).log_density(
        x0, torch.zeros((), dtype=F64)
    )
    assert torch.allclose(plain.log_likelihood, smooth, atol=1e-3)
    assert torch.allclose(turned.log_likelihood, smooth, atol=1e-2)
    assert (plain.latent - turned.latent).norm(dim=1).min() > 0.1


def test_conditions_reach_the_denoiser():
    class Conditional:
        path = PATHS[0]

        def __call__(self, x, t, mean):
            return mean

    x = noise_of(generators_of(range(3)), (4,), F64)
    gauged = GaugedDenoiser(Conditional(), lambda y, t: torch.zeros_like(y))
    assert torch.equal(gauged(x, TIME, mean=2 * x), 2 * x) and gauged.path == PATHS[0]


def test_bad_input():
    with pytest.raises(InputError, match="antisymmetric"):
        SkewMatrix(torch.eye(2))
    law = mixture()
    assert isinstance(law, KnownScore)

    class Heavy:
        path, kernel = PATHS[0], object()

        def __call__(self, x, t):
            return x

    with pytest.raises(InputError, match="Gaussian noise"):
        GaugedDenoiser(Heavy(), GaugeField(law))
