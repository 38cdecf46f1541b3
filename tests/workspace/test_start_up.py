"""A command starts without waiting for libraries that it does not use: they are imported where they are used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {
    "monai": {"packages/imaging/src/radiata_imaging/pipelines.py", "apps/decode/src/radiata_decode/data/training_pairs.py"},
    "diffusers": set(),
    "transformers": set(),
    "accelerate": set(),
    "nilearn": set(),
    "skimage": set(),
}  # fmt: skip
"""Libraries of seconds, and the modules that are about them: no other module of the members may import those either."""


def at_import(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it is imported itself: nothing inside functions, nothing for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (name for other in node.orelse for name in at_import(other))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """Module, by its path from the root, to what it imports."""
    paths = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/*/src/**/*.py")])
    return {
        path.relative_to(ROOT).as_posix(): set(at_import(ast.parse(path.read_text(encoding="utf-8"))))
        for path in paths
    }


@pytest.mark.parametrize("library", SLOW)
def test_a_slow_library_is_imported_where_it_is_used(library: str, imported: dict[str, set[str]]) -> None:
    importing = {
        path for path, names in imported.items() if library in {name.split(".")[0] for name in names}
    }
    assert importing == SLOW[library]


def test_what_is_about_a_slow_library_is_imported_by_nothing_else(imported: dict[str, set[str]]) -> None:
    about = {
        path.split("/src/")[1].removesuffix(".py").replace("/", ".")
        for paths in SLOW.values()
        for path in paths
    }
    assert about
    assert {path: found for path, names in imported.items() if (found := names & about)} == {}
