"""Trees against plain loops, the particle filter against the tilted law."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.diffusions import AncestralDiffusion, PowerDiffusion
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.search_trees import code, smc, svdd
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.times import LinearGrid
from radiata_core.transitions import exact_transition

PATH = LinearPath()
VARIANCE = 0.6
SDE = exact_transition(LinearGrid()(6, PATH), PATH)


def _denoise(x: Tensor, t: Tensor) -> Tensor:
    """Data N(0, 0.6)."""
    t = t.to(x).reshape(-1, *(1,) * (x.ndim - 1))
    return (1 - t) * VARIANCE / ((1 - t) ** 2 * VARIANCE + t**2) * x


def _reward(x0: Tensor) -> Tensor:
    return -(x0 - 1.5).square().sum(1)


def _noise(seeds: list[int]) -> Tensor:
    return noise_of(generators_of(seeds, 0), (2,), torch.float64)


@pytest.mark.parametrize(("every", "beams", "copies"), [(1, 1, 4), (2, 1, 3), (3, 1, 5), (4, 2, 3)])
def test_trees_are_what_the_plain_loop_makes(every: int, beams: int, copies: int) -> None:
    """One state at a time, the best of K copies after every block; the last block is shorter."""
    (g,) = generators_of([3], 1)
    states = [_noise([3])[0]] + [noise_of([g], (2,), torch.float64)[0] for _ in range(beams - 1)]
    means = [_denoise(x[None], SDE.times[0])[0] for x in states]
    level = 0
    while level < 5:
        many = [(x, m) for x, m in zip(states, means, strict=True) for _ in range(copies)]
        for _ in range(min(every, 5 - level)):
            a, b, c = (float(v[level]) for v in (SDE.state, SDE.mean, SDE.noise))
            moved = [a * x + b * m + c * noise_of([g], (2,), torch.float64)[0] for x, m in many]
            level += 1
            many = [(x, _denoise(x[None], SDE.times[level])[0]) for x in moved]
        rewards = [float(_reward(m[None])) for _, m in many]
        groups = [range(k * copies, (k + 1) * copies) for k in range(beams)]
        best = [max(group, key=rewards.__getitem__) for group in groups]
        states, means = [many[i][0] for i in best], [many[i][1] for i in best]
    expected = max(means, key=lambda m: float(_reward(m[None])))

    search = svdd if every == 1 else code
    options = {} if every == 1 else {"every": every}
    found = search(
        _denoise,
        _noise([3]),
        SDE,
        _reward,
        Budget(200),
        generators=generators_of([3], 1),
        beams=beams,
        copies=copies,
        **options,
    )
    torch.testing.assert_close(found.x[0], expected)


def test_a_constant_reward_leaves_plain_samples() -> None:
    """smc never resamples, and what it returns is the first particle's own SDE path; svdd with one copy, too."""
    seeds = [0, 1, 2]
    for count in (1, 5):
        generators = generators_of(seeds, 1)
        starts = torch.cat(
            [
                torch.cat([_noise([s]), noise_of([g] * (count - 1), (2,), torch.float64)])
                if count > 1
                else _noise([s])
                for s, g in zip(seeds, generators, strict=True)
            ]
        )
        owners = [g for g in generators for _ in range(count)]
        plain = integrate(_denoise, starts, SDE.table, generators=owners)[::count]
        found = smc(
            _denoise,
            _noise(seeds),
            SDE,
            lambda x0: torch.full((len(x0),), 3.0),
            Budget(500),
            generators=generators_of(seeds, 1),
            particles=count,
            threshold=1.0,
        )
        assert not found.trace.chosen.any()
        torch.testing.assert_close(found.x, plain)
        if count == 1:
            tree = svdd(
                _denoise,
                _noise(seeds),
                SDE,
                _reward,
                Budget(500),
                generators=generators_of(seeds, 1),
                beams=1,
                copies=1,
            )
            torch.testing.assert_close(tree.x, plain)


def test_smc_draws_from_the_tilted_law() -> None:
    """Gaussian data and r = 0.8 x: the mean of p exp(r) is 0.8 v, v the sampler's own variance (known exactly).

    200 chains of 40 particles, |z| < 4: fails by chance with probability 6e-5 (the filter's bias is O(1/40) of the shift,
    well inside). Without the tilt the mean would be 0, and z about 10.
    """
    rows = exact_transition(LinearGrid()(8, PATH), PATH, AncestralDiffusion())
    variance = 1.0
    for a, b, c, t in zip(
        *(v.tolist() for v in (rows.state, rows.mean, rows.noise, rows.times[:-1])), strict=True
    ):
        variance = (a + b * float(_denoise(torch.ones(1, 1), torch.tensor(t)))) ** 2 * variance + c**2
    seeds = list(range(200))
    found = smc(
        _denoise,
        noise_of(generators_of(seeds, 0), (1,), torch.float64),
        rows,
        lambda x0: 0.8 * x0[:, 0],
        Budget(320),
        generators=generators_of(seeds, 1),
        temperature=1.0,
        threshold=0.9,
        tilted=True,
    )
    assert found.trace.chosen.any()
    assert abs(float(found.x.mean()) - 0.8 * variance) / math.sqrt(variance / 200) < 4
    assert float(found.x.mean()) / math.sqrt(variance / 200) > 5


def test_temperature_draws_by_the_softmax() -> None:
    """Three copies with rewards 0, 1, 2 at temperature 1: counts of 600 chains within 4 standard deviations."""
    seeds = list(range(600))
    rows = exact_transition(LinearGrid()(2, PATH), PATH)
    order = {"calls": 0}

    def reward(x0: Tensor) -> Tensor:
        order["calls"] += 1
        return torch.arange(len(x0)) % 3 if order["calls"] == 2 else torch.zeros(len(x0))

    found = svdd(
        _denoise,
        torch.zeros(600, 1),
        rows,
        reward,
        Budget(4),
        generators=generators_of(seeds, 1),
        beams=1,
        copies=3,
        temperature=1.0,
    )
    shares = torch.tensor([0.0, 1.0, 2.0]).softmax(0).double()
    counts = torch.bincount(found.reward.long(), minlength=3) / 600
    assert ((counts - shares).abs() < 4 * (shares * (1 - shares) / 600).sqrt()).all()


def test_bad_numbers_are_refused() -> None:
    def run(search, **options) -> None:
        search(
            _denoise,
            _noise([0]),
            options.pop("rows_of", SDE),
            _reward,
            Budget(60),
            generators=generators_of([0]),
            **options,
        )

    for options in ({"beams": 0}, {"starts": 0}, {"temperature": -1.0}, {"temperature": math.nan}):
        with pytest.raises(InputError, match="expected beams, starts, every >= 1"):
            run(svdd, **options)
    with pytest.raises(InputError, match="expected beams, starts, every >= 1"):
        run(code, every=0)
    with pytest.raises(InputError, match="expected copies >= 1"):
        run(code, copies=0)
    with pytest.raises(InputError, match="at least 62 evaluations for 2 beams with 6 copies"):
        run(svdd, copies=6)
    for options in ({"particles": 0}, {"temperature": 0.0}, {"threshold": 1.5}):
        with pytest.raises(InputError, match="expected particles >= 1"):
            run(smc, **options)
    flow = exact_transition(LinearGrid()(6, PATH), PATH, PowerDiffusion(0.0))
    for search in (svdd, code, smc):
        with pytest.raises(InputError, match="steps that draw noise"):
            run(search, rows_of=flow)
