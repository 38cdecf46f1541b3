"""Consistency trajectories: laws of the draw, the teacher's way, the value and the gradient written out by hand."""

import copy
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from radiata_core.analytic import GaussianDenoiser, gaussian_flow
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.flowmap_objectives import (
    ConsistencyTrajectory,
    average_velocity_weight,
    draw_trajectory,
    held_fixed,
    solve_between,
)
from radiata_core.flowmaps import GaussianFlowMap, NetworkFlowMap, SolvedFlowMap, trapezoid_step
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generators_of, noise_of
from radiata_core.specs import buildable
from radiata_core.times import LinearGrid, LogSNRGrid, UniformTime
from radiata_core.train import TrainOptions, train

PATH = VPPath()
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
VARIANCE = torch.tensor([4.0, 0.09], dtype=torch.float64)
ROWS = 6


@buildable("flow-map-network-of-tests")
class Network(nn.Module):
    """A network of state, time, destination and a condition; keeps what it was asked."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
        self.double()
        self.options = {"seed": seed}
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x, level, *, target_level, shift=None):
        self.asked.append((level, target_level))
        shift = torch.zeros(len(x), dtype=x.dtype) if shift is None else shift
        rest = torch.stack([level.expand(len(x)), target_level.expand(len(x)), shift], 1)
        return self.layers(torch.cat([x, rest.to(x)], 1))


def teacher(path=PATH):
    return GaussianDenoiser(MEAN, Diagonal(VARIANCE), path)


class Shifted:
    """A teacher whose answer depends on a condition."""

    path = PATH

    def __call__(self, x, t, shift=None):
        return teacher()(x, t) + (0.0 if shift is None else shift[:, None])


def student(seed: int = 5, path=PATH):
    return NetworkFlowMap(Network(seed), path, Prediction.X0)


def data(n: int = ROWS):
    return MEAN + VARIANCE.sqrt() * noise_of(generators_of(range(n), 9), (2,), torch.float64)


def gradients(module, value):
    return torch.autograd.grad(value, list(module.parameters()))


# The draw ---------------------------------------------------------------------------------------------------------------

DRAWS = 2000


def many(**options):
    return draw_trajectory(8, 4, generators_of(range(DRAWS), 3), **options)


def test_laws_of_the_draw():
    """Start uniform, depth in proportion to itself, end uniform; four chi-square tests at 1e-4 each."""
    draw = many()
    depth = draw.middle - draw.start
    assert ((draw.start < draw.middle) & (draw.middle <= draw.end) & (draw.end <= 8) & (depth <= 4)).all()
    assert chisquare(torch.bincount(draw.start, minlength=8)).pvalue > 1e-4
    free = draw.start <= 4
    expected = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) * int(free.sum())
    assert chisquare(torch.bincount(depth[free] - 1, minlength=4), expected).pvalue > 1e-4
    # At start 6 there is room for two steps only: 1/3 and 2/3.
    late = depth[draw.start == 6]
    expected = torch.tensor([1.0, 2.0], dtype=torch.float64) / 3 * len(late)
    assert chisquare(torch.bincount(late - 1, minlength=2), expected).pvalue > 1e-4
    ends = draw.end[draw.middle == 4] - 4
    assert chisquare(torch.bincount(ends, minlength=5)).pvalue > 1e-4


def test_favoured_ends():
    """Certain; or with probability 0.25, where a start is node 0 with 0.25 + 0.75 / 8, within 4 standard errors."""
    certain = many(from_noise=1.0, to_data=1.0)
    assert (certain.start == 0).all() and (certain.end == 8).all()
    some = many(from_noise=0.25)
    truth = 0.25 + 0.75 / 8
    share = (some.start == 0).double().mean().item()
    assert abs(share - truth) < 4 * math.sqrt(truth * (1 - truth) / DRAWS)
    plain, some = many(), many(to_data=0.25)
    inside = plain.end < 8
    moved = (some.end == 8)[inside].double().mean().item()
    assert abs(moved - 0.25) < 4 * math.sqrt(0.25 * 0.75 / int(inside.sum()))
    assert torch.equal(plain.start, some.start) and torch.equal(plain.middle, some.middle)


def test_a_row_draws_from_its_own_generator():
    together = draw_trajectory(8, 4, generators_of([5, 6, 7]))
    for row, seed in enumerate([5, 6, 7]):
        alone = draw_trajectory(8, 4, generators_of([seed]))
        assert [int(v[row]) for v in (together.start, together.middle, together.end)] == [
            int(v[0]) for v in (alone.start, alone.middle, alone.end)
        ]


def test_a_row_of_the_loss_is_the_same_alone():
    objective, x0 = ConsistencyTrajectory(teacher(), LogSNRGrid(), 8, 4), data()
    whole = objective(student(), x0, generators_of(range(ROWS))).per_sample
    alone = torch.cat(
        [objective(student(), x0[i : i + 1], generators_of([i])).per_sample for i in range(ROWS)]
    )
    torch.testing.assert_close(whole, alone, atol=1e-13, rtol=1e-12)


# The teacher's way ------------------------------------------------------------------------------------------------------


def test_solving_between_nodes_is_solving_row_by_row():
    """Also with conditions, and without an evaluation for rows that are there."""
    times = LogSNRGrid()(6, PATH)
    x, start, end = data(), torch.tensor([0, 1, 5, 2, 3, 0]), torch.tensor([6, 3, 6, 2, 4, 1])
    shift = torch.linspace(0, 1, ROWS).double()
    expected = x.clone()
    for row in range(ROWS):
        for node in range(int(start[row]), int(end[row])):
            here = expected[row : row + 1]
            expected[row] = trapezoid_step(
                Shifted(), here, times[node], times[node + 1], shift=shift[row : row + 1]
            )[0]
    before = x.clone()
    found = solve_between(Shifted(), x, times, start, end, shift=shift)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert torch.equal(x, before), "the state given was changed"
    assert torch.equal(found[3], x[3])


def test_solving_finely_is_the_flow():
    times = LogSNRGrid()(200, PATH)
    x, start, end = data(2), torch.tensor([20, 60]), torch.tensor([140, 100])
    truth = gaussian_flow(x, times[start], times[end], MEAN, Diagonal(VARIANCE), PATH)
    torch.testing.assert_close(solve_between(teacher(), x, times, start, end), truth, atol=4e-3, rtol=0)


# Value and gradient -----------------------------------------------------------------------------------------------------


def by_hand(flow_map, stopped, generators, at_data, **conditions):
    """The loss of Kim et al. 2023, eqs. 10-14, a line at a time: returns each row's squared distance."""
    x0, times = data(), LogSNRGrid()(8, PATH)
    draw = draw_trajectory(8, 4, generators)
    t, u, s = times[draw.start], times[draw.middle], times[draw.end]
    c = PATH.coefficients(t)
    x = c.alpha[:, None] * x0 + c.sigma[:, None] * noise_of(generators, (2,), torch.float64)
    found = flow_map.jump(x, t, s, **conditions)
    with torch.no_grad():
        solved = x.clone()
        for row in range(ROWS):
            for node in range(int(draw.start[row]), int(draw.middle[row])):
                given = {name: value[row : row + 1] for name, value in conditions.items()}
                solved[row] = trapezoid_step(
                    Shifted(), solved[row : row + 1], times[node], times[node + 1], **given
                )[0]
        wanted = stopped.jump(solved, u, s, **conditions)
    if at_data:
        found = stopped.jump(found, s, 0 * s, **conditions)
        wanted = stopped.jump(wanted, s, 0 * s, **conditions).detach()
    return (found - wanted).square().mean(1), t, s


