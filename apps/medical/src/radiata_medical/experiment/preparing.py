"""From a folder to a store: which cases there are, each one made and kept, all of them joined.

    source -> files, whose they are, their scans -> split by person -> a part for each case -> one store and its manifest

A part is a store of one case in `OUT.parts/`, named after the checksums of its sources and the options: a stopped command
finds it again, a changed file or another margin does not. The parts are joined one by one and removed.

Scans without label maps are stored with one structure, "other head", where the head is: a prior needs no more.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import remove_folder
from radiata_core.logs import progress
from radiata_core.provenance import provenance
from radiata_core.runs import sole_writer
from radiata_imaging.foreground import find_head
from radiata_imaging.headers import checksum
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.manifest import Entry, read_rows, split_subjects
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.volume import Volume, times
from radiata_medical.data.intensity_scale import WHITE_RULE, IntensityScale
from radiata_medical.data.label_maps import LabelMap, LabelMaps, label_map, write_label_maps
from radiata_medical.data.label_reading import like_labels, read_labels
from radiata_medical.data.pairing import LABEL_WORDS, Named, named_files, pair_files
from radiata_medical.data.scans import read_scan
from radiata_medical.experiment.outputs import generated_by

if TYPE_CHECKING:
    from radiata_medical.experiment.prepare import Prepare

__all__ = ["Listed", "listed", "prepare_store"]

HEAD_CODE = 258
"""Stands for the whole head in a store of scans without label maps."""


@dataclass(frozen=True)
class Listed:
    """A case to be made.

    Attributes:
        name: In the store.
        person: Whose head.
        kind: "labels", "images" or "pairs".
        source: Label map, or the scan where there is none.
        image: The scan of a pair.
        split: "train", "validation" or "test".
    """

    name: str
    person: str
    kind: str
    source: Path
    image: Path | None = None
    split: str = "train"


def listed(task: "Prepare") -> list[Listed]:
    """The cases of a source with their splits.

    Raises:
        InputError: no file, a label map without its scan, or a table of splits that cannot be used.
    """
    files = named_files(task.source, "label maps or scans")
    kind = _kind(files[0].path, task) if task.kind == "auto" else task.kind
    if kind == "labels":
        files = tuple(one for one in files if one.word in LABEL_WORDS) or files
    if task.images is not None:
        if kind != "labels":
            raise InputError(
                f"expected label maps in {task.source} to go with --images; got scans. Give the label maps first."
            )
        pairs, _ = pair_files(files, [f for f in named_files(task.images, "scans") if not f.word])
        cases = [
            Listed(_name(p.result), p.result.person, "pairs", p.result.path, p.reference.path) for p in pairs
        ]
    else:
        cases = [Listed(_name(one), one.person, kind, one.path) for one in files]
    return _split(cases, task)


def _kind(path: Path, task: "Prepare") -> str:
    volume = read_volume(path, assume_axcodes=task.assume_axcodes, allow_constant=True)
    return "labels" if like_labels(volume.array) else "images"


def _name(one: Named) -> str:
    contrast = f"_{one.contrast}" if one.contrast else ""
    return (one.key + contrast).replace("/", "_")


def _split(cases: list[Listed], task: "Prepare") -> list[Listed]:
    given = _given_splits(task.split) if task.split else {}
    people = {case.person for case in cases}
    if given and not set(given) & people:
        raise InputError(
            f"expected people of {task.source} in {task.split}; got none of them: it names {', '.join(sorted(given)[:3])}, "
            f"the folder has {', '.join(sorted(people)[:3])}. Write the names of the files, or the sub- labels."
        )
    entries = [Entry(case.source, case.person, split=given.get(case.person)) for case in cases]
    decided = split_subjects(entries, task.fractions, task.seed)
    return [replace(case, split=entry.split or "train") for case, entry in zip(cases, decided, strict=True)]


def _given_splits(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"expected a table of splits (.csv, .tsv); got no file {path}. Check --split.")
    rows = read_rows(path)
    if not rows or not {"person", "split"} <= set(rows[0]):
        raise InputError(
            f"expected the columns person and split in {path}; got {', '.join(rows[0]) if rows else 'no row'}."
        )
    found: dict[str, str] = {}
    for row in rows:
        person = row["person"].removeprefix("sub-")
        if (
            row["split"] not in ("train", "validation", "test")
            or found.get(person, row["split"]) != row["split"]
        ):
            raise InputError(
                f"expected each person in one of train, validation, test; got {row['split']!r} for {person} in {path}."
            )
        found[person] = row["split"]
    return found


def prepare_store(task: "Prepare", cases: list[Listed]) -> tuple[int, int]:
    """Write the store and its manifest; returns how many cases it holds and how many were left out.

    Raises:
        InputError: a file cannot be used (and may not be left out), or none can.
    """
    with sole_writer(task.out):
        if task.out.exists() and not task.overwrite:  # another process was faster
            raise InputError(f"expected a new store; got {task.out}, which exists. Choose another --out.")
        return _prepared(task, cases)


def _prepared(task: "Prepare", cases: list[Listed]) -> tuple[int, int]:
    parts = task.out.with_name(task.out.name + ".parts")
    rows, bad = [], []
    for case in progress(cases, "preparing", unit="case"):
        try:
            rows.append(_kept(case, task, parts))
        except InputError as error:
            bad.append((case, str(error)))
    _report(bad, len(cases), task.skip_bad)
    if not rows:
        raise InputError(f"expected at least one case; got none that can be used of {len(cases)}.")

    def card(made: Path) -> dict[str, Any]:
        return {
            "Description": "Label maps and scans at 1 mm, axes towards left, posterior, superior, cropped to the head.",
            "GeneratedBy": generated_by(),
            "Command": "radiata-medical prepare",
            "Options": asdict(task),
            "SHA256": checksum(made),
            "Sources": [{"Name": Path(row["source"]).name, "SHA256": row["sha256"]} for row in rows],
            "White": WHITE_RULE,
            "Cases": [{key: value for key, value in row.items() if key != "part"} for row in rows],
            "Skipped": [{"source": str(case.source), "reason": reason} for case, reason in bad],
            **provenance(),
        }

    count = write_label_maps(task.out, _joined(rows), (task.out.with_suffix(".json"), card))
    remove_folder(parts)
    return count, len(bad)


def _report(bad: list[tuple[Listed, str]], total: int, skip: bool) -> None:
    if len(bad) == 1 and not skip:
        raise InputError(f"{bad[0][1]} Or leave it out: --skip-bad.")
    for case, reason in bad:
        print(f"{case.name}: {reason}", file=sys.stderr)
    if bad and not skip:
        raise InputError(
            f"expected usable files; got {len(bad)} of {total} that are not, named above. Mend them and run again (finished "
            "cases are kept), or pass --skip-bad."
        )


def _kept(case: Listed, task: "Prepare", parts: Path) -> dict[str, Any]:
    """What is known of a case whose part is there, made now or found."""
    digest = checksum(case.source)
    image = checksum(case.image) if case.image else ""
    identity = f"{case.name} {case.person} {case.split} {case.kind} {digest} {image} {task.margin} {task.assume_axcodes}"
    part = parts / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.h5"
    row = {"name": case.name, "person": case.person, "split": case.split, "kind": case.kind,
           "source": str(case.source), "sha256": digest, "part": part}  # fmt: skip
    if image:
        row |= {"image": str(case.image), "image_sha256": image}
    with contextlib.suppress(InputError), LabelMaps(part) as store:
        return row | _facts(store.read(case.name))
    made = _made(case, task, digest)
    write_label_maps(part, [made])
    return row | _facts(made)


def _facts(case: LabelMap) -> dict[str, Any]:
    return {"shape": list(case.codes.shape), "codes": int(np.unique(case.codes).size)}


def _made(case: Listed, task: "Prepare", digest: str) -> LabelMap:
    scan = _scan(case.image if case.kind == "pairs" else case.source, task) if case.kind != "labels" else None
    if case.kind == "images" and scan is not None:
        labels = _head_of(scan)
    else:
        read_labels(case.source)  # refuses images and unknown codes; the finer codes themselves are stored
        labels = read_volume(case.source, allow_constant=True)
    return label_map(
        labels, case.name, case.person, case.split, image=scan, sha256=digest, margin=task.margin
    )


def _scan(path: Path | None, task: "Prepare") -> Volume:
    volume = read_scan(path or Path(), assume_axcodes=task.assume_axcodes)
    if min(volume.shape) < 4:
        raise InputError(
            f"expected volumes for a store; got {times(volume.shape)} voxels in {path}. Give whole scans."
        )
    return Volume(IntensityScale.of(volume.array).to_prior(volume.array), volume.affine)


def _head_of(scan: Volume) -> Volume:
    """A label map on the grid of a scan: `HEAD_CODE` where the head is."""
    head = find_head(scan)
    coarse = Volume(head.mask.astype(np.float32), head.affine)
    fine = resample(coarse, Grid(scan.shape, scan.affine), interpolation=Interpolation.LINEAR)
    return Volume(np.where(fine.array > 0.5, np.float32(HEAD_CODE), np.float32(0)), scan.affine)


def _joined(rows: list[dict[str, Any]]) -> Iterator[LabelMap]:
    for row in rows:
        with LabelMaps(row["part"]) as store:
            yield store.read(row["name"])
