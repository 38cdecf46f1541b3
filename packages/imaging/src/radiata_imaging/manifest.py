"""Which files, of whom: a list of entries from a CSV/TSV manifest, a BIDS tree or a plain folder, split by person.

A manifest is a table with the columns

    path, subject [, session] [, split] [, ml_<region> …] [, any covariate …]

`path` is absolute, or relative to the manifest's own folder (a relative path may not leave it). Every other column is a
covariate: numbers as they are; `n/a`, `nan`, `na` and empty are missing; a column of two words becomes 0 and 1 in the order
of the alphabet (sex: F = 0, M = 1; the codes are kept). Columns of more words are ignored and named. Columns that begin
with `ml_` are regional volumes in millilitres.

People are split, not scans: subjects are ordered by sha256(seed, subject) and the order is cut at the fractions, so the same
subjects and seed give the same split on every machine, whatever the order of the files.
"""

import csv
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign

__all__ = ["Entry", "Manifest", "Table", "check_entries", "read_manifest", "split_subjects"]

SPLITS = ("train", "validation", "test")
_MISSING = {"", "n/a", "na", "nan", "none", "null"}
_SYNONYMS = {
    "val": "validation",
    "valid": "validation",
    "training": "train",
    "testing": "test",
    "dev": "validation",
}
_OWN = {"path", "subject", "session", "split"}


@dataclass(frozen=True)
class Entry:
    """One scan: where it is and whose it is.

    Attributes:
        path: Volume file or DICOM folder.
        subject: The person.
        session: Visit; empty where there is one.
        split: `train`, `validation`, `test`, or None while undecided.
        covariates: Name to number, NaN where missing.
        volumes: Region to millilitres, NaN where missing.
    """

    path: Path
    subject: str
    session: str = ""
    split: str | None = None
    covariates: Mapping[str, float] = field(default_factory=dict)
    volumes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Columns of text made numbers.

    Attributes:
        names: Columns that became numbers.
        rows: One dictionary a row, NaN where missing.
        codes: Column to {word: number} where words were coded.
        ignored: Columns with more than two words.
    """

    names: tuple[str, ...]
    rows: tuple[dict[str, float], ...]
    codes: Mapping[str, Mapping[str, int]]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> "Table":
        """The columns `names` of rows of text."""
        numbers: list[dict[str, float]] = [{} for _ in rows]
        kept, codes, ignored = [], {}, []
        for name in names:
            texts = [str(row.get(name) or "").strip() for row in rows]
            words = sorted({text for text in texts if text.lower() not in _MISSING and not _is_number(text)})
            if words and (len(words) > 2 or any(_is_number(text) for text in texts)):
                ignored.append(name)
                continue
            code = {word: index for index, word in enumerate(words)}
            if words:
                codes[name] = code
            kept.append(name)
            for target, text in zip(numbers, texts, strict=True):
                missing = text.lower() in _MISSING
                target[name] = math.nan if missing else float(code[text] if words else text)
        return cls(tuple(kept), tuple(numbers), codes, tuple(ignored))


@dataclass(frozen=True)
class Manifest:
    """Entries and what their columns are called.

    Attributes:
        entries: The scans.
        covariates: Names of the covariates.
        regions: Names of the regions with volumes.
        codes: Covariate to {word: number} where words were coded.
        ignored: Columns that were left out.
    """

    entries: tuple[Entry, ...]
    covariates: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    codes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a `.csv` (comma) or `.tsv` (tab) file with a header line, names in lower case.

    Raises:
        InputError: not text, no header, or a row of another length.
    """
    try:
        check_declared(path.stat().st_size, path, "text")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"expected a text table in UTF-8; got other bytes in {path}. Save it as CSV (UTF-8)."
        ) from None
    with foreign(
        f"expected a table with a header line in {path}; got something else", "Save it as CSV (UTF-8)."
    ):
        return _rows(text, path)


