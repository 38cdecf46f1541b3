r"""Tables of regional volumes as other programs write them, read into millilitres.

| file | recognised by | unit |
|---|---|---|
| SynthSeg `--vol` CSV | first column `subject`, one column a region | mm³ |
| `aseg.stats` of FreeSurfer and FastSurfer | `# ColHeaders … StructName … Volume_mm3` | mm³ |
| `asegstats2table` | first column `Measure:volume`, comma or tab | mm³ |
| plain, wide | first column `subject` or `participant_id`; columns ending in `_ml` are millilitres | mm³ or ml |
| plain, long | columns `subject, region, ml` or `subject, region, mm3` | as named |
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign, foreign_text

__all__ = ["RegionTable", "read_regions"]

_SUBJECT_COLUMNS = ("subject", "subjects", "participant_id", "measure:volume", "subject_id", "id", "file", "")


@dataclass(frozen=True)
class RegionTable:
    """Volumes of regions, one row a scan.

    Attributes:
        subjects: Name of each row.
        regions: Name of each column.
        ml: `(subjects, regions)`, millilitres, finite and >= 0.
    """

    subjects: tuple[str, ...]
    regions: tuple[str, ...]
    ml: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.subjects), len(self.regions))
        if self.ml.shape != expected or not np.isfinite(self.ml).all() or (self.ml < 0).any():
            raise InputError(
                f"expected finite volumes >= 0 in a table of {expected[0]} scans x {expected[1]} regions; got "
                f"{self.ml.shape} with {int((~np.isfinite(self.ml)).sum())} missing. Complete or drop those rows."
            )

    @classmethod
    def of(cls, rows: Iterable[tuple[str, dict[str, float]]]) -> "RegionTable":
        """A table from `(subject, {region: ml})` pairs that name the same regions.

        Raises:
            InputError: Rows that name different regions, or none.
        """
        rows = list(rows)
        names = tuple(rows[0][1]) if rows else ()
        for subject, values in rows:
            if set(values) != set(names):
                raise InputError(
                    f"expected the same regions in every row; {subject} differs in "
                    f"{', '.join(sorted(set(values) ^ set(names))[:4])}. Segment all scans with one program."
                )
        ml = np.array([[values[name] for name in names] for _, values in rows], dtype=np.float64)
        return cls(tuple(subject for subject, _ in rows), names, ml.reshape(len(rows), len(names)))

    def shared_with(self, other: "RegionTable") -> list[str]:
        """Regions that both tables name.

        Raises:
            InputError: There are none.
        """
        shared = [name for name in self.regions if name in other.regions]
        if not shared:
            raise InputError(
                f"expected regions of the same names; got {', '.join(self.regions[:3])} … and "
                f"{', '.join(other.regions[:3])} …. Segment both sets with one program."
            )
        return shared

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """`(subjects, names)`, ml, in the order of `names`."""
        return self.ml[:, [self.regions.index(name) for name in names]]


def read_regions(path: Path) -> RegionTable:
    """A table of regional volumes from a CSV/TSV file, an `aseg.stats`, or a folder of such stats files.

    Raises:
        InputError: A file that is none of them.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.stats"))
        if not files:
            raise InputError(
                f"expected *.stats files in {path}; got none. Give the SynthSeg CSV or FastSurfer's folder."
            )
        return RegionTable.of((_subject_of(file), _stats(file)) for file in files)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected a text table of regional volumes; {path} cannot be read ({error})"
        ) from None
    with foreign(
        f"expected a text table of regional volumes; {path} cannot be read", "SynthSeg --vol writes one."
    ):
        return _table(text, path)


def _table(text: str, path: Path) -> RegionTable:
    """The table in a text, by what its first lines say."""
    if "# ColHeaders" in text:
        return RegionTable.of([(_subject_of(path), _stats(path))])
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    separator = "\t" if lines and "\t" in lines[0] else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    if len(rows) < 2 or not rows[0] or rows[0][0].lower() not in _SUBJECT_COLUMNS:
        raise InputError(
            f"expected a table whose first column is 'subject' and one row a scan; {path.name} starts with "
            f"'{rows[0][0][:60] if rows and rows[0] else ''}'. SynthSeg --vol writes one."
        )
    return _long(rows, path) if len(rows[0]) == 3 and rows[0][1].lower() == "region" else _wide(rows, path)


def _number(text: str, path: Path, row: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"expected numbers in {path.name}; got '{text}' in the row of {row}") from None


def _wide(rows: list[list[str]], path: Path) -> RegionTable:
    names, factors = [], []
    for name in rows[0][1:]:
        in_ml = name.lower().endswith(("_ml", " ml"))
        names.append(name[:-3] if in_ml else name)
        factors.append(1.0 if in_ml else 1e-3)
    for row in rows[1:]:
        if len(row) != len(rows[0]):
            raise InputError(
                f"expected {len(rows[0])} cells a row in {path.name}; got {len(row)} in that of {row[0]}"
            )
    # An empty header cell is SynthSeg's (and pandas') index or trailing comma: no region.
    kept = [i for i, name in enumerate(names) if name]
    ml = np.array([[_number(row[1 + i], path, row[0]) * factors[i] for i in kept] for row in rows[1:]])
    return RegionTable(tuple(row[0] for row in rows[1:]), tuple(names[i] for i in kept), ml)


def _long(rows: list[list[str]], path: Path) -> RegionTable:
    factor = {"ml": 1.0, "mm3": 1e-3}.get(rows[0][2].lower())
    if factor is None:
        raise InputError(f"expected the third column of {path.name} to be 'ml' or 'mm3'; got '{rows[0][2]}'")
    table: dict[str, dict[str, float]] = {}
    for row in rows[1:]:
        if len(row) != 3:
            raise InputError(f"expected 3 cells a row in {path.name}; got {len(row)} in that of {row[:1]}")
        subject, region, value = row
        table.setdefault(subject, {})[region] = _number(value, path, subject) * factor
    return RegionTable.of(table.items())


def _stats(path: Path) -> dict[str, float]:
    columns: list[str] = []
    volumes = {}
    for line in foreign_text(path, "an aseg.stats file").splitlines():
        if line.startswith("# ColHeaders"):
            columns = line.split()[2:]
        elif (
            line.strip() and not line.startswith("#") and "StructName" in columns and "Volume_mm3" in columns
        ):
            cells = line.split()
            if len(cells) < len(columns):
                raise InputError(f"expected {len(columns)} columns in {path}; got the line {line[:60]!r}.")
            name = cells[columns.index("StructName")]
            volumes[name] = _number(cells[columns.index("Volume_mm3")], path, name) / 1000.0
    if not volumes:
        raise InputError(
            f"expected columns StructName and Volume_mm3 in {path}; got none. Give an aseg.stats file."
        )
    return volumes


def _subject_of(path: Path) -> str:
    """`SUBJECT/stats/aseg.stats` is the layout of FreeSurfer and FastSurfer."""
    return path.parent.parent.name if path.parent.name == "stats" else path.stem
