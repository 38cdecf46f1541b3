"""A store of whole-head label maps (and scans that belong to them): what segmenters and priors are trained on.

One HDF5 file, one group a case: `labels`, uint8 channels of `structures.STRUCTURES` at 1 mm with axes towards L, P, S,
cropped to the head; `fine`, index into the case's table of original codes, from which synthetic scans are rendered
(fat, muscle and marrow look different, and are one structure); and `image`, float16, where a scan came with the labels.
Attributes: name, person, split, affine, the source's checksum.

Maps of one person stay in one split. Warped copies are not new people.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import new_hdf5, open_hdf5, whole_array
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.orientation import reorient, resample
from radiata_imaging.volume import Volume, times
from radiata_medical.data.structures import channels_of

__all__ = ["FORMAT", "LabelMap", "LabelMaps", "label_map", "write_label_maps"]

FORMAT = "radiata-label-maps/1"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One case.

    Attributes:
        name: Of the case.
        person: Whose head it is.
        split: "train", "validation" or "test".
        codes: Original codes `(x, y, z)`, int16, 1 mm, LPS.
        affine: Voxel to world (RAS, mm), (4, 4).
        image: The scan on the same grid, prior units, float16; None where there is none.
        sha256: Of the source file.
    """

    name: str
    person: str
    split: str
    codes: np.ndarray
    affine: np.ndarray
    image: np.ndarray | None = None
    sha256: str = ""


