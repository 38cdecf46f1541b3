"""What all searches share: counting, conditions, rows, and what they refuse."""

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser
from radiata_core.budget import Budget
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.particles import Particles, checked_reward
from radiata_core.paths import LinearPath, VEPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import LinearGrid
from radiata_core.transitions import PowerDiffusion, exact_transition

PATH = LinearPath()


def _denoiser(path=PATH):
    return GaussianDenoiser(
        torch.zeros(3, dtype=torch.float64), Diagonal(torch.ones(3, dtype=torch.float64)), path
    )


def _reward(x: Tensor) -> Tensor:
    return x.sum(1)


def _particles(**changes) -> Particles:
    path = changes.pop("path", PATH)
    given = {
        "denoiser": _denoiser(),
        "noise": torch.zeros(2, 3, dtype=torch.float64),
        "transition": exact_transition(LinearGrid()(4, path), path),
        "reward": _reward,
        "budget": Budget(100),
        "generators": generators_of([5, 6], 1),
        "conditions": {},
    }
    return Particles(**given | changes)


def test_chunks_change_nothing_but_memory() -> None:
    """Evaluations, rewards and moves of 5 particles, 2 chains, whole and three rows at a time; the network sees no more."""
    seen = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        seen.append(len(x))
        return _denoiser()(x, t)

    made = []
    for rows in (None, 3):
        walk = _particles(denoiser=watched, rows=rows)
        x = walk.starts(5)
        x0 = walk.look(x, torch.tensor([1, 2]))
        made.append((x, x0, walk.score(x0, 1), walk.move(x, x0, torch.tensor([1, 2]))))
        assert walk.budget.spent == 5
    assert seen == [10, 3, 3, 3, 1]
    for whole, parts in zip(*made, strict=True):
        torch.testing.assert_close(whole, parts)


def test_starts_begin_with_the_given_noise_and_have_its_law() -> None:
    path = VEPath(sigma_max=20.0)
    noise = torch.full((2, 3), 7.0, dtype=torch.float64)
    walk = _particles(path=path, denoiser=_denoiser(path), noise=noise)
    x = walk.starts(3)
    assert torch.equal(x[:, 0], noise)
    expected = 20.0 * torch.stack([noise_of([g] * 2, (3,), torch.float64) for g in generators_of([5, 6], 1)])
    torch.testing.assert_close(x[:, 1:], expected)


def test_conditions_follow_their_chain() -> None:
    def shifted(x: Tensor, t: Tensor, *, shift: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        assert mask is None
        return scale * (x + shift)

    shift = torch.tensor([[1.0], [10.0]], dtype=torch.float64)
    walk = _particles(denoiser=shifted, conditions={"shift": shift, "scale": 2.0, "mask": None}, rows=3)
    x = walk.starts(4)
    torch.testing.assert_close(walk.look(x, 0), 2 * (x + shift[:, None]))


def test_a_broken_network_is_named_with_step_and_time() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t.reshape(-1, 1) < 0.6, torch.nan, x)

    walk = _particles(denoiser=broken)
    x = walk.starts(2)
    walk.look(x, 1)
    with pytest.raises(InputError, match=r"NaN or infinity at step 2, t=0\.5\."):
        walk.look(x, 2)
    with pytest.raises(InputError, match=r"NaN or infinity at step 3, t=0\.25\."):
        walk.look(x, torch.tensor([1, 3]))


def test_the_budget_is_asked_before_the_network() -> None:
    def never(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("called")

    walk = _particles(denoiser=never, budget=Budget(3))
    with pytest.raises(InputError, match="expected at most 3 further evaluations of 3; got 4"):
        walk.look(walk.starts(4), 0)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda x: x.sum(1).log(), "expected finite rewards; got -inf at step 2, t=0.5"),
        (lambda x: x.sum(1) * torch.nan, "expected finite rewards; got nan"),
        (lambda x: x.sum(), r"expected a reward of shape \(4,\), one number a row; got \(\)"),
        (lambda x: x, r"got \(4, 3\)"),
        (lambda x: 0.5, "got float"),
    ],
)
def test_a_reward_is_one_finite_number_a_row(reward, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_reward(reward, torch.zeros(4, 3), "step 2, t=0.5")


def test_bad_input_is_refused() -> None:
    class Heavy:
        path, kernel = PATH, "StudentT(8)"

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    cases = [
        ({"denoiser": _denoiser(VEPath())}, "wrap the denoiser in OnPath"),
        ({"denoiser": Heavy()}, "expected Gaussian noise"),
        ({"noise": torch.zeros(2, 3, dtype=torch.int64)}, "expected floating-point noise"),
        ({"noise": torch.zeros(0, 3)}, "at least one chain"),
        ({"generators": generators_of([1])}, "expected one generator a chain, 2 here; got 1"),
        ({"conditions": {"age": torch.zeros(3, 1)}}, "expected one row of age a chain, 2 here; got 3"),
        ({"rows": 0}, "expected rows >= 1"),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            _particles(**changes)
    flow = exact_transition(LinearGrid()(4, PATH), PATH, PowerDiffusion(0.0))
    with pytest.raises(InputError, match="expected at least 2 steps that draw noise"):
        _particles(transition=flow).require_random()
    walk = _particles(transition=exact_transition(LinearGrid()(4, PATH), PATH).table)
    with pytest.raises(
        InputError, match="expected a Transition, whose steps stand alone; got a MultistepTable"
    ):
        walk.require_random()
    with pytest.raises(InputError, match="a table serves best_of_n only"):
        walk.move(walk.starts(1), walk.starts(1), 0)
