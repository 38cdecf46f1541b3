"""Every command line of the pages means something to the program that it calls: a wrong flag is what a newcomer meets first.

Commands are lines of code blocks, and code within a sentence, that begin with `radiata-…`, `python`, `torchrun` or `make`.
A line of a block is parsed by the application itself, with its work taken out; code within a sentence may be incomplete.
Scripts are not started: their options must stand in their source. Files of the repository that a command names must exist.
"""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("t1", "medical", "decode", "latents")
FOLDERS = ("docs", "benchmarks", "tests", "packages", "apps", "shared", "datasets")
PAGES = sorted(
    [
        *(page for page in (ROOT / "docs").rglob("*.md") if "site" not in page.parts),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "datasets/README.md")),
        *ROOT.glob("apps/*/src/*/weights/README.md"),
    ]
)
START = ROOT / "docs" / "start.md"
_PROGRAM = r"(?:[A-Z_]+=\S+ )*(?:radiata-[a-z0-9]+|python3?|torchrun|make)\b"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(rf"^    ({_PROGRAM} .*)$", re.MULTILINE)
_SPAN = re.compile(rf"(?<!`)`({_PROGRAM}\s[^`]*)`(?!`)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


def lines_of(block: str) -> Iterator[str]:
    """Commands of a block of code, with continued lines joined and without comments."""
    for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
        if re.match(_PROGRAM, line.strip()):
            yield re.sub(r"\s+#\s.*$", "", line.strip())


def commands_of(page: Path) -> list[tuple[str, bool]]:
    """(command, is it whole) of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for language, body in _BLOCK.findall(text) if language in ("", "sh", "bash", "console")]
    whole = [line for body in blocks for line in lines_of(body)] + _INDENTED.findall(_BLOCK.sub("", text))
    spans = [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]
    return list(dict.fromkeys([*((line, True) for line in whole), *((span, False) for span in spans)]))


@dataclasses.dataclass(frozen=True)
class Console:
    """The applications with the work of every verb taken out, and what they print."""

    clis: dict[str, ModuleType]
    printed: Callable[[], str]

    def complaint(self, words: list[str], whole: bool) -> str | None:
        """What is wrong with the words after `radiata-`, or None."""
        app, *arguments = words
        cli = self.clis.get(app)
        if cli is None:
            return f"there is no radiata-{app}"
        if not arguments or arguments[0] in ("--version", "--help"):
            return None
        option = arguments[0].startswith("--") and not whole  # of whichever verb has it
        if arguments[0] not in cli.VERBS and not option:
            return None if arguments[0] == "VERB" else f"radiata-{app} has no verb {arguments[0]!r}"
        if whole:
            return self.printed() if cli.run(arguments) else None
        verbs = cli.VERBS.values() if option else [cli.VERBS[arguments[0]]]
        fields = {field.name.replace("_", "-") for verb in verbs for field in dataclasses.fields(verb)}
        options = [word.removeprefix("--") for word in arguments if word.startswith("--")]
        unknown = [word for word in options if word not in fields | {"help", "log-json"}]
        unknown = [word for word in unknown if word.removeprefix("no-") not in fields]
        return f"radiata-{app} has no option --{unknown[0]} here" if unknown else None


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Console:
    clis = {app: importlib.import_module(f"radiata_{app}.cli") for app in APPS}
    for cli in clis.values():
        for verb in cli.VERBS.values():
            monkeypatch.setattr(verb, "run", lambda self: None)
    return Console(clis, lambda: capsys.readouterr().err)


def script_complaint(words: list[str]) -> str | None:
    """What is wrong with the words after `python`, or None."""
    if words[0] == "-c":
        ast.parse(words[1])
        return None
    if words[0] == "-m":
        return None if importlib.util.find_spec(words[1].split(".")[0]) else f"there is no module {words[1]}"
    script = ROOT / words[0]
    if not words[0].endswith(".py"):
        return None
    if not script.is_file():
        return f"there is no {words[0]}"
    beside = "".join(path.read_text(encoding="utf-8") for path in script.parent.glob("*.py"))
    source, option = script.read_text(encoding="utf-8"), ""
    for word in words[1:]:
        if word.startswith("--"):
            option = word.removeprefix("--").split("=")[0]
            if f"--{option}" not in source and not re.search(
                rf"\b{option.replace('-', '_')}\b *[:=]", source
            ):
                return f"{words[0]} has no option --{option}"
        elif option == "only" and not re.search(
            rf"\b{re.escape(word.replace('-', '_'))}\b|{re.escape(word)}", beside
        ):
            return f"{words[0]} has nothing called {word!r}"
    return None


def complaint(command: str, whole: bool, console: Console) -> str | None:
    """What is wrong with a command, or None."""
    command = re.split(r" (?:\d?>|&&|;|\| (?:jq|grep|head|tail|tee|less)\b)", command)[
        0
    ]  # what a shell does with it
    command = re.sub(r"( \| [\w-]+)+", "", command).replace("…", "").replace("...", "")  # a | b: one of them
    words = shlex.split(command.rstrip(".,;: "))
    words = words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]
    for word in words[1:]:
        inside = word.split("/")[0] in FOLDERS and re.search(r"\.(py|md|toml|yaml|json|gz)$", word)
        if inside and "*" not in word and not (ROOT / word).is_file():
            return f"there is no {word}"
    if words[0].startswith("radiata-"):
        return console.complaint([words[0].removeprefix("radiata-"), *words[1:]], whole)
    if words[0] == "torchrun":
        at = next((i for i, word in enumerate(words) if word.startswith("radiata-")), None)
        rest = words[at:] if at is not None else []
        rest = [rest[0].rstrip(")"), *rest[1:]] if rest else []
        return console.complaint([rest[0].removeprefix("radiata-"), *rest[1:]], whole) if rest else None
    if words[0] == "make":
        known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        unknown = [word for word in words[1:] if "=" not in word and word not in known]
        return f"the Makefile has no {unknown[0]}" if unknown else None
    return script_complaint(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_are_understood(
    page: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = {command: complaint(command, whole, console) for command, whole in commands_of(page)}
    wrong = [f"{command}\n    {said.strip()}" for command, said in found.items() if said]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "whole", "says"),
    [
        ("radiata-t1 sample --out heads --sead 0", True, "sead"),
        ("radiata-t1 sample --out heads --resolution 3mm", True, "3mm"),
        ("radiata-t1 sample --sead", False, "no option --sead"),
        ("radiata-t1 draw --out heads", True, "no verb 'draw'"),
        ("radiata-t1 demo --sead 0 2>&1 >/dev/null | jq 'select(.level)'", True, "sead"),
        ("radiata-t2 demo", False, "there is no radiata-t2"),
        ("radiata-t1 train h.h5 --out run --preset shared/presets/none.toml", True, "there is no shared"),
        ("python benchmarks/none.py", True, "there is no benchmarks/none.py"),
        ("python benchmarks/t1_speed.py --faster", True, "no option --faster"),
        ("OMP_NUM_THREADS=1 python benchmarks/decode.py --only zebras", True, "nothing called 'zebras'"),
        ("make everything", False, "the Makefile has no everything"),
    ],
)
def test_wrong_commands_are_found(command: str, whole: bool, says: str, console: Console) -> None:
    assert says in (complaint(command, whole, console) or "")


def test_commands_are_found_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `make\ntest`, then\n\n    python a.py --x 1\n\n```sh\n"
        + "OMP_NUM_THREADS=1 radiata-t1 demo \\\n  --out x  # why\n```\n"
        + "```python\npython = 1\n```\n"
    )
    assert commands_of(page) == [
        ("OMP_NUM_THREADS=1 radiata-t1 demo --out x", True),
        ("python a.py --x 1", True),
        ("make test", False),
    ]


@pytest.mark.slow
def test_start_page_runs_as_it_stands(tmp_path: Path) -> None:
    """Its commands in their order, but for the installation, from a folder that sees the repository's `apps`."""
    script = ROOT / "docs" / "scripts" / "start.py"
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ran = [command for command, whole in commands_of(START) if whole and command.startswith("radiata-")]
    assert len(ran) >= 8 and all(command in done.stdout for command in ran)
    for page in ("first-head", "quick", "denoised", "latents-demo", "decode-demo"):
        assert (tmp_path / page / "report.html").is_file(), page
