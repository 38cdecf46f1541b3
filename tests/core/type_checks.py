"""The type checker that the suite instruments the packages with: beartype, once a function of the source.

jaxtyping decorates a function whenever its `def` is executed, which for one inside another function is at every call of the
outer one, and beartype then writes and compiles the same checks again: milliseconds, where a field in an ODE takes one. What
is handed over is an empty function with the annotations alone, so one that has the same name, arguments and annotations as
an earlier one has the same checks.
"""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

__all__ = ["beartyped"]

_MOST = 20_000
"""Functions kept; annotations made anew at every call would fill the memory."""
_checked: dict[tuple[Any, ...], Callable[..., Any]] = {}


def beartyped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and its return value checked."""
    if not inspect.isfunction(function):
        return beartype(function)
    code = function.__code__
    key = (
        function.__module__,
        function.__qualname__,
        code.co_code,
        code.co_flags,
        code.co_varnames,
        code.co_posonlyargcount,
        code.co_argcount,
        code.co_kwonlyargcount,
        len(function.__defaults__ or ()),
        tuple(sorted(function.__kwdefaults__ or ())),
        tuple(function.__annotations__),
        *function.__annotations__.values(),
    )
    try:
        if key not in _checked:
            checks = beartype(function)
            if len(_checked) >= _MOST:
                return checks
            _checked[key] = checks
        return _checked[key]
    except TypeError:  # an annotation without a hash
        return beartype(function)
