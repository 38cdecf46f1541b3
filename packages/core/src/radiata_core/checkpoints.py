"""The last few states of a training run: written whole, rotated after, read back newest first."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.training_state import load_state, save_state

__all__ = ["Checkpoints"]


class Checkpoints:
    """Folders `step-00001000` inside `folder`, of which the newest `keep` stay.

    A new one is complete on the disk before an old one goes, so at any moment the newest is valid.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = Path(folder), keep

    def folders(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))

    def write(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state of a step and drop what is older than the last `keep`."""
        path = self.folder / f"step-{step:08d}"
        save_state(path, state)
        self.tidy(step)
        return path

    def tidy(self, step: int) -> None:
        """Drop what is older than the last `keep`, if the newest is that of `step`, known to be intact.

        A process that was killed after it wrote may have left one too many.
        """
        found = self.folders()
        if not found or found[-1].name != f"step-{step:08d}":
            return
        for old in found[: -self.keep]:
            hidden = old.rename(
                old.with_name(f".{old.name}.tmp")
            )  # half-deleted must not look like a checkpoint
            shutil.rmtree(hidden, ignore_errors=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is intact, or None where there is none; corrupt ones are named on standard error.

        Raises:
            InputError: there are checkpoints and none is intact.
        """
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        found = self.folders()
        for path in reversed(found):
            try:
                return load_state(path)
            except InputError as error:
                print(f"warning: skipped the checkpoint {path.name}: {error}", file=sys.stderr)
        if found:
            raise InputError(
                f"expected an intact checkpoint in {self.folder}; got {len(found)} corrupt. Start again without --resume."
            )
        return None
