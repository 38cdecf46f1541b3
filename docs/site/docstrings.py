"""A docstring of the house as MyST Markdown: Google sections become lists, names become links.

Docstrings are Markdown already (backticks, indented equations, `$…$`), so their prose passes through, but for four things: a
sharp bracket is no HTML, a star that emphasises nothing is a star, a bare address becomes a link, and so does a name in
backticks that the reference holds.
"""

import re
from collections.abc import Callable, Iterator

import griffe

__all__ = ["Resolve", "linked", "markdown", "summary"]

Resolve = Callable[[str], str | None]
"""A name as written → the full name in the reference, or None."""

_ADDRESS = re.compile(r"(?<![<(\[\"'`])\bhttps?://[^\s<>`]*[^\s<>`.,;:)\]]")
_BRACKET = re.compile(r"<(?!https?://)(?=[A-Za-z/!?])")
_EMPHASIS = re.compile(r"(?:(?<=[\s(])|^)(\*{1,2})(?=[^\s*])[^*]+(?<=[^\s*])\1(?=[\s.,;:)?!]|$)|(\*)")
_KEPT = re.compile(r"(\$\$.*?\$\$|`(?:[^`\n]|\n(?!\n))*`|\$(?:[^$\n]|\n(?!\n))*\$)", re.DOTALL)
"""What is no prose: equations, and spans of code and mathematics, which may go over lines but not over paragraphs."""
_SPAN = re.compile(r"(?<![\[`])`([A-Za-z_][\w.]*)(\(\))?`(?![\]`])")


def linked(text: str, resolve: Resolve) -> str:
    """Markdown whose names in backticks are links where `resolve` knows them; blocks of code stay."""
    lines, fenced, blank, code = [], False, True, False
    for line in text.split("\n"):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        code = line.startswith("    ") and (blank or code)
        lines.append(line if fenced or code else _SPAN.sub(lambda match: _link(match, resolve), line))
        blank = not line.strip()
    return "\n".join(lines)


def _link(match: re.Match[str], resolve: Resolve) -> str:
    target = resolve(match[1])
    return f"{{py:obj}}`{match[1]}{match[2] or ''} <{target}>`" if target else match[0]


def _prose(text: str, resolve: Resolve) -> str:
    """Prose with its addresses as links, sharp brackets escaped outside of code and equations, and names linked."""
    parts: list[tuple[bool, list[str]]] = []  # runs of lines that are code or are not
    blank, indented, fenced = True, False, False
    for line in text.split("\n"):
        indented = line.startswith("    ") and (blank or indented)
        fence = line.startswith("```")
        code = indented or fenced or fence
        fenced ^= fence
        if not parts or parts[-1][0] != code:
            parts.append((code, []))
        parts[-1][1].append(line)
        blank = not line.strip()
    return linked(
        "\n".join("\n".join(run) if code else _words("\n".join(run)) for code, run in parts), resolve
    )


def _words(text: str) -> str:
    """Lines that are not code: what stands between spans of code and equations, escaped."""
    parts = _KEPT.split(text)
    parts[::2] = [_escaped(part) for part in parts[::2]]
    return "".join(parts)


def _escaped(text: str) -> str:
    """Text between spans of code: no HTML, stars that emphasise nothing as stars, addresses as links."""
    starred = _EMPHASIS.sub(lambda match: r"\*" if match[2] else match[0], text)
    return _ADDRESS.sub(r"<\g<0>>", _BRACKET.sub(r"\\<", starred))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _entries(text: str) -> Iterator[str]:
    """The entries of a list of references: each begins at the margin; its later lines are indented, or an address."""
    entry: list[str] = []
    for line in [*text.split("\n"), ""]:
        if entry and (not line.strip() or not line.startswith((" ", "http"))):
            yield " ".join(entry)
            entry = []
        if line.strip():
            entry.append(line.strip())


def _items(title: str, items: list[tuple[str, str]], resolve: Resolve) -> str:
    rows = [f"- {f'**{name}** – ' if name else ''}{_indented(_prose(text, resolve))}" for name, text in items]
    return "\n".join([f"*{title}*", "", *rows])


def _section(section: griffe.DocstringSection, resolve: Resolve) -> str:
    kind, value = section.kind.value, section.value
    if kind == "text":
        return _prose(value, resolve)
    if kind in ("parameters", "attributes", "other parameters"):
        return _items(kind.capitalize(), [(f"`{item.name}`", item.description) for item in value], resolve)
    if kind == "raises":
        return _items("Raises", [(f"`{item.annotation}`", item.description) for item in value], resolve)
    if kind in ("returns", "yields"):
        return _items(kind.capitalize(), [(item.name, item.description) for item in value], resolve)
    if kind == "admonition":
        contents = value.contents if hasattr(value, "contents") else value.description
        return _items(
            section.title or value.annotation, [("", entry) for entry in _entries(contents)], resolve
        )
    if kind == "examples":
        return "*Examples*\n\n" + "\n\n".join(
            text if part.value == "text" else f"```pycon\n{text}\n```" for part, text in value
        )
    return ""


def markdown(docstring: griffe.Docstring | None, resolve: Resolve) -> str:
    """The whole docstring; nothing for None."""
    if docstring is None:
        return ""
    sections = docstring.parse("google", warnings=False, returns_named_value=False)
    return "\n\n".join(filter(None, (_section(section, resolve) for section in sections)))


def summary(docstring: griffe.Docstring | None, resolve: Resolve) -> str:
    """The first paragraph on one line."""
    text = docstring.value.strip().split("\n\n")[0] if docstring else ""
    return _prose(" ".join(text.split()), resolve)
