"""A file of HDF5 is read as what it holds, and no further than it may declare."""

import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.foreign_files import VARIABLE
from radiata_imaging.hdf5 import declared_bytes, new_hdf5, open_hdf5, whole_array


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["group/values"] = np.arange(6.0).reshape(2, 3)
        opened["words"] = ["a", "b"]
        opened["none"] = h5py.Empty("f4")
    return tmp_path / "a.h5"


def test_what_it_holds_is_read(file: Path) -> None:
    with open_hdf5(file, whole=True) as opened:
        assert declared_bytes(opened["group/values"]) == 48 and declared_bytes(opened["none"]) == 0
        np.testing.assert_array_equal(whole_array(opened["group/values"]), np.arange(6.0).reshape(2, 3))
        with pytest.raises(TypeError, match="a group"):
            whole_array(opened["group"])


def test_no_other_file_is_read_through_it(file: Path, tmp_path: Path) -> None:
    """A set can keep its values in any file of the machine: 6 bytes of the secret came back before."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    with h5py.File(tmp_path / "external.h5", "w") as opened:
        opened.create_dataset("x", (6,), "u1", external=[(str(secret), 0, 6)])
    with h5py.File(tmp_path / "external.h5", "r") as opened:
        assert bytes(opened["x"][()]) == b"secret"
    with h5py.File(tmp_path / "link.h5", "w") as opened:
        opened["x"] = h5py.ExternalLink(str(file), "/group/values")
    with h5py.File(tmp_path / "virtual.h5", "w") as opened:
        layout = h5py.VirtualLayout((2, 3), "f8")
        layout[...] = h5py.VirtualSource(str(file), "group/values", (2, 3))
        opened.create_virtual_dataset("x", layout)
    for name in ("external", "link", "virtual"):
        with pytest.raises(InputError, match="holds its own values; x in"):
            open_hdf5(tmp_path / f"{name}.h5")


def test_a_petabyte_in_a_kilobyte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened.create_dataset("x", (2**47,), "f8", chunks=(1024,))
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(InputError, match=f"declares {2**50:,}"):
        open_hdf5(tmp_path / "a.h5", whole=True)
    with open_hdf5(tmp_path / "a.h5") as opened, pytest.raises(InputError, match=VARIABLE):
        whole_array(opened["x"])


def test_links_to_itself_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["up"] = opened["/"]
        opened["soft"] = h5py.SoftLink("/soft")
        opened["x"] = [1, 2]
    with open_hdf5(tmp_path / "a.h5", whole=True) as opened:
        assert list(opened["x"]) == [1, 2]


def test_the_file_is_closed_when_it_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["x"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(InputError):
        open_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as opened:  # an open one could not be opened for writing
        del opened["x"]


def test_a_heap_that_does_not_end_is_refused(file: Path) -> None:
    """libhdf5 2.0 reads the words of such a file for ever, in C, where no signal of Python's reaches it."""
    content = bytearray(file.read_bytes())
    start = content.index(b"GCOL\x01")
    place = start + 16
    while number := int.from_bytes(content[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    assert number == 0
    content[place + 8 : place + 16] = bytes(8)
    file.write_bytes(content)
    with pytest.raises(OSError, match="does not end"):
        open_hdf5(file)


@pytest.mark.parametrize("limit", [300, 3000, 20_000, 60_000])
def test_a_disk_that_is_full_is_an_error_at_the_end_and_no_crash(tmp_path: Path, limit: int) -> None:
    """However far the file came; and with room enough it holds what was written."""

    def write(path: Path) -> None:
        with new_hdf5(path, libver="latest") as file:
            values = np.random.default_rng(0).random((60, 50))
            file.create_dataset("packed", data=values, compression="gzip", shuffle=True)
            for number in range(12):
                file.create_dataset(f"some/{number}", data=np.arange(500.0) * number, chunks=(50,))
            file["words"] = ["a", "bb"]

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "full.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    write(tmp_path / "whole.h5")
    with open_hdf5(tmp_path / "whole.h5") as file:
        assert np.array_equal(file["some/7"][()], np.arange(500.0) * 7) and file["words"].asstr()[1] == "bb"
        assert np.array_equal(file["packed"][()], np.random.default_rng(0).random((60, 50)))
