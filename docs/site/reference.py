"""The reference: one page a module, one list a member, from the docstrings, without importing anything.

Members are read by griffe, so that the reference needs no torch and no minute. What a module lists in `__all__` is public:
functions, classes with their public methods, and constants that have a docstring.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import griffe
from docstrings import Resolve, linked, markdown, summary

__all__ = ["MEMBERS", "Reference"]

Written = Callable[[object], str]
"""An annotation → its text."""
LONGEST_SIGNATURE = 90
"""Characters of a signature as it is read, above which it has a line for each parameter."""
MEMBERS = {
    "radiata_core": "packages/core/src",
    "radiata_imaging": "packages/imaging/src",
    "radiata_t1": "apps/t1/src",
    "radiata_medical": "apps/medical/src",
    "radiata_decode": "apps/decode/src",
    "radiata_latents": "apps/latents/src",
}
"""Packages in the order of the layers, and where their sources are."""


@dataclass
class Reference:
    """All public names of the members.

    Attributes:
        root: The repository.
        packages: Member → griffe's tree of it.
        names: Full name → its page, for every module and public object.
    """

    root: Path
    packages: dict[str, griffe.Module] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member, folder in MEMBERS.items():
            loader = griffe.GriffeLoader(search_paths=[self.root / folder], allow_inspection=False)
            package = loader.load(member)
            assert isinstance(package, griffe.Module)
            self.packages[member] = package
            for module in _modules(package):
                self.names[module.path] = _page(module)
                for item in _public(module):
                    self.names[item.path] = _page(module)
                    if isinstance(item, griffe.Class):
                        self.names |= {method.path: _page(module) for method in _methods(item)}
        self._classes: dict[tuple[str, str], set[str]] = {}
        for name in self.names:
            last = name.rsplit(".", 1)[-1]
            if last[:1].isupper():
                self._classes.setdefault((name.split(".")[0], last), set()).add(name)

    def resolver(self, module: str) -> Resolve:
        """What a name in backticks means on the page of a module, or of a member."""
        member = module.split(".")[0]

        def resolve(name: str) -> str | None:
            for full in (name, f"{module}.{name}", f"{member}.{name}" if "." in name else ""):
                if full in self.names and ("." in full or name != member):
                    return full
            return self._unique(member, name) or (self._unique("radiata_core", name))

        return resolve

    def _unique(self, member: str, name: str) -> str | None:
        """A class by its bare name, where the member has one of that name alone."""
        found = self._classes.get((member, name), set())
        return next(iter(found)) if len(found) == 1 and "." not in name else None

    def pages(self) -> Iterator[tuple[str, str]]:
        """(path of a page, its text): a list for each member, and a page for each of its modules."""
        for member, package in self.packages.items():
            resolve = self.resolver(member)
            rows, group = [], None
            for module in _modules(package):
                here = ".".join(module.path.split(".")[1:-1])
                if module is not package and here != group:
                    group = here
                    rows += ["", f"## {here or 'modules'}", "", "| module | |", "|---|---|"]
                if module is not package:
                    says = summary(module.docstring, resolve).replace("|", "\\|")
                    rows.append(f"| [`{module.path}`]({Path(_page(module)).name}) | {says} |")
                    yield _page(module), self.module_page(module)
            tour = markdown(package.docstring, resolve)
            head = [f"# {member}", "", f"```{{py:module}} {member}", "```", "", tour, ""]
            yield f"reference/{member}.md", "\n".join([*head, *rows, ""])

    def module_page(self, module: griffe.Module) -> str:
        """One module: its docstring, then what it makes public."""
        resolve = self.resolver(module.path)
        member = module.path.split(".")[0]
        parts = [
            f"---\norphan: true\n---\n\n# {module.path.removeprefix(member + '.')}",
            f"[{member}]({member}.md) / `{module.path}`",
            f"```{{py:module}} {module.path}\n```",
            markdown(module.docstring, resolve),
        ]
        parts += [_described(item, resolve) for item in _public(module)]
        return "\n\n".join(filter(None, parts)) + "\n"


def _page(module: griffe.Module) -> str:
    return f"reference/{module.path}.md"


def _modules(package: griffe.Module) -> Iterator[griffe.Module]:
    """The package, its modules, then those of its folders; private ones and empty `__init__` are left out."""
    if package.docstring is not None and (package.parent is None or package.exports):
        yield package
    modules = [module for module in package.modules.values() if not module.is_alias]
    for module in sorted(modules, key=lambda module: (bool(module.modules), module.name)):
        if not module.name.startswith("_"):
            yield from _modules(module)


def _public(module: griffe.Module) -> list[griffe.Object]:
    """What `__all__` names and the module itself defines, in the order of the source."""
    names = [str(name) for name in module.exports or ()]
    found = [module.members[name] for name in names if name in module.members]
    items = [item for item in found if isinstance(item, griffe.Object) and not item.is_module]
    return sorted(items, key=lambda item: item.lineno or 0)


def _methods(item: griffe.Class) -> list[griffe.Function]:
    """Public methods that say something."""
    methods = [member for member in item.members.values() if isinstance(member, griffe.Function)]
    shown = [method for method in methods if not method.name.startswith("_") or method.name == "__call__"]
    return [method for method in shown if method.docstring is not None]


def _typed(annotation: object) -> str:
    """An annotation whose names are the full ones, as Sphinx shortens them: it would take any class of a bare name."""
    if isinstance(annotation, griffe.ExprName | griffe.ExprAttribute):
        full = annotation.canonical_path
        return f"~{full}" if "." in full else full
    if isinstance(annotation, griffe.Expr):
        return "".join(_typed(part) for part in annotation.iterate(flat=False))
    return str(annotation)


def _signature(
    name: str, parameters: griffe.Parameters, returns: object = None, written: Written = _typed
) -> str:
    """A signature on one line, without self."""
    words, star = [], False
    for parameter in parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.keyword_only and not star:
            words.append("*")
            star = True
        mark = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(
            kind, ""
        )
        star = star or mark == "*"
        word = f"{mark}{parameter.name}" + (
            f": {written(parameter.annotation)}" if parameter.annotation else ""
        )
        if parameter.default is not None and not mark:
            word += f" = {parameter.default}"
        words.append(word)
    return _plain(f"{name}({', '.join(words)})" + (f" -> {written(returns)}" if returns else ""))


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _directive(kind: str, head: str, body: str, ticks: int, options: str = "") -> str:
    fence = "`" * ticks
    return f"{fence}{{py:{kind}}} {head}\n{options}\n{body}\n{fence}"


def _callable(
    kind: str, name: str, item: griffe.Function | griffe.Class, body: str, ticks: int, returns: object = None
) -> str:
    """A directive with a signature; a short one stays on one line."""
    read = _signature(name, item.parameters, returns, str)
    head = _signature(name, item.parameters, returns)
    if isinstance(item, griffe.Class) and read == f"{name}()":
        head = name
    short = len(read) <= LONGEST_SIGNATURE
    return _directive(kind, head, body, ticks, ":single-line-parameter-list:\n" if short else "")


def _described(item: griffe.Object, resolve: Resolve) -> str:
    """A function, a class or a constant with its docstring."""
    says = markdown(item.docstring, resolve)
    name = item.name
    if isinstance(item, griffe.Function):
        return _callable("function", name, item, says, 5, item.returns)
    if isinstance(item, griffe.Class):
        methods = "\n\n".join(
            _directive("property", method.name, markdown(method.docstring, resolve), 4)
            if "property" in method.labels
            else _callable(
                "method", method.name, method, markdown(method.docstring, resolve), 4, method.returns
            )
            for method in _methods(item)
        )
        bases = ", ".join(f"`{base}`" for base in item.bases if str(base) != "object")
        above = linked(f"Base: {bases}.", resolve) if bases else ""
        body = "\n\n".join(filter(None, (above, says, methods)))
        return _callable("class", name, item, body, 5)
    if item.docstring is None:
        return ""
    return _directive("data", name, says, 5)
