"""Files that somebody else wrote: read, or refused in one line, and never with more memory than they may ask for.

Two things stand around every reader of the house:

    check_declared(size, path)                 before anything of that size is made: a header of 348 bytes can declare a
                                               petabyte, and a megabyte of gzip can hold a gigabyte
    with foreign("expected …; got …", "…"):    around the parser, which may raise whatever its bytes happen to mean

The limit is `MAX_BYTES`, or what the environment variable `RADIATA_MAX_BYTES` says. It is one of what a file declares, once
unpacked, not of what a program needs in all: scaled to float64 an int16 volume takes four times as much.
"""

import os
from pathlib import Path
from types import TracebackType

from radiata_core.errors import InputError

__all__ = ["MAX_BYTES", "VARIABLE", "allowed_bytes", "check_declared", "foreign", "foreign_text"]

MAX_BYTES = 8 * 2**30
"""Bytes that one file may declare, unless the environment says otherwise."""
VARIABLE = "RADIATA_MAX_BYTES"
"""Name of the environment variable that sets another limit, in bytes."""
DEFLATE = 1032
"""How many times larger than itself deflate (gzip, zip, zlib) can make its content, at most (258 bytes of 2 bits)."""


def allowed_bytes() -> int:
    """Bytes that a file may declare.

    Raises:
        InputError: the variable is no whole number > 0.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return MAX_BYTES
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text)):
        raise InputError(
            f"expected {VARIABLE} as a whole number of bytes > 0; got {text!r}. Set it to {MAX_BYTES}, or unset it."
        )
    return int(text)


def check_declared(size: int, path: Path | str, what: str = "values") -> None:
    """Nothing, if a file may declare so much.

    Args:
        size: Bytes.
        path: Of the file, for the message.
        what: Of what, for the message.

    Raises:
        InputError: it is more than `allowed_bytes()`.
    """
    limit = allowed_bytes()
    if size > limit:
        raise InputError(
            f"expected at most {limit:,} bytes of {what}; {path} declares {size:,}. If it is right, allow more: set "
            f"{VARIABLE}."
        )


class foreign:
    """A context in which whatever a parser raises becomes an `InputError`: "{what} ({reason}). {remedy}".

    An `InputError` passes as it is, and so does what is no `Exception`: an interruption.

    Args:
        what: "expected …; got …".
        remedy: What to do.
    """

    def __init__(self, what: str, remedy: str = "Copy it again.") -> None:
        self.what, self.remedy = what, remedy

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, InputError):
            reason = " ".join(str(error).split())[:140] or type(error).__name__
            raise InputError(f"{self.what} ({reason}). {self.remedy}") from None


def foreign_text(path: Path, what: str, encoding: str = "utf-8") -> str:
    """The text of a file.

    Args:
        path: Of the file.
        what: What it should be, for the message: "a table of labels".
        encoding: Of its bytes.

    Raises:
        InputError: it cannot be read, is larger than a file may declare, or is no text.
    """
    with foreign(f"expected {what}; got {path}, which cannot be read as text", "Save it as UTF-8."):
        check_declared(path.stat().st_size, path, "text")
        return path.read_text(encoding=encoding)
