"""Names of regions behind the numbers of label files, one 0/1 column a region.

NSD and the Algonauts challenge number the regions of a collection from 1; 0 is in none, -1 outside the cortex. The numbers
mean nothing without the collection: 1 is V1v in `prf-visualrois` and the occipital face area in `floc-faces`. A `.ctab`
file beside NSD's surfaces lists them, and is believed where it is there; the tables here are those lists.

Halves are joined: V1 is V1v and V1d, V4 is hV4. A collection of functional localisers also has one region of its own
name without `floc-`: `faces` is every voxel of `floc-faces`.

References:
    Natural Scenes Dataset, data manual, section on regions of interest. http://naturalscenesdataset.org.
    L. Wang, R. Mruczek, M. Arcaro, S. Kastner (2015). Probabilistic maps of visual topography in human cortex. Cerebral
    Cortex 25 (`Kastner2015`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign_text

__all__ = ["COLLECTIONS", "JOINED", "read_ctab", "region_columns"]


def _numbered(words: str) -> dict[int, str]:
    return dict(enumerate(words.split(), start=1))


COLLECTIONS: Mapping[str, Mapping[int, str]] = {
    "prf-visualrois": _numbered("V1v V1d V2v V2d V3v V3d hV4"),
    "prf-eccrois": _numbered("ecc0pt5 ecc1 ecc2 ecc4 ecc4+"),
    "floc-faces": _numbered("OFA FFA-1 FFA-2 mTL-faces aTL-faces"),
    "floc-words": _numbered("OWFA VWFA-1 VWFA-2 mfs-words mTL-words"),
    "floc-places": _numbered("OPA PPA RSC"),
    "floc-bodies": _numbered("EBA FBA-1 FBA-2 mTL-bodies"),
    "streams": _numbered("early midventral midlateral midparietal ventral lateral parietal"),
    "Kastner2015": _numbered(
        "V1v V1d V2v V2d V3v V3d hV4 VO1 VO2 PHC1 PHC2 TO2 TO1 LO2 LO1 V3B V3A IPS0 IPS1 IPS2 IPS3 IPS4 IPS5 SPL1 FEF"
    ),
}
JOINED: Mapping[str, Sequence[str]] = {
    "V1": ("V1v", "V1d"),
    "V2": ("V2v", "V2d"),
    "V3": ("V3v", "V3d"),
    "V4": ("hV4",),
}


def read_ctab(path: Path) -> dict[int, str]:
    """Number → name of a FreeSurfer colour table; 0 is left out.

    Raises:
        InputError: a line that is not a number and a name.
    """
    found = {}
    for line in foreign_text(path, "a colour table").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or not re.fullmatch(r"-?[0-9]{1,9}", words[0]):
            raise InputError(f"expected a number and a name in each line of {path}; got {line[:60]!r}.")
        if int(words[0]) > 0:
            found[int(words[0])] = words[1]
    return found


def region_columns(
    collection: str, labels: np.ndarray, names: Mapping[int, str] | None = None
) -> dict[str, np.ndarray]:
    """Columns `roi_<NAME>` of 0 and 1, (voxel,) each, of the regions in which there are voxels.

    Args:
        collection: `prf-visualrois`; regions of `Kastner2015`, which repeat its names, get it as a prefix, and a collection
            that is not known is taken as one region of its own name.
        labels: Of each voxel, whole numbers; <= 0 is in none.
        names: From a colour table; None: those of `COLLECTIONS`.
    """
    known = names if names is not None else COLLECTIONS.get(collection)
    whole = np.asarray(np.nan_to_num(labels)).round().astype(np.int64)
    if known is None:
        return {f"roi_{collection}": (whole > 0).astype(np.int64)} if (whole > 0).any() else {}
    prefix = f"{collection}_" if collection == "Kastner2015" else ""
    found = {
        f"roi_{prefix}{name}": (whole == number).astype(np.int64)
        for number, name in known.items()
        if (whole == number).any()
    }
    if collection == "prf-visualrois":
        for name, halves in JOINED.items():
            parts = [found[f"roi_{half}"] for half in halves if f"roi_{half}" in found]
            if parts:
                found[f"roi_{name}"] = np.maximum.reduce(parts)
    if collection.startswith("floc-") and (whole > 0).any():
        found[f"roi_{collection.removeprefix('floc-')}"] = (whole > 0).astype(np.int64)
    return found
