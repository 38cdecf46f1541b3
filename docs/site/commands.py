"""The pages of the command lines: each verb with its options, units and defaults, from the dataclass that it is.

A verb's docstring is its help and an attribute's docstring its option's (`radiata_core.commands`); both are read, not run.
"""

import ast
import re
from collections.abc import Iterator

import griffe
from docstrings import Resolve, markdown, summary
from reference import Reference

__all__ = ["command_pages"]

_EXAMPLE = re.compile(r"^Example: (.+(?:\n.+)*)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")


def command_pages(reference: Reference) -> Iterator[tuple[str, str]]:
    """(path of the page, its text) for every application."""
    for member, package in reference.packages.items():
        if "cli" not in package.modules:
            continue
        cli = package.modules["cli"]
        command = member.replace("_", "-")
        about = ast.literal_eval(str(cli["SUMMARY"].value)) if "SUMMARY" in cli.members else ""
        parts = [f"# {command}", about, "```text\n" + f"{command} VERB [options]\n{command} VERB --help\n```"]
        for verb, name in _verbs(cli):
            target = griffe.Alias("verb", cli[name].target_path) if cli[name].is_alias else cli[name]
            path = target.target_path if isinstance(target, griffe.Alias) else target.path
            owner = package[path.split(".", 1)[1]]
            parts.append(_verb(verb, owner, reference.resolver(path.rsplit(".", 1)[0])))
        yield f"reference/{command}.md", "\n\n".join(filter(None, parts)) + "\n"


def _verbs(cli: griffe.Module) -> list[tuple[str, str]]:
    """(verb, name of its class) of the table VERBS."""
    tree = ast.parse(str(cli["VERBS"].value), mode="eval").body
    assert isinstance(tree, ast.Dict)
    return [
        (ast.literal_eval(key), ast.unparse(value))
        for key, value in zip(tree.keys, tree.values, strict=True)
        if key
    ]


def _verb(verb: str, owner: griffe.Class, resolve: Resolve) -> str:
    """One verb: what it does, and a table of its options."""
    rows = []
    for field in owner.attributes.values():
        if field.docstring is None or field.name.startswith("_"):
            continue
        given = str(field.annotation)
        word = field.name if "Positional" in given else f"--{field.name.replace('_', '-')}"
        default = _default(str(field.value)) if field.value is not None else "needed"
        says = summary(_written(field.docstring), resolve).replace("|", "\\|")
        rows.append(f"| `{word}` | {says} | {default} |")
    table = "\n".join(["| option | | default |", "|---|---|---|", *rows]) if rows else ""
    return "\n\n".join(filter(None, (f"## {verb}", markdown(_written(owner.docstring), resolve), table)))


def _written(docstring: griffe.Docstring | None) -> griffe.Docstring | None:
    """A help as a page shows it: examples as a block of code, options within a sentence as code."""
    if docstring is None:
        return None
    text = _EXAMPLE.sub(lambda match: f"```sh\n{' '.join(match[1].split())}\n```", docstring.value)
    text = text.replace("\n```\n\n```sh\n", "\n")
    blocks = re.split(r"(^```sh\n.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    blocks[::2] = [_options(block) for block in blocks[::2]]
    return griffe.Docstring("".join(blocks))


def _options(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [_OPTION.sub(r"`\1`", part) for part in parts[::2]]
    return "".join(parts)


def _default(value: str) -> str:
    """A default as it would be typed; nothing where there is none."""
    if named := re.match(r"field\(default(?:_factory)?=(.+?)(?:, \w+=.*)?\)$", value):
        value = named[1]
    if path := re.match(r"Path\((.+)\)$", value):
        value = path[1]
    if value in ("None", "()", "tuple", "dict", "list", "''"):
        return ""
    try:
        given = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        given = None
    return f"`{given if isinstance(given, str) else value}`".replace("|", "\\|")
