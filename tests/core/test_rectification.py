"""Regression on pairs: what it equals, what it refuses, and what it does to a flow."""

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.objectives import PseudoHuber, Regression
from radiata_core.pairings import Flip
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction
from radiata_core.rectification import Rectification, annealed_reflow, rectified_diffusion, reflow
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.specs import buildable
from radiata_core.straightness import curvature, even_times, straightness, transport_cost
from radiata_core.tables import ddim, unipc_2
from radiata_core.times import LinearGrid, LogSNRGrid, UniformTime
from radiata_core.train import TrainOptions, train

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath()]
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


def pairs(n=64, key=1):
    noise = noise_of(generators_of(range(n), key), (2,), torch.float64)
    return MEAN + ROOT * noise, noise


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", [Prediction.X0, Prediction.VELOCITY, Prediction.V])
def test_first_order_trajectories_have_no_loss(path, target):
    x0, noise = pairs()
    objective = Rectification(path, target=target)
    loss = objective(FirstOrder(path), x0, generators_of(range(64), 2), noise=noise)
    assert loss.value < 1e-20 * (1 + path.coefficients(ONE).d_sigma ** 2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ddim_is_exact_for_deterministic_pairs(path, steps):
    """Any number of steps, any path, any grid that starts at t = 1."""
    x0, noise = pairs(16)
    x = path.coefficients(ONE).sigma * noise
    for times in (LinearGrid()(steps, path), even_times(steps, path)):
        assert torch.allclose(integrate(FirstOrder(path), x, ddim(times, path)), x0, atol=1e-11)


@pytest.mark.parametrize("path", [LinearPath(), VPPath()])
def test_all_noise_fresh_is_the_plain_regression(path):
    """beta = 1: the loss of the independent coupling on the teacher's samples, number by number."""
    x0, noise = pairs()
    denoiser = GaussianDenoiser(MEAN, Diagonal(ROOT**2), path)
    objective = Rectification(path, annealing=lambda step: 1.0, starts_from_noise=False)
    plain = Regression(path, UniformTime(), target=Prediction.VELOCITY)
    found = objective(denoiser, x0, generators_of(range(64), 2), noise=noise)
    assert torch.equal(found.per_sample, plain(denoiser, x0, generators_of(range(64), 2)).per_sample)


def test_no_fresh_noise_is_reflow():
    """beta = 0: the pairs alone; after the time nothing is drawn."""
    x0, noise = pairs(8)
    denoiser = GaussianDenoiser(MEAN, Diagonal(ROOT**2), LinearPath())
    generators, counted = generators_of(range(8), 2), generators_of(range(8), 2)
    found = annealed_reflow(10).at(10)(denoiser, x0, generators, noise=noise)
    t = torch.cat([UniformTime().sample(1, g) for g in counted])
    x = (1 - t[:, None]) * x0 + t[:, None] * noise
    u = (x - denoiser(x, t)) / t[:, None]
    assert torch.allclose(found.per_sample, (u - (noise - x0)).square().mean(1), rtol=1e-9)
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(generators, counted, strict=True))
    assert torch.equal(reflow()(denoiser, x0, generators_of(range(8), 2), noise=noise).value, found.value)


def test_the_step_sets_the_share_of_fresh_noise():
    objective = annealed_reflow(10)
    assert [objective.at(step).fresh for step in (0, 5, 10, 99)] == [1.0, 0.5, 0.0, 0.0]
    assert reflow().at(3).fresh == 0.0


@pytest.mark.parametrize("path", [VPPath(), VEPath()])
def test_the_state_at_the_end_of_the_path_shows_no_data(path):
    """A sampler starts at sigma_1 noise; the pairs must too, or the student reads the answer off the state."""
    x0, noise = pairs(4)
    seen = []

    class Recorder:
        def __init__(self):
            self.path = path

        def __call__(self, x, t, **conditions):
            seen.append(x)
            return x

    class AtTheEnd(UniformTime):
        def quantile(self, u):
            return torch.ones_like(u)

    c = path.coefficients(ONE)
    Rectification(path, AtTheEnd(), Prediction.X0)(Recorder(), x0, generators_of(range(4)), noise=noise)
    Rectification(path, AtTheEnd(), Prediction.X0, starts_from_noise=False)(
        Recorder(), x0, generators_of(range(4)), noise=noise
    )
    assert torch.allclose(seen[0], c.sigma * noise, rtol=1e-10)
    assert torch.allclose(seen[1], c.alpha * x0 + c.sigma * noise, rtol=1e-10)


