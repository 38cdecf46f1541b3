"""Sections of encoding models: tables by region, the best voxels' distribution in words, flat maps and bars."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiata_core.files import read_json
from radiata_decode.data.tables import read_table
from radiata_imaging.report import Image, Section, Table, Text

__all__ = ["encoding_sections"]

TABLES = {
    "regions.tsv": "Means over the voxels of each region; intervals are over voxels.",
    "unique.tsv": "What a space explains alone; q is the false discovery rate over regions.",
}
MOST_ROWS = 80


def encoding_sections(folder: Path) -> list[Section]:
    """What stands in a folder of `encode`.

    Raises:
        InputError: a table that cannot be read.
    """
    voxels = read_table(folder / "encoding.tsv", ("voxel",))
    blocks: list[Any] = [
        Text(
            f"{len(voxels)} voxels. Scores are of test stimuli, averaged over repeats; without a noise ceiling "
            "beside it a correlation or R² means little."
        ),
        _summary(voxels),
    ]
    for name, caption in TABLES.items():
        if (folder / name).is_file():
            table = read_table(folder / name)
            rows = table.head(MOST_ROWS).itertuples(index=False, name=None)
            blocks.append(
                Table([str(column) for column in table.columns], [list(row) for row in rows], caption)
            )
    images = [Image(path.read_bytes(), _caption(path)) for path in sorted(folder.glob("*.png"))]
    sections = [Section("Encoding models", blocks)]
    return [*sections, Section("Maps and regions", images)] if images else sections


def _summary(voxels: pd.DataFrame) -> Table:
    """Quartiles over voxels of every column of numbers."""
    rows = []
    for name in voxels.columns:
        if name == "voxel" or not pd.api.types.is_numeric_dtype(voxels[name]):
            continue
        values = voxels[name].to_numpy(np.float64)
        finite = values[np.isfinite(values)]
        ends = np.quantile(finite, (0.25, 0.5, 0.75)).tolist() if len(finite) else [None] * 3
        rows.append((name, *ends, float(finite.max()) if len(finite) else None, len(finite)))
    header = ("column", "first quartile", "median", "third quartile", "largest", "voxels")
    return Table(header, rows, "Over voxels.")


def _caption(path: Path) -> str:
    numbers = path.with_suffix(".json")
    found = read_json(numbers) if numbers.is_file() else {}
    said = str(found.get("figure", path.stem)) if isinstance(found, dict) else path.stem
    return f"{said}. Not for clinical use."
