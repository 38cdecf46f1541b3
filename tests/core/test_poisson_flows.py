"""Poisson flows: the field of charges, the posterior, the law of the radius, and diffusion as the limit."""

import math

import pytest
import torch
from scipy.stats import betaprime, kstest
from torch import Tensor, nn

from radiata_core.analytic import EmpiricalDenoiser
from radiata_core.checkpoint import load_model, save_model
from radiata_core.couplings import IndependentCoupling, Pair
from radiata_core.denoisers import Denoiser, EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel, StudentTKernel, prior
from radiata_core.objectives import EDM, Regression
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.poisson_flows import (
    EmpiricalPoissonDenoiser,
    RadiusLaw,
    electric_field,
    radius_of_sigma,
    stabilised,
)
from radiata_core.predictions import Prediction, convert
from radiata_core.runge_kutta import edm_heun
from radiata_core.seeds import generator_of, generators_of
from radiata_core.specs import buildable
from radiata_core.times import LogNormalSNR

POINTS = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.2, -1.2]], dtype=torch.float64)
SHARES = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
PATHS: list[Path] = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(0.01, 10.0)]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)


def _time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _states(rows: int = 64, size: int = 2) -> Tensor:
    return 2 * torch.randn(rows, size, generator=generator_of(5), dtype=torch.float64)


@pytest.mark.parametrize("dof", [0.5, 1.0, 8.0, 128.0, 2048.0])
def test_field_lines_are_those_of_the_posterior_mean(dof: float) -> None:
    """E_x/E_r = (x - D)/r, field and posterior made apart; on VE sigma is r/sqrt(D)."""
    x, path = _states(), VEPath(0.01, 10.0)
    denoiser = EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(dof), SHARES)
    for sigma in (0.05, 0.7, 9.0):
        r = radius_of_sigma(_time(sigma), dof).expand(len(x))
        field = electric_field(x, r, POINTS, dof, SHARES)
        t = path.time_of_log_snr(_time(-math.log(sigma)))
        expected = (x - denoiser(x, t)) / r[:, None]
        torch.testing.assert_close(field.x / field.r[:, None], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dof", [1.0, 3.5, 8.0])
def test_the_field_is_that_of_charges_in_more_dimensions(dof: float) -> None:
    """It is minus the gradient of |.|^-(N+D-2), which is harmonic off the plane: also for a D that is no integer."""
    x, r = _states(6), torch.linspace(0.5, 2.0, 6, dtype=torch.float64)

    def potential(state: Tensor) -> Tensor:
        squares = (state[:2] - POINTS).square().sum(1) + state[2] ** 2
        return (SHARES * squares ** (-dof / 2)).sum() / dof

    field = electric_field(x, r, POINTS, dof, SHARES)
    for i in range(6):
        state = torch.cat([x[i], r[i : i + 1]])
        slope = -torch.func.grad(potential)(state)
        torch.testing.assert_close(field.x[i] / field.r[i], slope[:2] / slope[2])
        bend = torch.func.jacrev(torch.func.jacrev(potential))(state).diagonal()
        laplacian = bend.sum() - (dof - 1) / r[i] * slope[2]
        assert abs(laplacian) < 1e-10 * bend.abs().sum()


@over_paths
def test_posterior_mean_is_bayes_rule(path: Path) -> None:
    """Against scipy's multivariate Student density, term by term; the log-density too."""
    from scipy.stats import multivariate_t

    x, dof = _states(7), 3.5
    denoiser = EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(dof), SHARES)
    for t in (0.1, 0.6, 0.95):
        c = path.coefficients(_time(t))
        law = multivariate_t(
            [0.0, 0.0], float(c.sigma) ** 2 * torch.eye(2, dtype=torch.float64).numpy(), df=dof
        )
        joint = SHARES * torch.as_tensor(law.pdf((x[:, None] - c.alpha * POINTS).numpy()))
        torch.testing.assert_close(
            denoiser(x, _time(t)), joint @ POINTS / joint.sum(1, keepdim=True), rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(denoiser.log_density(x, _time(t)), joint.sum(1).log())


@over_paths
@pytest.mark.parametrize("dof", [1.0, 64.0, math.inf])
def test_the_score_is_the_gradient_of_the_density_and_tweedie_is_not(path: Path, dof: float) -> None:
    """Autograd of the log-density; (alpha D - x)/sigma² agrees for D = infinity only."""
    x, t = _states(5), _time(0.4)
    denoiser = EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(dof), SHARES)
    slope = torch.func.grad(lambda state: denoiser.log_density(state, t).sum())(x)
    torch.testing.assert_close(denoiser.score(x, t), slope)
    c = path.coefficients(t)
    tweedie = (c.alpha * denoiser(x, t) - x) / c.sigma**2
    gap = float((tweedie - slope).norm() / slope.norm())
    assert gap < 1e-12 if math.isinf(dof) else gap > 0.01