def test_rectified_diffusion_takes_a_pseudo_huber_error_of_x0():
    objective = rectified_diffusion(VPPath())
    assert objective.target is Prediction.X0
    assert objective.loss == PseudoHuber(1e-3)
    x0, noise = pairs(8)
    loss = objective(lambda_denoiser(VPPath()), x0, generators_of(range(8)), noise=noise)
    wanted = ((x0.square() + 1e-6).sqrt() - 1e-3).mean(1)
    assert torch.allclose(loss.per_sample, wanted, rtol=1e-9)


def lambda_denoiser(path):
    class Zero:
        def __init__(self):
            self.path = path

        def __call__(self, x, t, **conditions):
            return torch.zeros_like(x)

    return Zero()


def test_flips_are_applied_to_pairs():
    """A student that commutes with the mirror has the same loss, mirrored or not."""
    x0, noise = pairs(16)
    symmetric = GaussianDenoiser(MEAN * 0, Diagonal(torch.ones(2, dtype=torch.float64)), LinearPath())
    losses = [
        Rectification(flip=flip)(symmetric, x0, generators_of(range(16)), noise=noise).per_sample
        for flip in (None, Flip((0,), teacher_commutes=True))
    ]
    assert torch.allclose(losses[0], losses[1], rtol=1e-12)


@pytest.mark.parametrize("target", [Prediction.EPSILON, Prediction.SCORE])
def test_a_loss_of_the_noise_is_refused(target):
    with pytest.raises(InputError, match="loss in x0 or velocity"):
        Rectification(VPPath(), target=target)


def test_what_is_not_a_batch_of_pairs_is_refused():
    x0, noise = pairs(4)
    denoiser = FirstOrder(LinearPath())
    with pytest.raises(InputError, match='expected items with the key "noise"'):
        reflow()(denoiser, x0, generators_of(range(4)))
    with pytest.raises(InputError, match="expected the noise of each sample"):
        reflow()(denoiser, x0, generators_of(range(4)), noise=noise[:, :1])
    with pytest.raises(InputError, match="expected a denoiser on"):
        reflow()(FirstOrder(VPPath()), x0, generators_of(range(4)), noise=noise)


# -- training --------------------------------------------------------------------------------------------------


@buildable("test-rectification-net")
class Net(nn.Module):
    """Three layers on (x, level, age)."""

    def __init__(self, width=64):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    @property
    def options(self):
        return {"width": self.width}

    def forward(self, x, level, age=None):
        shown = torch.zeros(len(x), 1) if age is None else age.nan_to_num()
        return self.layers(torch.cat([x, level.expand(len(x))[:, None].float(), shown], 1))


def student(path, prediction, seed=0, width=64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NetworkDenoiser(Net(width), path, prediction)


def items(n=12):
    x0, noise = pairs(n)
    return [
        {"image": a.float(), "noise": b.float(), "age": torch.ones(1)} for a, b in zip(x0, noise, strict=True)
    ]


def options(**changes):
    chosen = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "warmup": 1, "tensorboard": False}
    return TrainOptions(**chosen | {"checkpoint_every": 3, "log_every": 1, "ema": (), "seed": 3} | changes)


def test_the_trainer_hides_conditions_but_never_the_noise(tmp_path):
    trained = student(LinearPath(), "velocity")
    seen = []
    trained.network.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["age"]), with_kwargs=True
    )
    result = train(
        trained, annealed_reflow(4), items(), tmp_path, options(condition_dropout=1.0), validation=items(2)
    )
    assert result.finished
    assert all(age.isnan().all() for age in seen[:6])


