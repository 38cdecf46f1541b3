"""What an application offers on its page: commands with a few numbers left open, and what of their output is looked at.

A preset's command is a tuple of words, the application's own verb first. Words may hold {scan}, {out} and the names of
the preset's fields; a field is a number within a range or one of a few words, never text. So the arguments that a browser
can bring about are a finite set that stands in the source, and no shell sees them:

    Preset("denoise", "Denoise", …, (("restore", "{scan}", "--out", "{out}", "--noise", "{noise}"),), …)
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from radiata_core.errors import InputError

__all__ = ["Choice", "Number", "Offer", "Preset", "Reader", "Shown"]

_HOLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Number:
    """A number that the page asks for.

    Attributes:
        name: In the words of the command, as {name}.
        label: Beside its box, with its unit.
        low: Smallest value.
        high: Largest value.
        default: In the box at first.
        whole: Integers only.
    """

    name: str
    label: str
    low: float | int
    high: float | int
    default: float | int
    whole: bool = True

    def word(self, given: Any) -> str:
        """The number as the command line wants it.

        Raises:
            InputError: no number, or out of range.
        """
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not math.isfinite(given)
            or not self.low <= given <= self.high
            or (self.whole and given != int(given))
        ):
            kind = "a whole number" if self.whole else "a number"
            shown = repr(given)[:40]
            raise InputError(
                f"expected {kind} of {self.low:g} to {self.high:g} as {self.label}; got {shown}. Change it."
            )
        return str(int(given)) if self.whole else format(float(given), ".10g")

    def card(self) -> dict[str, Any]:
        """For the page."""
        step = 1 if self.whole else "any"
        asked = {"low": self.low, "high": self.high, "default": self.default, "step": step}
        return {"kind": "number", "name": self.name, "label": self.label, **asked}


@dataclass(frozen=True)
class Choice:
    """One of a few words.

    Attributes:
        name: In the words of the command, as {name}.
        label: Beside the list.
        options: Word of the command line → what the page calls it; the first is the default.
    """

    name: str
    label: str
    options: Mapping[str, str]

    def word(self, given: Any) -> str:
        """The word itself.

        Raises:
            InputError: not one of them.
        """
        if not isinstance(given, str) or given not in self.options:
            shown = repr(given)[:40]
            raise InputError(
                f"expected one of {', '.join(self.options)} as {self.label}; got {shown}. Change it."
            )
        return given

    def card(self) -> dict[str, Any]:
        """For the page."""
        return {"kind": "choice", "name": self.name, "label": self.label, "options": dict(self.options)}


@dataclass(frozen=True)
class Shown:
    """A volume that a command writes and the page shows.

    Attributes:
        pattern: Of the file's name, in the output folder.
        name: In the viewer.
        kind: "image", "labels", "spread" or "difference".
        unit: Of the intensities.
    """

    pattern: str
    name: str
    kind: str = "image"
    unit: str = ""


@dataclass(frozen=True)
class Preset:
    """A button of the page.

    Attributes:
        key: In requests.
        title: On the button.
        text: What it does, how long it takes and on which machine.
        commands: Run one after another; words of the application's own command line.
        reads: Name of the reader whose file {scan} is; None: nothing is uploaded.
        fields: What is asked for.
        shows: What the viewer gets, besides the uploaded volume.
        compare: Put the first image of `shows` right of the slider, the upload left.
    """

    key: str
    title: str
    text: str
    commands: tuple[tuple[str, ...], ...]
    reads: str | None = None
    fields: tuple[Number | Choice, ...] = ()
    shows: tuple[Shown, ...] = ()
    compare: bool = False

    def words(self, given: Mapping[str, Any], paths: Mapping[str, str]) -> list[list[str]]:
        """The commands with their holes filled.

        Args:
            given: Values of the fields, from a browser: anything at all.
            paths: {out}, and {scan} if the preset reads one; made by the server.

        Raises:
            InputError: a value that its field refuses, or a name that is no field's.
        """
        known = {one.name for one in self.fields}
        if unknown := sorted(str(name) for name in set(given) - known):
            shown = repr(unknown[0])[:40]
            raise InputError(f"expected the fields {', '.join(sorted(known)) or 'none'}; got {shown}.")
        filled = {one.name: one.word(given.get(one.name)) for one in self.fields} | dict(paths)
        return [[_HOLE.sub(lambda hole: filled[hole[1]], word) for word in words] for words in self.commands]

    def card(self) -> dict[str, Any]:
        """For the page."""
        fields = [one.card() for one in self.fields]
        return {
            "key": self.key,
            "title": self.title,
            "text": self.text,
            "reads": self.reads,
            "fields": fields,
        }


@dataclass(frozen=True)
class Reader:
    """A kind of file that may be uploaded.

    Attributes:
        name: In requests.
        label: On the page.
        suffixes: Names that are accepted; the stored file gets one of them and nothing else of its name.
        check: "module:function" that reads a path and raises `InputError`; it runs in a child. Empty: a volume.
    """

    name: str
    label: str
    suffixes: tuple[str, ...]
    check: str = ""


VOLUME = Reader("volume", "a volume (.nii, .nii.gz, .mgz, .mgh)", (".nii.gz", ".nii", ".mgz", ".mgh"))
"""What the house's reader of volumes takes."""


@dataclass(frozen=True)
class Offer:
    """All that an application serves.

    Attributes:
        app: Name of its command, e.g. "radiata-t1".
        module: Its module with `main()`.
        summary: One sentence for the head of the page.
        presets: The buttons.
        readers: Kinds of files that presets read.
    """

    app: str
    module: str
    summary: str
    presets: tuple[Preset, ...]
    readers: Sequence[Reader] = field(default=(VOLUME,))

    def argv(self, words: Sequence[str]) -> list[str]:
        """The command in a process of its own: this Python, the application's own command line."""
        # sys.argv[0] is what run.json records as the command.
        code = f"import sys; sys.argv[0] = {self.app!r}; from {self.module} import main; main()"
        return [sys.executable, "-c", code, *words]
