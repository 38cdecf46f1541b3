"""One array in six kinds of file is one subject."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from radiata_core.errors import InputError
from radiata_decode.data import arrays
from radiata_decode.data.arrays import read_arrays


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    pd.DataFrame({"stimulus": ["01", "02", "01", "03", "04", "NA"], "run": [1, 1, 1, 2, 2, 2]}).to_csv(
        tmp_path / "trials.tsv", sep="\t", index=False
    )
    return tmp_path / "trials.tsv"


def save(values: np.ndarray, path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, betas=values, other=np.zeros(3))
    elif path.name == "seven.mat":  # MATLAB 7.3 is HDF5 with reversed axes
        with h5py.File(path, "w") as file:
            file["betas"] = values.T
    elif path.suffix == ".mat":
        savemat(path, {"betas": values, "note": "text"})
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("a/betas", data=values)
    else:
        header = path.name == "header.csv"
        pd.DataFrame(values).to_csv(path, index=False, header=[f"v{k}" for k in range(values.shape[1])] if header else False,
                                    sep="\t" if path.suffix == ".tsv" else ",")  # fmt: skip


@pytest.mark.parametrize(
    "name", ["x.npy", "x.npz", "x.mat", "seven.mat", "x.h5", "x.csv", "header.csv", "x.tsv"]
)
def test_every_form_is_the_same(
    tmp_path: Path, trials: Path, rng: np.random.Generator, name: str, monkeypatch
) -> None:
    values = rng.normal(size=(6, 5)).astype(np.float32)
    save(values, tmp_path / name)
    monkeypatch.setattr(arrays, "BLOCK", 4 * 5 * 4)  # parts of four trials
    found = read_arrays(tmp_path / name, trials)
    assert [len(part.trials) for part in found.parts] == [4, 2]
    np.testing.assert_allclose(np.concatenate([part.read() for part in found.parts]), values, rtol=1e-5)
    assert found.trials["stimulus"].tolist() == ["01", "02", "01", "03", "04", "NA"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".mat", ".csv", ".tsv"])
@pytest.mark.parametrize("content", [b"", b"this is not what its name says\n", b"PK\x03\x04 broken"])
def test_broken_files_are_one_line(tmp_path: Path, trials: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=r"expected.*got") as caught:
        read_arrays(tmp_path / f"x{suffix}", trials)
    assert "\n" not in str(caught.value)


def test_bad_input(tmp_path: Path, trials: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((7, 3)))
    with pytest.raises(InputError, match=r"for each of 7 responses .*got 6"):
        read_arrays(tmp_path / "x.npy", trials)
    with pytest.raises(InputError, match=r"expected --trials"):
        read_arrays(tmp_path / "x.npy", None)
    np.save(tmp_path / "x.npy", np.zeros((6, 3, 2)))
    with pytest.raises(InputError, match=r"got shape \(6, 3, 2\)"):
        read_arrays(tmp_path / "x.npy", trials)
    np.savez(tmp_path / "x.npz", a=np.zeros((6, 2)), b=np.zeros((6, 2)))
    with pytest.raises(InputError, match=r"expected --key.*of a, b"):
        read_arrays(tmp_path / "x.npz", trials)
    with pytest.raises(InputError, match=r"an array c .*got a, b"):
        read_arrays(tmp_path / "x.npz", trials, key="c")
    with pytest.raises(InputError, match=r"ending in .npy"):
        read_arrays(tmp_path / "x.pt", trials)
    pd.DataFrame({"x": [1]}).to_csv(tmp_path / "voxels.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"for each of 2 voxels; got 1"):
        read_arrays(tmp_path / "x.npz", trials, key="a", voxels=tmp_path / "voxels.tsv")
