"""Three estimators of dimension against closed forms: a plane, a sphere, a mixture of both sizes, and space itself."""

import math

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal, LowRank
from radiata_core.errors import InputError
from radiata_core.intrinsic_dimension import flipd, flow_spectrum, normal_bundle
from radiata_core.jacobians import hutchinson
from radiata_core.kernels import GaussianKernel
from radiata_core.likelihood import log_likelihood
from radiata_core.paths import DiscreteVPPath, LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.straight_coordinates import Adaptive, FixedSteps

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
F64 = torch.float64
SIZE = 8
WIDTHS = torch.tensor([1.5, 0.7, 0.3], dtype=F64)


def at(path, kappa):
    return path.time_of_log_snr(-torch.tensor(kappa, dtype=F64).log())


def plane(path) -> GaussianDenoiser:
    """Gaussian data of three widths on a random 3-plane of 8 dimensions."""
    g = generator_of(0)
    basis = torch.linalg.qr(torch.randn(SIZE, 3, generator=g, dtype=F64)).Q.mT
    return GaussianDenoiser(
        torch.randn(SIZE, generator=g, dtype=F64), LowRank(basis, WIDTHS.square(), 0.0), path
    )


def on_plane(denoiser, rows=3):
    z = noise_of(generators_of(range(rows)), (3,), F64) * WIDTHS
    return denoiser.mean + z @ denoiser.covariance.basis


class Sphere:
    """E[x_0 | x_t] of the uniform law on the unit 2-sphere in the first 3 of N dimensions.

    Given x the direction follows von Mises and Fisher's law of concentration k = alpha |x| / sigma²: mean coth k - 1/k.
    """

    def __init__(self, path):
        self.path, self.kernel = path, GaussianKernel()

    def __call__(self, x, t):
        c = self.path.coefficients(t)
        inside = x[:, :3]
        length = inside.norm(dim=1).clamp_min(1e-12)
        k = (c.alpha / c.sigma.square()) * length
        mean = torch.where(k > 1e-3, 1 / k.clamp_min(1e-3).tanh() - 1 / k.clamp_min(1e-3), k / 3)
        return torch.cat([(mean / length)[:, None] * inside, torch.zeros_like(x[:, 3:])], 1)


def on_sphere(rows=3, size=6):
    x = torch.nn.functional.normalize(noise_of(generators_of(range(rows)), (3,), F64), dim=1)
    return torch.cat([x, torch.zeros(rows, size - 3, dtype=F64)], 1)


# A plane: closed forms --------------------------------------------------------------------------------------------------


@over_paths
def test_flow_spectrum_of_a_plane(path):
    """T20: sigma_T sqrt((l + kappa²) / (alpha_T² l + sigma_T²)) of each direction, on every path."""
    denoiser, kappa = plane(path), 1e-3
    found = flow_spectrum(
        denoiser, noise_of(generators_of([0, 1]), (SIZE,), F64), solver=FixedSteps(48), block=8
    )
    one = path.coefficients(torch.ones((), dtype=F64))
    variances = torch.cat([WIDTHS.square(), torch.zeros(SIZE - 3, dtype=F64)])
    wanted = one.sigma * ((variances + kappa**2) / (one.alpha**2 * variances + one.sigma**2)).sqrt()
    assert torch.allclose(found.values, wanted.expand(2, -1), rtol=8e-3)
    assert found.dimension.tolist() == [3, 3] and found.kappa == pytest.approx(kappa)
    assert torch.allclose(found.gap, (wanted[2] / wanted[3]).expand(2), rtol=1e-2)


@over_paths
def test_normal_bundle_of_a_plane(path):
    """T20: kappa² / (l + kappa²), by one round, anywhere on the plane."""
    denoiser, kappa = plane(path), 0.1
    found = normal_bundle(denoiser, on_plane(denoiser), at(path, kappa), generators_of([0, 1, 2]), rounds=1)
    wanted = torch.cat([torch.ones(SIZE - 3, dtype=F64), (kappa**2 / (WIDTHS.square() + kappa**2)).flip(0)])
    assert torch.allclose(found.values, wanted.expand(3, -1), atol=1e-7)
    assert found.dimension.tolist() == [3, 3, 3]


@over_paths
def test_flipd_of_a_plane(path):
    """T20: sum of l/(l + kappa²) plus kappa² |z|² / (l + kappa²)²: tends to 3, with the same constants on every path."""
    denoiser = plane(path)
    x0 = on_plane(denoiser)
    z = (x0 - denoiser.mean) @ denoiser.covariance.basis.mT
    levels = (0.3, 0.1, 1e-3)
    found = flipd(denoiser, x0, torch.stack([at(path, kappa) for kappa in levels]))
    for values, kappa in zip(found.values, levels, strict=True):
        v = WIDTHS.square() + kappa**2
        assert torch.allclose(
            values, ((v - kappa**2) / v).sum() + kappa**2 * (z / v).square().sum(1), atol=1e-8
        )
    assert torch.allclose(found.values[-1], torch.full((3,), 3.0, dtype=F64), atol=1e-3)
    assert torch.allclose(found.kappa, torch.tensor(levels, dtype=F64))
    assert torch.equal(found.dimension, found.values.median(0).values)


