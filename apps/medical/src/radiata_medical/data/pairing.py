"""Which result belongs to which reference: files of two folders matched by what their names say.

    results/sub-01/anat/sub-01_ses-2_desc-restored_T1w.nii.gz      head_restored.nii.gz     head_dseg.nii.gz
    truth/sub-01/anat/sub-01_ses-2_T1w.nii.gz                      head.nii.gz              head_aseg.mgz

A name has a *key* (whose scan it is: BIDS entities, or the name of the file), a *word* (what was made of it: restored,
dseg, sd, entropy, or nothing for the scan itself) and, in BIDS, a contrast. Results and references are matched by key, by
contrast too where one key has several.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from radiata_core.errors import InputError
from radiata_imaging.nifti import SUFFIXES, is_volume_path
from radiata_medical.data.scans import CONTRASTS, find_cases

__all__ = ["IMAGE_WORDS", "LABEL_WORDS", "Named", "Pair", "name_of", "named_files", "pair_files", "sibling"]

IMAGE_WORDS = ("restored", "translated", "healthy", "pseudohealthy", "harmonised")
"""What a result may be that is an image of the same kind as a scan."""
LABEL_WORDS = ("dseg", "seg", "aseg", "synthseg", "labels", "label", "segmentation", "clusters")
"""What a label map may be called."""
_OTHER_WORDS = (
    "sd", "residual", "invented", "measured", "field", "entropy", "disagreement", "probseg", "mask", "anomaly",
    "zmap", "lesions",
    *(f"draw-{number}" for number in range(1, 1000)),
)  # fmt: skip
_WORDS = (*IMAGE_WORDS, *LABEL_WORDS, *_OTHER_WORDS)
_NOT_WHOSE = ("desc", "space", "res", "den", "label", "method")
_BIDS = re.compile(r"sub-[a-zA-Z0-9]+(_[a-z]+-[a-zA-Z0-9]+)*_[a-zA-Z0-9]+")


@dataclass(frozen=True)
class Named:
    """A file and what its name says.

    Attributes:
        path: The file.
        key: Whose scan it is.
        word: What was made of it, one of the words; empty for the scan.
        contrast: BIDS suffix of the scan; empty where the name says none.
        person: The `sub-` label, else the key.
        label: Which structure a map of probabilities is of (`label-LeftThalamus`); empty for others.
    """

    path: Path
    key: str
    word: str = ""
    contrast: str = ""
    person: str = ""
    label: str = ""


@dataclass(frozen=True)
class Pair:
    """A result and what it should be."""

    result: Named
    reference: Named


def name_of(path: Path, root: Path | None = None) -> Named:
    """What the name of a file says; the `sub-` of a folder below `root` counts too."""
    stem = _stem(path)
    if _BIDS.fullmatch(stem):
        *pairs, suffix = stem.split("_")
        entities = dict(pair.split("-", 1) for pair in pairs)
        key = "_".join(f"{name}-{value}" for name, value in entities.items() if name not in _NOT_WHOSE)
        said = entities.get("desc", "")
        if suffix in LABEL_WORDS or suffix in _OTHER_WORDS:
            contrast = said if said in CONTRASTS else ""
            return Named(path, key, suffix, contrast, entities["sub"], entities.get("label", ""))
        return Named(path, key, said, suffix, entities["sub"])
    head, _, last = stem.rpartition("_")
    key, word = (head, last.lower()) if head and last.lower() in _WORDS else (stem, "")
    key, _, label = key.partition("_label-") if word == "probseg" else (key, "", "")
    inside = path.parent.relative_to(root).as_posix() if root else ""
    subject = re.search(r"(?:^|/)sub-([a-zA-Z0-9]+)", f"{inside}/{key}")
    return Named(path, key, word, "", subject.group(1) if subject else key, label)


def _stem(path: Path) -> str:
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def named_files(source: Path, what: str) -> tuple[Named, ...]:
    """Every volume of a folder (or the one file), in the order of their paths; folders count where names repeat.

    Args:
        source: Folder or file.
        what: For the message: "results", "references".

    Raises:
        InputError: nothing there, or no volume in it.
    """
    if source.is_file() and is_volume_path(source):
        return (name_of(source),)
    if not source.is_dir():
        raise InputError(
            f"expected a folder of {what} ({' '.join(SUFFIXES)}) or one file; got neither at {source}. Check the path."
        )
    paths = sorted(path for path in source.rglob("*") if path.is_file() and is_volume_path(path))
    found = [name_of(path, source) for path in paths if not path.name.startswith(".")]
    if not found:  # DICOM folders, or one line that says there is nothing
        found = [Named(case.path, case.name, person=case.name) for case in find_cases(source)]
    again: dict[tuple[str, ...], int] = defaultdict(int)
    for one in found:
        again[one.key, one.word, one.contrast, one.label] += 1
    return tuple(
        one
        if again[one.key, one.word, one.contrast, one.label] == 1
        else replace(one, key=f"{one.path.parent.relative_to(source).as_posix()}/{one.key}")
        for one in found
    )


def pair_files(
    results: Sequence[Named], references: Sequence[Named]
) -> tuple[tuple[Pair, ...], tuple[Named, ...]]:
    """Pairs of results with their references, and references that no result belongs to.

    Two single files are a pair whatever they are called.

    Raises:
        InputError: a result without a reference or with several, or two results of one reference.
    """
    if len(results) == len(references) == 1:
        return (Pair(results[0], references[0]),), ()
    pairs = []
    for result in results:
        candidates = [one for one in references if one.key == result.key]
        same = [one for one in candidates if result.contrast and one.contrast == result.contrast]
        candidates = same or [one for one in candidates if not (one.contrast and result.contrast)]
        if len(candidates) != 1:
            near = ", ".join(one.path.name for one in (candidates or references)[:3])
            raise InputError(
                f"expected one reference for {result.path.name}; got {len(candidates) or 'none'} of that name "
                f"among {near}. Rename it, or take it out of the folder."
            )
        pairs.append(Pair(result, candidates[0]))
    used: dict[Path, Path] = {}
    for pair in pairs:
        other = used.setdefault(pair.reference.path, pair.result.path)
        if other != pair.result.path:
            raise InputError(
                f"expected one result for {pair.reference.path.name}; got {other.name} and {pair.result.path.name}. "
                "Evaluate one set of results at a time."
            )
    return tuple(pairs), tuple(one for one in references if one.path not in used)


def sibling(result: Named, files: Sequence[Named], word: str) -> Path | None:
    """The file of the same scan that is called otherwise: its `sd`, its `entropy`; None if there is none."""
    for one in files:
        if (
            one.key == result.key
            and one.word == word
            and (not result.contrast or one.contrast in ("", result.contrast))
        ):
            return one.path
    return None
