"""Rows of numbers as files and as lines: CSV for programs, aligned columns for people."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radiata_core.files import atomic_path

__all__ = ["aligned", "write_csv"]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows under the union of their keys, in order of appearance; what is None or missing is empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(keys)
        writer.writerows([["" if row.get(key) is None else row[key] for key in keys] for row in rows])


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