def _rows(text: str, path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    if not reader.fieldnames:
        raise InputError(
            f"expected a header line; got an empty table {path}. Name the columns in the first line."
        )
    names = [str(name).strip().lower() for name in reader.fieldnames]
    if len(set(names)) != len(names):
        raise InputError(
            f"expected each column once; got {', '.join(names)} in {path}. Rename the repeated one."
        )
    reader.fieldnames = names
    rows = []
    for row in reader:
        if None in row or any(value is None for value in row.values()):
            raise InputError(
                f"expected {len(names)} columns; line {reader.line_num} of {path} has another number. "
                "Quote values that hold the separator."
            )
        rows.append({name: value.strip() for name, value in row.items()})
    return rows


def read_manifest(path: Path) -> Manifest:
    """The entries of a CSV or TSV manifest.

    Raises:
        InputError: unreadable, a column or value missing, an unknown split, or a relative path that leaves the folder.
    """
    rows = read_rows(path)
    if not rows:
        raise InputError(f"expected at least one row; got none in {path}. List one scan a line.")
    missing = {"path", "subject"} - set(rows[0])
    if missing:
        raise InputError(
            f"expected the columns path and subject; got {', '.join(rows[0])} in {path}. "
            f"Add {' and '.join(sorted(missing))}."
        )
    others = [name for name in rows[0] if name not in _OWN]
    table = Table.of(rows, others)
    regions = tuple(name for name in table.names if name.startswith("ml_"))
    covariates = tuple(name for name in table.names if name not in regions)
    entries = []
    for number, (row, values) in enumerate(zip(rows, table.rows, strict=True), start=2):
        if not row["path"] or not row["subject"]:
            raise InputError(
                f"expected path and subject in every row; got an empty one in line {number} of {path}."
            )
        entries.append(
            Entry(
                _inside(path.parent, row["path"], number, path),
                _name(row["subject"], "subject", number, path),
                _name(row.get("session", ""), "session", number, path),
                _split(row.get("split", ""), number, path),
                {name: values[name] for name in covariates},
                {name.removeprefix("ml_"): values[name] for name in regions},
            )
        )
    names = tuple(name.removeprefix("ml_") for name in regions)
    return Manifest(tuple(entries), covariates, names, table.codes, table.ignored)


def _name(text: str, what: str, number: int, manifest: Path) -> str:
    """The name of a person or visit, which becomes a part of file names and a cell of tables."""
    if (
        "/" in text
        or "\\" in text
        or text in (".", "..")
        or text[:1] in ("=", "+", "-", "@")
        or not text.isprintable()
    ):
        raise InputError(
            f"expected a {what} of letters, digits and the like; got {text!r} in line {number} of {manifest}. Leave out "
            "slashes, control characters, and = + - @ at its beginning (a spreadsheet would run it)."
        )
    return text


def _inside(base: Path, text: str, number: int, manifest: Path) -> Path:
    if "\0" in text:
        raise InputError(
            f"expected a path; got one with a zero byte in line {number} of {manifest}. Repair it."
        )
    if Path(text).is_absolute():
        return Path(text)
    relative = Path(os.path.normpath(text))
    if relative.parts[:1] == ("..",):
        raise InputError(
            f"expected a path inside {base}; got {text} in line {number} of {manifest}. Give an absolute path to leave it."
        )
    return base / relative


def _split(text: str, number: int, manifest: Path) -> str | None:
    if text.lower() in _MISSING:
        return None
    name = _SYNONYMS.get(text.lower(), text.lower())
    if name not in SPLITS:
        raise InputError(
            f"expected a split out of {', '.join(SPLITS)}; got {text!r} in line {number} of {manifest}. Rename it."
        )
    return name


def check_entries(entries: Sequence[Entry]) -> None:
    """Nothing, when the list can be used.

    Raises:
        InputError: no entries; a file listed twice; a subject in two splits, or with and without one.
    """
    if not entries:
        raise InputError("expected at least one scan; got none. Check the source.")
    seen: dict[Path, Entry] = {}
    splits: dict[str, str | None] = {}
    for entry in entries:
        path = Path(os.path.normpath(entry.path))
        if path in seen:
            raise InputError(f"expected each file once; got {path} twice. Remove one of the rows.")
        seen[path] = entry
        if splits.setdefault(entry.subject, entry.split) != entry.split:
            raise InputError(
                f"expected each subject in one split; got {entry.subject} in {splits[entry.subject]} and {entry.split}. "
                "Split by subject, not by scan."
            )


def split_subjects(
    entries: Sequence[Entry], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Entry, ...]:
    """The entries with a split each; a subject's scans stay together, and splits that are given stay as they are.

    Counts are the fractions of the undecided subjects by largest remainder; a fraction above zero gets at least one subject
    where there are enough.

    Args:
        entries: Scans, some or none with a split.
        fractions: Train, validation, test; they sum to one.
        seed: Another seed, another split.

    Raises:
        InputError: fractions that do not sum to one, or see `check_entries`.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(
            f"expected three fractions ≥ 0 that sum to 1; got {fractions}. For example 0.8 0.1 0.1."
        )
    check_entries(entries)
    undecided = {entry.subject for entry in entries if entry.split is None}
    ordered = sorted(undecided, key=lambda subject: hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest())
    counts = _counts(len(ordered), fractions)
    names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    chosen = dict(zip(ordered, names, strict=True))
    return tuple(entry if entry.split else replace(entry, split=chosen[entry.subject]) for entry in entries)


def _counts(total: int, fractions: Sequence[float]) -> list[int]:
    exact = [total * fraction for fraction in fractions]
    counts = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    for index, fraction in enumerate(fractions):
        if fraction > 0 and counts[index] == 0 and max(counts) > 1:
            counts[counts.index(max(counts))] -= 1
            counts[index] = 1
    return counts
