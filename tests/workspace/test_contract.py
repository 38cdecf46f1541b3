"""The contract of every application in the entry-point group `radiata.apps`, whatever it computes.

    help            answers 0 and imports no heavy library
    misuse          exits 2 and suggests the right word
    bad input       exits 1 with one line: expected, got, what to do; leaves nothing behind
    demo            a report, provenance, sidecars; same seed, same bytes; nothing overwritten unasked; Ctrl-C exits 130
    registered      in the root's meta-package, workspace, layers and types

Nothing here names an application, except how to shorten its demo.
"""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest
import tyro

DRAW = (
    "sample",
    "segment",
    "restore",
    "translate",
    "anomaly",
    "decode",
    "encode",
    "synthesize",
    "infer",
    "forecast",
)
HOUSE_VERBS = {
    "prepare",
    "cohort",
    "train",
    "distil",
    "sweep",
    *DRAW,
    "evaluate",
    "score",
    "convert",
    "report",
    "serve",
    "demo",
}
HEAVY = (
    "torch",
    "monai",
    "nibabel",
    "nilearn",
    "h5py",
    "matplotlib",
    "scipy",
    "sklearn",
    "diffusers",
    "accelerate",
    "xarray",
    "cv2",
    "skimage",
    "transformers",
    "starlette",
    "uvicorn",
)
EXPORTED = (".nii", ".nii.gz", ".h5")
"""Data that a command writes for use elsewhere: each has a sidecar."""
SHORT_DEMO = {
    "t1": ("--seeds", "0", "1", "--steps", "2", "--resolution", "4mm"),
    "latents": ("--trials", "2", "--train-steps", "3", "--passes", "1"),
    "medical": ("--block", "64"),
    "decode": ("--train", "60", "--test", "8", "--voxels", "100", "--draws", "1", "--permutations", "20"),
}
"""Options that make a demo as short as its contract allows; an application that is not named runs its whole demo."""


@pytest.fixture(scope="module")
def cli(app: EntryPoint) -> ModuleType:
    """The module behind the entry point: it has VERBS and run(argv)."""
    return sys.modules[app.load().__module__]


def verbs(cli: ModuleType) -> dict[str, type]:
    return dict(cli.VERBS)


def command(app: EntryPoint) -> str:
    """Path of the installed command."""
    return str(Path(sys.executable).parent / f"radiata-{app.name}")


def is_positional(hint: Any) -> bool:
    return tyro.conf.Positional[int].__metadata__[0] in getattr(hint, "__metadata__", ())  # type: ignore[attr-defined]


def arguments_of(verb: type, folder: Path, given: Path) -> list[str]:
    """The shortest call of a verb: required inputs are `given`, the output is in `folder`."""
    hints = get_type_hints(verb, include_extras=True)
    first, rest = [], []
    for field in dataclasses.fields(verb):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_positional(hints[field.name]):
            first.append(str(given))
        elif field.name == "out" and required:
            rest += ["--out", str(folder / "out.h5")]  # a good name for a store and for a folder
        elif required or field.name == "model":
            rest += [f"--{field.name.replace('_', '-')}", str(given)]
    return first + rest


def has_input(verb: type) -> bool:
    hints = get_type_hints(verb, include_extras=True)
    return any(is_positional(hint) for hint in hints.values()) or "model" in hints


def swapped(word: str) -> str:
    """The word with two neighbouring letters exchanged: the commonest slip."""
    at = next(i for i in range(1, len(word) - 1) if word[i] != word[i + 1])
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def test_there_is_an_application() -> None:
    assert list(entry_points(group="radiata.apps")), "nothing is installed: make setup"


