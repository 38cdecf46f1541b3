"""Several degradations in a row, and degradations from files.

A blur, then thick slices, then a lost slice is one measurement, A = A_3 A_2 A_1. In a file (TOML or JSON) each step is a
table of the options that its class has:

    [[steps]]
    task = "deblur"
    fwhm = [1.5]

    [[steps]]
    task = "sr"
    measured_spacing = [4.0]
    axis = "k"
"""

import dataclasses
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operator_algebra import Composition
from radiata_core.operators import LinearOperator
from radiata_medical.data.degradations import Bias, Blur, Degradation, Hole, Noise
from radiata_medical.data.frames import Frame
from radiata_medical.data.raw_data import KSpace, Moved, Views
from radiata_medical.data.thick_slices import ThickSlices

__all__ = ["TASKS", "Chain", "degradation_of", "read_degradation"]

TASKS: dict[str, type[Degradation]] = {
    kind.task: kind for kind in (Noise, ThickSlices, Hole, Blur, Bias, KSpace, Moved, Views)
}
"""Task -> its class."""


@dataclass(frozen=True, eq=False)
class Chain(Degradation):
    """Several degradations, the first first; all but the last give images.

    Attributes:
        parts: Two or more.

    Raises:
        InputError: fewer than two, or one that gives no image stands before another.
    """

    parts: tuple[Degradation, ...] = ()

    task: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        images = (Noise, ThickSlices, Blur, Bias)
        if len(self.parts) < 2 or not all(isinstance(part, images) for part in self.parts[:-1]):
            raise InputError(
                f"expected two or more steps, of which all but the last give images (denoise, sr, deblur, bias); got "
                f"{', '.join(part.task for part in self.parts) or 'none'}. Order them as they happened."
            )

    def image_frame(self, frame: Frame) -> Frame:
        """Backwards through the chain."""
        for part in reversed(self.parts):
            frame = part.image_frame(frame)
        return frame

    def for_scan(self, frame: Frame) -> "Chain":
        """Each step for the scan that came out of it."""
        steps: list[Degradation] = []
        for part in reversed(self.parts):
            steps.insert(0, part.for_scan(frame))
            frame = part.image_frame(frame)
        return Chain(tuple(steps))

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """The product of the operators, each on the frame that the one before gives."""
        found = self.parts[0].operator(frame, seed)
        for before, part in itertools.pairwise(self.parts):
            if isinstance(before, ThickSlices):
                shape = found.measurement_shape[1:]
                edges = [n * e / m for n, e, m in zip(frame.shape, frame.spacing, shape, strict=True)]
                frame = replace(frame, shape=shape, spacing=tuple(edges))
            found = part.operator(frame, seed) @ found
        found.iterations = 50  # of conjugate gradients, at most, as in `raw_data`
        return found

    def measured(self, array: np.ndarray, operator: LinearOperator) -> Tensor:
        """As the last part."""
        outer = operator.outer if isinstance(operator, Composition) else operator
        return self.parts[-1].measured(array, outer)

    def full_scale(self, clean: Tensor) -> float:
        """As the last part."""
        return self.parts[-1].full_scale(clean)

    def describe(self) -> dict[str, Any]:
        """The steps."""
        return {"task": self.task, "steps": [part.describe() for part in self.parts]}


def degradation_of(description: Mapping[str, Any]) -> Degradation:
    """The degradation that `describe` described.

    Raises:
        InputError: an unknown task or option, or a value out of range.
    """
    task = description.get("task", "chain" if "steps" in description else None)
    if task == "chain":
        steps = description.get("steps", ())
        if not isinstance(steps, list | tuple) or not all(isinstance(step, Mapping) for step in steps):
            raise InputError(
                "expected steps as a list of tables; got something else. Write [[steps]] before each."
            )
        parts = tuple(degradation_of(step) for step in steps)
        return parts[0] if len(parts) == 1 else Chain(parts)
    if not isinstance(task, str) or task not in TASKS:
        raise InputError(f"expected a task out of {', '.join(TASKS)}; got {task!r}. Name one in each step.")
    kind = TASKS[task]
    known = [
        option.name
        for option in dataclasses.fields(kind)  # type: ignore[arg-type]
        if option.metadata.get("described", True)
    ]
    given = {name: value for name, value in description.items() if name != "task"}
    if unknown := sorted(given.keys() - set(known)):
        raise InputError(
            f"expected options of {task}: {', '.join(known)}; got {unknown[0]!r}. Check its spelling."
        )
    try:
        return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InputError(
            f"expected numbers and words as options of {task}; got {error}. Check the types."
        ) from None


def read_degradation(path: Path) -> Degradation:
    """The degradation in a `.toml` or `.json` file.

    Raises:
        InputError: no such file, another format, or a description that means nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected a .toml or .json file with a task; got {error} in {path}. Check it."
        ) from None
    if not isinstance(found, dict):
        raise InputError(
            f"expected a table with a task or steps; got {type(found).__name__} in {path}. See the docs."
        )
    try:
        return degradation_of(found)
    except RecursionError:
        raise InputError(
            f"expected steps, not chains within chains; got them in {path}. Write one list."
        ) from None
