"""All that a command wrote of one scan – image, standard deviation, residual, draws, labels – found by one of its files.

head_restored.nii.gz                 head_sd.nii.gz                 head_draw-1.nii.gz
sub-01_desc-restored_T1w.nii.gz      sub-01_desc-sd_T1w.nii.gz      sub-01_desc-draw1_T1w.nii.gz
"""

import re
from pathlib import Path

from radiata_core.errors import InputError
from radiata_imaging.nifti import SUFFIXES, read_volume
from radiata_imaging.volume import Volume
from radiata_medical.data.scans import same_grid

__all__ = ["maps_beside", "volumes_beside"]

_PLAIN = re.compile(r"(?P<before>.+_)(?P<word>[a-z]+(?:-\d+)?)(?P<after>)")
_BIDS = re.compile(r"(?P<before>sub-.+_desc-)(?P<word>[a-zA-Z0-9]+)(?P<after>_[a-zA-Z0-9]+)")
_DRAW = re.compile(r"draw-?(\d+)")


def maps_beside(path: Path) -> dict[str, Path]:
    """Word of a result ("restored", "draw-1") to its file, the given one first, the others by name.

    Raises:
        InputError: the name is not that of a result.
    """
    stem, suffix = _split(path)
    named = (_BIDS if stem.startswith("sub-") else _PLAIN).fullmatch(stem)
    if named is None:
        raise InputError(
            f"expected a result such as head_restored.nii.gz; got {path}. Give a file that restore or segment wrote."
        )
    found = {named["word"]: path}
    pattern = re.compile(
        re.escape(named["before"]) + r"([a-zA-Z]+-?\d*)" + re.escape(named["after"] + suffix)
    )
    for other in sorted(path.parent.iterdir()):
        again = pattern.fullmatch(other.name)
        if again:
            found.setdefault(again[1], other)
    return found


def volumes_beside(path: Path) -> tuple[dict[str, Volume], list[Volume]]:
    """Volumes of the results on the grid of the given one, by word, and the draws in their order.

    Raises:
        InputError: as `maps_beside`, or a file that cannot be read.
    """
    files = maps_beside(path)
    read = {word: read_volume(file, allow_constant=True, min_axis=1) for word, file in files.items()}
    first = next(iter(read.values()))
    here = {word: volume for word, volume in read.items() if _on_one_grid(first, volume)}
    numbered = {int(named[1]): here[word] for word in here if (named := _DRAW.fullmatch(word))}
    maps = {word.replace("-", "_"): volume for word, volume in here.items() if not _DRAW.fullmatch(word)}
    return maps, [numbered[number] for number in sorted(numbered)]


def _split(path: Path) -> tuple[str, str]:
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)], suffix


def _on_one_grid(first: Volume, other: Volume) -> bool:
    try:
        same_grid(first, other)
    except InputError:
        return False
    return True
