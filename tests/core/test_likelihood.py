"""Likelihoods against densities that are known: exact, unbiased, the same on every path and in any batch."""

import math

import pytest
import torch
from scipy.stats import f, multivariate_t

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal
from radiata_core.errors import InputError
from radiata_core.jacobians import BlockDivergence, ExactDivergence, hutchinson
from radiata_core.kernels import GaussianKernel
from radiata_core.likelihood import log_density_rate, log_likelihood
from radiata_core.paths import DiscreteVPPath, LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.straight_coordinates import Adaptive, FixedSteps, interval

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
ONE = torch.ones((), dtype=torch.float64)
SIZE, COMPONENTS = 4, 3
SHARP = Adaptive(5e-7, 5e-7)


def mixture(path) -> MixtureDenoiser:
    g = generator_of(0)
    means = 1.5 * torch.randn(COMPONENTS, SIZE, generator=g, dtype=torch.float64)
    factors = 0.3 * torch.randn(COMPONENTS, SIZE, SIZE, generator=g, dtype=torch.float64)
    covariances = [Dense(m @ m.mT + 0.05 * torch.eye(SIZE, dtype=torch.float64)) for m in factors]
    return MixtureDenoiser(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), means, covariances, path)


DATA = mixture(LinearPath()).means[[0, 1, 2, 0, 1, 2]] + 0.4 * noise_of(
    generators_of(range(6)), (SIZE,), torch.float64
)


def noisy_density(denoiser, x0, t=None):
    """log-density at x0 of data plus kappa noise, in closed form: p_t(alpha x0) alpha^N."""
    t = torch.tensor(interval(denoiser.path, t, 1.0).t_min, dtype=torch.float64)
    alpha = denoiser.path.coefficients(t).alpha
    return denoiser.log_density(alpha * x0, t) + x0[0].numel() * alpha.log()


# Against the closed form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS[1:], ids=lambda path: type(path).__name__)
def test_exact_likelihood_of_a_mixture(path):
    """T14. The prior is the true one, so nothing is left to neglect on any path."""
    denoiser = mixture(path)
    found = log_likelihood(denoiser, DATA, solver=SHARP, prior=lambda x: denoiser.log_density(x, ONE))
    assert (found.log_likelihood - noisy_density(denoiser, DATA)).abs().max() < 1e-5
    assert found.kappa == pytest.approx(1e-3)
    assert bool(found.standard_error.isnan().all())


def test_noise_is_the_exact_prior_where_alpha_ends_at_zero():
    denoiser = mixture(LinearPath())
    found = log_likelihood(denoiser, DATA, solver=SHARP)
    assert (found.log_likelihood - noisy_density(denoiser, DATA)).abs().max() < 1e-5


@pytest.mark.parametrize("path", [VPPath(), VEPath(), DiscreteVPPath()], ids=lambda path: type(path).__name__)
def test_prior_neglects_the_signal_at_the_end_and_no_more(path):
    """Against the true prior, which is exact (above): log N(x_T; 0, sigma²) - log p_T(x_T) more, to the last digits."""
    denoiser, few = mixture(path), FixedSteps(12)
    found = log_likelihood(denoiser, DATA, solver=few)
    exact = log_likelihood(denoiser, DATA, solver=few, prior=lambda x: denoiser.log_density(x, ONE))
    sigma = path.coefficients(ONE).sigma
    noise = -0.5 * ((found.latent / sigma).square().sum(1) + SIZE * (2 * math.pi * sigma**2).log())
    neglected = noise - denoiser.log_density(found.latent, ONE)
    assert neglected.abs().max() > 1e-4
    assert torch.allclose(found.log_likelihood - exact.log_likelihood, neglected, rtol=0, atol=1e-10)


def test_a_change_of_path_leaves_the_likelihood():
    """Default t_min is one noise level, so trigonometric and linear agree far below the solver's own error."""
    linear, trigonometric = (
        log_likelihood(mixture(path), DATA, solver=FixedSteps(20))
        for path in (LinearPath(), TrigonometricPath())
    )
    assert (linear.log_likelihood - trigonometric.log_likelihood).abs().max() < 1e-9
    assert (linear.log_likelihood - noisy_density(mixture(LinearPath()), DATA)).abs().max() > 1e-6


