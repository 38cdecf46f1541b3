r"""The Natural Scenes Dataset as it lies on the disk: betas of a subject, session by session, in the voxels of a mask.

    nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz | .hdf5
    nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/{lh,rh}.betas_session01.mgh
    nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz, prf-visualrois.nii.gz, floc-faces.nii.gz, ...
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5   imgBrick (73000, 425, 425, 3)

Volumes are whole numbers, percent signal change times 300, and leave here as percent. Masks hold −1 outside the cortex and
0 outside the region. Both forms of a volume session give the same numbers. `ncsnr` is the noise ceiling's signal-to-noise
ratio that comes with each version of the betas.

Pictures are linked, not copied (40 GB), unless a size is asked for.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.nsd_design import SHARED, picture_row, read_design
from radiata_decode.data.reading import Part, Reading, existing_folder
from radiata_decode.data.regions import COLLECTIONS, read_ctab, region_columns
from radiata_decode.data.resized_pictures import ResizedRows
from radiata_decode.data.stimuli import LinkedRows, StimulusArrays
from radiata_decode.data.surface_files import SURFACES, surface_length, surface_series, surface_values
from radiata_decode.data.volumes import (
    check_grid,
    hdf5_length,
    hdf5_series,
    masked_series,
    read_mask,
    series_length,
    volume_values,
    voxel_positions,
)

__all__ = ["SCALE", "read_nsd"]

SCALE = 300.0
"""Volume betas are stored as percent signal change times this."""


def read_nsd(
    root: Path,
    *,
    subject: int,
    betas: str = "betas_fithrf_GLMdenoise_RR",
    space: str = "func1pt8mm",
    sessions: Sequence[int] = (),
    mask: str = "nsdgeneral",
    rois: Sequence[str] | None = None,
    ncsnr: bool = True,
    image_size: int | None = None,
) -> Reading:
    """Betas of one subject, a part a session.

    Args:
        root: Folder with `nsddata` and `nsddata_betas`.
        subject: 1 to 8.
        betas: Their version.
        space: `func1pt8mm`, `func1mm`, or `fsaverage` for surfaces.
        sessions: Which; empty: all that are there.
        mask: Name of a file in the folder of regions, or a path; of surfaces, `all` for every vertex.
        rois: Collections of regions; None: those known that are there.
        ncsnr: Whether noise ceilings are read; they must then be there.
        image_size: Pixels of the pictures' sides; None: linked in their own size.

    Raises:
        InputError: what is missing and how to get it, or what does not fit.
    """
    root = existing_folder(root, "the folder of NSD, with nsddata and nsddata_betas")
    if not 1 <= subject <= 8:
        raise InputError(f"expected subject 1 to 8 of NSD; got {subject}.")
    place = f"ppdata/subj{subject:02d}/{space}"
    folder = existing_folder(root / "nsddata_betas" / place / betas, "a folder of betas")
    design, source = read_design(root, subject)
    grid = (
        _Surface(root, subject, place, folder)
        if space == "fsaverage"
        else _Volume(root, subject, place, folder)
    )
    grid.open(mask, rois)
    parts = [_part(grid, design, number, files) for number, files in _sessions(grid, folder, sessions)]
    voxels = grid.voxels
    if ncsnr:
        voxels = voxels.assign(ncsnr=grid.ncsnr())
    shown = pd.concat([part.trials for part in parts])
    seen = shown["stimulus"][shown["split"] == "test"].nunique()
    about = {
        "dataset": "Natural Scenes Dataset",
        "subject": subject,
        "betas": betas,
        "space": space,
        "mask": str(mask),
        "unit": "percent signal change" if space != "fsaverage" else "as stored",
        "test_rule": f"shared pictures: {seen} of {SHARED} were shown in the {len(parts)} sessions read",
    }
    return Reading(tuple(parts), voxels, about, partial(_stimuli, root, image_size), (source, *grid.files))


class _Volume:
    """Sessions in (x, y, z, trial)."""

    suffixes = (".nii.gz", ".nii", ".hdf5")

    def __init__(self, root: Path, subject: int, place: str, folder: Path) -> None:
        self.root, self.folder, self.subject = root, folder, subject
        self.regions = root / "nsddata" / place / "roi"
        self.files: list[Path] = []

    def open(self, mask: str, rois: Sequence[str] | None) -> None:
        path = self._region(mask, "mask")
        self.inside, affine = read_mask(path)
        self.files.append(path)
        columns: dict[str, np.ndarray] = {}
        for name in _collections(rois, self.regions, ""):
            file = self._region(name, "regions")
            labels = volume_values(file, "regions")
            check_grid(file, labels.shape, self.inside.shape, "regions")
            self.files.append(file)
            columns |= region_columns(_stem(file), labels[self.inside], _names(self.root, self.subject, name))
        self.voxels = voxel_positions(self.inside, affine).assign(**columns)

    def _region(self, name: str, what: str) -> Path:
        path = Path(name) if name.endswith((".nii", ".nii.gz")) else self.regions / f"{name}.nii.gz"
        if not path.is_file():
            raise InputError(f"expected the {what} {path}; got no such file. {_fetch(self.root, path)}")
        return path

    def ncsnr(self) -> np.ndarray:
        path = self.folder / "ncsnr.nii.gz"
        if not path.is_file():
            raise _no_ncsnr(self.root, path)
        values = volume_values(path, "noise ceilings")
        check_grid(path, values.shape, self.inside.shape, "noise ceilings")
        self.files.append(path)
        return np.nan_to_num(values[self.inside])

    def session(self, number: int) -> tuple[Path, ...]:
        return _first(self.folder, [f"betas_session{number:02d}{suffix}" for suffix in self.suffixes])

    def numbers(self) -> list[int]:
        return _numbers(self.folder, "betas_session*", self.suffixes)

    def length(self, files: tuple[Path, ...]) -> tuple[int, int]:
        """Trials, and bytes of one volume or one read."""
        grid, count = (
            hdf5_length(files[0], "betas") if files[0].suffix == ".hdf5" else series_length(files[0])[:2]
        )
        check_grid(files[0], grid, self.inside.shape, "betas")
        return count, 8 * int(np.prod(grid))

    def read(self, files: tuple[Path, ...]) -> np.ndarray:
        if files[0].suffix == ".hdf5":
            return hdf5_series(files[0], "betas", self.inside, "betas") / np.float32(SCALE)
        return masked_series(files[0], self.inside, "betas") / np.float32(SCALE)


class _Surface:
    """Sessions in vertices of both hemispheres."""

    suffixes = (".mgh",)

    def __init__(self, root: Path, subject: int, place: str, folder: Path) -> None:
        self.root, self.folder, self.subject = root, folder, subject
        self.regions = root / "nsddata" / "freesurfer" / "fsaverage" / "label"
        self.files: list[Path] = []

    def open(self, mask: str, rois: Sequence[str] | None) -> None:
        numbers = self.numbers()
        if not numbers:
            raise InputError(
                f"expected lh.betas_session01.mgh, … in {self.folder}; got none. Fetch some sessions."
            )
        first = self.session(numbers[0])
        counts = [surface_length(file)[0] for file in first]
        self.inside = [np.ones(count, bool) for count in counts]
        if mask != "all":
            self.inside = [values > 0 for values in self._values(mask, counts)]
        if not any(side.any() for side in self.inside):
            raise InputError(f"expected a mask with vertices above 0; got none in {mask}.")
        columns: dict[str, np.ndarray] = {}
        for name in _collections(rois, self.regions, "lh."):
            sides = self._values(name, counts)
            labels = np.concatenate([side[inside] for side, inside in zip(sides, self.inside, strict=True)])
            columns |= region_columns(name, labels, _names(self.root, self.subject, name))
        vertices = [np.flatnonzero(inside) for inside in self.inside]
        self.voxels = pd.DataFrame(
            {
                "hemisphere": np.repeat(list(SURFACES.values()), [len(side) for side in vertices]),
                "vertex": np.concatenate(vertices),
            }
        ).assign(**columns)

    def _values(self, name: str, counts: list[int]) -> list[np.ndarray]:
        found = []
        for side, count in zip(SURFACES, counts, strict=True):
            file = _first(self.regions, [f"{side}.{name}{suffix}" for suffix in (".mgz", ".mgh")])
            if not file:
                raise InputError(
                    f"expected {self.regions / f'{side}.{name}.mgz'}; got no such file. Use --mask all, or fetch it."
                )
            found.append(surface_values(file[0], count))
            self.files.append(file[0])
        return found

    def ncsnr(self) -> np.ndarray:
        found = []
        for side, inside in zip(SURFACES, self.inside, strict=True):
            path = self.folder / f"{side}.ncsnr.mgh"
            if not path.is_file():
                raise _no_ncsnr(self.root, path)
            found.append(np.nan_to_num(surface_values(path, len(inside))[inside]))
            self.files.append(path)
        return np.concatenate(found)

    def session(self, number: int) -> tuple[Path, ...]:
        sides = [_first(self.folder, [f"{side}.betas_session{number:02d}.mgh"]) for side in SURFACES]
        return sides[0] + sides[1] if all(sides) else ()

    def numbers(self) -> list[int]:
        return _numbers(self.folder, "lh.betas_session*", self.suffixes)

    def length(self, files: tuple[Path, ...]) -> tuple[int, int]:
        vertices, count = surface_length(files[0])
        return count, 4 * vertices * count

    def read(self, files: tuple[Path, ...]) -> np.ndarray:
        return np.concatenate(
            [surface_series(file)[:, inside] for file, inside in zip(files, self.inside, strict=True)], axis=1
        )


def _sessions(grid: Any, folder: Path, wanted: Sequence[int]) -> list[tuple[int, tuple[Path, ...]]]:
    numbers = list(wanted) or grid.numbers()
    if not numbers:
        raise InputError(
            f"expected betas_session01.nii.gz or .hdf5, … in {folder}; got none. Fetch some sessions."
        )
    found = []
    for number in sorted(set(numbers)):
        files = grid.session(number)
        if not files:
            raise InputError(
                f"expected betas of session {number} in {folder}; got none. Leave it out of --sessions."
            )
        found.append((number, files))
    return found


def _part(grid: Any, design: pd.DataFrame, number: int, files: tuple[Path, ...]) -> Part:
    trials = design[design["session"] == number].reset_index(drop=True)
    count, scratch = grid.length(files)
    if len(trials) != count:
        raise InputError(
            f"expected {count} trials of session {number} in the design, as in {files[0]}; got "
            f"{len(trials)}. Is it of another subject?"
        )
    return Part(f"session-{number:02d}", trials, partial(grid.read, files), files, scratch)


def _collections(rois: Sequence[str] | None, folder: Path, prefix: str) -> list[str]:
    if rois is not None:
        return [name for name in rois if name != "none"]
    return [name for name in COLLECTIONS if any(folder.glob(f"{prefix}{name}.*"))]


def _names(root: Path, subject: int, name: str) -> dict[int, str] | None:
    table = root / "nsddata" / "freesurfer" / f"subj{subject:02d}" / "label" / f"{name}.mgz.ctab"
    return read_ctab(table) if table.is_file() else None


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _first(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    return next(((folder / name,) for name in names if (folder / name).is_file()), ())


def _numbers(folder: Path, pattern: str, suffixes: Sequence[str]) -> list[int]:
    names = [path.name for path in folder.glob(pattern) if path.name.endswith(tuple(suffixes))]
    return sorted({int(name.split("session")[1].split(".")[0]) for name in names})


def _fetch(root: Path, path: Path) -> str:
    if not path.is_relative_to(root):
        return "Check the path."
    return (
        f"Fetch it: aws s3 cp --no-sign-request s3://natural-scenes-dataset/{path.relative_to(root)} {path}"
    )


def _no_ncsnr(root: Path, path: Path) -> InputError:
    return InputError(
        f"expected noise ceilings in {path}; got no such file. {_fetch(root, path)} – or go on with --without-ncsnr."
    )


def _stimuli(root: Path, size: int | None, names: list[str]) -> StimulusArrays | None:
    file = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    if not file.is_file():
        return None
    rows = np.array([picture_row(name) for name in names])
    images = LinkedRows(file, "imgBrick", rows) if size is None else ResizedRows(file, "imgBrick", rows, size)
    return StimulusArrays(pd.DataFrame({"stimulus": names}), images)