def test_help_answers_without_a_heavy_library(app: EntryPoint, cli: ModuleType) -> None:
    """Every help in one fresh process; a verb that needs torch to describe itself is found here."""
    script = f"""
import sys
from {app.module} import VERBS, run
codes = {{}}
for words in [[], *([name] for name in VERBS)]:
    codes[" ".join(words)] = run([*words, "--help"])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("FOUND", codes, heavy)
sys.exit(any(codes.values()) or bool(heavy))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr]
    assert done.returncode == 0, last[0]
    for name in verbs(cli):
        assert f"usage: radiata-{app.name} {name}" in done.stdout


def test_command_is_installed_and_says_which_it_is(app: EntryPoint) -> None:
    done = subprocess.run([command(app), "--version"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"radiata-{app.name} ")


def test_verbs_are_the_houses(cli: ModuleType) -> None:
    """The house's words plus, at most, data sources of an application's own; `demo` and `report` everywhere."""
    assert {"demo", "report"} <= set(verbs(cli)) <= HOUSE_VERBS
    for name, verb in verbs(cli).items():
        assert dataclasses.is_dataclass(verb) and verb.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
        assert re.match(r"[A-Z].*[.,]", (verb.__doc__ or "").strip().splitlines()[0]), f"{name}: no sentence"


def test_examples_of_a_verb_stand_in_its_help(
    app: EntryPoint, cli: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    """A section `Examples:` is taken for a list of parameters and dropped; paragraphs `Example: …` are shown."""
    for name, verb in verbs(cli).items():
        commands = re.findall(rf"radiata-{app.name} \w+ (?:-|\S+ ).*", verb.__doc__ or "")
        assert cli.run([name, "--help"]) == 0
        shown = " ".join(capfd.readouterr().out.split())
        assert [line for line in commands if line not in shown] == [], f"{name} --help"


def test_a_flag_that_switches_off_says_what_then_happens(
    cli: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    """The help of an option that is on shows `--no-NAME`; its sentence must not read as if that switched it on."""
    for name, verb in verbs(cli).items():
        on = [f"--no-{f.name.replace('_', '-')}" for f in dataclasses.fields(verb) if f.default is True]
        if on:
            assert cli.run([name, "--help"]) == 0
            text = re.sub(r"[\s│]+", " ", capfd.readouterr().out)
            assert [flag for flag in on if text.count(f"{flag} ") < 2] == [], f"{name} --help"


def test_no_verb_is_misuse(cli: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    out, err = capfd.readouterr()
    assert out == "" and "usage:" in err


def test_unknown_verb_suggests_the_nearest(cli: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    for name in verbs(cli):
        assert cli.run([swapped(name)]) == 2
        out, err = capfd.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert f"did you mean {name!r}" in err


def test_unknown_option_suggests_the_nearest(
    cli: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, verb in verbs(cli).items():
        options = [field.name.replace("_", "-") for field in dataclasses.fields(verb)]
        for option in [o for o in options if o in ("overwrite", "seed", "seeds", "steps", "spacing")]:
            wrong = f"--{swapped(option)}"
            assert cli.run([name, *arguments_of(verb, tmp_path, tmp_path / "absent"), wrong, "1"]) == 2
            out, err = capfd.readouterr()
            assert out == "", f"{name} {wrong} wrote to standard output"
            assert wrong in err and f"--{option}" in err, f"{name} {wrong}: no suggestion in\n{err}"


def assert_one_line(code: int, text: str, call: list[str]) -> None:
    lines = [line for line in text.splitlines() if line.strip()]
    assert code == 1, f"{call} exited with {code}:\n{text}"
    assert len(lines) == 1, f"{call} said more than one line:\n{text}"
    assert "error: expected" in lines[0] and "got" in lines[0], f"{call} said {lines[0]}"


def test_missing_input_is_one_line_and_leaves_nothing(
    cli: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, verb in verbs(cli).items():
        if not has_input(verb):
            continue
        call = [name, *arguments_of(verb, tmp_path, tmp_path / "absent")]
        code = cli.run(call)
        assert_one_line(code, capfd.readouterr().err, call)
        assert list(tmp_path.iterdir()) == [], f"{call} left {list(tmp_path.iterdir())}"


def test_errors_are_json_lines_where_they_are_asked_for(
    cli: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--log-json` is an option of every verb, in any place: what was wrong, then the exit code, an object each."""
    for name, verb in verbs(cli).items():
        absent = has_input(verb)
        call = arguments_of(verb, tmp_path, tmp_path / "absent") if absent else ["--no-such-option"]
        code = cli.run([name, "--log-json", *call])
        said, last = (json.loads(line) for line in capfd.readouterr().err.splitlines())
        assert (said["level"], said["command"], last["command"]) == ("error", name, name)
        assert said["app"] == cli.__name__.split(".")[0].replace("_", "-")
        assert ("expected" in said["message"]) if absent else ("--no-such-option" in said["message"])
        assert last["exit_code"] == code == (1 if absent else 2)


