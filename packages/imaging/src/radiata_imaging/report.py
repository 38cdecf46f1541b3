r"""One HTML file that says everything: sections, tables with intervals, figures, a three-plane viewer, provenance.

The file holds its pictures and its data; it opens from a disk, a mail or an archive without a network, now and in ten years.
Whatever came from a user or a file is escaped, and a content security policy in the page itself lets the browser fetch
nothing and run no script but ours, which it knows by its checksum. The viewer is a chapter of its own: `viewer`.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from radiata_core.runs import atomic_path
from radiata_imaging.plots import STAMP, png
from radiata_imaging.viewer import Overlay, Viewer

__all__ = ["Image", "Overlay", "Provenance", "Section", "Table", "Text", "Viewer", "page", "write_report"]


@dataclass(frozen=True)
class Text:
    """A paragraph; `warning` makes it stand out."""

    text: str
    warning: bool = False

    def html(self) -> str:
        return f"<p{' class=warning' if self.warning else ''}>{html.escape(self.text)}</p>"


@dataclass(frozen=True)
class Table:
    """Rows under a header; numbers are printed with four digits, everything is escaped."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<div class=wide><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, tuple | list) and len(value) == 2:
        return f"[{_cell(value[0])}, {_cell(value[1])}]"
    return str(value)


@dataclass(frozen=True)
class Image:
    """A figure, embedded as PNG, with a caption."""

    figure: Figure | bytes
    caption: str = ""

    def html(self) -> str:
        data = base64.b64encode(self.figure if isinstance(self.figure, bytes) else png(self.figure)).decode()
        alt = html.escape(self.caption, quote=True)
        return (
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Provenance:
    """What made the page: a mapping, printed as indented JSON."""

    facts: Mapping[str, Any]

    def html(self) -> str:
        text = json.dumps(self.facts, indent=2, default=str, ensure_ascii=False)
        return f"<details><summary>Show</summary><pre>{html.escape(text)}</pre></details>"


Block = Text | Table | Image | Viewer | Provenance


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def page(title: str, sections: Sequence[Section], *, synthetic: bool = False) -> str:
    """The whole page as one string that refers to nothing outside itself."""
    resources = files("radiata_imaging")
    style = resources.joinpath("report.css").read_text(encoding="utf-8")
    has_viewer = any(isinstance(block, Viewer) for section in sections for block in section.blocks)
    script = resources.joinpath("viewer.js").read_text(encoding="utf-8") if has_viewer else ""
    links = "".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(sections))
    body = "\n".join(
        f'<section id="s{i}"><h2>{html.escape(section.title)}</h2>\n'
        + "\n".join(block.html() for block in section.blocks)
        + "</section>"
        for i, section in enumerate(sections)
    )
    stamp = f"<p class=stamp>{html.escape(STAMP)}</p>" if synthetic else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">\n'
        f"<style>{style}</style></head><body>\n<header><h1>{html.escape(title)}</h1>{stamp}"
        f'<nav aria-label="sections">{links}</nav></header>\n<main>{body}</main>\n'
        f"<script>{script}</script></body></html>\n"
    )


def write_report(path: Path, title: str, sections: Sequence[Section], *, synthetic: bool = False) -> Path:
    """Write the page atomically; returns its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(page(title, sections, synthetic=synthetic), encoding="utf-8")
    return path