@pytest.mark.slow
def test_fixed_steps_converge_to_the_adaptive_value():
    denoiser = mixture(LinearPath())
    fine = log_likelihood(denoiser, DATA, solver=SHARP).log_likelihood
    gaps = [
        float((log_likelihood(denoiser, DATA, solver=FixedSteps(n)).log_likelihood - fine).abs().max())
        for n in (25, 50)
    ]
    assert gaps[0] / gaps[1] > 8 and gaps[1] < 1e-4


def test_t_max_below_the_end_with_the_true_density_there():
    """What a network needs that predicts noise: it stops where alpha > 0."""
    denoiser, t = mixture(LinearPath()), torch.tensor(0.9, dtype=torch.float64)
    found = log_likelihood(
        denoiser, DATA, solver=SHARP, t_max=0.9, prior=lambda x: denoiser.log_density(x, t)
    )
    assert (found.log_likelihood - noisy_density(denoiser, DATA)).abs().max() < 1e-5


class Heavy:
    """The Student-t kernel, as far as a likelihood looks at it."""

    dof = 3.0


def test_student_t_noise_has_its_own_prior():
    """PFGM++: the data are one point a, so the density of data plus kappa noise is the Student-t about a, exactly."""
    a = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)

    class Point:
        path, kernel = LinearPath(), Heavy()

        def __call__(self, x, t):
            return a.expand_as(x) + 0 * x

    x0 = a + 0.3 * noise_of(generators_of(range(4)), (3,), torch.float64)
    found = log_likelihood(Point(), x0, solver=SHARP, t_min=0.2)
    law = multivariate_t(a.numpy(), found.kappa**2 * torch.eye(3).numpy(), df=3)
    assert torch.allclose(found.log_likelihood, torch.from_numpy(law.logpdf(x0.numpy())), atol=1e-5)
    assert bool(found.smoothing.isnan().all())


def test_density_integrates_to_one():
    """One dimension, no closed form used: the trapezoid rule over the line."""
    denoiser = MixtureDenoiser(
        torch.tensor([1.0, 3.0], dtype=torch.float64),
        torch.tensor([[-1.0], [1.5]], dtype=torch.float64),
        [Diagonal(torch.tensor([v], dtype=torch.float64)) for v in (0.1, 0.3)],
        LinearPath(),
    )
    line = torch.linspace(-5, 6, 400, dtype=torch.float64)
    found = log_likelihood(denoiser, line[:, None], solver=FixedSteps(60))
    assert float(torch.trapezoid(found.log_likelihood.exp(), line)) == pytest.approx(1, abs=1e-4)


def test_images_are_events_too():
    """(1, 2, 2) with an attention-free network of conditions: reshaping changes nothing."""
    flat = mixture(LinearPath())

    class Image:
        path = flat.path

        def __call__(self, x, t, shift):
            return flat(x.flatten(1) - shift, t).view_as(x) + shift[:, :, None, None]

    shift = torch.full((6, 1), 0.7, dtype=torch.float64)
    image = log_likelihood(Image(), (DATA + 0.7).view(6, 1, 2, 2), solver=FixedSteps(20), shift=0 * shift)
    plain = log_likelihood(flat, DATA + 0.7, solver=FixedSteps(20))
    assert torch.allclose(image.log_likelihood, plain.log_likelihood)


# What is dropped --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smoothing_is_what_the_noise_adds():
    """To first order: the remainder falls as kappa^4 while the effect falls as kappa^2."""
    denoiser, zero = mixture(LinearPath()), torch.zeros((), dtype=torch.float64)
    truth = denoiser.log_density(DATA, zero)
    remainders = []
    for t_min in (0.02, 0.01):
        found = log_likelihood(denoiser, DATA, solver=SHARP, t_min=t_min)
        assert found.kappa == pytest.approx(t_min / (1 - t_min))
        assert (found.log_likelihood - truth).abs().max() > 1e-4
        remainders.append((found.log_likelihood - found.smoothing - truth).abs())
    assert (remainders[0] / remainders[1]).median() > 12


