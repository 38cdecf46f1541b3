"""Where a model is: shipped with the package by name, in a run folder, or in a file of its own."""

from pathlib import Path

from radiata_core.shipped_weights import find_weights, shipped_weights

__all__ = ["find_model", "shipped"]


def shipped() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    return shipped_weights("radiata_medical")


def find_model(name: str | Path) -> Path:
    """The `.safetensors` file meant by a NAME, a FILE or a RUN folder.

    Raises:
        InputError: there is no such model.
    """
    return find_weights("radiata_medical", name)
