"""`radiata-t1 prepare`: scans in, one store out; every person in one split, every header looked at.

    source → entries (manifest, BIDS, folder) → split by subject → header table → read, prepare, append → store + sidecar

Each finished scan is kept at once (`OUT.parts/`), so a stopped command goes on where it was. Bad files do not stop the
others: they are reported together at the end.
"""

import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from radiata_core.errors import InputError
from radiata_imaging.scale_out import Workers

if TYPE_CHECKING:
    from radiata_imaging.headers import HeaderFacts
    from radiata_imaging.manifest import Entry, Manifest
    from radiata_imaging.preprocess import PreprocessSpec
    from radiata_imaging.store import Item, StoreWriter

__all__ = ["Prepare"]


@dataclass(frozen=True)
class Prepare:
    """Make a training store from a folder, a BIDS tree or a CSV/TSV manifest of T1 heads.

    Example: radiata-t1 prepare bids/ --out heads.h5

    Example: radiata-t1 prepare scans.csv --out heads_4mm.h5 --spacing 4 --shape 48 56 48 --workers 4

    Example: radiata-t1 prepare scans/ --out heads.h5 --dry-run
    """

    source: tyro.conf.Positional[Path]
    """Folder, BIDS tree (sub-*/[ses-*/]anat/*_T1w.nii.gz) or manifest (path, subject[, session, split, covariates …])."""
    out: Path
    """The store to write, ending in .h5; a sidecar of the same name ends in .json."""
    spacing: float = 1.0
    """Voxel edge in mm."""
    shape: tuple[int, int, int] = (192, 224, 192)
    """Voxels along left, posterior, superior; spacing times shape is the field of view."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of subjects for train, validation and test; splits in a manifest stand before it."""
    seed: int = 0
    """Chooses the split of the subjects."""
    workers: int = 1
    """Scans prepared at the same time by threads of one process; each needs about 0.5 GiB."""
    processes: int = 1
    """Scans prepared at the same time, each in a process of its own. The store is the same."""
    scheduler: str | None = None
    """Address of a dask scheduler, as tcp://10.0.0.1:8786, or its file: its workers prepare, over a shared file system."""
    compression: Annotated[str, tyro.conf.arg(metavar="lzf|gzip|none")] = "lzf"
    """lzf is fast, gzip a little smaller."""
    assume_axcodes: str | None = None
    """Orientation (such as RAS) of files whose header carries none; without it they are refused."""
    device: str = "cpu"
    """Where resampling is computed, such as cuda."""
    skip_bad: bool = False
    """Finish the store without the files that cannot be used."""
    overwrite: bool = False
    """Replace an existing store."""
    dry_run: bool = False
    """Read headers, print splits and sizes, write nothing."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: the source or a file cannot be used, or the store exists.
        """
        from radiata_imaging.bids import find_scans
        from radiata_imaging.headers import header_table
        from radiata_imaging.manifest import split_subjects
        from radiata_imaging.preprocess import PreprocessSpec

        self._check()
        spec = PreprocessSpec(spacing=self.spacing, shape=self.shape)
        manifest = find_scans(self.source)
        entries = split_subjects(manifest.entries, self.fractions, self.seed)
        headers = [_header(entry, self.assume_axcodes) for entry in entries]
        print(header_table([(e.subject, e.split or "", h) for e, h in zip(entries, headers, strict=True)]))
        for name in manifest.ignored:
            print(f"column {name} holds more than two words and is left out", file=sys.stderr)
        print(_summary(entries, spec))
        if self.dry_run:
            print(f"dry run: {self.out} would hold {len(entries)} volumes; nothing was written")
            return
        from radiata_core.runs import sole_writer

        with sole_writer(self.out):
            self._fill(spec, manifest, entries, headers)

    def _check(self) -> None:
        if self.out.suffix != ".h5":
            raise InputError(f"expected a store name ending in .h5; got {self.out}. Rename --out.")
        if self.compression not in ("lzf", "gzip", "none"):
            raise InputError(f"expected compression lzf, gzip or none; got {self.compression!r}. Choose one.")
        if self.workers < 1:
            raise InputError(f"expected at least one worker; got {self.workers}. Use --workers 1.")
        Workers(self.processes, self.scheduler)
        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"expected a new store; {self.out} exists. Choose another --out, or pass --overwrite."
            )

    def _fill(
        self,
        spec: "PreprocessSpec",
        manifest: "Manifest",
        entries: "tuple[Entry, ...]",
        headers: "list[HeaderFacts | str]",
    ) -> None:
        from radiata_imaging.store import StoreWriter

        writer = StoreWriter(
            self.out,
            spec.shape,
            spec,
            manifest.covariates,
            regions=manifest.regions,
            compression=None if self.compression == "none" else self.compression,
            overwrite=self.overwrite,
        )
        try:
            rows = self._rows(writer, spec, entries)
            skipped = sum("error" in row for row in rows)
            writer.finish(seen_only=True, card=self._card(spec, manifest, entries, headers, rows, skipped))
        finally:
            writer.tidy()
        print(f"{len(rows) - skipped} volumes ({skipped} skipped) in {self.out}")

    def _card(
        self, spec: "PreprocessSpec", manifest: "Manifest", entries: "tuple[Entry, ...]",
        headers: "list[HeaderFacts | str]", rows: list[dict[str, Any]], skipped: int,
    ) -> dict[str, Any]:  # fmt: skip
        """What stands beside the store."""
        from radiata_core.runs import provenance

        for row, facts in zip(rows, headers, strict=True):
            row["header"] = facts if isinstance(facts, str) else asdict(facts)
        return {
            "Description": "Prepared T1 heads; see `items` for the header, range and split of each source.",
            "command": "radiata-t1 prepare",
            "options": asdict(self),
            "spec": asdict(spec),
            "covariate_codes": manifest.codes,
            "ignored_columns": manifest.ignored,
            "splits": _counts(
                [entry for entry, row in zip(entries, rows, strict=True) if "error" not in row]
            ),
            "skipped": skipped,
            "items": rows,
            **provenance(),
        }

    def _rows(
        self, writer: "StoreWriter", spec: "PreprocessSpec", entries: "tuple[Entry, ...]"
    ) -> list[dict[str, Any]]:
        """What became of each entry; raises where one is bad and bad ones may not be left out."""
        work = _Work(writer, spec, self.assume_axcodes, self.device)
        workers = Workers(self.processes, self.scheduler).at_most(len(entries))
        rows = work.through(entries, self.workers) if workers.here else work.elsewhere(entries, workers)
        bad = [row for row in rows if "error" in row]
        if len(bad) == 1 and not self.skip_bad:
            raise InputError(f"{bad[0]['error']} Or leave it out: --skip-bad.")
        for row in bad:
            print(row["error"], file=sys.stderr)
        if bad and not self.skip_bad:
            raise InputError(
                f"expected usable files; {len(bad)} of {len(entries)} are not: {_named(bad)}. Fix them and run again "
                "(finished scans are kept), or pass --skip-bad."
            )
        return rows