# A sphere, a mixture, space ---------------------------------------------------------------------------------------------


def test_every_estimator_sees_a_sphere():
    """T20: 2 of 6 dimensions, curved. The flow's normal direction within the 3 of the sphere shrinks like the empty ones."""
    denoiser, x0 = Sphere(LinearPath()), on_sphere()
    assert torch.allclose(denoiser(0.99 * x0, at(LinearPath(), 0.01)), x0, atol=1e-3)
    flow = flow_spectrum(denoiser, noise_of(generators_of(range(3)), (6,), F64), block=6)
    assert flow.dimension.tolist() == [2, 2, 2] and flow.gap.min() > 100
    assert torch.allclose(flow.x0.norm(dim=1), torch.ones(3, dtype=F64), atol=5e-3)
    bundle = normal_bundle(denoiser, x0, at(LinearPath(), 0.02), generators_of(range(3)))
    assert bundle.dimension.tolist() == [2, 2, 2] and bundle.gap.min() > 10
    rate = flipd(denoiser, x0, torch.stack([at(LinearPath(), k) for k in (0.01, 0.02, 0.03)]))
    assert (rate.dimension - 2).abs().max() < 0.01


@pytest.mark.slow
def test_a_point_has_the_dimension_of_its_component():
    """A line and a plane, far apart."""
    thin, flat = torch.zeros(4, dtype=F64), torch.zeros(4, dtype=F64)
    thin[0], flat[:2] = 1, 1
    means = torch.tensor([[10.0, 0, 0, 0], [-10.0, 0, 0, 0]], dtype=F64)
    denoiser = MixtureDenoiser(
        torch.ones(2, dtype=F64), means, [Diagonal(thin), Diagonal(flat)], LinearPath()
    )
    t = at(LinearPath(), 0.02)
    bundle = normal_bundle(denoiser, means, t, generators_of([0, 1]))
    assert bundle.dimension.tolist() == [1, 2]
    assert torch.allclose(
        flipd(denoiser, means, t[None]).dimension, torch.tensor([1.0, 2.0], dtype=F64), atol=1e-2
    )
    noise = log_likelihood(denoiser, means + 0.1 * thin, solver=Adaptive(1e-6, 1e-6)).latent
    flow = flow_spectrum(denoiser, noise, solver=FixedSteps(48), block=4)
    assert torch.allclose(flow.x0, means + 0.1 * thin, atol=1e-2)
    assert flow.dimension.tolist() == [1, 2]


@pytest.mark.slow
def test_dimension_is_that_at_a_scale():
    """Widths 1, 0.1, 0.01: 1, 2 and 3 dimensions as kappa passes them; and no data at all is 0."""
    variances = torch.tensor([1.0, 1e-2, 1e-4], dtype=F64)
    denoiser = GaussianDenoiser(torch.zeros(3, dtype=F64), Diagonal(variances), LinearPath())
    x0, noise = torch.zeros(1, 3, dtype=F64), noise_of(generators_of([0]), (3,), F64)
    for kappa, wanted in ((0.3, 1), (0.03, 2), (1e-3, 3), (3.0, 0)):
        t = at(LinearPath(), kappa)
        assert int(normal_bundle(denoiser, x0, t, generators_of([0])).dimension) == wanted
        assert int(flow_spectrum(denoiser, noise, t_min=float(t), block=3).dimension) == wanted
        assert abs(float(flipd(denoiser, x0, t[None]).dimension) - wanted) < 0.35


# Randomised forms -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_directions_find_the_dimension_and_interlace():
    denoiser, noise = plane(LinearPath()), noise_of(generators_of([0, 1]), (SIZE,), F64)
    whole = flow_spectrum(denoiser, noise, block=8)
    some = flow_spectrum(denoiser, noise, directions=5, generators=generators_of([3, 4]), block=5)
    assert some.dimension.tolist() == [3, 3]
    assert (some.values <= whole.values[:, :5] * (1 + 1e-6)).all()
    assert (some.values >= whole.values[:, 3:] * (1 - 1e-6)).all()
    few = flow_spectrum(denoiser, noise, directions=2, generators=generators_of([3, 4]), block=2)
    assert few.dimension.tolist() == [2, 2]  # at most what was asked


def test_flipd_by_hutchinson_is_unbiased_and_says_how_sure_it_is():
    """z of 400 probes a row: |z| > 4.5 for one in 5e4 sound programs."""
    denoiser = plane(VPPath())
    x0, t = on_plane(denoiser), at(VPPath(), 0.1)[None]
    exact = flipd(denoiser, x0, t)
    found = flipd(denoiser, x0, t, hutchinson(x0, generators_of(range(3), 1), 400))
    assert bool(exact.standard_error.isnan().all())
    assert ((found.values - exact.values) / found.standard_error).abs().max() < 4.5


