"""What a folder holds: which names are final, whether a file is whole, and what it says apart from when and where.

Left out of comparisons, here and nowhere else:

    VOLATILE     keys of JSON and of log lines that tell of time, memory, machine or of how often a run was begun
    _FACTS       of a page's record of its run, the same keys
    _HOUR        elements of DICOM objects that tell when they were made
    TEMPORARY    names of files that are still being written: a dot first, `.tmp` in it; and the lock
"""

import csv
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["VOLATILE", "broken", "content", "finals", "is_temporary", "litter"]

VOLATILE = {
    "start", "duration_s", "peak_memory_mib", "PeakMemoryMiB", "Seconds", "seconds", "sessions", "versions", "git", "device",
    "threads", "rows_per_second", "resume", "provenance",
}  # fmt: skip
TEMPORARY = re.compile(r"\..*\.tmp(\.\w+)*|\.tmp\w{6}")
"""Ours, and what safetensors calls a file until it is whole."""
_FACTS = re.compile(r"<summary>Show</summary><pre>(.*?)</pre>", re.DOTALL)
"""Where a page shows the record of its run."""
_HOUR = re.compile(r"(Content|Series|InstanceCreation)(Date|Time)|ContributionDateTime")
"""VOLATILE of DICOM."""


def is_temporary(name: Path) -> bool:
    """Whether a relative name is that of something unfinished."""
    return any(TEMPORARY.fullmatch(part) or part.endswith(".lock") for part in name.parts)


def finals(folder: Path) -> dict[str, Path]:
    """Final names below a folder, relative, and where they are; the inputs (`in`, a link) are not among them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] != "in" and path.is_file() and not is_temporary(name):
            found[name.as_posix()] = path
    return found


def litter(folder: Path) -> list[str]:
    """Temporary files below a folder, and folders of parts."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] != "in"
        and (is_temporary(Path(path.name)) or path.name.endswith(".parts"))
    )


def content(path: Path) -> str:
    """A digest of what a file says, VOLATILE apart."""
    if path.suffix == ".json":
        return _digest(_lasting(json.loads(path.read_text(encoding="utf-8"))))
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return _digest([_lasting(json.loads(line)) for line in lines])
    if path.suffix == ".html":
        return _digest(_FACTS.sub(_lasting_facts, path.read_text(encoding="utf-8")))
    if path.suffix == ".dcm":
        return hashlib.sha256(_undated(path)).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(thing: Any) -> str:
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()


def _lasting(thing: Any) -> Any:
    if isinstance(thing, Mapping):
        return {key: _lasting(value) for key, value in thing.items() if key not in VOLATILE}
    return [_lasting(value) for value in thing] if isinstance(thing, list) else thing


def _lasting_facts(found: re.Match[str]) -> str:
    """What a page says of its run, as the record itself."""
    return json.dumps(_lasting(json.loads(html.unescape(found[1]))))


def _undated(path: Path) -> bytes:
    """A DICOM object without the hour at which it was made."""
    import io

    from pydicom import dcmread

    def stopped(place: Any, element: Any) -> None:
        if _HOUR.fullmatch(element.keyword):
            element.value = ""

    item, bare = dcmread(path), io.BytesIO()
    item.walk(stopped)
    item.save_as(bare)
    return bare.getvalue()


def broken(path: Path) -> str:
    """Why a file under a final name is not whole; empty: it is."""
    try:
        return _READERS.get("".join(path.suffixes[-2:]), _READERS.get(path.suffix, _unknown))(path)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _json(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    weights = path.with_suffix(".safetensors")
    named = found.get("sha256") if isinstance(found, Mapping) else None
    if named and weights.is_file() and named != hashlib.sha256(weights.read_bytes()).hexdigest():
        return f"another {weights.name} than the one it names"
    return ""


def _lines(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:  # a log's last line may be cut
        json.loads(line)
    return ""


def _hdf5(path: Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        file.visititems(lambda _, one: one[()] is None if isinstance(one, h5py.Dataset) else None)
        return "" if file.attrs.get("complete", True) else "not complete"


def _tensors(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)
    return ""


def _volume(path: Path) -> str:
    import nibabel as nib
    import numpy as np

    return "" if np.isfinite(nib.load(path).get_fdata()).all() else "not finite"


def _table(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
    return "" if text.endswith("\n") and len({len(row) for row in rows}) == 1 else "a table that is cut"


def _page(path: Path) -> str:
    return "" if path.read_text(encoding="utf-8").rstrip().endswith("</html>") else "a page that is cut"


def _picture(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
    return ""


def _arrays(path: Path) -> str:
    import numpy as np

    with np.load(path) as file:
        for name in file:
            file[name]
    return ""


def _slice(path: Path) -> str:
    from pydicom import dcmread

    return "" if len(dcmread(path).pixel_array) else "no pixels"


def _weights(path: Path) -> str:
    import torch

    return "" if torch.load(path, weights_only=True) else "no tensors"


def _unknown(path: Path) -> str:
    return f"no reader of {path.suffix} files here"


_READERS = {
    ".json": _json, ".jsonl": _lines, ".h5": _hdf5, ".nc": _hdf5, ".safetensors": _tensors, ".pt": _weights, ".nii": _volume,
    ".nii.gz": _volume, ".dcm": _slice, ".csv": _table, ".tsv": _table, ".html": _page, ".png": _picture, ".npz": _arrays,
}  # fmt: skip
