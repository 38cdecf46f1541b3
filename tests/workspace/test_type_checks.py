"""The suite's type checker, which keeps its checks, refuses what beartype refuses: the second time as the first."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor
from type_checks import beartyped

from radiata_core.coefficients import checked_times
from radiata_core.paths import LinearPath

Row = Float[Tensor, " n"]
Square = Float[Tensor, "n n"]


def made(argument: Any, result: Any) -> Callable[..., Any]:
    """A function made anew, as one within another is: the name is the same, the annotations are given."""

    @jaxtyped(typechecker=beartyped)
    def inner(x: argument, wide: bool = False) -> result:
        return x[None].expand(len(x), -1) if wide else x

    return inner


def test_a_function_made_again_is_checked_again() -> None:
    x = torch.zeros(3)
    for _ in range(3):
        function = made(Row, Row)
        assert function(x) is x
        with pytest.raises(TypeCheckError, match="parameters"):
            function(torch.zeros(3, 3))
        with pytest.raises(TypeCheckError, match="parameters"):
            function(x, wide="yes")
        with pytest.raises(TypeCheckError, match="return value"):
            function(x, True)


def test_other_annotations_are_other_checks() -> None:
    """Also where everything else is the same, and where sizes are shared between arguments and result."""
    x = torch.zeros(3)
    assert made(Row, Square)(x, True).shape == (3, 3)
    assert made(Any, Row)(x) is x
    with pytest.raises(TypeCheckError, match="return value"):
        made(Row, Square)(x)
    with pytest.raises(TypeCheckError, match="parameters"):
        made(Square, Row)(x)


def test_annotations_that_cannot_be_compared_are_checked_too() -> None:
    from typing import Annotated

    @beartyped
    def plain(x: Annotated[int, ["no hash"]]) -> int:
        return x

    assert plain(1) == 1
    with pytest.raises(BeartypeCallHintViolation):
        plain("one")


def test_the_packages_are_instrumented() -> None:
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            LinearPath().coefficients("noon")  # type: ignore[arg-type]
    assert hasattr(checked_times, "__wrapped__")
