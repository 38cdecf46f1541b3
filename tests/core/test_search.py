"""Searches at equal evaluations: counted, independent by chain, and worth it where the theory says so."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.search import (
    Budget,
    SearchResult,
    best_of_n,
    code,
    rollover_budget,
    search_over_paths,
    smc,
    svdd,
)
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LinearGrid, LogSNRGrid
from radiata_core.transitions import PowerDiffusion, Transition, exact_transition

PATH = LinearPath()
STEPS = 10
SDE = exact_transition(LinearGrid()(STEPS, PATH), PATH)
ODE = exact_transition(LinearGrid()(STEPS, PATH), PATH, PowerDiffusion(0.0))
SEARCHES: dict[str, tuple[Callable[..., SearchResult], Transition]] = {
    "best_of_n": (best_of_n, ODE),
    "search_over_paths": (search_over_paths, ODE),
    "svdd": (svdd, SDE),
    "code": (code, SDE),
    "smc": (smc, SDE),
    "rollover_budget": (rollover_budget, SDE),
}
over_searches = pytest.mark.parametrize("name", SEARCHES)


def _mixture(size: int = 8) -> MixtureDenoiser:
    g = generator_of(1, size)
    means = 1.5 * torch.randn(8, size, generator=g, dtype=torch.float64)
    spreads = 0.05 + 0.4 * torch.rand(8, size, generator=g, dtype=torch.float64)
    return MixtureDenoiser(torch.ones(8, dtype=torch.float64), means, [Diagonal(s) for s in spreads], PATH)


TARGET = 2 * torch.randn(8, generator=generator_of(3), dtype=torch.float64)


def _reward(x0: Tensor) -> Tensor:
    return -(x0 - TARGET).square().mean(1).sqrt()


def _normal(x: Tensor, t: Tensor) -> Tensor:
    """Posterior mean of unit normal data: quick, where any denoiser will do."""
    t = t.to(x).reshape(-1, 1)
    return (1 - t) / ((1 - t) ** 2 + t**2) * x


class Counting:
    """A denoiser that counts its rows."""

    def __init__(self, denoiser: Callable[..., Tensor]) -> None:
        self.denoiser, self.path, self.rows = denoiser, PATH, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows += len(x)
        return self.denoiser(x, t)


def _run(name: str, evaluations: int, seeds: list[int], denoiser=None, **options) -> SearchResult:
    search, transition = SEARCHES[name]
    noise = noise_of(generators_of(seeds, 0), (8,), torch.float64)
    return search(
        denoiser or _normal,
        noise,
        transition,
        _reward,
        Budget(evaluations),
        generators=generators_of(seeds, 1),
        **options,
    )


@pytest.mark.parametrize(
    ("name", "budget", "options", "spent"),
    [
        ("best_of_n", 57, {}, 50),
        ("best_of_n", 57, {"n": 3}, 30),
        # 2 paths · 1 step, then 9 rounds of 2 steps for 2 · 2 copies, the last from t_8 to t_10.
        ("search_over_paths", 80, {}, 2 + 9 * 2 * 4),
        ("search_over_paths", 80, {"paths": 1, "copies": 1, "start": 4, "back": 2, "ahead": 4}, 4 + 3 * 4),
        ("svdd", 57, {}, 2 + 2 * 3 * 9),
        ("svdd", 57, {"beams": 1, "copies": 2, "starts": 4}, 4 + 2 * 9),
        ("code", 100, {"beams": 3}, 3 + 3 * 3 * 9),
        ("code", 57, {"copies": 2, "every": 4}, 2 + 2 * 2 * 9),
        ("smc", 57, {}, 50),
        ("smc", 57, {"particles": 2}, 20),
        ("rollover_budget", 57, {}, 57),
        ("rollover_budget", 33, {"starts": 1, "quota": 3}, 33),
    ],
)
def test_evaluations_are_exactly_those_promised(name: str, budget: int, options: dict, spent: int) -> None:
    """Counted at the network: 3 chains of them; by the result, the trace and the budget alike, and within it."""
    counting, seeds = Counting(_normal), [4, 5, 6]
    search, transition = SEARCHES[name]
    noise, ledger = noise_of(generators_of(seeds, 0), (8,), torch.float64), Budget(1000)
    part = ledger.part(budget)
    found = search(counting, noise, transition, _reward, part, generators=generators_of(seeds, 1), **options)
    assert counting.rows == 3 * spent
    assert found.evaluations == part.spent == ledger.spent == spent <= budget
    assert found.trace.evaluations[-1] == spent
    assert (found.trace.evaluations.diff() > 0).all()
    torch.testing.assert_close(found.reward, _reward(found.x))


@over_searches
def test_a_chain_is_the_same_alone_and_in_any_company(name: str) -> None:
    """Rows of the result belong to seeds; rows at a time change nothing; noise is not changed."""
    together = _run(name, 80, [3, 8, 5])
    for i, seed in enumerate([3, 8, 5]):
        alone = _run(name, 80, [seed], rows=4)
        torch.testing.assert_close(alone.x[0], together.x[i])
        torch.testing.assert_close(alone.trace.reward[:, 0], together.trace.reward[:, i])


@over_searches
def test_conditions_reach_the_network(name: str) -> None:
    """Each chain is drawn around its own mean, for events of rank 3."""

    def narrow(x: Tensor, t: Tensor, *, centre: Tensor) -> Tensor:
        return centre.reshape(-1, 1, 1, 1).expand_as(x)

    search, transition = SEARCHES[name]
    found = search(
        narrow,
        torch.zeros(2, 1, 2, 2),
        transition,
        lambda x0: x0.flatten(1).sum(1),
        Budget(60),
        generators=generators_of([0, 1]),
        centre=torch.tensor([1.0, -2.0]),
    )
    assert found.x.shape == (2, 1, 2, 2)
    assert found.x.dtype == torch.float32
    torch.testing.assert_close(found.x[:, 0, 0, 0], torch.tensor([1.0, -2.0]))


@over_searches
def test_a_budget_below_one_pass_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a budget of at least"):
        _run(name, 8, [0])


@over_searches
def test_bad_rewards_and_networks_are_reported(name: str) -> None:
    search, transition = SEARCHES[name]
    run = partial(
        search,
        noise=torch.zeros(1, 8),
        transition=transition,
        budget=Budget(60),
        generators=generators_of([0]),
    )

    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t.reshape(-1, 1) < 0.75, torch.nan, x)

    with pytest.raises(InputError, match=r"NaN or infinity at step 3, t=0\.7\."):
        run(broken, reward=lambda x: x.sum(1), budget=Budget(60))
    with pytest.raises(InputError, match=r"expected finite rewards; got nan at step \d+, t="):
        run(lambda x, t: x, reward=lambda x: x.sum(1) * torch.nan, budget=Budget(60))


def test_best_of_n_is_the_maximum_of_independent_draws() -> None:
    """Draws remade one by one; a larger n only adds draws, and any table of the solvers will do."""
    denoiser, seeds = _normal, [7, 9]
    table = unipc_2(LogSNRGrid()(6, PATH), PATH)
    noise = noise_of(generators_of(seeds, 0), (8,), torch.float64)
    found = {
        n: best_of_n(denoiser, noise, table, _reward, Budget(100), generators=generators_of(seeds, 1), n=n)
        for n in (3, 6)
    }
    torch.testing.assert_close(found[3].trace.reward, found[6].trace.reward[:3])
    for i, g in enumerate(generators_of(seeds, 1)):
        starts = noise_of(
            [generator_of(int(torch.randint(2**62, (), generator=g))) for _ in range(6)], (8,), torch.float64
        )
        starts[0] = noise[i]
        rewards = _reward(integrate(denoiser, starts, table))
        torch.testing.assert_close(found[6].trace.reward[:, i], rewards)
        assert float(found[6].reward[i]) == pytest.approx(float(rewards.max()))
        torch.testing.assert_close(found[6].trace.best[:, i], rewards.cummax(0).values)


def test_paths_without_choice_keep_the_law() -> None:
    """A copy a path, a constant reward, Gaussian data: the variance is the one followed exactly through every step.

    400 chains of 8 numbers; |z| < 4 fails by chance with probability 6e-5.
    """
    seeds = list(range(400))
    found = search_over_paths(
        _normal,
        noise_of(generators_of(seeds, 0), (8,), torch.float64),
        ODE,
        lambda x: torch.zeros(len(x)),
        Budget(40),
        generators=generators_of(seeds),
        copies=1,
    )
    assert found.evaluations == 2 + 2 * 2 * 9
    assert found.trace.step[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    one = torch.ones(1, 1, dtype=torch.float64)

    def solved(variance: float, index: int) -> float:
        gain = ODE.state[index] + ODE.mean[index] * _normal(one, ODE.times[index]).item()
        return float(gain) ** 2 * variance

    variance = solved(1.0, 0)
    for reached in range(1, STEPS):
        alpha, sigma = 1 - ODE.times, ODE.times
        ratio = float(alpha[reached - 1] / alpha[reached]) ** 2
        variance = ratio * variance + float(sigma[reached - 1] ** 2 - ratio * sigma[reached] ** 2)
        variance = solved(solved(variance, reached - 1), reached)
    measured = float(found.x.square().mean())
    assert abs(measured / variance - 1) / (2 / found.x.numel()) ** 0.5 < 4


def test_bad_numbers_are_refused() -> None:
    for options in ({"paths": 0}, {"start": 10}, {"back": 2}, {"back": 0}):
        with pytest.raises(InputError, match="expected paths >= 1"):
            _run("search_over_paths", 80, [0], **options)
    with pytest.raises(InputError, match="expected copies >= 1"):
        _run("search_over_paths", 80, [0], copies=0)
    with pytest.raises(InputError, match="expected n >= 1"):
        _run("best_of_n", 80, [0], n=0)
    with pytest.raises(InputError, match="at least 90 evaluations for 9 passes"):
        _run("best_of_n", 80, [0], n=9)


def test_searching_the_sde_beats_best_of_n() -> None:
    """8-D mixture, 500 evaluations, 24 chains, paired: the mean difference in its standard errors was 11 and 4.7."""
    seeds, denoiser = list(range(24)), _mixture()
    draws = _run("best_of_n", 500, seeds, denoiser).reward
    for name, margin in (("svdd", 5), ("smc", 2.5)):
        gain = _run(name, 500, seeds, denoiser).reward - draws
        assert float(gain.mean() / (gain.std() / len(seeds) ** 0.5)) > margin


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@over_searches
def test_an_accelerator_finds_the_same(name: str) -> None:
    """Seeds are drawn on the CPU: the same choices, to rounding."""
    search, transition = SEARCHES[name]
    noise = noise_of(generators_of([3, 8], 0), (8,), torch.float64)
    centre = torch.tensor([[0.5], [-0.5]], dtype=torch.float64)

    def shifted(x: Tensor, t: Tensor, *, centre: Tensor) -> Tensor:
        return _normal(x - centre, t) + centre

    found = [
        search(
            shifted,
            noise.to(device),
            transition,
            lambda x0: -(x0 - TARGET.to(x0)).square().sum(1),
            Budget(80),
            generators=generators_of([3, 8], 1),
            centre=centre.to(device),
            rows=5,
        )
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(found[1].x.cpu(), found[0].x)
    torch.testing.assert_close(found[1].trace.reward, found[0].trace.reward)
