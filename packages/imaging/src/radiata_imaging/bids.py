"""Heads in a folder: a BIDS tree with its participants and sessions, or any folder of volumes; results as a BIDS tree.

    sub-<label>/[ses-<label>/]anat/*_T1w.nii[.gz]      participants.tsv      sub-<label>/sub-<label>_sessions.tsv

Other contrasts than T1w are found where their suffixes are named.

A value in `sessions.tsv` (the age at a visit) stands before the one in `participants.tsv`. In a plain folder the subject is
the `sub-…` of the path if there is one, else the file's name, else (where names repeat) the path from the folder.

A folder of results that are named as BIDS derivatives gets `dataset_description.json`, and a `.bidsignore` for what is not
BIDS in it (run.json, logs, tables): the BIDS validator then finds no error (`tests/t1/test_sample.py`,
`tests/medical/test_outputs.py`).

References:
    Gorgolewski et al. (2016), The brain imaging data structure, Scientific Data 3:160044.
    BIDS derivatives, https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, write_json
from radiata_core.sidecars import generated_by
from radiata_imaging.manifest import Entry, Manifest, Table, read_manifest, read_rows
from radiata_imaging.nifti import SUFFIXES, is_volume_path

__all__ = ["BIDS_VERSION", "find_scans", "is_bids", "write_derivative_description"]

BIDS_VERSION = "1.10.0"
"""Of the specification that results follow."""

_NOT_BIDS = ("run.json", "log.jsonl", "failures.json", "*.csv", "*.html", "configs", "inputs")

_SUBJECT = re.compile(r"(?:^|/)sub-([a-zA-Z0-9]+)")
_SESSION = re.compile(r"(?:^|/|_)ses-([a-zA-Z0-9]+)")


_T1W = ("T1w",)


def is_bids(folder: Path, suffixes: Sequence[str] = _T1W) -> bool:
    """Whether the folder holds `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, or images of the suffixes named."""
    return bool(_bids_files(folder, suffixes))


def find_scans(source: Path, suffixes: Sequence[str] = _T1W) -> Manifest:
    """Entries of a manifest (`.csv`, `.tsv`), a BIDS tree or a folder, in the order of their paths; splits as far as given.

    Args:
        source: The file or folder.
        suffixes: Which images of a BIDS tree count, such as `T1w` and `FLAIR`.

    Raises:
        InputError: no such source, or no scan in it.
    """
    if not source.exists():
        raise InputError(
            f"expected a folder, a BIDS tree or a CSV/TSV manifest; got nothing at {source}. Check the path."
        )
    if source.is_file():
        if source.suffix.lower() in (".csv", ".tsv"):
            return read_manifest(source)
        if is_volume_path(source):
            return Manifest((Entry(source, _stem(source)),))
        raise InputError(
            f"expected a CSV or TSV manifest; got {source}. Give a table, or the folder of the scans."
        )
    files = _bids_files(source, suffixes)
    if files:
        return _bids(source, files)
    scans = _folder(source)
    if not scans:
        raise InputError(
            f"expected volumes ({' '.join(SUFFIXES)}) or DICOM folders; got none under {source}. Check the folder."
        )
    return Manifest(scans)


def write_derivative_description(folder: Path, application: str, name: str, description: str) -> None:
    """Make a folder of results a BIDS derivative: what it is, and which of its files are not BIDS.

    Args:
        folder: Of the results.
        application: The program, as it is installed.
        name: Of the data set.
        description: A sentence or two.
    """
    told = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(application),
        "License": "Apache-2.0",
        "Description": description,
    }
    write_json(folder / "dataset_description.json", told)
    with atomic_path(folder / ".bidsignore") as part:
        part.write_text("\n".join(_NOT_BIDS) + "\n", encoding="utf-8")


def _bids_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    patterns = [
        f"{place}/*_{suffix}.nii" for place in ("sub-*/anat", "sub-*/ses-*/anat") for suffix in suffixes
    ]
    return sorted(path for pattern in patterns for end in ("", ".gz") for path in folder.glob(pattern + end))


def _bids(folder: Path, files: list[Path]) -> Manifest:
    people = _keyed(folder / "participants.tsv", "participant_id", "sub-")
    rows = []
    for path in files:
        subject, session = _entities(path, folder)
        visits = _keyed(folder / f"sub-{subject}" / f"sub-{subject}_sessions.tsv", "session_id", "ses-")
        row = dict(people.get(subject, {}))
        row.update(
            {name: value for name, value in visits.get(session, {}).items() if value not in ("", "n/a")}
        )
        rows.append(row)
    names = sorted(
        {name for row in rows for name in row}, key=lambda name: (name != "age", name != "sex", name)
    )
    table = Table.of(rows, names)
    entries = tuple(
        Entry(path, *_entities(path, folder), None, values)
        for path, values in zip(files, table.rows, strict=True)
    )
    return Manifest(entries, table.names, (), table.codes, table.ignored)


def _keyed(path: Path, key: str, prefix: str) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    rows = read_rows(path)
    if rows and key not in rows[0]:
        raise InputError(
            f"expected a column {key}; got {', '.join(rows[0])} in {path}. Repair the BIDS table."
        )
    return {row[key].removeprefix(prefix): {k: v for k, v in row.items() if k != key} for row in rows}


def _entities(path: Path, folder: Path) -> tuple[str, str]:
    text = path.relative_to(folder).as_posix()
    subject, session = _SUBJECT.search(text), _SESSION.search(text)
    return (subject.group(1) if subject else "", session.group(1) if session else "")


def _folder(folder: Path) -> tuple[Entry, ...]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and is_volume_path(path) and not _hidden(path, folder) and path.suffix != ".json"
    )
    series = [] if files else _dicom_folders(folder)
    repeated = Counter(_stem(path) for path in files + series)
    entries = []
    for path in files + series:
        subject, session = _entities(path, folder)
        if not subject:
            relative = path.relative_to(folder).as_posix()
            subject = _stem(path) if repeated[_stem(path)] == 1 else _stem(Path(relative.replace("/", "_")))
        entries.append(Entry(path, subject, session))
    return tuple(entries)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _dicom_folders(folder: Path) -> list[Path]:
    candidates = [
        folder,
        *sorted(path for path in folder.rglob("*") if path.is_dir() and not _hidden(path, folder)),
    ]
    return [path for path in candidates if any(_is_dicom(file) for file in _first_files(path))]


def _first_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()][:3]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _stem(path: Path) -> str:
    name = path.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