@dataclass(frozen=True)
class _Work:
    """Reads, prepares and appends one entry after another, some at the same time."""

    writer: "StoreWriter"
    spec: "PreprocessSpec"
    assume_axcodes: str | None
    device: str
    owners: dict[str, "Entry"] = field(default_factory=dict)

    def through(self, entries: "tuple[Entry, ...]", workers: int) -> list[dict[str, Any]]:
        """One row for each entry: identity and range, or the reason why it cannot be used."""
        from radiata_core.runs import Progress

        rows: dict[int, dict[str, Any]] = {}
        waiting: dict[Future[dict[str, Any]], int] = {}
        todo = iter(enumerate(entries))
        with Progress(len(entries), "preparing", unit="scan") as bar, ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    while len(waiting) < 2 * workers and (following := next(todo, None)) is not None:
                        waiting[pool.submit(self.one, *following)] = following[0]
                    if not waiting:
                        break
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        rows[waiting.pop(future)] = future.result()
                        bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [rows[index] for index in range(len(entries))]

    def elsewhere(self, entries: "tuple[Entry, ...]", workers: Workers) -> list[dict[str, Any]]:
        """The same rows from other processes, which append to the same store."""
        from radiata_core.runs import Progress

        rows: dict[int, dict[str, Any]] = {}
        with Progress(len(entries), "preparing", unit="scan") as bar, workers.started() as crew:
            for ended in crew.outcomes(_made, list(enumerate(entries)), (self,)):
                row = ended.value or _identity(ended.item[1]) | {"error": ended.error}
                if "error" not in row:
                    self.writer.has(self._item(ended.item[1], row["sha256"]))  # it is one of this store's
                    self._own(row["sha256"], ended.item[1])
                rows[ended.place] = row
                bar.update()
        return [rows[index] for index in range(len(entries))]

    def one(self, index: int, entry: "Entry") -> dict[str, Any]:
        """The row of one entry, its volume appended to the store (or found there)."""
        row = self.made(index, entry)
        if "error" not in row:
            self._own(row["sha256"], entry)
        return row

    def made(self, index: int, entry: "Entry") -> dict[str, Any]:
        """`one`, without asking whose the file is."""
        from radiata_imaging.headers import checksum
        from radiata_imaging.nifti import read_volume
        from radiata_imaging.preprocess import prepare_volume

        row = _identity(entry)
        try:
            if not entry.path.exists():
                raise InputError(f"expected a volume file; got no such file: {entry.path}. Check the path.")
            digest = checksum(entry.path)
            item = self._item(entry, digest)
            if not self.writer.has(item):
                volume = read_volume(entry.path, assume_axcodes=self.assume_axcodes)
                prepared = prepare_volume(volume, self.spec, device=self.device)
                record = prepared.record.to_dict()
                self.writer.append(
                    self._item(entry, digest, prepared.array, prepared.affine, record), order=index
                )
            else:
                record = self.writer.record(item)
        except InputError as error:
            return row | {"error": str(error)}
        fraction = record["head_fraction"]
        return row | {"sha256": digest, "range": [record["low"], record["high"]], "head_fraction": fraction}

    def _own(self, digest: str, entry: "Entry") -> None:
        other = self.owners.setdefault(digest, entry)
        if other.subject != entry.subject:
            raise InputError(
                f"expected each image under one subject; got the same file as {other.path} ({other.subject}) and "
                f"{entry.path} ({entry.subject}). Remove the duplicate."
            )

    def _item(
        self,
        entry: "Entry",
        digest: str,
        array: Any = None,
        affine: Any = None,
        record: dict[str, Any] | None = None,
    ) -> "Item":
        from radiata_imaging.store import Item

        return Item(
            array,
            entry.subject,
            entry.split or "train",
            entry.session,
            str(entry.path),
            digest,
            affine,
            entry.covariates,
            entry.volumes,
            record or {},
        )


