"""Files are told apart by suffix, HDF5 by what is inside."""

from pathlib import Path

import h5py
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.sources import kind_of


def test_kinds(tmp_path: Path) -> None:
    for key, kind in (
        ("units", "nwb"),
        ("train_data", "lfads"),
        ("train_encod_data", "lfads"),
        ("counts", "arrays"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_group(key)
        assert kind_of(tmp_path / "a.h5") == kind
    for name, kind in (("a.nwb", "nwb"), ("a.mat", "matlab"), ("a.npz", "arrays"), ("a.nc", "arrays")):
        assert kind_of(tmp_path / name) == kind
    with pytest.raises(InputError, match=r"got a\.csv"):
        kind_of(tmp_path / "a.csv")
    (tmp_path / "b.h5").write_text("spikes")
    with pytest.raises(InputError, match="cannot be read"):
        kind_of(tmp_path / "b.h5")
