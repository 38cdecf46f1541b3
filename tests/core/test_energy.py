"""An energy denoiser is a gradient whatever its weights, knows its log density, trains, and is stored like any other."""

import pytest
import torch
from torch import nn

from radiata_core.analytic import MixtureDenoiser
from radiata_core.conservativity import asymmetry, loop_integral, path_integrals, random_plane
from radiata_core.couplings import Pair
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import EDMDenoiser, NetworkDenoiser, UnitVariance
from radiata_core.energy import EnergyDenoiser
from radiata_core.errors import InputError
from radiata_core.jacobians import jacobian, score_field
from radiata_core.objectives import EDM, Regression
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.specs import buildable, describe, rebuild
from radiata_core.tables import dpmpp_2m
from radiata_core.times import LogNormalSNR, LogSNRGrid

F64 = torch.float64
HALF = torch.tensor(0.5, dtype=F64)
PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath()]


@buildable("perceptron-of-energy-tests")
class Perceptron(nn.Module):
    """(x, level) -> `outputs` numbers a row; with as many as x has, an event like x."""

    def __init__(self, elements: int = 2, outputs: int = 2, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.options = {"elements": elements, "outputs": outputs, "width": width, "seed": seed}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(elements + 1, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, outputs),
            )

    def forward(self, x, level, **conditions):
        told = level.to(x).expand(len(x))[:, None] / 3
        raw = self.layers(torch.cat([x.flatten(1), told], 1))
        return raw.view_as(x) if raw.shape[1] == x[0].numel() else raw


def law(path: Path = PATHS[0]) -> MixtureDenoiser:
    """Three round blobs in the plane, far apart."""
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]], dtype=F64)
    return MixtureDenoiser(
        torch.ones(3, dtype=F64), means, [Diagonal(torch.full((2,), 0.04, dtype=F64))] * 3, path
    )


def state(rows=5, event=(2,), seed=0, dtype=F64):
    return noise_of(generators_of(range(rows), seed), event, dtype)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("outputs", [1, 6])
def test_symmetric_whatever_the_weights(path, outputs):
    denoiser = EnergyDenoiser(Perceptron(6, outputs), path, 1.5).double()
    score, x = score_field(denoiser, HALF), state(event=(2, 3))
    assert asymmetry(score, x, generators_of(range(5))).ratio < 1e-24
    assert loop_integral(score, x, random_plane(x, generators_of(range(5))), 1.0, 64).ratio < 1e-9


def test_symmetric_to_1e_6_in_float32():
    denoiser = EnergyDenoiser(Perceptron(6, 6), LinearPath())
    full = jacobian(score_field(denoiser, HALF), state(event=(2, 3), dtype=torch.float32))
    assert (full - full.mT).norm() < 1e-6 * full.norm()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_log_density_is_the_potential_of_the_score(path):
    denoiser = EnergyDenoiser(Perceptron(6, 6), path, 0.7).double()
    x = state(event=(2, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x, HALF).sum(), x)
    assert torch.allclose(gradient, score_field(denoiser, HALF)(x.detach()), rtol=1e-10, atol=1e-12)
    a, b = x.detach(), state(event=(2, 3), seed=1)
    work = path_integrals(score_field(denoiser, HALF), a, b, state(event=(2, 3), seed=2), 24)
    ratio = denoiser.log_density(b, HALF) - denoiser.log_density(a, HALF)
    assert torch.allclose(work.straight, ratio, atol=1e-7) and torch.allclose(work.dogleg, ratio, atol=1e-7)


class Quadratic(nn.Module):
    """f(z) = A z for a symmetric A."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, z, level, **conditions):
        return z @ self.matrix


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_a_symmetric_linear_network_is_its_own_gradient(path):
    """E = <z, A z> / 2 has the gradient A z, so D is that of the same network under EDM's preconditioning."""
    matrix = torch.tensor([[0.3, -0.2], [-0.2, 0.5]], dtype=F64)
    x, times = state(), torch.linspace(0.1, 0.9, 5, dtype=F64)
    energy, plain = EnergyDenoiser(Quadratic(matrix), path, 0.8), EDMDenoiser(Quadratic(matrix), path, 0.8)
    for t in (HALF, times):
        assert torch.allclose(energy(x, t), plain(x, t), rtol=1e-10)


def test_finite_at_both_ends():
    denoiser, x = EnergyDenoiser(Perceptron(), LinearPath()).double(), state()
    assert torch.allclose(denoiser(x, torch.zeros((), dtype=F64)), x)  # nothing to remove
    assert denoiser(x, torch.ones((), dtype=F64)).isfinite().all()


def test_works_where_no_gradient_is_wanted():
    denoiser, x = EnergyDenoiser(Perceptron(), LinearPath()).double(), state()
    wanted = denoiser(x, HALF).detach()
    with torch.no_grad():
        assert torch.equal(denoiser(x, HALF), wanted)
        assert not denoiser(x, HALF).requires_grad
    with torch.inference_mode():
        assert torch.equal(denoiser(x, HALF), wanted)


def test_attention_inside_trains():
    """The fused kernels have no second derivative: the plain one must be taken."""

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, z, level, **conditions):
            return self.attention(z, z, z, need_weights=False)[0]

    denoiser = EnergyDenoiser(Attends(), LinearPath())
    denoiser(state(2, (5, 8), dtype=torch.float32), HALF).square().sum().backward()
    assert denoiser.network.attention.in_proj_weight.grad.abs().max() > 0


