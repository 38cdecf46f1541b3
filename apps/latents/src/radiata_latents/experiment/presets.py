"""Options from a TOML file: each a field of a verb, of the type that its command line accepts."""

import dataclasses
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from radiata_core.errors import InputError
from radiata_core.files import atomic_path

__all__ = ["read_toml", "set_options", "with_preset", "write_preset"]

Verb = TypeVar("Verb")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file.

    Raises:
        InputError: no such file, or something else than TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"expected the TOML file {path}; got nothing there. Check the path.") from None
    except (ValueError, RecursionError) as error:  # digits without end and brackets without end, too
        raise InputError(f"expected TOML in {path}; got something else ({error}).") from None


def with_preset(task: Verb, preset: Path, excluded: tuple[str, ...] = ()) -> Verb:
    """The verb with the preset's values where an option still has its default.

    Raises:
        InputError: no TOML, an option that the verb does not have, or a value of another type.
    """
    values = read_toml(preset)
    defaults = {f.name: f.default for f in dataclasses.fields(task)}  # type: ignore[arg-type]
    left = {name: value for name, value in values.items() if getattr(task, name, None) == defaults.get(name)}
    set_options(task, values, str(preset), excluded)  # a value that the command line replaces is checked too
    return set_options(task, left, str(preset), excluded)


def set_options(task: Verb, values: Mapping[str, Any], where: str, excluded: tuple[str, ...] = ()) -> Verb:
    """The verb with these values for its options; lists become tuples.

    Args:
        task: A verb: a frozen dataclass.
        values: Name of an option → value.
        where: What the values came from, for the error.
        excluded: Options that a file may not set.

    Raises:
        InputError: an option that the verb does not have, or a value of another type.
    """
    hints = get_type_hints(type(task))
    known = [f.name for f in dataclasses.fields(task) if f.name not in excluded]  # type: ignore[arg-type]
    verb = type(task).__name__.lower()
    changed = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"expected options of {verb} in {where}; got {name!r}. See {verb} --help.")
        changed[name] = tuple(value) if isinstance(value, list) else value
        if not _accepts(hints[name], changed[name]):
            raise InputError(
                f"expected {name} as {verb} takes it in {where}; got {value!r}. See {verb} --help."
            )
    return dataclasses.replace(task, **changed)  # type: ignore[type-var]


def _accepts(hint: Any, value: Any) -> bool:
    """Whether an option of this type can have the value: choices, numbers, words, and tuples of them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, types.UnionType):
        return any(_accepts(one, value) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_accepts(inner[0], one) for one in value)
        return len(inner) == len(value) and all(map(_accepts, inner, value))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, str if hint is Path else hint)


def write_preset(path: Path, values: Mapping[str, Any], comment: str) -> None:
    """Write options as TOML that `with_preset` reads, atomically; None is left out."""
    lines = [f"# {comment}"]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    with atomic_path(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
