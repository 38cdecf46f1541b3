"""Spike times from MATLAB files: any cell array or struct array of units, and the linear-track recordings of nelpy.

    read_matlab(path, "spikes")    nested cells and structs with a field `time` (or plain vectors of times)
    read_positions(path)           SpikeGadgets' video tracking beside it: x and y in pixels

Empty cells are units that were not recorded; the place of the others is their name. MATLAB 7.3 files are HDF5 and refused
with a hint; scipy reads the others.

References:
    Trodes' `.videoPositionTracking`: a text header that names the fields of the binary records after it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_imaging.mat_files import load_mat
from radiata_latents.data.recordings import Recording, Trace

__all__ = ["read_matlab", "read_positions"]

_KINDS = {"uint8", "uint16", "uint32", "uint64", "int16", "int32", "float", "double"}


def read_matlab(path: Path, variable: str = "spikes") -> Recording:
    """The recording in a .mat file.

    Args:
        path: The file.
        variable: Name of the variable with the units.

    Raises:
        InputError: no such file or variable, another version of the format, nothing that looks like spike times.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a .mat file; got no such file: {path}. Check the path.")
    with foreign(f"expected a .mat file; got {path}, which cannot be read"):
        try:
            found = load_mat(path)
        except NotImplementedError:
            raise InputError(
                f"expected a .mat file before version 7.3; {path} is HDF5. Save it with -v7."
            ) from None
    if variable not in found:
        names = sorted(name for name in found if not name.startswith("__"))
        raise InputError(f"expected a variable {variable!r} in {path.name}; there are {', '.join(names)}.")
    with foreign(
        f"expected spike times in {variable} of {path}; got something else", "Name another variable."
    ):
        return _recording(found[variable], variable, path)


def _recording(value: Any, variable: str, path: Path) -> Recording:
    """The recording of a variable, whatever is in it."""
    units, spans = {}, []
    for name, times, span in _units(value, ()):
        units[name] = times
        if span is not None:
            spans.append(span)
    if not units:
        raise InputError(
            f"expected spike times in {variable} of {path.name}; found none. Name another variable."
        )
    intervals = np.zeros((0, 2))
    if spans:
        intervals = np.array([[max(a for a, _ in spans), min(b for _, b in spans)]])
    return Recording(spikes=units, intervals=intervals, source=path.name)


def _units(
    value: Any, place: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray, tuple[float, float] | None]]:
    """(name, times, observed span) of every unit below, depth first; a name is the path of indices from 1."""
    if not isinstance(value, np.ndarray) or value.size == 0:
        return
    if value.dtype.names and "time" in value.dtype.names:
        for index, record in enumerate(value.ravel()):
            times = np.asarray(record["time"], float).ravel()
            if not len(times):
                continue
            span = np.asarray(record["timerange"] if "timerange" in value.dtype.names else [], float).ravel()
            where = place if value.size == 1 else (*place, index + 1)
            yield "-".join(map(str, where)) or "1", times, (span[0], span[1]) if len(span) == 2 else None
    elif value.dtype == object:
        cells = value.ravel()
        for index, cell in enumerate(cells):
            yield from _units(cell, (*place, index + 1) if len(cells) > 1 else place)
    elif value.dtype.kind in "fiu":
        yield "-".join(map(str, place)) or "1", np.asarray(value, float).ravel(), None


def read_positions(path: Path, pixels_per_cm: float | None = None) -> Trace:
    """The first pair of positions of a video tracking file, (sample, x y), on the recording's clock in s.

    Args:
        path: A `.videoPositionTracking` file.
        pixels_per_cm: Scale; by default the header's, or pixels if it has none.

    Raises:
        InputError: no such file, no header, or fields that are not known.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a tracking file; got no such file: {path}. Check the path.")
    check_declared(path.stat().st_size, path)
    raw = path.read_bytes()
    head, found, body = raw.partition(b"<End settings>\n")
    if not found:
        raise InputError(
            f"expected a header that ends in <End settings>; {path.name} has none. Is it a tracking file?"
        )
    lines = dict(re.findall(r"^([\w ]+):\s*(.+)$", head.decode("utf-8", "replace"), re.MULTILINE))
    fields = re.findall(r"<(\w+) (\w+)>", lines.get("Fields", ""))
    if (
        not {"time", "xloc", "yloc"} <= {name for name, _ in fields}
        or not {kind for _, kind in fields} <= _KINDS
    ):
        raise InputError(f"expected fields time, xloc and yloc of known kinds; got {lines.get('Fields')!r}.")
    if len({name for name, _ in fields}) != len(fields):
        raise InputError(f"expected each field once in {path.name}; got {lines.get('Fields')!r}.")
    kinds = {"float": "float32", "double": "float64"}
    record = np.dtype([(name, np.dtype(kinds.get(kind, kind)).newbyteorder("<")) for name, kind in fields])
    whole = len(body) // record.itemsize * record.itemsize
    rows = np.frombuffer(body[:whole], record)
    clock = _number(lines.get("clockrate", ""))
    if not clock > 0:
        raise InputError(
            f"expected a clockrate > 0 in the header of {path.name}; got {lines.get('clockrate')!r}."
        )
    scale = pixels_per_cm or _number(lines.get("pixel scale", "0"))
    if not scale >= 0:
        raise InputError(
            f"expected a pixel scale >= 0 in the header of {path.name}; got {lines.get('pixel scale')!r}."
        )
    values = np.stack([rows["xloc"], rows["yloc"]], 1).astype(float)
    return Trace(rows["time"] / clock, values / (scale or 1.0), ("x", "y"), "cm" if scale else "pixel")


def _number(text: str) -> float:
    """The first number of a text, NaN without one."""
    found = re.match(r"\s*(\d+(?:\.\d*)?)", text)
    return float(found[1]) if found and len(found[1]) < 40 else float("nan")