def test_is_rebuilt_from_its_description():
    denoiser = EnergyDenoiser(Perceptron(2, 1), VPPath(), 0.7, 5.0)
    again = rebuild(describe(denoiser))
    again.load_state_dict(denoiser.state_dict())
    x = state(dtype=torch.float32)
    assert torch.equal(again(x, HALF), denoiser(x, HALF)) and again.options["limit"] == 5.0


def draws(rows, generator):
    """x_0 of `law`, its components by turns."""
    means = law().means[torch.arange(rows) % 3]
    return means + 0.2 * torch.randn(rows, 2, generator=generator, dtype=F64)


def trained(denoiser, steps, rows=384):
    """Adam on fresh draws of the law, all at once from one generator."""
    path, time_law, g = denoiser.path, LogNormalSNR(0.0, 1.4), generator_of(1)
    objective = Regression(path, time_law, weight=EDM(1.4))
    optimiser = torch.optim.Adam(denoiser.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pair = Pair(draws(rows, g).float(), torch.randn(rows, 2, generator=g))
        loss = objective.compare(denoiser, pair, time_law.on(path, time_law.sample(rows, g)))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        schedule.step()
    return denoiser.double().eval()


def free():
    return NetworkDenoiser(Perceptron(), LinearPath(), "velocity", UnitVariance(1.4))


def energetic():
    return EnergyDenoiser(Perceptron(2, 1), LinearPath(), 1.4)


def excess(denoiser, rows=3000):
    """RMS distance to the exact posterior mean over three noise levels, as a share of the sd of the data."""
    truth, g, squares = law(), generator_of(9), []
    for log_snr in (-1.0, 0.0, 1.0):
        t = truth.path.time_of_log_snr(torch.tensor(log_snr, dtype=F64))
        c = truth.path.coefficients(t)
        x = c.alpha * draws(rows, g) + c.sigma * torch.randn(rows, 2, generator=g, dtype=F64)
        with torch.no_grad():
            squares.append(float((denoiser(x, t) - truth(x, t)).square().mean()))
    return (sum(squares) / 3) ** 0.5 / 1.43


@pytest.mark.slow
def test_trains():
    """400 steps bring it three times nearer to the exact posterior mean; the score stays a gradient."""
    before, denoiser = excess(energetic().double()), trained(energetic(), 400)
    assert excess(denoiser) < 0.12 and excess(denoiser) < before / 2
    assert asymmetry(score_field(denoiser, HALF), state(20), generators_of(range(20))).ratio < 1e-20


def test_trains_like_any_denoiser():
    """Through the objective's own call, one generator a row; every weight learns."""
    denoiser, rows = energetic(), 6
    generators = generators_of(range(rows))
    objective = Regression(denoiser.path, LogNormalSNR())
    objective(denoiser, draws(rows, generator_of(3)).float(), generators).value.backward()
    gradients = {name: p.grad for name, p in denoiser.named_parameters()}
    # An additive constant of the energy does nothing, so its gradient is none or zero.
    assert all(g.abs().max() > 0 for name, g in gradients.items() if name != "network.layers.4.bias")


@pytest.mark.slow
def test_free_against_energy_network():
    """T25. The free network has curl and still samples well; the energy network has none."""
    models = {"free": trained(free(), 1500), "energy": trained(energetic(), 1500)}
    truth, x = law(), state(200, seed=3)
    t = truth.path.time_of_log_snr(torch.tensor(0.0, dtype=F64))
    curl: dict[str, float] = {}
    loop: dict[str, float] = {}
    for name, denoiser in models.items():
        generators = generators_of(range(200), 4)
        score = score_field(denoiser, t)
        curl[name] = asymmetry(score, x, generators).ratio
        loop[name] = loop_integral(score, x, random_plane(x, generators), 0.5, 64).ratio
    assert curl["free"] > 1e-4 and curl["energy"] < 1e-20
    assert loop["free"] > 1e-2 and loop["energy"] < 1e-7
    times = LogSNRGrid()(24, truth.path)
    for denoiser in models.values():
        assert excess(denoiser) < 0.1
        with torch.no_grad():
            samples = integrate(denoiser, state(3000, seed=5), dpmpp_2m(times, truth.path))
        near = (samples[:, None] - truth.means).norm(dim=2)
        shares = near.argmin(1).bincount(minlength=3) / 3000
        # 1/3 +- 0.009 by chance alone; the rest is what a network of this size gets wrong.
        assert (shares - 1 / 3).abs().max() < 0.05 and (near.amin(1) < 1).double().mean() > 0.94


def test_bad_input():
    x = state()
    with pytest.raises(InputError, match="sigma_data > 0"):
        EnergyDenoiser(Perceptron(), LinearPath(), 0.0)
    with pytest.raises(InputError, match="one number a row or an event like the input"):
        EnergyDenoiser(Perceptron(2, 3), LinearPath()).double()(x, HALF)
    with pytest.raises(InputError, match="sigma = 0"):
        EnergyDenoiser(Perceptron(), LinearPath()).double().log_density(x, torch.zeros((), dtype=F64))
