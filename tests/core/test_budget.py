"""A budget counts, shares and refuses."""

import pytest

from radiata_core.budget import Budget
from radiata_core.errors import InputError


def test_spending_is_counted_and_refused_before_it_happens() -> None:
    budget = Budget(10)
    budget.spend(4)
    budget.spend(0)
    assert (budget.spent, budget.left) == (4, 6)
    for more in (7, -1):
        with pytest.raises(InputError, match="expected at most 6 further evaluations of 10"):
            budget.spend(more)
    assert budget.spent == 4
    budget.spend(6)
    assert budget.left == 0


def test_a_part_spends_from_the_whole() -> None:
    whole = Budget(10)
    part = whole.part(6)
    inner = part.part(5)
    inner.spend(3)
    assert (inner.left, part.left, whole.left) == (2, 3, 7)
    whole.spend(6)
    assert (inner.left, part.left, whole.left) == (1, 1, 1)
    with pytest.raises(InputError, match="at most 1 further"):
        inner.spend(2)
    assert (inner.spent, part.spent, whole.spent) == (3, 3, 9)
    with pytest.raises(InputError, match="at least 2 evaluations for a part"):
        whole.part(2)


@pytest.mark.parametrize("evaluations", [0, -3, True])
def test_a_budget_is_a_positive_number(evaluations: int) -> None:
    with pytest.raises(InputError, match="expected a budget of 1 evaluation or more"):
        Budget(evaluations)