@pytest.mark.parametrize("at_data", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_value_and_gradient_are_those_written_by_hand(at_data, average):
    """The gradient passes through the inner jump (and, at the data, through the stopped map's copy) and nowhere else."""
    flow_map, other = student(), student(6)
    stopped = other if average else copy.deepcopy(flow_map)
    shift = torch.linspace(-1, 1, ROWS).double()
    expected, _, _ = by_hand(flow_map, stopped, generators_of(range(ROWS)), at_data, shift=shift)
    objective = ConsistencyTrajectory(
        Shifted(), LogSNRGrid(), 8, 4, target=other if average else None, compare_at_data=at_data
    )
    loss = objective(flow_map, data(), generators_of(range(ROWS)), shift=shift)
    torch.testing.assert_close(loss.per_sample, expected, atol=1e-12, rtol=1e-12)
    assert loss.value == loss.per_sample.mean()
    for one, two in zip(gradients(flow_map, loss.value), gradients(flow_map, expected.mean()), strict=True):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-10)
    assert all(parameter.requires_grad for parameter in [*flow_map.parameters(), *other.parameters()])
    if average:
        loss = objective(flow_map, data(), generators_of(range(ROWS)), shift=shift)
        loss.value.backward()
        assert all(parameter.grad is None for parameter in other.parameters())


