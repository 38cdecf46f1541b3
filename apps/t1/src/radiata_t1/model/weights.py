"""Where a model is: shipped with the package by name, in a run folder, or in a file of its own.

The shipped ones lie in the package's folder `weights/`, each a `.safetensors` with its `.json` and a model card.
"""

from importlib.resources import as_file, files
from pathlib import Path

from radiata_core.errors import InputError

__all__ = ["DEFAULT", "FEW", "FEW_STEPS", "find_model", "shipped"]

DEFAULT = "rflow-4mm"
"""The model that `sample` and `demo` take when none is named."""

FEW_STEPS = "few-step-4mm"
"""Its student, which `sample` takes when none is named and at most `FEW` steps are asked for."""

FEW = 4
"""Up to this many evaluations the student is nearer to real heads than its teacher (docs/few-step-t1.md)."""


def shipped() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    with as_file(files("radiata_t1") / "weights") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_model(name: str) -> Path:
    """The `.safetensors` file meant by a NAME, a FILE or a RUN folder.

    Raises:
        InputError: there is no such model.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir():
        inside = path / "model.safetensors"
        if inside.is_file():
            return inside
        found = sorted(path.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        state = (
            "has none yet: training is not finished (continue it)"
            if not found
            else f"has {len(found)}: name one"
        )
        raise InputError(f"expected one model (.safetensors) in {path}; the folder {state}.")
    if path.is_file():
        return path
    raise InputError(
        f"expected a model's name ({', '.join(known) or 'none is shipped'}), file or run folder; got {name!r}. "
        "Check the path."
    )
