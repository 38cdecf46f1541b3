"""Files that leave: an image or a label map on the grid of the scan it belongs to, and the card beside it.

    head_restored.nii.gz    head_restored.json     voxels; how they came about
    head_dseg.nii.gz        head_dseg.json         codes; how they came about
                            head_dseg.tsv          index, name and colour of each code

The card says which program, which scan (name and SHA-256), which models (SHA-256), which options, and that it is not for
clinical use. It is there before its file is: a file with a card whose facts are those of the task at hand is whole and need
not be made again (`is_finished`); a card without its file was left by a process that was killed.

References:
    BIDS derivatives, https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html
        (GeneratedBy, Sources; *_dseg.tsv with index, name and colour).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, plain, read_json
from radiata_core.sidecars import in_the_way
from radiata_imaging.bids import write_derivative_description
from radiata_imaging.headers import checksum
from radiata_imaging.nifti import sidecar_path, write_volume
from radiata_imaging.volume import Volume, times
from radiata_medical.data.structures import STRUCTURES

__all__ = [
    "APPLICATION",
    "Facts",
    "free_path",
    "generated_by",
    "is_finished",
    "sources_of",
    "write_description",
    "write_image",
    "write_labels",
]

APPLICATION = "radiata-medical"
_WARNING = "not for clinical use"


@dataclass(frozen=True)
class Facts:
    """How a file came about.

    Attributes:
        command: Such as "radiata-medical restore".
        what: What it is in a word or a few: "restored", "pseudo-healthy", "entropy of the segmentation".
        sources: File name -> SHA-256 of what it was made from; `sources_of` makes it.
        models: Name -> SHA-256 of the weights.
        options: What was asked for, resolved; decides with sources and models whether a result is this one.
        figures: What was measured on the way: seconds, noise, misfit. They decide nothing.
        generated: Whether voxels are a model's guess and no measurement: the header then says so.
    """

    command: str
    what: str
    sources: Mapping[str, str]
    models: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    generated: bool = True

    @property
    def description(self) -> str:
        """For the header, at most 79 bytes."""
        kind = f"{self.what} (synthetic)" if self.generated else self.what
        return f"{kind}, {_WARNING}; {self.command}".encode()[:79].decode(errors="ignore")

    def card(self) -> dict[str, Any]:
        """The content of the sidecar, besides what the file itself is."""
        return plain(
            {
                "What": self.what,
                "NotForClinicalUse": True,
                "GeneratedPixels": self.generated,
                "GeneratedBy": generated_by(),
                "Command": self.command,
                "SkullStripped": False,  # BIDS asks; the models are for whole heads
                "Sources": sorted(self.sources),
                "SourceFiles": _named(self.sources),
                "Models": _named(self.models),
                "Options": dict(self.options),
                **dict(self.figures),
            }
        )


def write_image(path: Path | str, array: np.ndarray, like: Volume, facts: Facts) -> Path:
    """Write an image, float32, on the grid of a scan, and its card.

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        array: (x, y, z) of the shape of `like`, in units of the scan's file.
        like: The scan, whose affine the image gets.
        facts: How it came about.

    Raises:
        InputError: another shape than the scan's, or values that are not finite.
    """
    return write_volume(
        path,
        _on_grid(array, like),
        description=facts.description,
        dtype="float32",
        sidecar=facts.card(),
    )


def write_labels(
    path: Path | str,
    codes: np.ndarray,
    like: Volume,
    facts: Facts,
    names: Mapping[int, tuple[str, tuple[int, int, int]]] | None = None,
) -> Path:
    """Write a label map, uint16, on the grid of a scan, its table of names and colours (.tsv), and its card.

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        codes: (x, y, z) of the shape of `like`, whole, 0 to 65535.
        like: The scan.
        facts: How it came about.
        names: Code -> name and colour; None: those of `data.structures`.

    Raises:
        InputError: another shape than the scan's, or codes that are not whole or out of range.
    """
    path = Path(path)
    known = names or {s.code: (s.name, s.colour) for s in STRUCTURES}
    volume = _on_grid(codes, like)
    rows = ["index\tname\tcolor"]
    for code in np.unique(volume.array).astype(int).tolist():
        name, colour = known.get(code, ("background" if code == 0 else f"label {code}", (128, 128, 128)))
        rows.append(f"{code}\t{name}\t#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}")
    with atomic_path(sidecar_path(path).with_suffix(".tsv")) as part:
        part.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return write_volume(path, volume, description=facts.description, dtype="uint16", sidecar=facts.card())


def is_finished(path: Path | str, facts: Facts) -> bool:
    """Whether the file is there and its card says that it was made from the same sources, models and options."""
    path = Path(path)
    card = sidecar_path(path)
    if not (path.is_file() and card.is_file()):
        return False
    try:
        found = read_json(card)
    except InputError:
        return False
    return isinstance(found, dict) and all(
        found.get(key) == facts.card()[key] for key in ("Command", "SourceFiles", "Models", "Options")
    )


def free_path(path: Path | str, overwrite: bool, facts: Facts | None = None) -> Path:
    """The path itself, if it and the card beside it may be written.

    Args:
        path: The file to come.
        overwrite: Whether one that is there may be replaced.
        facts: Of the task at hand: the message says in what the file that is there differs.

    Raises:
        InputError: one of them exists and may not be replaced.
    """
    path = Path(path)
    taken = None if overwrite else in_the_way(path, sidecar_path(path))
    if taken is not None:
        why = "which exists" if facts is None else _difference(sidecar_path(path), facts)
        raise InputError(
            f"expected a new file; got {taken}, {why}. Choose another --out, or pass --overwrite."
        )
    return path


def _difference(card: Path, facts: Facts) -> str:
    """How a result that is there was made in another way, as far as its card says."""
    try:
        found = dict(read_json(card))
        for key in ("SourceFiles", "Models"):
            earlier = {one["Name"]: one["SHA256"] for one in found.get(key, ())}
            for one in facts.card()[key]:
                before = earlier.get(one["Name"], one["SHA256"])
                if before != one["SHA256"]:
                    return (
                        f"made from another {one['Name']} (SHA-256 {before[:9]}…, now {one['SHA256'][:9]}…)"
                    )
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return "which exists"
    return "which exists and was made with other options"


def write_description(folder: Path, name: str) -> None:
    """Make a folder of results in BIDS names a BIDS derivative."""
    told = "Results of research software, not for clinical use."
    write_derivative_description(folder, APPLICATION, f"{name}, {_WARNING}", told)


def sources_of(*paths: Path | str) -> dict[str, str]:
    """File name -> SHA-256 of files, or of DICOM folders."""
    return {Path(path).name: checksum(Path(path)) for path in paths}


def generated_by() -> list[dict[str, str]]:
    """BIDS' `GeneratedBy`: this program and its version."""
    try:
        return [{"Name": APPLICATION, "Version": version(APPLICATION)}]
    except PackageNotFoundError:
        return [{"Name": APPLICATION, "Version": "unknown"}]


def _on_grid(array: np.ndarray, like: Volume) -> Volume:
    if np.shape(array) != like.shape:
        raise InputError(
            f"expected a result on the grid of the scan, {times(like.shape)}; got {times(np.shape(array))}. "
            "Resample it first."
        )
    return Volume(np.ascontiguousarray(array), like.affine)


def _named(things: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "SHA256": checksum} for name, checksum in things.items()]
