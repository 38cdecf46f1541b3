"""The site of the documentation, built without a network: `make docs`, or `python docs/site/build.py`.

    pages of the repository → build/site-source → Sphinx (MyST, furo) → build/site/index.html

The pages stay where they are in the repository and link to one another as files, so Sphinx reads a copy of them in the same
folders. The navigation is the list of `docs/README.md`: its headings are the kinds of pages, the first link of a row is
the page. The reference is written from docstrings (`reference`), the command lines from their options (`commands`).
Warnings are errors: a broken link, a page that nothing names, a row of a table that does not parse.
"""

import argparse
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from commands import command_pages
from docstrings import linked
from reference import Reference

__all__ = ["build", "stage"]

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent
PAGES = (
    "docs/*.md",
    "docs/how-to/*.md",
    "docs/papers/*.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "datasets/README.md",
    "apps/*/src/*/weights/README.md",
)
"""Pages of the repository that are pages of the site; the first page stands in for the repository's read-me."""
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s#]+)(?:#[^)\s]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")


def stage(source: Path, with_reference: bool = True) -> None:
    """Write what Sphinx reads: copies of the pages and of the files they link to, the reference, the first page."""
    shutil.rmtree(source, ignore_errors=True)
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    reference = Reference(ROOT) if with_reference else None
    resolve = reference.resolver("radiata_core") if reference else (lambda name: None)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in filter(None, (first or second for first, second in _LINK.findall(text))):
            _copy_linked(page, target, source)
        copy = source / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(linked(text, lambda name: resolve(name) if "." in name else None), encoding="utf-8")
    if reference:
        for name, text in (*reference.pages(), *command_pages(reference)):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text, encoding="utf-8")
    first = (SITE / "index.md.in").read_text(encoding="utf-8")
    for target in filter(None, (one or other for one, other in _LINK.findall(first))):
        _copy_linked(ROOT / "index.md", target, source)
    (source / "index.md").write_text(first + "".join(_navigation(source, with_reference)), encoding="utf-8")


def _copy_linked(page: Path, target: str, source: Path) -> None:
    """A file beside the pages that one of them links to: a card, a licence, a module, a picture."""
    if "://" in target or target.startswith("mailto:"):
        return
    file = (page.parent / target).resolve()
    if file.is_file() and file.is_relative_to(ROOT) and file.suffix != ".md":
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def _navigation(source: Path, with_reference: bool) -> Iterator[str]:
    """Hidden tables of contents, one a heading of docs/README.md; pages that no heading lists come last."""
    listed = {"docs/README.md", "index.md"}
    for heading, rows in _kinds((ROOT / "docs" / "README.md").read_text(encoding="utf-8")):
        entries = []
        for title, target in rows:
            name = _normal(f"docs/{target}")
            if name not in listed and (source / name).is_file():
                listed.add(name)
                entries.append(f"{title} <{name}>")
        if heading == "Reference" and with_reference:
            entries += [str(path.relative_to(source)) for path in _fronts(source)]
        if heading == "Start here":
            entries.append("All pages <docs/README.md>")
        yield _toctree(heading, entries)
    rest = sorted(str(path.relative_to(source)) for path in source.rglob("*.md"))
    yield _toctree(
        "Cards", [name for name in rest if name not in listed and not name.startswith("reference/")]
    )


def _kinds(index: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(heading, its rows as (title, target)) of the list of pages."""
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        yield (
            heading.strip(),
            re.findall(r"^\s*(?:\d+\.|-) \[([^\]]+)\]\(([^)#\s]+\.md)\)", body, re.MULTILINE),
        )


def _fronts(source: Path) -> list[Path]:
    """The pages of the reference that stand in the navigation: members, and command lines."""
    pages = (source / "reference").glob("radiata*.md")
    fronts = [page for page in pages if "." not in page.stem]
    return sorted(fronts, key=lambda page: ("-" not in page.stem, page.stem))


def _normal(name: str) -> str:
    """docs/../x as x."""
    parts: list[str] = []
    for part in name.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _toctree(caption: str, entries: list[str]) -> str:
    title = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{title}\n" + "\n".join(entries) + "\n```\n"


def build(out: Path, source: Path, builder: str = "html", with_reference: bool = True) -> int:
    """Exit code of Sphinx, 0 if there was nothing to warn of."""
    from sphinx.cmd.build import main

    stage(source, with_reference)
    words = ["-b", builder, "-W", "--keep-going", "-q", "-E", "-c", str(SITE), "-d", str(out / ".doctrees")]
    return main([*words, str(source), str(out)])


def command_line() -> int:
    words = argparse.ArgumentParser(description="Build the site of the documentation.")
    words.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder of the site")
    words.add_argument("--builder", default="html", help="Sphinx's builder; dummy checks and writes nothing")
    words.add_argument("--no-reference", action="store_true", help="leave the pages from docstrings out")
    given = words.parse_args()
    began = time.monotonic()
    source = given.out.parent / f"{given.out.name}-source"
    code = build(given.out, source, given.builder, not given.no_reference)
    print(f"{time.monotonic() - began:.0f} s")
    print(given.out / "index.html" if not code else "the site has warnings; see above")
    return code


if __name__ == "__main__":
    sys.exit(command_line())
