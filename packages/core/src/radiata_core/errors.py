"""The one error a user is meant to read: expected, got, what to do.

Commands print it as a single line and exit with 1; the library raises it as a `ValueError`.
"""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that cannot be used. The message is one line: expected, got, what to do."""