def test_at_the_data_the_gradient_does_pass_through_the_stopped_map():
    """It is the stopped map's Jacobian times the gradient at s, and not the gradient at s."""
    flow_map = student()
    objective = ConsistencyTrajectory(teacher(), LogSNRGrid(), 8, 4)
    jumps = objective.jumps(flow_map, data(), generators_of(range(ROWS)))
    (found,) = torch.autograd.grad(jumps.found_at_data.sum(), jumps.found, retain_graph=True)

    def last(x):
        return flow_map.jump(x, jumps.s, torch.zeros_like(jumps.s)).sum()

    expected = torch.autograd.functional.jacobian(last, jumps.found.detach())
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert not torch.allclose(found, torch.ones_like(found))
    assert not jumps.wanted.requires_grad and not jumps.wanted_at_data.requires_grad


def test_held_fixed_gives_back_what_it_took():
    """Weights that were frozen before stay so, also after an error; the gradient to the input passes."""
    network = Network().layers
    network[0].bias.requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]
    x = torch.ones(1, 5).double().requires_grad_()
    with held_fixed(network):
        value = network(x).sum()
    value.backward()
    assert x.grad is not None and all(p.grad is None for p in network.parameters())
    with pytest.raises(ZeroDivisionError), held_fixed(network):
        _ = 1 / 0
    assert [p.requires_grad for p in network.parameters()] == before


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
@pytest.mark.parametrize("at_data", [False, True])
def test_the_exact_map_has_no_loss(path, at_data):
    """With a teacher that is solved exactly: the true flow map is the fixed point, on every path."""
    gaussian = Diagonal(VARIANCE)

    def exact_step(denoiser, x, t, s):
        return gaussian_flow(x, t, s, MEAN, gaussian, path)

    objective = ConsistencyTrajectory(
        teacher(path), LogSNRGrid(), 8, 4, compare_at_data=at_data, step=exact_step
    )
    found = objective(GaussianFlowMap(MEAN, gaussian, path), data(), generators_of(range(ROWS)))
    assert found.value < 1e-18
    wrong = GaussianFlowMap(MEAN, Diagonal(1.5 * VARIANCE), path)
    assert objective(wrong, data(), generators_of(range(ROWS))).value > 1e-4


def test_solved_map_of_the_teacher_is_nearly_a_fixed_point():
    """What remains is the solver's error, squared: sixteen times less for twice the steps (both grids)."""
    values = []
    for steps in (16, 32):
        objective = ConsistencyTrajectory(teacher(), LogSNRGrid(), steps, steps)
        values.append(
            objective(
                GaussianFlowMap(MEAN, Diagonal(VARIANCE), PATH), data(), generators_of(range(ROWS))
            ).value
        )
    assert values[1] < values[0] / 6
    many_steps = SolvedFlowMap(teacher(LinearPath()), 30)
    objective = ConsistencyTrajectory(teacher(LinearPath()), LinearGrid(), 30, 15)
    assert objective(many_steps, data(), generators_of(range(ROWS))).value < 1e-4


def test_weight_of_a_row():
    objective = ConsistencyTrajectory(Shifted(), LogSNRGrid(), 8, 4, weight=average_velocity_weight)
    flow_map = student()
    expected, t, s = by_hand(flow_map, copy.deepcopy(flow_map), generators_of(range(ROWS)), False)
    found = objective(flow_map, data(), generators_of(range(ROWS))).per_sample
    torch.testing.assert_close(found, expected * (t - s).clamp_min(1e-3) ** -2, atol=1e-12, rtol=1e-12)
    a, b = torch.tensor([0.5, 0.2]).double(), torch.tensor([0.0, 0.2]).double()
    torch.testing.assert_close(average_velocity_weight(a, b), torch.tensor([4.0, 1e6]).double())


# The diagonal -----------------------------------------------------------------------------------------------------------


