"""Rows of an HDF5 dataset as numpy would index them, read once each."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.stored_rows import stored_rows


@pytest.mark.parametrize("rows", [[], [3], [0, 1, 2, 3], [9, 3, 4, 3, 0], list(range(9, -1, -1))])
def test_as_numpy(tmp_path: Path, rng: np.random.Generator, rows: list[int]) -> None:
    values = rng.normal(size=(10, 2, 3)).astype(np.float16)
    with h5py.File(tmp_path / "x.h5", "w") as opened:
        stored = opened.create_dataset("x", data=values, chunks=(2, 2, 3))
        found = stored_rows(stored, np.array(rows, dtype=np.int64), "float32")
    np.testing.assert_array_equal(found, values[np.array(rows, dtype=int)].astype(np.float32))
    assert found.dtype == np.float32


def test_a_file_that_lost_its_data(tmp_path: Path) -> None:
    """A checksum of HDF5 that no longer holds is one line, not a traceback of the library."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as opened:
        opened.create_dataset("x", data=np.arange(4000.0).reshape(40, 100), chunks=(40, 100), fletcher32=True)
        place = opened["x"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 100 : place + 200] = bytes(100)
    path.write_bytes(content)
    with h5py.File(path) as opened, pytest.raises(InputError, match="cannot be read") as caught:
        stored_rows(opened["x"], np.array([1]), "float32")
    assert "\n" not in str(caught.value)
