"""Files of pairs: what is read is what was written, up to the stated rounding."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.specs import describe
from radiata_imaging.pair_store import (
    PairDataset,
    PairSpec,
    PairStore,
    join_pairs,
    noise_law,
    pair_files,
    seed_noise,
    write_pairs,
)


def spec_of(event, **changes):
    values = {
        "path": describe(LinearPath()),
        "event": event,
        "teacher": "t",
        "prediction": "velocity",
        "solver": "ddim",
        "grid": {"kind": "linear-grid"},
        "steps": 4,
        "guidance": 1.0,
        "noise": noise_law(GaussianKernel()),
        "stored_noise": False,
        "dtype": "float16",
        "conditions": {},
    }
    return PairSpec(**values | changes)


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e5])
def test_half_precision_errs_by_its_bound(tmp_path, rng, size):
    """|error| <= 2^-11 |v| + 2^-25 scale, with scale at most twice the largest value: no size of data overflows."""
    x0 = (size * rng.standard_normal((5, 40, 30)) * 10.0 ** rng.integers(-6, 1, (5, 40, 30))).astype(
        np.float32
    )
    write_pairs(tmp_path / "a.pairs.h5", spec_of((40, 30)), range(5), x0, {})
    store = PairStore(tmp_path / "a.pairs.h5")
    for row in range(5):
        error = np.abs(store.x0(row).numpy().astype(np.float64) - x0[row])
        assert (error <= 2.0**-11 * np.abs(x0[row]) + 2.0**-25 * store.scale[row]).all()
        assert np.abs(x0[row]).max() <= store.scale[row] <= 2 * np.abs(x0[row]).max()


def test_single_precision_is_exact(tmp_path, rng):
    x0 = rng.standard_normal((3, 7)).astype(np.float32)
    write_pairs(tmp_path / "a.pairs.h5", spec_of((7,), dtype="float32"), range(3), x0, {})
    store = PairStore(tmp_path / "a.pairs.h5")
    assert all(np.array_equal(store.x0(row).numpy(), x0[row]) for row in range(3))


def test_zeros_stay_zeros(tmp_path):
    write_pairs(tmp_path / "a.pairs.h5", spec_of((3,)), [0], np.zeros((1, 3)), {})
    assert torch.equal(PairStore(tmp_path / "a.pairs.h5").x0(0), torch.zeros(3))


def test_noise_costs_no_disk(tmp_path):
    """It is the house's noise of the seed."""
    spec = spec_of((2, 3))
    assert torch.equal(seed_noise(17, spec), noise_of(generators_of([17], 0), (2, 3))[0])
    write_pairs(tmp_path / "a.pairs.h5", spec, [17], np.ones((1, 2, 3)), {})
    with h5py.File(tmp_path / "a.pairs.h5") as file:
        assert "noise" not in file
    assert torch.equal(PairStore(tmp_path / "a.pairs.h5").noise(0), seed_noise(17, spec))


def test_joining_keeps_every_bit(tmp_path, rng):
    spec = spec_of((5,), conditions={"age": [1]}, stored_noise=True)
    for part in range(3):
        x0, noise = rng.standard_normal((2, 4, 5))
        ages = {"age": np.array([[np.nan], [1.0], [2.0], [3.0]])}
        write_pairs(tmp_path / f"{part}.pairs.h5", spec, range(4 * part, 4 * part + 4), x0, ages, noise)
    stores = [PairStore(tmp_path / f"{part}.pairs.h5") for part in range(3)]
    join_pairs(tmp_path / "all.pairs.h5", stores)
    apart, joined = PairDataset(stores), PairDataset([PairStore(tmp_path / "all.pairs.h5")])
    assert apart.seeds == joined.seeds == list(range(12))
    for index in range(12):
        for name, value in apart[index].items():
            assert torch.equal(value.nan_to_num(-1), joined[index][name].nan_to_num(-1)), name
    again = PairDataset([*stores, PairStore(tmp_path / "all.pairs.h5")])
    assert again.seeds == list(range(12))


def test_a_data_set_crosses_to_another_process(tmp_path):
    write_pairs(tmp_path / "a.pairs.h5", spec_of((3,)), range(4), np.ones((4, 3)), {})
    data = PairDataset([PairStore(tmp_path / "a.pairs.h5")])
    first = data[0]["noise"]
    assert torch.equal(pickle.loads(pickle.dumps(data))[0]["noise"], first)


def test_a_truncated_file_gives_one_clear_line(tmp_path):
    path = tmp_path / "a.pairs.h5"
    write_pairs(path, spec_of((50,)), range(20), np.ones((20, 50)), {})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(
        InputError, match=r"which is not one or is damaged .* Delete it and draw again"
    ) as caught:
        PairStore(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_file_of_pairs_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="got another HDF5 file"):
        PairStore(tmp_path / "other.h5")
    (tmp_path / "text.pairs.h5").write_text("no")
    with pytest.raises(InputError, match="not one or is damaged"):
        PairStore(tmp_path / "text.pairs.h5")
    for missing in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(InputError, match="got no such file"):
            PairStore(missing)
    with pytest.raises(InputError, match="at least one file"):
        PairDataset([])


def test_files_are_found_in_folders_by_name(tmp_path):
    for name in ("b", "a"):
        write_pairs(tmp_path / f"{name}.pairs.h5", spec_of((1,)), [1], np.ones((1, 1)), {})
    (tmp_path / "notes.txt").write_text("x")
    assert [file.name for file in pair_files([tmp_path, tmp_path / "a.pairs.h5"])] == [
        "a.pairs.h5",
        "b.pairs.h5",
        "a.pairs.h5",
    ]


def test_a_specification_survives_its_text():
    spec = spec_of((1, 2), conditions={"age": [3]})
    assert PairSpec.of_text(spec.text) == spec