@over_paths
def test_infinite_degrees_of_freedom_are_the_gaussian_denoiser(path: Path) -> None:
    x = _states(9)
    for kernel in (StudentTKernel(math.inf), GaussianKernel()):
        denoiser, gaussian = EmpiricalPoissonDenoiser(POINTS, path, kernel), EmpiricalDenoiser(POINTS, path)
        for t in (0.0, 0.2, 1.0):
            torch.testing.assert_close(denoiser(x, _time(t)), gaussian(x, _time(t)))
        torch.testing.assert_close(denoiser.log_density(x, _time(0.3)), gaussian.log_density(x, _time(0.3)))


def test_the_posterior_mean_nears_the_gaussian_one_as_one_over_d() -> None:
    """T7: the slope of log |D_D - D_EDM| over log D is -1 to 1 %, from D = 1e3 on, over noise levels and rows."""
    path, x = VEPath(0.01, 10.0), _states(200)
    dofs = [1e3, 1e4, 1e5, 1e6, 1e7]
    for sigma in (0.3, 1.0, 4.0):
        t = path.time_of_log_snr(_time(-math.log(sigma)))
        gaussian = EmpiricalDenoiser(POINTS, path)(x, t)
        gaps = [
            float((EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(d))(x, t) - gaussian).norm())
            for d in dofs
        ]
        slopes = torch.tensor(gaps, dtype=torch.float64).log10().diff()
        assert (slopes + 1).abs().max() < 0.05
        assert (slopes[1:] + 1).abs().max() < 0.01


@pytest.mark.parametrize("dof", [1.0, 8.0, 2048.0])
def test_the_radius_is_beta_prime(dof: float) -> None:
    """|x - y| of the kernel by the law, level 1e-3; the law itself is scipy's beta prime. T17 in two dimensions: D/N is
    1024 here, where clipping a beta variable at 1e-3 would move most draws."""
    law, n = RadiusLaw(2, dof, 0.7), 20_000
    noise = 0.7 * StudentTKernel(dof).noise(torch.zeros(n, 2, dtype=torch.float64), generator_of(1))
    radius = noise.norm(dim=1)
    assert kstest(law.cdf(radius).numpy(), "uniform").pvalue > 1e-3
    expected = betaprime(1.0, dof / 2).cdf((radius[:50] / 0.7).square().numpy() / dof)
    torch.testing.assert_close(law.cdf(radius[:50]), torch.as_tensor(expected))