def test_a_resumed_annealing_is_the_same_run(tmp_path):
    """The share of fresh noise is a function of the step alone."""
    whole, halves = student(LinearPath(), "velocity"), student(LinearPath(), "velocity")
    train(whole, annealed_reflow(5), items(), tmp_path / "whole", options())
    train(halves, annealed_reflow(5), items(), tmp_path / "halves", options(steps=3))
    train(halves, annealed_reflow(5), items(), tmp_path / "halves", options(resume=True))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[name]), name


def mixture(path):
    angles = torch.arange(6, dtype=torch.float64) * torch.pi / 3
    means = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    spread = Diagonal(torch.full((2,), 0.09, dtype=torch.float64))
    return MixtureDenoiser(torch.ones(6, dtype=torch.float64), means, [spread] * 6, path)


def teacher_pairs(path, n, seed):
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = path.coefficients(ONE).sigma * noise
    return integrate(mixture(path), x, unipc_2(LogSNRGrid()(40, path), path)).float(), noise.float()


def fit(net, objective, x0, noise, steps=800, batch=192):
    """Plain Adam on the objective of each step, with one generator for all rows, which is faster."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(len(x0), (batch,), generator=generator)
        regression = objective.at(step).regression(noise[rows])
        pair = regression.coupling(x0[rows], generator)
        t = torch.rand(batch, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        regression.compare(net, pair, t).value.backward()
        optimizer.step()
        rate.step()
    return net


def one_step_error(net, path, n=1000):
    x0, noise = teacher_pairs(path, n, 99)
    with torch.no_grad():
        found = net(float(path.coefficients(ONE).sigma) * noise, ONE)
    return float((found - x0).square().sum(1).mean().sqrt())


@pytest.mark.slow
def test_reflow_straightens_and_shortens():
    """T22: transport cost, straightness and the error of one step all fall; annealing ends within 1.3 of reflow."""
    path = LinearPath()
    x0, noise = teacher_pairs(path, 10_000, 5)
    shuffled = noise[torch.randperm(len(noise), generator=torch.Generator().manual_seed(0))]
    assert transport_cost(x0, noise).mean() < 0.5 * transport_cost(x0, shuffled).mean()
    net = fit(student(path, "velocity"), reflow(), x0, noise)
    start = noise[:500]
    assert straightness(net, start, 50).mean() < 0.1 * straightness(mixture(path), start.double(), 50).mean()
    with torch.no_grad():
        before = float((mixture(path)(noise[:2000].double(), ONE) - x0[:2000]).square().sum(1).mean().sqrt())
    after = one_step_error(net, path)
    assert after < 0.4 * before
    annealed = fit(student(path, "velocity"), annealed_reflow(270), x0, noise)
    assert one_step_error(annealed, path) < 1.3 * after


@pytest.mark.slow
def test_rectified_diffusion_does_on_a_variance_preserving_path_what_reflow_does_on_the_linear_one():
    """T23: one step is as good, with x_t curved and its linear coordinates straight."""
    errors, nets = [], []
    for path, prediction in ((LinearPath(), "velocity"), (VPPath(), "v")):
        x0, noise = teacher_pairs(path, 10_000, 5)
        objective = Rectification(path, target=Prediction.X0)
        nets.append(fit(student(path, prediction), objective, x0, noise))
        errors.append(one_step_error(nets[-1], path))
    plain = teacher_pairs(VPPath(), 1000, 99)
    with torch.no_grad():
        sigma = float(VPPath().coefficients(ONE).sigma)
        before = (mixture(VPPath())(sigma * plain[1].double(), ONE) - plain[0]).square().sum(1).mean().sqrt()
    assert max(errors) < 1.5 * min(errors)
    assert max(errors) < 0.4 * float(before)
    x = float(VPPath().coefficients(ONE).sigma) * plain[1][:300]
    assert straightness(nets[1], x, 50).mean() < 0.2 * straightness(mixture(VPPath()), x.double(), 50).mean()
    assert curvature(nets[1], x, 50).median() > 5 * curvature(nets[0], x, 50).median()