def label_map(
    volume: Volume,
    name: str,
    person: str,
    split: str,
    *,
    image: Volume | None = None,
    sha256: str = "",
    margin: int = 8,
) -> LabelMap:
    """A case from a label volume (and its scan on the same grid, prior units): 1 mm LPS, cropped with a margin in voxels.

    Raises:
        InputError: no whole codes, no structure at all, or another grid of the scan.
    """
    if not np.array_equal(volume.array, np.rint(volume.array)) or volume.array.min() < 0:
        raise InputError(
            f"expected a label map of whole codes >= 0; got fractions or negative numbers in {name}. Give the segmentation."
        )
    if not volume.array.any():
        raise InputError(f"expected a label map with structures; got zeros only in {name}. Export it again.")
    if image is not None and (
        image.shape != volume.shape or not np.allclose(image.affine, volume.affine, atol=1e-3)
    ):
        raise InputError(
            f"expected the scan of {name} on the grid of its labels, {times(volume.shape)}; got {times(image.shape)} or "
            "another place. Resample the labels to the scan."
        )
    turned = resample(reorient(volume), 1.0, interpolation=Interpolation.NEAREST)
    inside = np.argwhere(turned.array > 0)
    low = np.maximum(inside.min(0) - margin, 0)
    high = np.minimum(inside.max(0) + 1 + margin, turned.shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    affine = turned.affine.copy()
    affine[:3, 3] = (turned.affine @ [*low.tolist(), 1.0])[:3]
    scan = None if image is None else resample(reorient(image), 1.0).array[box].astype(np.float16)
    return LabelMap(name, person, split, turned.array[box].astype(np.int16), affine, scan, sha256)


def write_label_maps(
    path: Path, cases: Iterable[LabelMap], card: tuple[Path, Callable[[Path], Any]] | None = None
) -> int:
    """Write a store, whole or not at all, and its card (see `atomic_path`), case by case. Returns the number of cases.

    Raises:
        InputError: no case, an unknown split, two cases of one name, a person in two splits, an unknown code.
    """
    people: dict[str, str] = {}
    count = 0
    with atomic_path(path, card) as part, new_hdf5(part, libver="latest") as file:
        for case in cases:
            _check(case, people, file)
            original = np.unique(case.codes)
            group = file.create_group(case.name)
            fine = np.searchsorted(original, case.codes).astype(np.min_scalar_type(len(original)))
            group.create_dataset("fine", data=fine, compression="gzip", shuffle=True)
            if case.image is not None:
                group.create_dataset("image", data=case.image, compression="gzip", shuffle=True)
            group.attrs.update(
                {"person": case.person, "split": case.split, "affine": case.affine, "sha256": case.sha256}
            )
            group.attrs["codes"] = original.astype(np.int16)
            count += 1
        if not count:
            raise InputError("expected at least one label map to store; got none. Check the folder.")
        file.attrs["format"] = FORMAT
        file.attrs["people"] = json.dumps(people)
    return count


def _check(case: LabelMap, people: dict[str, str], file: h5py.File) -> None:
    if case.split not in SPLITS:
        raise InputError(f"expected a split out of {', '.join(SPLITS)}; got {case.split!r} for {case.name}.")
    if case.name in file:
        raise InputError(f"expected one case a name; got {case.name} twice. Rename a file.")
    if people.setdefault(case.person, case.split) != case.split:
        raise InputError(
            f"expected each person in one split; got {case.person} in {people[case.person]} and {case.split}. "
            "Split by person."
        )
    channels_of(np.unique(case.codes), case.name)


def _check_case(case: Any, name: str) -> None:
    """Nothing, if a group holds what `write_label_maps` puts there; its voxels are not read."""
    attributes = case.attrs
    for key in ("person", "split", "sha256"):
        if not isinstance(attributes[key], str):
            raise TypeError(f"{key} of {name} is no word")
    if attributes["split"] not in SPLITS:
        raise ValueError(f"split of {name} is {attributes['split']}")
    if np.shape(attributes["affine"]) != (4, 4) or np.asarray(attributes["codes"]).dtype.kind not in "iu":
        raise ValueError(f"affine or codes of {name}")
    fine = case["fine"]
    if fine.ndim != 3 or fine.dtype.kind != "u" or ("image" in case and case["image"].shape != fine.shape):
        raise ValueError(f"voxels of {name}")


class LabelMaps:
    """A store, open for reading.

    Attributes:
        names: Cases, in the order of the file.

    Raises:
        InputError: no such file, or another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(
                f"expected a store of label maps; got no file {self.path}. Make one with radiata-medical prepare."
            )
        with foreign(
            f"expected a store of label maps (HDF5); got {self.path}, truncated or of another format",
            "Prepare it again.",
        ):
            self.file = open_hdf5(self.path)
            try:
                self.names = self._checked_names()
            except BaseException:
                self.file.close()
                raise

    def _checked_names(self) -> tuple[str, ...]:
        """Names of the cases; what they hold is what `write_label_maps` puts there, and no voxel is read."""
        if self.file.attrs.get("format") != FORMAT:
            raise InputError(
                f"expected a store of label maps ({FORMAT}); got another HDF5 file, {self.path}. "
                "Make one with radiata-medical prepare."
            )
        for name in self.file:
            _check_case(self.file[name], name)
        return tuple(self.file)

    def __enter__(self) -> "LabelMaps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.names)

    def of_split(self, split: str | Sequence[str]) -> tuple[str, ...]:
        """Names of the cases of a split or of several."""
        wanted = (split,) if isinstance(split, str) else tuple(split)
        return tuple(name for name in self.names if self.file[name].attrs["split"] in wanted)

    def person(self, name: str) -> str:
        """Whose head a case is."""
        return str(self.file[name].attrs["person"])

    def read(self, name: str) -> LabelMap:
        """A case with its original codes.

        Raises:
            InputError: no such case.
        """
        if name not in self.names:
            raise InputError(
                f"expected a case of {self.path.name}; got {name!r}. It has {', '.join(self.names[:6])}."
            )
        with foreign(
            f"expected the case {name} in {self.path}; got what cannot be read", "Prepare it again."
        ):
            group = self.file[name]
            codes = np.asarray(group.attrs["codes"])[whole_array(group["fine"])]
            return LabelMap(
                name,
                str(group.attrs["person"]),
                str(group.attrs["split"]),
                codes,
                np.asarray(group.attrs["affine"]),
                whole_array(group["image"]) if "image" in group else None,
                str(group.attrs["sha256"]),
            )
