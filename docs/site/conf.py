"""Sphinx's configuration of the site; `python docs/site/build.py` calls it.

Equations become MathML while the site is built, so a page holds no script and no font for them and opens from a disk. What
the converter does not know is a warning, and so an error.
"""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

__all__ = ["setup"]

project = "Radiata"
copyright = "the Radiata contributors, Apache-2.0"
extensions = ["myst_parser"]
root_doc = "index"
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
smartquotes_action = "qe"  # two hyphens begin an option
maximum_signature_line_length = 90
add_module_names = False
toc_object_entries = False
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = "Radiata"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"


_LOUD = re.compile(r"\\[bB]igg?[lrm]?\s*(?=\\(?:langle|rangle|\||[lr]Vert))")
_WORDS = {r"\arg\min": r"\mathrm{argmin}", r"\arg\max": r"\mathrm{argmax}"}


def _mathml(node: nodes.Node, display: str) -> str:
    """The equation of a node; the converter leaves what it does not know as it is written, which is said here."""
    text = _LOUD.sub("", node.astext())
    for written, meant in _WORDS.items():
        text = text.replace(written, meant)
    equation = convert(text, display=display)
    if unknown := re.findall(r">\s*(\\\S+?)\s*<", equation):
        logging.getLogger(__name__).warning("unknown in an equation: %s", unknown, location=node)
    return equation


def _inline(writer: nodes.NodeVisitor, node: nodes.math) -> None:
    writer.body.append(f'<span class="math">{_mathml(node, "inline")}</span>')  # type: ignore[attr-defined]
    raise nodes.SkipNode


def _block(writer: nodes.NodeVisitor, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_mathml(node, "block")}</div>')  # type: ignore[attr-defined]
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Add the renderer of equations."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
