"""What the pages say is so: examples run, figures have their scripts, commands and tests exist, the tour misses nothing."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import radiata_core

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path != DOCS / "README.md" and "site" not in path.parts)
LONGEST = 15
"""Non-empty lines of a page's first example: a method is one call away, or it is not."""
CORE = ROOT / "packages" / "core" / "src" / "radiata_core"
VERIFICATION = DOCS / "verification.md"
PAPERS = {
    "2212.05973": "PPAP",
    "2302.04265": "PFGM++",
    "2303.02490": "Diffusion models generate images like painters",
    "2303.08797": "Stochastic interpolants",
    "2307.08702": "Diffusion features",
    "2310.02279": "Consistency trajectory models",
    "2310.07138": "Denoising task routing",
    "2311.17528": "HiDiffusion",
    "2312.02189": "StableDreamer",
    "2402.03845": "Gauge freedom and conservativity",
    "2403.03206": "Stable Diffusion 3",
    "2407.12718": "SlimFlow",
    "2407.17571": "MT-Diffusion",
    "2408.16467": "Spiking diffusion models",
    "2410.06940": "REPA",
    "2410.07303": "Rectified diffusion",
    "2503.19385": "Rollover budget forcing",
    "2509.00336": "Are we really learning the score function?",
}
"""The papers that the core promises to bring one call away, by their number on arXiv."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    """solvers, papers/medforj: a page by its place in docs."""
    return page.relative_to(DOCS).with_suffix("").as_posix()


def tracked(folder: Path, pattern: str) -> list[Path]:
    """Files under version control, so that what is being written does not count yet."""
    try:
        words = ["git", "-C", str(ROOT), "ls-files", "-z", "--", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for path in folder.rglob(pattern) if path.is_file())
    names = [ROOT / name for name in done.stdout.split("\0") if name]
    return sorted(path for path in names if path.match(pattern) and path.is_file())


# Examples ---------------------------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str]]:
    """(page, its first block of Python), for every page that has one."""
    found = [(p, re.search(r"^```python\n(.*?)^```", text_of(p), re.MULTILINE | re.DOTALL)) for p in PAGES]
    return [(name_of(path), match[1]) for path, match in found if match]


def run(code: str, name: str, given: dict[str, object]) -> dict[str, object]:
    with torch.random.fork_rng(devices=[]):
        exec(compile(code, name, "exec"), given)
    return given


@pytest.mark.parametrize(("page", "code"), examples(), ids=lambda text: text if "\n" not in text else "")
def test_first_example_of_a_page_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 15 lines, on its own, from an empty folder, drawing from no global generator but for a network's weights."""
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= LONGEST, f"{len(lines)} lines"
    monkeypatch.chdir(tmp_path)
    run(code, f"docs/{page}.md", {"__name__": "example"})


# Figures, commands, links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_figures_exist_and_are_made_by_a_script(page: Path) -> None:
    scripts = {path.stem: text_of(path) for path in (DOCS / "scripts").glob("*.py")}
    for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text_of(page)):
        image = page.parent / target
        assert image.is_file(), f"{target} is missing"
        makers = [name for name, code in scripts.items() if image.stem.startswith(name) or image.name in code]
        assert makers, f"no script in docs/scripts makes {target}"


