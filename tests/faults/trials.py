"""One command again and again, each time in a new folder that sees the same inputs: undisturbed, killed, ill-used.

A trial's folder holds `in`, a link to the inputs of the application, and what the command makes.
"""

import importlib
import pkgutil
import shutil
import tempfile
from pathlib import Path

from commands import Command
from kills import Ended, Moment, imported, in_child
from snapshots import broken, content, finals, litter

__all__ = ["Trials", "inputs_of"]


def inputs_of(command: Command, top: Path) -> Path:
    """The inputs of a command, made once below a folder for all that share them; and all that it may import is imported."""
    inputs = top / command.application / command.make.__module__
    if inputs.is_dir():
        return inputs
    for one in pkgutil.walk_packages(
        importlib.import_module(command.package).__path__, f"{command.package}."
    ):
        imported((one.name,))
    import torch

    torch.set_num_threads(1)
    inputs.mkdir(parents=True)
    ended = in_child(lambda: command.make(inputs) or 0, inputs.parent)
    if ended.code:
        raise SystemExit(f"no inputs of {command.title}:\n{ended.said}")
    imported(ended.modules)
    return inputs


class Trials:
    """One command below a folder.

    Attributes:
        first: The command, as a function that returns its exit code.
        again: As a user calls it to go on.
        wanted: Final name → content of the undisturbed result.
        undisturbed: How an undisturbed run ended, in a process that has imported everything.
    """

    def __init__(self, command: Command, top: Path) -> None:
        self.command = command
        self.inputs = inputs_of(command, top)
        cli = importlib.import_module(f"{command.package}.cli")
        self.first = lambda: cli.run(list(command.words))
        self.again = lambda: cli.run([*command.words, *command.again])
        folder = self.new()
        cold = in_child(self.first, folder)
        if cold.code:
            raise SystemExit(f"{command.title} fails undisturbed:\n{cold.said}")
        self.wanted = {name: content(path) for name, path in finals(folder).items()}
        self.size = sum(path.stat().st_size for path in finals(folder).values())
        self.largest = max(path.stat().st_size for path in finals(folder).values())
        imported(cold.modules)
        other = self.new()
        self.undisturbed = in_child(self.first, other)
        if differing := self.differences(other):
            raise SystemExit(f"{command.title} is not the same twice: {differing}")
        for one in (folder, other):
            shutil.rmtree(one)

    def new(self) -> Path:
        """A new folder."""
        folder = Path(tempfile.mkdtemp(prefix="trial-", dir=self.inputs.parent))
        (folder / "in").symlink_to(self.inputs)
        return folder

    def killed(self, folder: Path, moment: Moment) -> tuple[Ended, list[str], int]:
        """Kill the command and run it again: how the first ended, what was found wrong, items that were finished."""
        first = in_child(self.first, folder, moment)
        faults = self.broken(folder)
        finished = self._finished(folder)
        second = in_child(self.again, folder)
        return first, faults + self.after(folder, second, finished), len(finished)

    def broken(self, folder: Path) -> list[str]:
        """Final names whose file is not whole."""
        return [
            f"{name} is not whole: {why}"
            for name, path in finals(folder).items()
            if (why := self._why(name, path))
        ]

    def _why(self, name: str, path: Path) -> str:
        try:
            if content(path) == self.wanted.get(name):
                return ""
        except ValueError as error:
            if path.suffix != ".jsonl":
                return str(error)
        return broken(path)

    def _finished(self, folder: Path) -> set[str]:
        """Items that are there, with their card if they have one in the end."""
        found = set()
        for pattern in self.command.items:
            for path in folder.glob(pattern):
                name = path.relative_to(folder)
                card = name.with_name(name.name.split(".")[0] + ".json").as_posix()
                if not path.name.startswith(".") and (card not in self.wanted or (folder / card).exists()):
                    found.add(name.as_posix())
        return found

    def after(self, folder: Path, second: Ended, finished: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """What is wrong after the command was run again."""
        faults = [f"{name} was there and was written again" for name in sorted(finished & {*second.renamed})]
        differing = self.differences(folder)
        there = second.code == 1 and ("exists" in second.said or "an empty or new folder" in second.said)
        if there and not [d for d in differing if ".parts/" not in d]:
            return faults  # all was there; parts beside a whole store are told of in docs/trust.md
        if second.code:
            last = second.said.strip().splitlines()[-1:] or [""]
            return [*faults, f"the second run ended with {second.code}: {last[0]}"]
        left = litter(folder)
        return faults + differing + ([f"litter: {', '.join(left[:3])}"] if left else [])

    def differences(self, folder: Path) -> list[str]:
        """In words, how final files differ from those of an undisturbed run."""
        found = _compared({name: content(path) for name, path in finals(folder).items()}, self.wanted)
        # A log is no result: an item that was done just before a kill has no line. That of a training is taken back.
        return [fault for fault in found if self.command.again or not fault.endswith("log.jsonl differs")]

    def compared(self, folder: Path, other: Path) -> list[str]:
        """In words, how final files of a folder differ from those of another."""
        one, two = (
            {name: content(path) for name, path in finals(place).items()} for place in (folder, other)
        )
        return _compared(one, two)


def _compared(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} should not be there" for name in sorted(found.keys() - wanted.keys())]
    return faults + [
        f"{name} differs" for name in sorted(wanted) if found.get(name, wanted[name]) != wanted[name]
    ]