def _made(item: "tuple[int, Entry]", work: _Work) -> dict[str, Any]:
    return work.made(*item)


def _identity(entry: "Entry") -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "subject": entry.subject,
        "session": entry.session,
        "split": entry.split,
    }


def _header(entry: "Entry", assume_axcodes: str | None) -> "HeaderFacts | str":
    from radiata_imaging.headers import inspect_header

    try:
        return inspect_header(entry.path, assume_axcodes=assume_axcodes)
    except InputError as error:
        return f"cannot be used: {error}"


def _named(bad: list[dict[str, Any]]) -> str:
    names = ", ".join(Path(row["path"]).name for row in bad[:3])
    return names + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")


def _counts(entries: "list[Entry]") -> dict[str, dict[str, int]]:
    scans = Counter(entry.split for entry in entries)
    people = Counter(split for _, split in {(entry.subject, entry.split) for entry in entries})
    return {str(split): {"scans": scans[split], "subjects": people[split]} for split in scans}


def _summary(entries: "tuple[Entry, ...]", spec: "PreprocessSpec") -> str:
    from math import prod

    counts = _counts(list(entries))
    parts = [
        f"{name} {counts[name]['subjects']} subjects ({counts[name]['scans']} scans)"
        for name in ("train", "validation", "test")
        if name in counts
    ]
    size = 2 * prod(spec.shape) * len(entries) / 2**20
    grid = "×".join(map(str, spec.shape))
    return f"{', '.join(parts)}; {grid} at {spec.spacing:g} mm, at most {size:,.1f} MiB"
