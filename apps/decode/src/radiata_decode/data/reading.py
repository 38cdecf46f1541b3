"""What a reader of any layout hands over: parts to be read one at a time, and the voxels they share.

    layout on the disk → Reading(parts, voxels, stimuli, about) → SubjectWriter → subject folder

Opening a layout reads headers and tables only: it finds out what is there, refuses what does not fit, and says how many
trials and voxels there will be. The numbers come later, one part (a session, a run, a segment) at a time, so that what
is in memory is one part, whatever the size of the whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.stimuli import StimulusArrays

__all__ = ["Part", "Reading", "existing_file", "existing_folder", "natural_order"]


@dataclass(frozen=True)
class Part:
    """One piece of a subject.

    Attributes:
        name: `session-07`, in the order of time.
        trials: One row a trial: `stimulus`, `session`, `run`, and `split` where the layout has one.
        read: Responses (trial, voxel), as they are on the disk, in float32; called once.
        files: What it reads.
        scratch: Bytes needed beside the responses while it is read.
    """

    name: str
    trials: pd.DataFrame
    read: Callable[[], np.ndarray]
    files: tuple[Path, ...] = ()
    scratch: int = 0


@dataclass(frozen=True)
class Reading:
    """A layout that was opened.

    Attributes:
        parts: In order; their responses have the voxels below as columns.
        voxels: One row a voxel.
        about: What goes into the manifest: repetition time, beta version, rule of the split, what was left out.
        stimuli: What was shown, for these names in this order; None where the layout has none.
        files: Read for all parts: masks, designs.
    """

    parts: tuple[Part, ...]
    voxels: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)
    stimuli: "Callable[[list[str]], StimulusArrays | None] | None" = None
    files: tuple[Path, ...] = ()

    @property
    def trials(self) -> pd.DataFrame:
        """Trials of all parts, one below the other."""
        return pd.concat([part.trials for part in self.parts], ignore_index=True)

    @property
    def memory(self) -> int:
        """Bytes that reading the largest part takes."""
        return max(4 * len(part.trials) * len(self.voxels) + part.scratch for part in self.parts)


def existing_file(path: Path, what: str, remedy: str = "Check the path.") -> Path:
    """The path, if a file is there.

    Raises:
        InputError: none is.
    """
    if not Path(path).is_file():
        raise InputError(f"expected {what} in {path}; got no such file. {remedy}")
    return Path(path)


def existing_folder(path: Path | None, what: str) -> Path:
    """The path, if a folder is there.

    Raises:
        InputError: none is.
    """
    if path is None:
        raise InputError(f"expected {what}; got none. Name it after the layout.")
    if not Path(path).is_dir():
        kind = "a file" if Path(path).exists() else "no such folder"
        raise InputError(f"expected {what}; got {kind}: {path}. Check the path.")
    return Path(path)


def natural_order(text: str) -> list[int | str]:
    """Key under which `run-2` comes before `run-10`."""
    import re

    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", text)]
