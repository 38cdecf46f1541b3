"""Everything that is installed with Radiata may be used and passed on under Apache-2.0, and every declaration says so."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

MEMBERS = ("packages/core", "packages/imaging", "apps/t1", "apps/latents", "apps/medical", "apps/decode")


@pytest.fixture(scope="module")
def licences(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", root / "docs" / "scripts" / "licences.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["licences"] = module
    spec.loader.exec_module(module)
    return module


def test_every_distribution_has_an_allowed_licence(licences: ModuleType) -> None:
    found = licences.brought()
    names = {one.name for one in found}
    assert {"torch", "monai", "pydicom", "ruff"} <= names and len(names) > 60
    assert [f"{one.name} {one.version}: {one.licence}" for one in found if not one.allowed] == []


def test_every_declared_dependency_is_in_the_list(licences: ModuleType, root: Path) -> None:
    """Dependencies and extras of all members; what is not installed here is named, too."""
    names = {one.name for one in licences.brought()}
    for member in MEMBERS:
        project = tomllib.loads((root / member / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = [line for group in project.get("optional-dependencies", {}).values() for line in group]
        declared = {
            re.split(r"[ \[<>=!~;@]", line)[0].lower() for line in (*project["dependencies"], *extras)
        }
        assert {name for name in declared if not name.startswith("radiata")} <= names, member


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-3-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND LGPL-2.1-or-later", False),
        ("GPL-3.0-only", False),
        ("unknown", False),
    ],
)
def test_an_expression_is_allowed_by_its_parts(licences: ModuleType, licence: str, allowed: bool) -> None:
    assert licences.Brought("x", "1", licence, "y").allowed is allowed


def test_what_was_read_by_hand_says_where(licences: ModuleType) -> None:
    for licence, where in licences.READ.values():
        assert licences.Brought("x", "1", licence, "y").allowed and len(where) > 10
