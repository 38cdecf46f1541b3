"""A budget of network evaluations that is counted, shared and never exceeded.

The unit is one row through the network. A search runs one independent chain a result, and a budget is what *one chain* may
spend: with `Budget(500)` a search for 8 results shows the network 8 · 500 rows at most, and each result is the same as it
would be alone. A part of a budget spends from the whole:

    budget = Budget(500)
    first = budget.part(50)      # at most 50, and they are taken from the 500
    first.spend(20)              # first.left == 30, budget.left == 480

Spending is asked for *before* the network is called, so that a refusal costs nothing.

References:
    Kim et al., 2025, https://arxiv.org/abs/2503.19385 (methods are compared at equal evaluations, 500).
"""

from radiata_core.errors import InputError

__all__ = ["Budget"]


class Budget:
    """Network evaluations a chain may use.

    Args:
        evaluations: Rows through the network, >= 1.
        whole: The budget of which this is a part; see `part`.

    Raises:
        InputError: no positive whole number.
    """

    def __init__(self, evaluations: int, whole: "Budget | None" = None) -> None:
        if isinstance(evaluations, bool) or not isinstance(evaluations, int) or evaluations < 1:
            raise InputError(
                f"expected a budget of 1 evaluation or more; got {evaluations!r}. Give the evaluations one result may cost."
            )
        self.evaluations = evaluations
        self.spent = 0
        self._whole = whole

    @property
    def left(self) -> int:
        """Evaluations that may still be spent, >= 0; for a part also limited by what the whole has left."""
        own = self.evaluations - self.spent
        return own if self._whole is None else min(own, self._whole.left)

    def spend(self, evaluations: int) -> None:
        """Count evaluations, here and in the whole.

        Raises:
            InputError: more than is left; nothing is counted then.
        """
        if evaluations < 0 or evaluations > self.left:
            raise InputError(
                f"expected at most {self.left} further evaluations of {self.evaluations}; got {evaluations}. "
                "Give a larger budget, or fewer steps or particles."
            )
        self.spent += evaluations
        if self._whole is not None:
            self._whole.spend(evaluations)

    def part(self, evaluations: int) -> "Budget":
        """A budget that spends from this one.

        Raises:
            InputError: more than is left.
        """
        self.require(evaluations, "a part of it")
        return Budget(evaluations, self)

    def require(self, evaluations: int, purpose: str) -> None:
        """Nothing, if as many evaluations are left.

        Args:
            evaluations: How many are needed.
            purpose: What they are for, for the message.

        Raises:
            InputError: fewer are left.
        """
        if evaluations > self.left:
            raise InputError(
                f"expected a budget of at least {evaluations} evaluations for {purpose}; got {self.left}. "
                "Give a larger budget, or fewer steps or particles."
            )

    def __repr__(self) -> str:
        return f"Budget({self.evaluations}, spent={self.spent}, left={self.left})"
