"""What a user can do wrong, over the whole core: a ValueError of one line that says expected, got, and what to do."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.flowmaps import sample_flow_map
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, Path, VPPath, add_noise
from radiata_core.predictions import Prediction, convert
from radiata_core.runge_kutta import adaptive, edm_heun, heun
from radiata_core.search import best_of_n
from radiata_core.seeds import generators_of
from radiata_core.solvers import ab2_velocity, ddim, ddpm, dpmpp_2m, integrate, sde_dpmpp_2m, unipc_2
from radiata_core.times import UniformTime, checked_grid
from radiata_core.transitions import euler_maruyama, exact_transition

PATH = LinearPath()
X = torch.ones(2, 3)
OUTSIDE = [
    torch.tensor([1.5, 0.5, 0.0]),
    torch.tensor([1.0, 0.5, -0.5]),
    torch.tensor([float("nan"), 0.5, 0.0]),
]
NOT_FALLING = [
    torch.tensor([0.5, 1.0, 0.0]),
    torch.tensor([1.0, 0.5, 0.5, 0.0]),
    torch.tensor([0.0, 0.5, 1.0]),
]
TABLES = [ddim, ddpm, dpmpp_2m, unipc_2, ab2_velocity, sde_dpmpp_2m, euler_maruyama, exact_transition]


class Oracle:
    """A denoiser, and a flow map, that says what it is told to from t = 0.5 on."""

    def __init__(self, value: float = 0.0, path: Path = PATH) -> None:
        self.path, self.value = path, value

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t.reshape(-1, 1) < 0.5, self.value, torch.zeros_like(x))

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self(x, t)


def says(case: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        case()
    text = str(raised.value)
    assert re.match(r"expected \S.*; got \S.*\. \S.*\S$", text), text
    assert "\n" not in text
    for word in words:
        assert re.search(word, text), f"{word} is not in: {text}"


@pytest.mark.parametrize("times", OUTSIDE, ids=lambda times: str(times.tolist()))
def test_times_outside_the_unit_interval(times: Tensor) -> None:
    for make in TABLES:
        says(lambda make=make: make(times, PATH), r"times")
    for solver in (heun, edm_heun):
        says(lambda solver=solver: solver(Oracle(), X, times, PATH), r"times")
    says(lambda: sample_flow_map(Oracle(), X, times), r"times")
    says(lambda: checked_grid(times), r"times")
    bad = times[~((times >= 0) & (times <= 1))][0]
    says(lambda: add_noise(PATH, X, X, bad), r"\[0, 1\]")
    says(lambda: convert(X, X, bad, PATH, Prediction.X0, Prediction.V), r"\[0, 1\]")
    says(lambda: adaptive(Oracle(), X, PATH, t_start=float(bad)), r"t_start")


@pytest.mark.parametrize("times", NOT_FALLING, ids=lambda times: str(times.tolist()))
def test_grids_that_do_not_fall(times: Tensor) -> None:
    for make in TABLES:
        says(lambda make=make: make(times, PATH), r"decreasing|fall")
    for solver in (heun, edm_heun):
        says(lambda solver=solver: solver(Oracle(), X, times, PATH), r"decreasing")
    says(lambda: sample_flow_map(Oracle(), X, times), r"decreasing")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_networks_that_break(value: float) -> None:
    """Every sampler names the step and the time."""
    broken, times = Oracle(value), torch.linspace(1, 0, 6, dtype=torch.float64)
    for make in (ddim, ddpm, dpmpp_2m, unipc_2, ab2_velocity, sde_dpmpp_2m):
        table = make(times, PATH)
        says(lambda t=table: integrate(broken, X, t, generators=generators_of([0, 1])), "step 3", r"t=0\.4")
    for solver in (heun, edm_heun):
        says(lambda solver=solver: solver(broken, X, times, PATH), "step 2", r"t=0\.4")
    says(lambda: adaptive(broken, X, PATH), r"step \d+", r"t=0\.\d+")
    says(lambda: sample_flow_map(broken, X, times), "step 3", r"t=0\.4")
    search = lambda: best_of_n(  # noqa: E731
        broken, X, ddim(times, PATH), lambda x: x.sum(1), budget=Budget(10), generators=generators_of([0, 1])
    )
    says(search, "step 3", r"t=0\.4")


def test_denoisers_of_another_path() -> None:
    other, times = Oracle(path=VPPath()), torch.linspace(1, 0, 6, dtype=torch.float64)
    says(lambda: integrate(other, X, ddim(times, PATH)), "path")
    says(lambda: heun(other, X, times, PATH), "path")
    says(lambda: edm_heun(other, X, times, PATH), "path")
    says(lambda: adaptive(other, X, PATH), "path")
    says(lambda: Regression(PATH, UniformTime())(other, X, generators_of([0, 1])), "VPPath")


def test_budgets_below_one_pass() -> None:
    table = ddim(torch.linspace(1, 0, 6, dtype=torch.float64), PATH)
    says(
        lambda: best_of_n(
            Oracle(), X, table, lambda x: x.sum(1), budget=Budget(4), generators=generators_of([0, 1])
        ),
        "budget of at least",
        "4",
    )
    says(lambda: Budget(0), "1 evaluation")