@pytest.mark.parametrize("dof", [1.0, 128.0, math.inf])
@pytest.mark.parametrize("elements", [1, 2, 3072])
def test_quantiles_of_the_radius_invert_its_law(dof: float, elements: int) -> None:
    p = torch.tensor([[0.0, 1e-6, 0.3], [0.5, 0.999, 1 - 1e-9]], dtype=torch.float64)
    law = RadiusLaw(elements, dof, 3.0)
    torch.testing.assert_close(law.cdf(law.quantile(p)), p, rtol=1e-9, atol=1e-14)
    wide = RadiusLaw(elements, 1e9, 3.0).quantile(p)
    torch.testing.assert_close(wide, RadiusLaw(elements, math.inf, 3.0).quantile(p), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("dof", [1.0, 8.0, 128.0, math.inf])
@pytest.mark.parametrize("path", [VEPath(0.002, 80.0), LinearPath()], ids=["ve", "linear"])
def test_every_charge_gets_its_mass(path: Path, dof: float) -> None:
    """T17: the flow from the kernel's prior ends on each point as often as its charge says, within 3.5 standard errors.

    Two draws in a hundred of D = 1 lie beyond 50 sigma: they come among the data when sigma is a fiftieth of their
    distance, so the grid goes down to sigma = 1e-6.
    """
    kernel, n = StudentTKernel(dof), 2000
    denoiser = EmpiricalPoissonDenoiser(POINTS, path, kernel, SHARES)
    kappas = torch.logspace(math.log10(79.0), -6, 60, dtype=torch.float64)
    ends = torch.ones(1, dtype=torch.float64)
    grid = torch.cat([ends, path.time_of_log_snr(-kappas.log()), 0 * ends])
    x = prior(path, generators_of(range(n)), (2,), kernel, dtype=torch.float64)
    samples = edm_heun(denoiser, x, grid, path)
    apart = (samples[:, None] - POINTS).norm(dim=2)
    assert (apart.amin(1) < 0.05).double().mean() > 0.99
    counts = torch.bincount(apart.argmin(1), minlength=3) / n
    error = (SHARES * (1 - SHARES) / n).sqrt()
    assert ((counts - SHARES).abs() / error).max() < 3.5


def test_any_event_rank() -> None:
    """A volume is its numbers in a row: denoiser, field and noise."""
    data = torch.randn(5, 1, 2, 3, 2, generator=generator_of(1), dtype=torch.float64)
    x, kernel, path = data[:3] + 0.3, StudentTKernel(6.0), LinearPath()
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    flat = EmpiricalPoissonDenoiser(data.flatten(1), path, kernel)(x.flatten(1), t)
    torch.testing.assert_close(EmpiricalPoissonDenoiser(data, path, kernel)(x, t), flat.view_as(x))
    field = electric_field(x, t, data, 6.0)
    torch.testing.assert_close(field.x.flatten(1), electric_field(x.flatten(1), t, data.flatten(1), 6.0).x)


def test_on_the_data_the_answer_is_the_data() -> None:
    """sigma = 0; and alpha = 0 answers the mean of the charges."""
    denoiser = EmpiricalPoissonDenoiser(POINTS, LinearPath(), StudentTKernel(4.0), SHARES)
    assert isinstance(denoiser, Denoiser)
    torch.testing.assert_close(denoiser(POINTS + 1e-3, _time(0.0)), POINTS)
    torch.testing.assert_close(denoiser(_states(3), _time(1.0)), (SHARES @ POINTS).expand(3, 2))


def test_stabilised_targets_have_the_same_mean_and_less_variance() -> None:
    """Over 400 batches of 32: the means are within 4 standard errors of the posterior mean, the variance a tenth.

    The states stay as they are. Data are drawn from three points, so the posterior is known.
    """
    path, kernel, g = LinearPath(), StudentTKernel(8.0), generator_of(0)
    truth = EmpiricalPoissonDenoiser(POINTS, path, kernel, SHARES)
    t = torch.full((32,), 0.6, dtype=torch.float64)
    plain, stable = [], []
    for _ in range(400):
        x0 = POINTS[torch.multinomial(SHARES, 32, replacement=True, generator=g)]
        pair = Pair(x0, kernel.noise(x0, g))
        calm = stabilised(pair, t, path, kernel)
        x = 0.4 * pair.x0 + 0.6 * pair.noise
        torch.testing.assert_close(0.4 * calm.x0 + 0.6 * calm.noise, x)
        expected = truth(x, t[0])
        plain.append(pair.x0 - expected)
        stable.append(calm.x0 - expected)
    plain_error, stable_error = torch.cat(plain), torch.cat(stable)
    assert stable_error.square().mean() < 0.1 * plain_error.square().mean()
    for errors in (plain, stable):
        batches = torch.stack(errors).mean(1)  # rows of a batch are not independent
        assert (batches.mean(0).abs() < 4 * batches.std(0) / 20).all()


def test_bad_numbers_are_refused() -> None:
    path = LinearPath()
    for data, shares in ((POINTS[:0], None), (POINTS, SHARES[:2]), (POINTS, SHARES - 0.2)):
        with pytest.raises(InputError, match="one positive share each"):
            EmpiricalPoissonDenoiser(data, path, StudentTKernel(2.0), shares)
    with pytest.raises(InputError, match="expected StudentTKernel"):
        EmpiricalPoissonDenoiser(POINTS, path, _OtherKernel())
    for dof, r in ((math.inf, 1.0), (0.0, 1.0), (2.0, 0.0)):
        with pytest.raises(InputError, match="expected 0 < D < infinity and r > 0"):
            electric_field(POINTS, torch.full((3,), r, dtype=torch.float64), POINTS, dof)
    for arguments in ((0, 1.0, 1.0), (2, 0.0, 1.0), (2, 1.0, 0.0)):
        with pytest.raises(InputError, match="expected elements >= 1"):
            RadiusLaw(*arguments)
    pair = Pair(POINTS, POINTS)
    with pytest.raises(InputError, match="expected times with noise"):
        stabilised(pair, torch.tensor([0.1, 0.0, 0.5], dtype=torch.float64), path, StudentTKernel(2.0))


class _OtherKernel:
    """A law whose density is not known."""

    def sample(self, shape, generator, dtype=torch.float32, device="cpu") -> Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=dtype, device=device)

    def noise(self, x0: Tensor, generators) -> Tensor:
        return torch.rand(x0.shape, generator=generators)


