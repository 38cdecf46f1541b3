"""Tables of tab-separated values, as BIDS writes them: one header line, `n/a` where a value is missing.

Columns named in `TEXT` are words and stay words – a stimulus called `0042` or `NA` keeps its name; every other column
becomes numbers where all of its values are numbers.

References:
    BIDS, tabular files, https://bids-specification.readthedocs.io/en/stable/common-principles.html.
"""

from pathlib import Path

import pandas as pd

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import check_declared, foreign

__all__ = ["TEXT", "check_columns", "read_table", "write_table"]

TEXT = frozenset({"stimulus", "split", "category", "caption", "group", "hemisphere", "subject", "condition"})
MISSING = ("n/a", "")


def check_columns(columns: list[str], needed: tuple[str, ...], what: str) -> None:
    """Nothing, if each column is there once.

    Args:
        columns: As they stand in the header.
        needed: Those that must be among them.
        what: Name of the table, for the message.

    Raises:
        InputError: a column twice, or one that is missing.
    """
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(
            f"expected each column of {what} once; got {', '.join(twice)} more than once. Rename or drop one."
        )
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"expected columns {' '.join(needed)} in {what}; {', '.join(missing)} missing. Add them to the table."
        )


def read_table(path: Path, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    """The table, its columns in order, words in `TEXT` columns ("" where missing).

    Args:
        path: Of the .tsv file.
        needed: Columns that must be there.

    Raises:
        InputError: no such file, not a table, a column twice or missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected the table {path}; got no such file. Check the path.")
    with foreign(f"expected a table in UTF-8 in {path}; got something else", "Write it again."):
        check_declared(path.stat().st_size, path)
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    header = lines[0].split("\t") if lines[0] else []
    check_columns(header, needed, str(path))
    rows = [line.split("\t") for line in lines[1:] if line]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise InputError(
                f"expected {len(header)} values separated by tabs in each row of {path}; got {len(row)} in row "
                f"{number + 1}. Write it again."
            )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    return pd.DataFrame(
        {
            name: _typed(name, pd.Series(list(column), dtype=object))
            for name, column in zip(header, columns, strict=True)
        }
    )


def _typed(name: str, words: pd.Series) -> pd.Series:
    if name == "stimulus":
        return words
    missing = words.isin(MISSING)
    if name in TEXT:
        return words.mask(missing, "")
    try:
        return pd.to_numeric(words.mask(missing))
    except (ValueError, TypeError, OverflowError):
        return words.mask(missing, "")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write it atomically.

    Raises:
        InputError: a column twice, or a value with a tab or line break in it.
    """
    columns = [str(name) for name in table.columns]
    check_columns(columns, (), str(path))
    for name in columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            broken = table[name].astype(str).str.contains(r"[\t\r\n]", regex=True)
            if broken.any():
                raise InputError(
                    f"expected words without tabs and line breaks in column {name}; got "
                    f"{table[name][broken].iloc[0]!r}. Replace them by spaces."
                )
    with atomic_path(path) as part:
        filled = table.copy()
        filled.columns = columns
        for name in columns:
            if name in TEXT and name != "stimulus":
                filled[name] = filled[name].astype(str).replace("", "n/a")
        filled.to_csv(
            part, sep="\t", index=False, na_rep="n/a", float_format="%.9g", quoting=3, lineterminator="\n"
        )