@pytest.mark.slow
def test_rows_do_not_know_of_each_other():
    denoiser, gens = plane(LinearPath()), lambda rows: generators_of(rows, 2)
    x0, t = on_plane(denoiser), at(LinearPath(), 0.05)
    assert torch.allclose(
        normal_bundle(denoiser, x0, t, gens(range(3))).values[2:],
        normal_bundle(denoiser, x0[2:], t, gens([2])).values,
    )
    noise = noise_of(generators_of(range(3)), (SIZE,), F64)
    assert torch.allclose(
        flow_spectrum(denoiser, noise, directions=4, generators=gens(range(3)), solver=FixedSteps(10)).values[
            2:
        ],
        flow_spectrum(denoiser, noise[2:], directions=4, generators=gens([2]), solver=FixedSteps(10)).values,
    )


@pytest.mark.slow
def test_a_gauge_field_does_not_move_the_flow_spectrum():
    """2402.03845: s + A s with A antisymmetric keeps every marginal, bends the flow, and keeps its singular values.

    The gauge field is added in the score of the state; with the isotropic prior of the linear path Y Y^T is the covariance.
    """
    true = GaussianDenoiser(
        torch.zeros(3, dtype=F64), Dense(torch.diag(torch.tensor([1.0, 0.25, 0.0], dtype=F64))), LinearPath()
    )
    turn = torch.tensor([[0.0, 1, 0.5], [-1, 0, 0.2], [-0.5, -0.2, 0]], dtype=F64)

    class Gauged:
        path, kernel = LinearPath(), GaussianKernel()

        def __call__(self, x, t):
            clean, c = true(x, t), self.path.coefficients(t)
            # D = (x + sigma² s) / alpha moves by sigma² A s / alpha; scaled by alpha² it is small at both ends.
            pull = (c.alpha[:, None] * clean - x) * c.alpha[:, None]
            return clean + pull @ turn.mT

    noise = noise_of(generators_of([0]), (3,), F64)
    plain, gauged = (flow_spectrum(d, noise, solver=FixedSteps(100), block=3) for d in (true, Gauged()))
    assert (plain.x0 - gauged.x0).abs().max() > 1e-2
    assert torch.allclose(plain.values[:, :2], gauged.values[:, :2], rtol=2e-3)
    assert gauged.dimension.tolist() == [2]


# Bad input --------------------------------------------------------------------------------------------------------------


class Says:
    """A denoiser that says something else."""

    def __init__(self, answer, kernel=None):
        self.answer, self.path, self.kernel = answer, LinearPath(), kernel or GaussianKernel()

    def __call__(self, x, t):
        return self.answer(x)


def test_bad_input_of_the_flow():
    denoiser, noise = plane(LinearPath()), noise_of(generators_of([0, 1]), (SIZE,), F64)
    for options, message in (
        ({"directions": 0, "generators": generators_of([0, 1])}, "1 to 8 directions"),
        ({"directions": 9, "generators": generators_of([0, 1])}, "1 to 8 directions"),
        ({"directions": 3}, "2 generators; got 3 and 0"),
        ({"t_min": 0.0}, "0 < t_min"),
        ({"block": 0}, "block >= 1"),
    ):
        with pytest.raises(InputError, match=message):
            flow_spectrum(denoiser, noise, **options)
    with pytest.raises(InputError, match="finite noise"):
        flow_spectrum(denoiser, noise * math.nan)
    with pytest.raises(InputError, match="finite values from the denoiser; got NaN or infinity at step 0"):
        flow_spectrum(Says(lambda x: x * math.nan), noise)
    with pytest.raises(InputError, match="shape of x"):
        flow_spectrum(Says(lambda x: x[:, :2]), noise)


def test_bad_input_of_the_bundle_and_of_flipd():
    denoiser = plane(LinearPath())
    x0, t, generators = on_plane(denoiser), at(LinearPath(), 0.05), generators_of([0, 1, 2])
    for arguments, options, message in (
        ((x0, t, generators), {"rounds": 0}, "rounds >= 1"),
        ((x0, t, generators[:2]), {}, "3 generators"),
        ((x0, 0 * t, generators), {}, "sigma = 0"),
        ((x0, 0 * t + 1, generators), {}, "alpha = 0"),
        ((x0 * math.nan, t, generators), {}, "finite x0"),
    ):
        with pytest.raises(InputError, match=message):
            normal_bundle(denoiser, *arguments, **options)
    with pytest.raises(InputError, match="finite values from the score"):
        normal_bundle(Says(lambda x: x * math.nan), x0, t, generators)
    with pytest.raises(InputError, match=r"times \(levels,\)"):
        flipd(denoiser, x0, t[None][:0])
    with pytest.raises(InputError, match="inside"):
        flipd(denoiser, x0, torch.tensor([0.0], dtype=F64))
    with pytest.raises(InputError, match="shape of x"):
        flipd(Says(lambda x: x[:, :2]), x0, t[None])