def test_denoising_term_is_the_regression_on_the_diagonal():
    """Value: consistency + weight x regression, of the first rows only, drawn after the trajectory; s = t throughout."""
    regression = Regression(PATH, UniformTime(), target=Prediction.V)
    plain = ConsistencyTrajectory(Shifted(), LogSNRGrid(), 8, 4)
    both = ConsistencyTrajectory(
        Shifted(), LogSNRGrid(), 8, 4, denoising=regression, denoising_weight=0.3, denoising_rows=4
    )
    flow_map, shift = student(), torch.linspace(-1, 1, ROWS).double()
    generators = generators_of(range(ROWS))
    first = plain(flow_map, data(), generators, shift=shift)
    flow_map.network.asked.clear()
    second = regression(flow_map, data()[:4], generators[:4], shift=shift[:4])
    assert all(torch.equal(level, target) for level, target in flow_map.network.asked)
    found = both(flow_map, data(), generators_of(range(ROWS)), shift=shift)
    torch.testing.assert_close(found.value, first.value + 0.3 * second.value, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.per_sample, first.per_sample, atol=1e-12, rtol=0)
    whole = ConsistencyTrajectory(Shifted(), LogSNRGrid(), 8, 4, denoising=regression)
    assert whole(flow_map, data(), generators_of(range(ROWS)), shift=shift).value > found.value


def test_balance_and_terms_see_the_consistency_term():
    """A callable weight gets (consistency, term, student); a term gets the jumps and the consistency."""
    seen = []

    def balance(main, other, flow_map):
        seen.append((main, other, flow_map))
        return torch.tensor(2.0).double()

    def further(jumps, consistency):
        seen.append((jumps, consistency))
        return 3 * consistency

    regression = Regression(PATH, UniformTime())
    objective = ConsistencyTrajectory(
        teacher(),
        LogSNRGrid(),
        8,
        4,
        denoising=regression,
        denoising_weight=balance,
        terms=[further],
    )
    flow_map = student()
    loss = objective(flow_map, data(), generators_of(range(ROWS)))
    (main, other, given), (jumps, consistency) = seen
    assert given is flow_map and jumps.student is flow_map
    torch.testing.assert_close(main, loss.per_sample.mean())
    torch.testing.assert_close(loss.value, main + 2 * other + 3 * consistency)
    torch.testing.assert_close((jumps.found - jumps.wanted).square().mean(), consistency)


# In the trainer, and bad input ------------------------------------------------------------------------------------------


def test_train_takes_it(tmp_path):
    """Thirty steps of train.train make the trajectories more consistent on rows that were not trained on."""

    class Heads:
        def __len__(self):
            return 64

        def __getitem__(self, item):
            return {"image": rows[item]}

    flow_map, rows = student(), data(64)
    objective = ConsistencyTrajectory(
        teacher(), LogSNRGrid(), 8, 4, denoising=Regression(PATH, UniformTime())
    )

    def held_out():
        with torch.no_grad():
            return objective(flow_map, data(200), generators_of(range(1000, 1200))).value.item()

    before = held_out()
    options = TrainOptions(
        steps=30, batch_size=16, learning_rate=1e-2, warmup=5, tensorboard=False, validate_every=1000
    )
    train(flow_map, objective, Heads(), tmp_path / "run", options)
    assert held_out() < 0.7 * before


def test_bad_input():
    with pytest.raises(InputError, match="depth between 1 and the 8"):
        ConsistencyTrajectory(teacher(), LogSNRGrid(), 8, 9)
    with pytest.raises(InputError, match=r"probabilities in \[0, 1\]"):
        ConsistencyTrajectory(teacher(), LogSNRGrid(), 8, 4, to_data=1.5)
    with pytest.raises(InputError, match="denoising term on the teacher's path"):
        ConsistencyTrajectory(
            teacher(), LogSNRGrid(), 8, 4, denoising=Regression(LinearPath(), UniformTime())
        )
    objective = ConsistencyTrajectory(teacher(), LogSNRGrid(), 8, 4)
    with pytest.raises(InputError, match="a flow map with a method jump"):
        objective(teacher(), data(), generators_of(range(ROWS)))
    with pytest.raises(InputError, match="a student on VPPath"):
        objective(student(path=LinearPath()), data(), generators_of(range(ROWS)))
    with pytest.raises(InputError, match="one generator a row, 6"):
        objective(student(), data(), generators_of(range(2)))
