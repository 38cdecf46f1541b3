"""What kind of file a source is: by its suffix, and for HDF5 by what is inside.

.nwb, HDF5 with units/            a recording
.mat                              a recording
HDF5 with train_data or train_encod_data    LFADS
.npz, .npy, .nc, other HDF5       arrays, or a population that was made before
"""

from enum import StrEnum
from pathlib import Path

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import open_hdf5
from radiata_latents.data.lfads_files import is_lfads

__all__ = ["SourceKind", "kind_of"]


class SourceKind(StrEnum):
    """How it is read."""

    NWB = "nwb"
    MATLAB = "matlab"
    LFADS = "lfads"
    ARRAYS = "arrays"


def kind_of(path: Path) -> SourceKind:
    """The kind of a file.

    Raises:
        InputError: a suffix that is not known, or HDF5 that cannot be read.
    """
    path = Path(path)
    plain = {".nwb": SourceKind.NWB, ".mat": SourceKind.MATLAB, ".npz": SourceKind.ARRAYS,
             ".npy": SourceKind.ARRAYS, ".nc": SourceKind.ARRAYS}  # fmt: skip
    if path.suffix in plain:
        return plain[path.suffix]
    if path.suffix not in (".h5", ".hdf5"):
        raise InputError(
            f"expected a file ending in {', '.join(plain)}, .h5 or .hdf5; got {path.name}. Convert it, or rename it."
        )
    with foreign(f"expected HDF5; got {path}, which cannot be read"), open_hdf5(path) as file:
        keys = set(file)
    if "units" in keys:
        return SourceKind.NWB
    return SourceKind.LFADS if is_lfads(keys) else SourceKind.ARRAYS