def test_on_a_manifold_the_smoothing_says_that_there_is_no_limit():
    """Two of four variances are zero: log p_kappa grows as -2 log kappa, and smoothing is -(N - d)/2 = -1 wherever it is."""
    variances = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    denoiser = GaussianDenoiser(torch.zeros(4, dtype=torch.float64), Diagonal(variances), LinearPath())
    x0 = variances.sqrt() * DATA[:2]
    near, nearer = (log_likelihood(denoiser, x0, solver=SHARP, t_min=t) for t in (1e-2, 1e-3))
    grown = nearer.log_likelihood - near.log_likelihood
    assert torch.allclose(grown, torch.full_like(grown, 2 * math.log(near.kappa / nearer.kappa)), atol=1e-2)
    assert torch.allclose(nearer.smoothing, -torch.ones(2, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_rate_is_the_derivative_of_the_density(path):
    """Against a central difference in log kappa of the closed form, on every path."""
    denoiser = mixture(path)
    t = interval(path, None, 1.0, 0.2).t_min
    found = log_density_rate(denoiser, DATA, torch.tensor(t, dtype=torch.float64))[0]
    h = 1e-4
    ahead, behind = (
        noisy_density(denoiser, DATA, interval(path, None, 1.0, 0.2 * math.exp(s)).t_min) for s in (h, -h)
    )
    assert torch.allclose(found, (ahead - behind) / (2 * h), atol=1e-6)


# Divergences ------------------------------------------------------------------------------------------------------------


def test_blocks_are_exact():
    denoiser = mixture(LinearPath())
    one, three, all_at_once = (
        log_likelihood(denoiser, DATA, d, solver=FixedSteps(10)).log_likelihood
        for d in (ExactDivergence(), BlockDivergence(3), BlockDivergence(64))
    )
    assert torch.allclose(one, three, atol=1e-10) and torch.allclose(one, all_at_once, atol=1e-10)


def copies(row: int, count: int, probes: int, draw=None) -> torch.Tensor:
    """log-likelihood of one sample by Hutchinson, `count` times over, each with probes of its own."""
    x0 = DATA[row : row + 1].expand(count, -1)
    drawn = hutchinson(x0, generators_of(range(count), row, probes), probes, draw)
    return log_likelihood(mixture(LinearPath()), x0, drawn, solver=FixedSteps(10))


@pytest.mark.parametrize("draw", [None, GaussianKernel().noise], ids=["signs", "gaussian"])
def test_hutchinson_is_unbiased(draw):
    """z of the mean of 2000 estimates of two rows against the exact value: |z| > 4.5 for one in 7e4 sound programs."""
    exact = log_likelihood(mixture(LinearPath()), DATA[:2], solver=FixedSteps(10)).log_likelihood
    for row in (0, 1):
        found = copies(row, 2000, 1, draw).log_likelihood
        assert found.std() > 1e-2
        assert abs(float((found.mean() - exact[row]) / found.std())) * 2000**0.5 < 4.5


def test_variance_falls_as_one_over_probes():
    """F test of 500 estimates against 500 others, at 1e-6 on either side; the reported error is the one observed."""
    single, many = copies(0, 500, 1), copies(0, 500, 8)
    ratio = float(single.log_likelihood.var() / many.log_likelihood.var()) / 8
    low, high = f.ppf([1e-6, 1 - 1e-6], 499, 499)
    assert low < ratio < high
    reported = float(many.standard_error.square().mean() / many.log_likelihood.var())
    assert low < reported < high


@pytest.mark.slow
def test_probes_are_held_along_a_trajectory():
    """The adaptive solver takes about the steps of the exact divergence; redrawn probes would make it crawl."""
    denoiser = mixture(LinearPath())
    exact = log_likelihood(denoiser, DATA)
    held = log_likelihood(denoiser, DATA, hutchinson(DATA, generators_of(range(6), 1), 2))
    assert held.evaluations < 1.5 * exact.evaluations < 200

    class Redrawn:
        def __init__(self):
            self.calls = 0

        def __call__(self, field, x):
            self.calls += 1
            return hutchinson(x, generators_of(range(6), self.calls), 2)(field, x)

    with pytest.raises(InputError, match="within 200 evaluations"):
        log_likelihood(denoiser, DATA, Redrawn(), solver=Adaptive(max_evaluations=200))


# Rows, types, units -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [Adaptive(), FixedSteps(10)], ids=lambda s: type(s).__name__)
def test_a_row_is_the_same_alone(solver):
    denoiser = mixture(LinearPath())
    together = log_likelihood(denoiser, DATA, hutchinson(DATA, generators_of(range(6)), 2), solver=solver)
    alone = log_likelihood(denoiser, DATA[4:5], hutchinson(DATA[4:5], generators_of([4]), 2), solver=solver)
    assert torch.allclose(together.by_probe[:, 4], alone.by_probe[:, 0], atol=1e-9)
    assert torch.allclose(together.latent[4], alone.latent[0], atol=1e-9)


@pytest.mark.slow
def test_single_precision_is_good_to_its_digits():
    denoiser = mixture(LinearPath())
    fine = log_likelihood(denoiser, DATA).log_likelihood
    found = log_likelihood(denoiser, DATA.float())
    assert found.log_likelihood.dtype == torch.float64 and found.latent.dtype == torch.float32
    assert (found.log_likelihood - fine).abs().max() < 2e-2


def test_bits():
    """A unit of data halved is a bit a dimension; 8-bit images count 2/255."""
    denoiser = mixture(LinearPath())
    found = log_likelihood(denoiser, DATA, solver=FixedSteps(10))
    nats = found.log_likelihood / SIZE
    assert torch.allclose(found.bits_per_dim, -nats / math.log(2))
    assert torch.allclose(found.bits(2 / 255), found.bits_per_dim + math.log2(255 / 2))
    with pytest.raises(InputError, match="step > 0"):
        found.bits(0.0)


# Bad input --------------------------------------------------------------------------------------------------------------


class Broken:
    """A denoiser that says something else."""

    def __init__(self, answer, kernel=None):
        self.answer, self.path, self.kernel = answer, LinearPath(), kernel or GaussianKernel()

    def __call__(self, x, t):
        return self.answer(x)


class Unknown:
    """A law without a known density."""


@pytest.mark.parametrize(
    ("denoiser", "x0", "options", "message"),
    [
        (Broken(lambda x: x * math.nan), DATA, {}, "finite values from the denoiser; got NaN or infinity at step 0"),
        (Broken(lambda x: x[:, :2]), DATA, {}, r"shape of x, \(6, 4\); got \(6, 2\)"),
        (Broken(lambda x: x), DATA * math.nan, {}, "finite samples"),
        (Broken(lambda x: x), DATA[0], {}, r"samples \(batch, \*event\)"),
        (Broken(lambda x: x), DATA, {"t_min": 0.0}, "0 < t_min < t_max"),
        (Broken(lambda x: x), DATA, {"t_min": 1.0}, "0 < t_min < t_max"),
        (Broken(lambda x: x), DATA, {"t_max": 0.8}, "noise as prior, sigma/alpha >= 10"),
        (Broken(lambda x: x, Unknown()), DATA, {}, "its log-density as prior=; got Unknown"),
    ],
    ids=["nan", "shape", "data", "axis", "t_min 0", "t_min 1", "t_max", "kernel"],
)  # fmt: skip
def test_bad_input_is_refused(denoiser, x0, options, message):
    with pytest.raises(InputError, match=message):
        log_likelihood(denoiser, x0, **options)


def test_no_probe_is_refused():
    with pytest.raises(InputError, match="at least one probe; got 0"):
        hutchinson(DATA, generators_of(range(6)), 0)
    with pytest.raises(InputError, match="probes of shape"):
        log_likelihood(mixture(LinearPath()), DATA, hutchinson(DATA[:2], generators_of([0, 1])))


def test_rate_is_refused_at_the_ends():
    for t in (0.0, 1.0):
        with pytest.raises(InputError, match="inside"):
            log_density_rate(mixture(LinearPath()), DATA, torch.tensor(t, dtype=torch.float64))
    with pytest.raises(InputError, match="Gaussian noise"):
        log_density_rate(Broken(lambda x: x, Unknown()), DATA, torch.tensor(0.5))
