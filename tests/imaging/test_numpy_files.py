"""NumPy's files: what numpy reads, without pickles, lies and bombs."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from radiata_core.errors import InputError
from radiata_core.foreign_files import VARIABLE, foreign
from radiata_imaging.numpy_files import npy_array, npz_arrays, npz_shapes


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    hnp.arrays(
        st.sampled_from(["<f4", ">f8", "i8", "|u1", "?", "<c16", "<U3"]),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_they_are_read_as_numpy_does(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("a") / "a.npy"
    for stored in (array, np.array(array, order="F")):
        np.save(path, stored)
        found = npy_array(path)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(npy_array(path, lazy=True), array)
        np.savez_compressed(path.with_suffix(".npz"), x=stored, y=1)
        assert npz_shapes(path.with_suffix(".npz")) == {"x": array.shape, "y": ()}
        np.testing.assert_array_equal(npz_arrays(path.with_suffix(".npz"), ("x",))["x"], array)


def header(text: str) -> bytes:
    line = (text.ljust(118) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


class Armed:
    def __reduce__(self):
        return Path.touch, (Path("armed"),)


@pytest.mark.parametrize(
    "content",
    [
        header(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
        ),  # was: 8 TB asked for
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + pickle.dumps(Armed()),
        header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }") + pickle.dumps(Armed()),
        header("(" * 100),  # was: a TokenError
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }") + b"\0" * 8,
        b"\x93NUMPY\x09\x00" + b"\0" * 20,
        pickle.dumps(Armed()),
        b"",
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    for lazy in (False, True):
        with pytest.raises(InputError), foreign("expected an array"):
            npy_array(tmp_path / "a.npy", lazy=lazy)
    with pytest.raises(InputError), foreign("expected arrays"):
        npz_arrays(tmp_path / "a.npz")
    assert not (tmp_path / "armed").exists()


def test_an_archive_does_not_unpack_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(2**20))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.npy", stream.getvalue())
    assert (tmp_path / "a.npz").stat().st_size < 30_000
    assert len(npz_arrays(tmp_path / "a.npz")) == 3
    monkeypatch.setenv(VARIABLE, str(2**24))
    with pytest.raises(InputError, match="declares 25,166"):
        npz_arrays(tmp_path / "a.npz")
    assert npz_arrays(tmp_path / "a.npz", ("1",))["1"].shape == (2**20,)
