"""The commands that are killed: their words, on inputs of seconds, and what a user adds when running one again.

Inputs are made once for all commands of a module, in a folder that every trial sees as `in`; a command writes to `out`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        application: As in `radiata-t1`, without the first word.
        words: Verb and options.
        make: Writes the inputs into a folder.
        again: Words that a user adds to go on after an interruption.
        items: Patterns, below the folder of a trial, of work that is finished once it is there: not to be made again.
        name: Of the row in the table; by default application and verb.
        quick: Part of the default suite.
        injured: In the default suite, other faults befall it too.
        changed: Input that is another at the second run in `injuries.input_changed`: `other-NAME` beside it is put there.
        made_anew: What was made of it is then made again; otherwise the command refuses and says so.
    """

    application: str
    words: tuple[str, ...]
    make: Callable[[Path], None]
    again: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    name: str = ""
    quick: bool = False
    injured: bool = False
    changed: str = ""
    made_anew: bool = False

    @property
    def title(self) -> str:
        """Name of the row."""
        return self.name or f"{self.application} {self.words[0]}"

    @property
    def package(self) -> str:
        return f"radiata_{self.application}"
