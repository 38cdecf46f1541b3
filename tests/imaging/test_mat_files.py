"""MATLAB's files: what scipy reads, and nothing that would end its process."""

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from radiata_core.errors import InputError
from radiata_core.foreign_files import VARIABLE, foreign
from radiata_imaging.mat_files import load_mat, mat_shapes


def cells() -> np.ndarray:
    inner = np.empty((1, 3), object)
    one = {"time": np.array([[1.0], [2.0]]), "timerange": np.array([[0.0, 9.0]])}
    inner[0, 0], inner[0, 1], inner[0, 2] = one, np.zeros((1, 0)), one
    return inner


@pytest.mark.parametrize("packed", [False, True])
def test_they_are_read_as_scipy_does(tmp_path: Path, packed: bool) -> None:
    values = {
        "spikes": cells(), "word": "grün", "words": np.array(["a", "bcd"], object), "rows": np.array(["abc", "def"]),
        "complex": np.ones((2, 3)) * 1j, "bytes": np.ones((3, 3, 2), np.int8), "yes": np.array([[True]]),
        "struct": {"x": 1.5, "y": {"z": [1, 2, 3]}}, "empty": np.zeros((0, 4)), "large": np.uint64(2**63),
    }  # fmt: skip
    savemat(tmp_path / "a.mat", values, do_compression=packed)
    found, wanted = load_mat(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")
    assert found.keys() == wanted.keys() and len(mat_shapes(tmp_path / "a.mat")) == len(values)
    for name in ("complex", "bytes", "yes", "empty", "large", "word", "rows"):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert found["spikes"][0, 2]["time"][0, 0][1, 0] == 2.0
    assert list(load_mat(tmp_path / "a.mat", ["large"])) == [
        *("__header__", "__version__", "__globals__"),
        "large",
    ]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (680, 11, "numbers of type 11"),  # was: a segmentation fault in scipy
        (424, 1, "flags of type 1"),  # was: a segmentation fault in scipy
        (163, 0x7F, "cells in"),
        (144, 17, "of class 17"),
        (144, 99, "of class 99"),
        (132, 0x7F, "longer than|ends within"),
    ],
)
def test_a_type_out_of_place_is_refused_before_scipy_sees_it(
    tmp_path: Path, place: int, value: int, said: str
) -> None:
    savemat(tmp_path / "a.mat", {"spikes": cells()})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[place] = value
    (tmp_path / "b.mat").write_bytes(content)
    with pytest.raises(InputError, match=said), foreign("expected a file"):
        load_mat(tmp_path / "b.mat")


def test_no_flipped_bytes_end_the_process(tmp_path: Path) -> None:
    """One in a hundred of such files did."""
    savemat(tmp_path / "a.mat", {"spikes": cells()})
    whole, rng = (tmp_path / "a.mat").read_bytes(), random.Random(0)
    for _ in range(120):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 2, 4))):
            content[rng.randrange(128, len(content))] = rng.choice((0, 1, 5, 6, 9, 11, 14, 127, 255))
        (tmp_path / "b.mat").write_bytes(content)
        try:
            load_mat(tmp_path / "b.mat")
        except ValueError:
            continue
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}")


def test_a_bomb_is_measured_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "a.mat", {"x": np.zeros(2**20)}, do_compression=True)
    assert load_mat(tmp_path / "a.mat")["x"].size == 2**20
    monkeypatch.setenv(VARIABLE, str(2**20))
    with pytest.raises(InputError, match="at most 1,048,576 bytes"):
        load_mat(tmp_path / "a.mat")


def test_arrays_within_arrays_end(tmp_path: Path) -> None:
    """scipy's own recursion is in C: a file nested deeply enough would end the process."""
    savemat(tmp_path / "a.mat", {"x": np.zeros(1)})
    head = (tmp_path / "a.mat").read_bytes()[:128]
    inner = b""
    for _ in range(2000):
        body = b"".join(
            (
                (6).to_bytes(4, "little") + (8).to_bytes(4, "little") + (1).to_bytes(8, "little"),
                (5).to_bytes(4, "little") + (8).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2,
                (1).to_bytes(4, "little") + bytes(4),
                inner,
            )
        )
        inner = (14).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    packed = zlib.compress(inner)
    content = head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match="deep"), foreign("expected a file"):
        load_mat(tmp_path / "a.mat")


def test_version_7_3_is_told_apart(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"x": np.zeros(1)})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[124:126] = b"\x00\x02"
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(NotImplementedError):
        load_mat(tmp_path / "a.mat")
