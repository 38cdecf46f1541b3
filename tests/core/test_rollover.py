"""Rollover budget forcing against a scalar transcript of the algorithm, and by hand."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.diffusions import PowerDiffusion
from radiata_core.errors import InputError
from radiata_core.particles import SearchResult
from radiata_core.paths import LinearPath
from radiata_core.rollover import rollover_budget
from radiata_core.seeds import generators_of
from radiata_core.times import LinearGrid
from radiata_core.transitions import exact_transition

PATH = LinearPath()


class Scripted:
    """Rewards from a list a chain, whatever the state: the first call is for the starts."""

    def __init__(self, scripts: list[list[float]], starts: int = 1) -> None:
        self.scripts, self.call, self.starts = scripts, -1, starts

    def __call__(self, x0: Tensor) -> Tensor:
        self.call += 1
        if self.call == 0:
            return torch.zeros(len(x0), dtype=torch.float64)
        return torch.tensor([script[self.call - 1] for script in self.scripts], dtype=torch.float64)


def _run(scripts: list[list[float]], steps: int, budget: int, **options) -> SearchResult:
    transition = exact_transition(LinearGrid()(steps, PATH), PATH)
    chains = len(scripts)
    return rollover_budget(
        lambda x, t: x,
        torch.zeros(chains, 2),
        transition,
        Scripted(scripts),
        Budget(budget),
        generators=generators_of(range(chains)),
        **options,
    )


def _transcript(
    script: list[float], steps: int, budget: int, quota: int
) -> tuple[list[int], list[int], float]:
    """The algorithm in scalars: step of every evaluation, quota granted at every step, reward returned."""
    step, allowed, count, record, best = 0, quota, 0, 0.0, -math.inf
    at, granted = [], [quota]
    for reward in script[: budget - 1]:
        at.append(step + 1)
        count, best = count + 1, max(best, reward)
        if reward > record:
            record = reward
            if step < steps - 2:
                allowed, count, best, step = allowed - count + quota, 0, -math.inf, step + 1
                granted.append(allowed)
        elif count >= allowed and step < steps - 2:
            allowed, count, best, step = quota, 0, -math.inf, step + 1
            granted.append(allowed)
    return at, granted, best


def test_a_record_at_every_third_try_by_hand() -> None:
    """Quota 5: leave after 3, carry 2 on, and so on; the last step takes all that remains of 24."""
    script = [(k + 1) // 3 * 1.0 if k % 3 == 2 else -1.0 for k in range(24)]
    found = _run([script], steps=5, budget=25, starts=1, quota=5)
    assert found.trace.step[:, 0].tolist() == [0] + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 15
    assert found.trace.chosen[1:, 0].nonzero().flatten().tolist() == [2, 5, 8]
    assert float(found.reward) == 8
    assert found.evaluations == 25


def test_an_exhausted_step_moves_on_and_keeps_the_record() -> None:
    """A record of 10 at once; then nothing beats it, so every step takes its whole quota and the best it has."""
    script = [10.0] + [float(k % 4) for k in range(40)]
    found = _run([script], steps=4, budget=20, starts=1, quota=4)
    # 1 try, then the quota of 4 and the 3 left over, then the rest.
    assert found.trace.step[:, 0].tolist() == [0, 1] + [2] * 7 + [3] * 11
    assert float(found.reward) == 3


@pytest.mark.parametrize(
    ("steps", "budget", "quota"), [(2, 9, 3), (3, 20, 5), (10, 120, 11), (10, 200, 2), (7, 60, 8)]
)
def test_chains_follow_the_transcript(steps: int, budget: int, quota: int) -> None:
    """Random rewards, many chains at once, each with its own step: steps, quotas and result of the scalar algorithm."""
    generator = torch.Generator().manual_seed(budget)
    drift = torch.linspace(0, 1, budget, dtype=torch.float64)
    scripts = (torch.randn(12, budget, generator=generator, dtype=torch.float64) + 2 * drift).tolist()
    found = _run(scripts, steps, budget, starts=1, quota=quota)
    moves = found.trace.chosen[1:]
    for chain, script in enumerate(scripts):
        at, granted, best = _transcript(script, steps, budget, quota)
        assert found.trace.step[1:, chain].tolist() == at
        assert float(found.reward[chain]) == best
        # Tries at each step but the last, and what was left when it moved on: together every quota that was ever given.
        ends = moves[:, chain].nonzero().flatten().tolist()
        tries = torch.tensor([-1, *ends]).diff().tolist()
        assert len(ends) == steps - 2
        assert all(c <= q for c, q in zip(tries, granted, strict=False))
        assert sum(tries) + granted[-1] - quota <= quota * (steps - 2)
        assert sum(tries) + (budget - 1 - sum(tries)) == budget - 1 == found.evaluations - 1


def test_leftovers_are_kept_if_every_step_improves() -> None:
    """Then tries plus the leftover that the last step inherits are exactly the quotas given."""
    script = [float(k) for k in range(1, 60)]
    found = _run([script], steps=6, budget=40, starts=1, quota=6)
    _, granted, _ = _transcript(script, 6, 40, 6)
    assert granted == [6, 11, 16, 21, 26]
    assert found.trace.chosen[1:, 0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert 4 + granted[-1] == 5 * 6


def test_the_default_quota_and_starts_are_the_papers() -> None:
    """100 evaluations, 5 steps: 10 starts and quotas of 18; a flat reward then spends 3 · 18 and 36 at the last step."""
    found = _run([[-1.0] * 100], steps=5, budget=100)
    steps = found.trace.step[1:, 0]
    assert found.trace.evaluations[0] == 10
    assert torch.bincount(steps).tolist() == [0, *[18] * 3, 36]


def test_the_result_is_the_sample_at_the_end() -> None:
    """The posterior mean at the last noisy time, of the best proposal; the state it came from was the best of its step."""
    path, target = PATH, torch.tensor([1.0, -1.0])
    times_seen = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        times_seen.append(t)
        return x / (1 + t.to(x).reshape(-1, 1))

    transition = exact_transition(LinearGrid()(4, path), path)
    found = rollover_budget(
        denoise,
        torch.zeros(3, 2),
        transition,
        lambda x0: -(x0 - target).square().sum(1),
        Budget(40),
        generators=generators_of(range(3)),
    )
    torch.testing.assert_close(found.reward, -(found.x - target).square().sum(1).double())
    assert times_seen[-1].flatten().tolist() == [0.25]
    last = found.trace.step == 3
    assert (found.reward == torch.where(last, found.trace.reward, -torch.inf).amax(0)).all()


def test_bad_numbers_are_refused() -> None:
    for options in ({"starts": 0}, {"quota": 0}):
        with pytest.raises(InputError, match="expected starts >= 1 and quota >= 1"):
            _run([[0.0] * 50], 4, 50, **options)
    with pytest.raises(InputError, match="at least 22 evaluations for 1 starts and 2 steps of 10 proposals"):
        _run([[0.0] * 50], 4, 21, starts=1, quota=10)
    flow = exact_transition(LinearGrid()(4, PATH), PATH, PowerDiffusion(0.0))
    with pytest.raises(InputError, match="steps that draw noise"):
        rollover_budget(
            lambda x, t: x,
            torch.zeros(1, 2),
            flow,
            Scripted([[0.0]]),
            Budget(50),
            generators=generators_of([0]),
        )
