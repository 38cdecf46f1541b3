"""The one error a user is meant to read: expected, got, what to do.

Commands print it as a single line and exit with 1; the library raises it as a `ValueError`.

A message quotes names and words out of files that anybody may have written. So that none of them can add lines to a log, or
colour and rewrite a terminal, line breaks become spaces and other control characters their escapes, and what is longer than
`LONGEST` characters is shortened in its middle.
"""

import unicodedata

__all__ = ["LONGEST", "InputError"]

LONGEST = 2000
"""Characters of a message."""
_UNPRINTED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class InputError(ValueError):
    """Input that cannot be used. The message is one line: expected, got, what to do."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(str(message)))


def _one_line(text: str) -> str:
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 3 :]}"
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\r\t\v\f\u2028\u2029":
        return " "
    if unicodedata.category(character) in _UNPRINTED:
        return character.encode("unicode_escape").decode("ascii")
    return character
