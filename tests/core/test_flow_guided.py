"""The two-part loss of a one-step student."""

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flow_guided import FlowGuidedDistillation
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.rectification import reflow
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LogSNRGrid

ONE = torch.ones((), dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
ROOT = torch.tensor([2.0, 0.5], dtype=torch.float64)


class FirstOrder:
    """The denoiser whose trajectories are the pairs (noise, MEAN + ROOT noise), exactly."""

    def __init__(self, path):
        self.path = path

    def __call__(self, x, t, **conditions):
        c, one = self.path.coefficients(t), self.path.coefficients(ONE)
        alpha = (c.alpha - c.sigma * one.alpha / one.sigma)[..., None]
        return MEAN + ROOT * (x - alpha * MEAN) / (alpha * ROOT + c.sigma[..., None])


def pairs(n=32):
    noise = noise_of(generators_of(range(n), 1), (2,), torch.float64)
    return MEAN + ROOT * noise, noise


def gaussian(path):
    return GaussianDenoiser(MEAN, Diagonal(ROOT**2), path)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
@pytest.mark.parametrize("own", [True, False])
def test_a_first_order_flow_and_student_have_no_loss(path, own):
    """Both parts vanish on every path: two sub-steps of a straight flow are its one step."""
    x0, noise = pairs()
    objective = FlowGuidedDistillation(FirstOrder(path), own_first_step=own)
    loss = objective(FirstOrder(path), x0, generators_of(range(32), 2), noise=noise)
    assert loss.value < 1e-20
    assert float(loss.t.min()) >= 0.2 and float(loss.t.max()) <= 0.8


@pytest.mark.parametrize("own", [True, False])
def test_the_loss_is_that_of_the_paper_on_the_linear_path(own):
    """D(x1 - v'(x1, 1), x0) + w D(x1 - v'(x1, 1), x1 - (1 - t) v(x1, 1) - t v_phi(x_t, t)), in velocities."""
    x0, noise = pairs()
    path, flow = LinearPath(), gaussian(LinearPath())

    def student(x, t, **conditions):
        return 0.3 * x + 0.1

    student.path = path
    found = FlowGuidedDistillation(flow, 0.7, own_first_step=own)(
        student, x0, generators_of(range(32), 2), noise=noise
    )
    again = generators_of(range(32), 2)
    t = 0.2 + 0.6 * torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in again])[:, None]
    x1 = GaussianKernel().noise(x0, again)

    def velocity(denoiser, x, t):
        return (x - denoiser(x, t[:, 0])) / t

    one = torch.ones_like(t)
    v = velocity(student if own else flow, x1, one)
    middle = x1 - (1 - t) * v
    target = middle - t * velocity(flow, middle, t)
    wanted = (student(noise, one) - x0).square().mean(1)
    wanted = wanted + 0.7 * (x1 - velocity(student, x1, one) - target).square().mean(1)
    assert torch.allclose(found.per_sample, wanted, rtol=1e-9)


def test_without_the_second_part_it_is_plain_distillation():
    x0, noise = pairs()
    loss = FlowGuidedDistillation(gaussian(LinearPath()), 0.0)(
        gaussian(LinearPath()), x0, generators_of(range(32)), noise=noise
    )
    assert torch.allclose(loss.per_sample, (MEAN - x0).square().mean(1))


def test_the_target_carries_no_gradient():
    """With a student D = w x the gradient is that of a fixed target."""
    x0, noise = pairs(8)
    weight = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def student(x, t, **conditions):
        return weight * x

    student.path = LinearPath()
    objective = FlowGuidedDistillation(gaussian(LinearPath()))
    objective(student, x0, generators_of(range(8)), noise=noise).value.backward()
    again = generators_of(range(8))
    t = (0.2 + 0.6 * torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in again]))[:, None]
    x1 = GaussianKernel().noise(x0, again)
    target = gaussian(LinearPath())(0.4 * (1 - t) * x1 + t * x1, t[:, 0])
    gradient = (2 * (0.4 * noise - x0) * noise + 2 * (0.4 * x1 - target) * x1).mean()
    assert torch.allclose(weight.grad, gradient, rtol=1e-9)


def test_what_cannot_be_used_is_refused():
    x0, noise = pairs(4)
    flow = gaussian(LinearPath())
    with pytest.raises(InputError, match='items with the key "noise"'):
        FlowGuidedDistillation(flow)(flow, x0, generators_of(range(4)))
    with pytest.raises(InputError, match=r"shape \(4, 2\); got \(4, 1\)"):
        FlowGuidedDistillation(flow)(flow, x0, generators_of(range(4)), noise=noise[:, :1])
    with pytest.raises(InputError, match="expected a student on LinearPath"):
        FlowGuidedDistillation(flow)(gaussian(VPPath()), x0, generators_of(range(4)), noise=noise)
    with pytest.raises(InputError, match="0 < low <= high < 1"):
        FlowGuidedDistillation(flow, between=(0.0, 0.5))


class Net(nn.Module):
    """Three layers on (x, level)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, level):
        return self.layers(torch.cat([x, level.expand(len(x))[:, None].float()], 1))


@pytest.mark.slow
def test_the_flow_helps_where_pairs_are_few():
    """T26: 256 pairs; the second part lowers the error of one step on noise that no pair has."""
    path = LinearPath()
    angles = torch.arange(6, dtype=torch.float64) * torch.pi / 3
    means = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    spread = Diagonal(torch.full((2,), 0.09, dtype=torch.float64))
    teacher = MixtureDenoiser(torch.ones(6, dtype=torch.float64), means, [spread] * 6, path)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(11_000, 2, generator=generator, dtype=torch.float64)
    x0 = integrate(teacher, noise, unipc_2(LogSNRGrid()(40, path), path)).float()
    noise = noise.float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = NetworkDenoiser(Net(), path, "velocity")
        students = [NetworkDenoiser(Net(), path, "velocity") for _ in range(2)]

    def fit(net, loss_of, steps):
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(net).backward()
            optimizer.step()
            rate.step()

    def straighten(net):
        rows = torch.randint(10_000, (192,), generator=generator)
        regression = reflow().regression(noise[rows])
        t = torch.rand(192, generator=generator, dtype=torch.float64)
        return regression.compare(net, regression.coupling(x0[rows], generator), t).value

    fit(flow, straighten, 900)
    errors = []
    for net, weight in zip(students, (0.0, 1.0), strict=True):
        net.load_state_dict(flow.state_dict())
        objective = FlowGuidedDistillation(flow.requires_grad_(False), weight)

        def distil(net, objective=objective):
            rows = torch.randint(256, (64,), generator=generator)
            return objective(net, x0[rows], [generator] * 64, noise=noise[rows]).value

        fit(net, distil, 700)
        with torch.no_grad():
            errors.append(float((net(noise[10_000:], ONE) - x0[10_000:]).square().sum(1).mean().sqrt()))
    assert errors[1] < errors[0]
