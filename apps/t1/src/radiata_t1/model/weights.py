"""Where a model is: shipped with the package by name, in a run folder, or in a file of its own.

The shipped ones lie in the package's folder `weights/`, each a `.safetensors` with its `.json` and a model card.
"""

from pathlib import Path

from radiata_core.shipped_weights import find_weights, shipped_weights

__all__ = ["DEFAULT", "FEW", "FEW_STEPS", "find_model", "shipped"]

DEFAULT = "rflow-4mm"
"""The model that `sample` and `demo` take when none is named."""

FEW_STEPS = "few-step-4mm"
"""Its student, which `sample` takes when none is named and at most `FEW` steps are asked for."""

FEW = 4
"""Up to this many evaluations the student is nearer to real heads than its teacher (docs/few-step-t1.md)."""


def shipped() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    return shipped_weights("radiata_t1")


def find_model(name: str) -> Path:
    """The `.safetensors` file meant by a NAME, a FILE or a RUN folder.

    Raises:
        InputError: there is no such model.
    """
    return find_weights("radiata_t1", name)
