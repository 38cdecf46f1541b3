"""What the tests across members share: the root, the applications found, and a small JSON schema check."""

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$schema", "title", "description", "type", "enum", "pattern", "minLength", "minimum", "maximum", "exclusiveMinimum",
    "minItems", "maxItems", "items", "required", "properties", "additionalProperties",
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `app` runs once for each application in the entry-point group."""
    if "app" in metafunc.fixturenames:
        found = sorted(entry_points(group="radiata.apps"), key=lambda point: point.name)
        metafunc.parametrize("app", found, ids=[point.name for point in found], scope="module")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def faults(value: Any, schema: dict[str, Any], where: str = "$") -> Iterator[str]:
    """What is wrong with a value, by the keywords of JSON schema that the house's schemas use; others are refused."""
    unknown = set(schema) - _KNOWN
    assert not unknown, f"the check does not know {sorted(unknown)}"
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, name) for name in names):
            yield f"{where}: expected {' or '.join(names)}, got {type(value).__name__}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: expected one of {schema['enum']}, got {value!r}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield f"{where}: too short"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{where}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{where}: {value} is out of range"
        if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
            yield f"{where}: {value} is out of range"
    if isinstance(value, list | tuple):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where}: {len(value)} items"
        for index, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _object_faults(value, schema, where)


def _object_faults(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{where}: {key} is missing"
    rest = schema.get("additionalProperties", True)
    for key, item in value.items():
        if key in schema.get("properties", {}):
            yield from faults(item, schema["properties"][key], f"{where}.{key}")
        elif rest is False:
            yield f"{where}: {key} is not a field"
        elif isinstance(rest, dict):
            yield from faults(item, rest, f"{where}.{key}")


@pytest.fixture(scope="session")
def faults_of() -> Callable[[Any, str], list[str]]:
    """A function: what is wrong with a value by `shared/schemas/NAME.json`."""

    def check(value: Any, name: str) -> list[str]:
        schema = json.loads((ROOT / "shared" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        return list(faults(value, schema))

    return check