@pytest.mark.parametrize("page", [*PAGES, DOCS / "README.md"], ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Scripts and benchmarks in commands, and tests, modules and cards by their path."""
    if not page.exists():
        pytest.skip("the page is not there yet")
    named = re.findall(
        r"\b((?:docs|benchmarks|tests|packages|apps|shared|datasets)/[\w./-]*\w\.(?:py|md|toml|json|png))\b",
        text_of(page),
    )
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_index_lists_every_page() -> None:
    index = DOCS / "README.md"
    linked = set(re.findall(r"\]\(([\w/-]+)\.md", text_of(index)))
    pages = [name_of(path) for path in tracked(DOCS, "*.md") if "site" not in path.parts]
    assert [name for name in pages if name not in linked | {"README"}] == []


@pytest.mark.parametrize("paper", PAPERS, ids=PAPERS.get)
def test_every_paper_is_one_page_away(paper: str) -> None:
    """The index names it beside a page that cites it, and that page's first example runs (above)."""
    rows = [row for row in text_of(DOCS / "README.md").splitlines() if paper in row]
    assert rows, f"{PAPERS[paper]} ({paper}) is not in docs/README.md"
    pages = re.findall(r"\]\(([\w-]+\.md)\)", " ".join(rows))
    runnable = {page for page, _ in examples()}
    assert any(name.removesuffix(".md") in runnable and paper in text_of(DOCS / name) for name in pages)


# The tour ---------------------------------------------------------------------------------------------------------------


def modules() -> list[str]:
    files = [path for path in tracked(CORE, "*.py") if path.name != "__init__.py"]
    return [".".join(path.relative_to(CORE).with_suffix("").parts) for path in files]


def test_tour_names_every_module_and_nothing_else() -> None:
    tour = radiata_core.__doc__ or ""
    words = set(re.findall(r"`(\w+(?:\.\w+)*)", tour))
    said = words | {word.rsplit(".", 1)[0] for word in words}
    assert [name for name in modules() if name not in said] == [], "not in the tour of radiata_core"
    wrong = []
    for word in sorted(words):
        head, _, rest = word.partition(".")
        if (CORE / f"{head}.py").is_file() or (CORE / head).is_dir():
            thing: object = importlib.import_module(f"radiata_core.{head}")
            for part in rest.split(".") if rest else []:
                if inspect.ismodule(thing) and not hasattr(thing, part):
                    importlib.import_module(f"{thing.__name__}.{part}")
                if not hasattr(thing, part):
                    wrong.append(word)
                    break
                thing = getattr(thing, part)
        elif rest and head not in ("x", "torch"):
            wrong.append(word)
    assert wrong == []


def test_tour_is_shown_without_importing_torch() -> None:
    code = "import sys, radiata_core; help(radiata_core); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False"), "import radiata_core, or its help, imports torch"
    assert "The chapters are these axes" in done.stdout


def test_tour_example_runs(generator: torch.Generator) -> None:
    """Ten lines on any network and any data."""
    blocks = re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", radiata_core.__doc__ or "")
    code = inspect.cleandoc("\n" + blocks[0])
    assert len([line for line in code.splitlines() if line.strip()]) <= 10

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 5)

        def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([x, level.expand(len(x))[:, None].to(x)], 1))

    with torch.random.fork_rng(devices=[]):
        network = Network()
    data = torch.randn(4, 5, generator=generator)
    result = run(code, "the tour", {"network": network, "x0": data})
    assert result["samples"].shape == (3, 5)  # type: ignore[attr-defined]
    assert torch.isfinite(result["loss"])  # type: ignore[arg-type]


def test_modules_are_imported_when_used() -> None:
    assert radiata_core.paths.LinearPath is importlib.import_module("radiata_core.paths").LinearPath
    with pytest.raises(AttributeError, match="no attribute 'pathz'"):
        _ = radiata_core.pathz


# The audit --------------------------------------------------------------------------------------------------------------


def functions(path: Path) -> dict[str, bool]:
    """Test functions of a file, and whether they are marked slow (themselves, or one of their parameters)."""
    tree = ast.parse(text_of(path))
    whole = any(
        isinstance(node, ast.Assign) and "pytestmark" in ast.dump(node) and "'slow'" in ast.dump(node)
        for node in tree.body
    )
    return {
        node.name: whole or any("'slow'" in ast.dump(mark) for mark in node.decorator_list)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def audited() -> list[tuple[str, str, str, str]]:
    """(number, file, test, the row) for each test that the table of the verification page names."""
    rows = re.findall(r"^\|\s*(T\d+)\s*\|(.*)$", text_of(VERIFICATION), re.MULTILINE)
    return [
        (number, file, name, row)
        for number, row in rows
        for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    ]


def test_verification_suite_is_complete_and_exists() -> None:
    """T1 to T27 each have a test that exists, and what is marked slow there is marked slow here."""
    rows = audited()
    assert {number for number, *_ in rows} == {f"T{n}" for n in range(1, 28)}
    wrong = []
    for number, file, name, row in rows:
        path = ROOT / "tests" / file
        known = functions(path) if path.is_file() else {}
        if name not in known:
            wrong.append(f"{number}: {file}::{name} does not exist")
        elif known[name] != bool(re.search(rf"{re.escape(file)}::{name}` \(slow\)", row)):
            wrong.append(f"{number}: {file}::{name} is {'' if known[name] else 'not '}slow")
    assert wrong == []
