"""Where a model is: shipped with an application's package by name, in a run folder, or in a file of its own.

Shipped ones lie in the package's folder `weights/`, each a `.safetensors` with its `.json`, and a model card.
"""

from importlib.resources import as_file, files
from pathlib import Path

from radiata_core.errors import InputError

__all__ = ["find_weights", "shipped_weights"]


def shipped_weights(package: str) -> dict[str, Path]:
    """Name -> file of the models that come with a package.

    Args:
        package: Its import name, such as "radiata_medical".
    """
    with as_file(files(package) / "weights") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(package: str, name: str | Path) -> Path:
    """The `.safetensors` file meant by a NAME, a FILE or a RUN folder.

    Args:
        package: Whose shipped names count.
        name: A shipped model, a file, or a folder with one model.

    Raises:
        InputError: there is no such model.
    """
    known = shipped_weights(package)
    if str(name) in known:
        return known[str(name)]
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
        f"expected a model's name ({', '.join(known) or 'none is shipped'}), file or run folder; got {str(name)!r}. "
        "Check the path."
    )