@pytest.mark.parametrize("suffix", [".h5", ".nii.gz", ".safetensors", ".pt", ".csv"])
@pytest.mark.parametrize("content", [b"", b"this is not what its name says\n"], ids=["empty", "text"])
def test_broken_input_is_one_line_and_leaves_no_output(
    cli: ModuleType, tmp_path: Path, suffix: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """A 0-byte file and a text file under the names of all formats: never a traceback, never an output."""
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(content)
    for name, verb in verbs(cli).items():
        if not has_input(verb):
            continue
        call = [name, *arguments_of(verb, tmp_path, broken)]
        code = cli.run(call)
        assert_one_line(code, capfd.readouterr().err, call)
        left = [
            path for path in tmp_path.iterdir() if path.suffix != ".parts"
        ]  # finished items of a stopped store
        assert left == [broken], f"{call} left {left}"


def test_registered_in_the_workspace(app: EntryPoint, root: Path) -> None:
    """Step four of "add an application" in CONTRIBUTING."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    distribution, package = f"radiata-{app.name}", f"radiata_{app.name}"
    linter = project["tool"]["importlinter"]
    layers = [layer for c in linter["contracts"] for layer in c.get("layers", ())]
    assert any(line.startswith(f"{distribution} @") for line in project["project"]["dependencies"])
    assert project["tool"]["uv"]["sources"][distribution] == {"workspace": True}
    assert package in linter["root_packages"]
    assert f"{package}.cli" in layers, "no contract for the layers inside the application"
    assert any(package in re.split(r"[ |:]+", layer) for layer in layers), "not in the layers of the house"
    assert f"apps/{app.name}/src" in project["tool"]["mypy"]["files"]
    assert f"-e ./apps/{app.name}" in (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"apps/{app.name}/pyproject.toml" in (root / "Makefile").read_text(encoding="utf-8")


def test_every_folder_of_apps_is_an_application(root: Path) -> None:
    """What lies in apps/ and has a command is installed under its own name; the README says of the others that they are
    libraries so far."""
    projects = {
        path.parent.name: tomllib.loads(path.read_text()) for path in (root / "apps").glob("*/pyproject.toml")
    }
    commands = {name for name, table in projects.items() if "scripts" in table["project"]}
    assert commands == {point.name for point in entry_points(group="radiata.apps")}
    readme = (root / "README.md").read_text(encoding="utf-8")
    for name in projects.keys() - commands:
        assert re.search(rf"^\| {name} \|.*library so far", readme, re.MULTILINE), f"README.md: {name}"


# The demo ---------------------------------------------------------------------------------------------------------------


def demo(app: EntryPoint, folder: Path) -> list[str]:
    """The words of a short demo."""
    return ["demo", "--out", str(folder), *SHORT_DEMO.get(app.name, ())]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sidecars(folder: Path) -> dict[Path, Path]:
    """Exported file to sidecar: the same name with .json, whatever the suffixes."""
    jsons = {path.name.removesuffix(".json"): path for path in folder.glob("*.json")}
    exported = (path for path in folder.iterdir() if path.is_file() and path.suffix not in (".json", ".html"))
    return {path: jsons[path.name.split(".")[0]] for path in exported if path.name.split(".")[0] in jsons}


@pytest.fixture(scope="module")
def shown(app: EntryPoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished (short) demo, of the installed command in a process of its own."""
    folder = tmp_path_factory.mktemp(f"demo-{app.name}") / "demo"
    call = [command(app), *demo(app, folder)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert str(folder) in last, f"the last line says where the output is; got {last!r}"
    return folder


def test_demo_writes_a_report_and_provenance(shown: Path, faults_of: Callable[[Any, str], list[str]]) -> None:
    page = (shown / "report.html").read_text(encoding="utf-8")
    assert "not for clinical use" in page.lower()
    assert not re.search(r"""(src|href)\s*=\s*["']https?://""", page), (
        "the page fetches something from a network"
    )
    record = json.loads((shown / "run.json").read_text(encoding="utf-8"))
    assert faults_of(record, "run") == []
    assert record["state"] == "done" and record["peak_memory_mib"]["process"] > 0


def test_every_exported_file_has_a_sidecar(
    shown: Path, app: EntryPoint, faults_of: Callable[[Any, str], list[str]]
) -> None:
    pairs = sidecars(shown)
    exported = [path for path in shown.iterdir() if path.name.endswith(EXPORTED)]
    assert exported and set(exported) <= set(pairs)
    for path in exported:
        card = json.loads(pairs[path].read_text(encoding="utf-8"))
        assert card["GeneratedBy"][0]["Name"] == f"radiata-{app.name}"
        if card.get("SyntheticImage"):
            assert faults_of(card, "sidecar") == [], path.name


def test_same_seed_same_bytes(shown: Path, app: EntryPoint, cli: ModuleType, tmp_path: Path) -> None:
    """Again in this process, after all that other tests did in it: the bytes depend on the options alone."""
    again = tmp_path / "again"
    assert cli.run(demo(app, again)) == 0
    exported = {name: digest for name, digest in digests(shown).items() if name.endswith(EXPORTED)}
    assert exported and exported.items() <= digests(again).items()


def test_nothing_is_overwritten_unasked(
    shown: Path, app: EntryPoint, cli: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    before = digests(shown)
    code = cli.run(demo(app, shown))
    err = capfd.readouterr().err
    assert_one_line(code, err, ["demo"])
    assert "--overwrite" in err
    assert digests(shown) == before


def test_interrupted_demo_exits_130(app: EntryPoint, tmp_path: Path) -> None:
    """Ctrl-C once the run has begun: 130, one line, and a record that says so."""
    folder = tmp_path / "demo"
    call = [
        command(app),
        "demo",
        "--log-json",
        "--out",
        str(folder),
    ]  # the whole demo: long enough to be interrupted
    process = subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a suite in the background ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (folder / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    said = [json.loads(line) for line in err.splitlines()]
    assert said[-1]["exit_code"] == 130 and "Traceback" not in err
    assert any(line["level"] == "warning" and "interrupted" in line["message"] for line in said)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["state"] == "interrupted"
