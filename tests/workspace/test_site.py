"""The site of `make docs`: it builds without a warning or a network, and says what the docstrings say.

The default suite checks the pages and their links, and the reference of a small package; the slow one builds everything.
"""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"

TOOLS = ("sphinx", "myst_parser", "furo", "griffe", "latex2mathml")

if missing := [name for name in TOOLS if importlib.util.find_spec(name) is None]:
    pytest.skip(f"{missing[0]} is not installed; see requirements-docs.txt", allow_module_level=True)


@pytest.fixture
def docstrings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SITE))
    import docstrings as module  # type: ignore[import-not-found]

    return module


def built(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SITE / "build.py"), "--out", str(out), *options]
    return subprocess.run(words, capture_output=True, text=True)


def test_pages_and_their_links_are_whole(tmp_path: Path) -> None:
    """Warnings are errors: a broken link, a page that the list of pages does not name, a picture that is missing."""
    done = built(tmp_path / "site", "--no-reference", "--builder", "dummy")
    assert done.returncode == 0, done.stderr


def test_a_docstring_becomes_markdown(docstrings: ModuleType) -> None:
    import griffe

    text = (
        "What comes out, as `Denoiser`.\n\n    x_t = alpha x_0\n\nOf <x, y>, see https://arxiv.org/abs/1.\n\n"
        "Args:\n    sigma: Noise level, > 0.\n\nRaises:\n    InputError: sigma is negative.\n\n"
        "References:\n    First,\n        eq. 3.\n    Second.\n"
    )
    known = {"Denoiser": "radiata_core.denoisers.Denoiser"}
    made = docstrings.markdown(griffe.Docstring(text), known.get)
    assert made.splitlines() == [
        "What comes out, as {py:obj}`Denoiser <radiata_core.denoisers.Denoiser>`.",
        "",
        "    x_t = alpha x_0",
        "",
        "Of \\<x, y>, see <https://arxiv.org/abs/1>.",
        "",
        "*Parameters*",
        "",
        "- **`sigma`** – Noise level, > 0.",
        "",
        "*Raises*",
        "",
        "- **`InputError`** – sigma is negative.",
        "",
        "*References*",
        "",
        "- First, eq. 3.",
        "- Second.",
    ]


def test_names_in_code_are_not_links(docstrings: ModuleType) -> None:
    text = "`a.b`\n\n    `a.b`\n\n```\n`a.b`\n```\n[`a.b`](x.md)"
    assert docstrings.linked(text, lambda name: name).count("py:obj") == 1


def test_equations_are_not_escaped(docstrings: ModuleType) -> None:
    """A star within an equation, over several lines too, stays one; outside it is escaped."""
    import griffe

    equation = "$$ E = |g * L|, \\qquad\n   F = X_* <Y>, $$"
    text = f"What comes out.\n\n{equation}\n\n$$a * b$$ of a * b, or $c * d$, and e * f."
    made = docstrings.markdown(griffe.Docstring(text), lambda name: None)
    assert equation in made and made.endswith("$$a * b$$ of a \\* b, or $c * d$, and e \\* f.")


def test_types_of_a_signature_are_those_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes of one name in different modules are told apart; what is not ours keeps its place as well."""
    monkeypatch.syspath_prepend(str(SITE))
    import griffe
    from reference import _signature  # type: ignore[import-not-found]

    code = (
        "import numpy as np\nfrom pathlib import Path\nfrom core.types import Signal\n"
        "def f(x: Signal | None, at: list[Path], *, y: 'Signal' = 1) -> np.ndarray: ...\n"
    )
    made = griffe.visit("page", Path("page.py"), code)["f"]
    assert _signature("f", made.parameters, made.returns) == (
        "f(x: ~core.types.Signal | None, at: list[~pathlib.Path], *, y: ~core.types.Signal = 1) -> ~numpy.ndarray"
    )


def test_helps_are_written_as_they_are_typed(docstrings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are code, line by line, options too; defaults have no quotes and no machinery of Python."""
    monkeypatch.syspath_prepend(str(SITE))
    import commands  # type: ignore[import-not-found]
    import griffe

    text = (
        "Draw.\n\nGo on with --resume, as `a --b`.\n\nExample: a *.nii\n    --out x\n\nExample: b\n\nNo more."
    )
    made = docstrings.markdown(commands._written(griffe.Docstring(text)), lambda name: None)
    assert made == (
        "Draw.\n\nGo on with `--resume`, as `a --b`.\n\n```sh\na *.nii --out x\nb\n```\n\nNo more."
    )
    given = ("'lzf'", "Path('demo')", "field(default=())", "field(default=3, repr=False)", "(1, 2)", "None")
    assert [commands._default(value) for value in given] == ["`lzf`", "`demo`", "", "`3`", "`(1, 2)`", ""]


class _Loaded(HTMLParser):
    """Addresses that a page loads by itself: scripts, styles, pictures, fonts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in (
            "canonical",
            "next",
            "prev",
            "index",
            "search",
            "author",
        ):
            self.found.append(str(given.get("href")))


@pytest.mark.slow
def test_whole_site_needs_no_network(tmp_path: Path) -> None:
    """Every page, with the reference: no warning, nothing loaded from elsewhere, equations without a script."""
    site = tmp_path / "site"
    done = built(site)
    assert done.returncode == 0, done.stderr
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 400
    elsewhere = {}
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        far = [address for address in loaded.found if re.match(r"(https?:)?//", address)]
        elsewhere |= {page.name: far} if far else {}
    assert elsewhere == {}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not any(re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style) for style in styles)
    page = (site / "reference" / "radiata_imaging.diversity.html").read_text(encoding="utf-8")
    assert "<mfrac>" in page and "\\frac" not in page
    assert 'id="radiata_imaging.diversity.ssim"' in page
    command = (site / "reference" / "radiata-t1.html").read_text(encoding="utf-8")
    assert "--max-memory" in command and "–out" not in command and "field(" not in command