@buildable("net-of-poisson-tests")
class _Network(nn.Module):
    """A small perceptron of state and level."""

    def __init__(self, size: int = 2, width: int = 64) -> None:
        super().__init__()
        self.options = {"size": size, "width": width}
        self.layers = nn.Sequential(
            nn.Linear(size + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, size)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.layers(torch.cat([x, level.to(x).expand(len(x))[:, None]], 1))


def _denoiser(kernel: StudentTKernel, path: Path) -> EDMDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EDMDenoiser(_Network(), path, 1.0, kernel)


@pytest.mark.slow
def test_a_network_learns_the_posterior_of_its_kernel() -> None:
    """2000 steps of EDM's loss with D = 2: nearer to the posterior mean under Student noise than to the Gaussian one.

    On states within the radius of 90 % of the noise the root mean square errors were 0.075 and 0.145.
    """
    path, kernel = VEPath(0.01, 10.0), StudentTKernel(2.0)
    denoiser = _denoiser(kernel, path)
    objective = Regression(path, LogNormalSNR(0.0, 1.0), IndependentCoupling(kernel), weight=EDM(1.0))
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 2000)
    data = POINTS.float()
    for step in range(2000):
        g = generator_of(step)
        x0 = data[torch.multinomial(SHARES, 256, replacement=True, generator=g)]
        t = objective.time_law.on(path, objective.time_law.sample(256, g))
        loss = objective.compare(denoiser, objective.coupling(x0, g), t).value
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    g = generator_of(10_000)
    x0 = data[torch.multinomial(SHARES, 2000, replacement=True, generator=g)]
    errors = {math.inf: 0.0, 2.0: 0.0}
    for sigma in (0.7, 1.0, 1.4):
        t = path.time_of_log_snr(_time(-math.log(sigma)))
        noise = sigma * kernel.noise(x0, g)
        near = noise.norm(dim=1) < RadiusLaw(2, 2.0, sigma).quantile(_time(0.9))
        x = (x0 + noise)[near]
        with torch.no_grad():
            found = denoiser(x, t)
        for dof in errors:
            truth = EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(dof), SHARES)(x, t)
            errors[dof] += float((found - truth).square().mean()) / 3
    assert errors[2.0] ** 0.5 < 0.1
    assert errors[2.0] < errors[math.inf] / 3


def test_a_training_batch_is_one_generator_a_row() -> None:
    """The loss of `Regression` with a Student kernel: a row is the same alone and in a batch."""
    path, kernel = VEPath(0.01, 10.0), StudentTKernel(4.0)
    denoiser, x0 = _denoiser(kernel, path), POINTS.float()
    objective = Regression(path, LogNormalSNR(), IndependentCoupling(kernel), weight=EDM(1.0))
    together = objective(denoiser, x0, generators_of([4, 5, 6])).per_sample
    for i, seed in enumerate((4, 5, 6)):
        alone = objective(denoiser, x0[i : i + 1], generators_of([seed])).per_sample
        torch.testing.assert_close(alone[0], together[i])


def test_a_checkpoint_keeps_the_kernel(tmp_path) -> None:
    denoiser = _denoiser(StudentTKernel(128.0), VEPath())
    save_model(tmp_path / "model.safetensors", denoiser, metadata={})
    loaded = load_model(tmp_path / "model.safetensors").denoiser
    assert isinstance(loaded, EDMDenoiser)
    assert loaded.kernel == StudentTKernel(128.0)
    x = torch.ones(2, 2)
    assert torch.equal(loaded(x, _time(0.5)), denoiser(x, _time(0.5)))


@over_paths
def test_the_flow_is_the_same_in_the_coordinates_of_every_path(path: Path) -> None:
    """dx/dt from the denoiser carries the kernel's state x0 + kappa eps along: E[dx_t/dt | x_t] by Bayes, per charge."""
    dof, t, x = 5.0, _time(0.4), _states(8)
    denoiser = EmpiricalPoissonDenoiser(POINTS, path, StudentTKernel(dof), SHARES)
    c = path.coefficients(t)
    chances = denoiser.weights(x, t)
    noise = (x[:, None] - c.alpha * POINTS) / c.sigma
    expected = (chances[..., None] * (c.d_alpha * POINTS + c.d_sigma * noise)).sum(1)
    found = convert(denoiser(x, t), x, t, path, Prediction.X0, Prediction.VELOCITY)
    torch.testing.assert_close(found, expected)
