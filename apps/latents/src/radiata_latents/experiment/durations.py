"""Durations as people write them, always with their unit: `20ms`, `5 ms`, `0.02s`.

A bare number is refused: 20 is milliseconds to one reader and seconds to another, and both run.
"""

import re

from radiata_core.errors import InputError

__all__ = ["milliseconds", "seconds_of"]

_UNITS = {"ms": 1e-3, "s": 1.0}


def seconds_of(text: str, option: str) -> float:
    """Seconds of a duration with its unit.

    Args:
        text: A number and ms or s.
        option: Whose value it is, such as --bin, for the message.

    Raises:
        InputError: no unit, another unit, no number.
    """
    match = re.fullmatch(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zA-Zµ]*)\s*", text)
    number, unit = match.groups() if match else ("", "")
    if not match or unit not in _UNITS:
        hint = f", such as {option} {number}ms or {option} {number}s" if match and not unit else ""
        raise InputError(f"expected {option} with its unit, ms or s; got {text!r}. Write the unit{hint}.")
    return float(number) * _UNITS[unit]


def milliseconds(seconds: float) -> str:
    """The same for a table: 20 ms."""
    return f"{1000 * seconds:g} ms"
