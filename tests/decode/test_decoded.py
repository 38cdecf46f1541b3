"""A decoded file says what it holds, comes back as it was, and broken ones are told in one line."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.decoded import Decoded, read_decoded, write_decoded


def test_it_comes_back(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {
        "images": rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        "draws": rng.integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8),
        "flow": rng.normal(size=(2, 1, 2, 4, 4)).astype(np.float32),
        "probabilities": rng.random((2, 2)).astype(np.float32),
    }
    made = Decoded(["a", "ü"], arrays, "image", "test", ("cat", "house"))
    write_decoded(tmp_path / "decoded.h5", made)
    found = read_decoded(tmp_path)
    assert found.stimulus == made.stimulus and found.categories == made.categories
    assert (found.route, found.split, found.provides) == ("image", "test", "image")
    assert all(np.array_equal(found.arrays[name], array) for name, array in arrays.items())


def test_the_same_twice_is_the_same_bytes(tmp_path: Path) -> None:
    made = Decoded(["a"], {"images": np.zeros((1, 4, 4, 3), np.uint8)}, "image", "test")
    one, two = (write_decoded(tmp_path / f"{n}.h5", made).read_bytes() for n in "ab")
    assert one == two


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "something decoded"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "1 rows"),
        ({"images": np.zeros((1, 4, 4, 3), np.float32)}, "uint8"),
        ({"pictures": np.zeros((1, 4, 4, 3), np.uint8)}, "one of images"),
    ],
)
def test_what_is_not_decoded_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_decoded(tmp_path / "decoded.h5", Decoded(["a"], arrays, "image", "test"))
    assert not list(tmp_path.iterdir())


def test_broken_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_decoded(tmp_path)
    (tmp_path / "decoded.h5").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        read_decoded(tmp_path)
    with h5py.File(tmp_path / "decoded.h5", "w") as opened:
        opened.attrs["format"] = "other"
    with pytest.raises(InputError, match="radiata-decoded/1"):
        read_decoded(tmp_path / "decoded.h5")
