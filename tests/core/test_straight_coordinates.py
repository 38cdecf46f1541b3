"""The flow in straight coordinates: the same on every path, solved to its order, weighed as it says."""

import itertools
import math

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser, gaussian_flow
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.straight_coordinates import Adaptive, FixedSteps, StraightFlow, interval

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
VARIANCES = torch.tensor([4.0, 0.25, 0.0], dtype=torch.float64)
DATA = MEAN + VARIANCES.sqrt() * noise_of(generators_of(range(4)), (3,), torch.float64)


def flowed(path, solver):
    """The state at t = 1 from the data at kappa = 1e-3, and how often the denoiser was asked."""
    denoiser = GaussianDenoiser(MEAN, Diagonal(VARIANCES), path)
    ends = interval(path, None, 1.0)
    flow = StraightFlow(denoiser, {}, torch.float64, DATA.shape[1:])

    def derivative(state, w):
        value = flow.field(w)(flow.unflat(state))
        flow.saw(value, w)
        return value.flatten(1)

    state = solver(derivative, (1 - ends.tau_min) * DATA, ends.w_min, ends.w_max, 3)
    return ends.scale_max * state, flow.evaluations, ends


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("solver", [Adaptive(1e-7, 1e-7), FixedSteps(100)], ids=lambda s: type(s).__name__)
def test_flow_is_the_closed_form(path, solver):
    state, _, ends = flowed(path, solver)
    t_min, one = torch.tensor(ends.t_min, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    start = path.coefficients(t_min).alpha * DATA
    wanted = gaussian_flow(start, t_min, one, MEAN, Diagonal(VARIANCES), path)
    assert torch.allclose(state / ends.sigma_max, wanted / ends.sigma_max, atol=2e-5)


@pytest.mark.slow
def test_fixed_steps_are_of_fourth_order():
    exact = flowed(LinearPath(), FixedSteps(800))[0]
    errors = [float((flowed(LinearPath(), FixedSteps(n))[0] - exact).abs().max()) for n in (50, 100, 200)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 3.6
    assert flowed(LinearPath(), FixedSteps(25))[1] == 100


def test_error_control_sees_a_passenger():
    """X does not move; a passenger that does must be held to the tolerance by itself, however many columns X has."""

    def derivative(state, w):
        moved = torch.zeros_like(state)
        moved[:, -1] = (20 * w).cos() * 20
        return moved

    ends = []
    for own, company in ((2, 1), (2000, 1), (2, 50)):
        state = torch.zeros(1, own + company, dtype=torch.float64)
        ends.append(float(Adaptive(1e-9, 1e-6)(derivative, state, 0.0, 1.0, own)[0, -1]))
    assert abs(ends[0] - math.sin(20)) < 1e-4
    assert ends[1] == pytest.approx(ends[0], abs=1e-12)
    assert 1e-9 < abs(ends[2] - ends[0]) < 1e-3  # one of 50 passengers weighs a fiftieth


@pytest.mark.parametrize(
    ("t_min", "t_max"), [(0.0, 1.0), (-0.1, 1.0), (0.5, 0.5), (0.1, 1.1), (math.nan, 1.0)]
)
def test_times_out_of_range_are_refused(t_min, t_max):
    with pytest.raises(InputError, match="0 < t_min < t_max <= 1"):
        interval(LinearPath(), t_min, t_max)


def test_solvers_refuse_what_they_cannot_do():
    with pytest.raises(InputError, match="at least 1 step"):
        FixedSteps(0)
    with pytest.raises(InputError, match="tolerances"):
        Adaptive(rtol=0.0)
    with pytest.raises(InputError, match="within 20 evaluations"):
        flowed(LinearPath(), Adaptive(1e-10, 1e-10, max_evaluations=20))
