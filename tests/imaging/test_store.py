"""The store keeps what it is given, survives being stopped, and refuses what is not whole."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.store import Item, Store, StoreDataset, StoreWriter

SPEC = PreprocessSpec(spacing=8.0, shape=(6, 7, 5))


def heads(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, *SPEC.shape)).astype(np.float32)


def written(path: Path, rng: np.random.Generator, count: int = 4, **keywords: object) -> np.ndarray:
    arrays = heads(rng, count)
    writer = StoreWriter(path, SPEC.shape, SPEC, covariates=("age", "sex"), regions=("brain",), **keywords)
    for index, array in enumerate(arrays):
        split = "validation" if index == count - 1 else "train"
        covariates = {"age": 20.0 + index, "sex": None}
        writer.append(
            Item(
                array,
                f"{index:02d}",
                split,
                source=f"{index}.nii",
                covariates=covariates,
                volumes={"brain": 9.0},
            )
        )
    writer.finish()
    return arrays


@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
def test_a_store_gives_back_what_went_in(
    tmp_path: Path, rng: np.random.Generator, compression: str | None
) -> None:
    """To half a step of uint16, with order, identities, NaN for what is missing, and the specification as an object."""
    arrays = written(tmp_path / "heads.h5", rng, compression=compression)
    with Store(tmp_path / "heads.h5", SPEC.shape) as store:
        for index, array in enumerate(arrays):
            assert np.abs(store.array(index) - array).max() <= 1 / 65535 + 1e-7
        assert store.spec == SPEC
        np.testing.assert_array_equal(store.affine, canonical_affine(SPEC))
        assert store.images.dtype == np.uint16
        assert store.images.chunks == (1, *SPEC.shape)
        assert store.subjects.tolist() == ["00", "01", "02", "03"]
        assert store.covariate_names == ("age", "sex")
        np.testing.assert_array_equal(store.covariates[:, 0], [20, 21, 22, 23])
        assert np.isnan(store.covariates[:, 1]).all()
        assert store.volumes is not None
        np.testing.assert_array_equal(store.volumes, np.full((4, 1), 9, np.float32))
    assert not (tmp_path / "heads.h5.parts").exists()


def test_an_unusable_store_is_refused_in_one_line(tmp_path: Path, rng: np.random.Generator) -> None:
    written(tmp_path / "good.h5", rng)
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("heads")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "good.h5").read_bytes()[:5000])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "open.h5").write_bytes((tmp_path / "good.h5").read_bytes())
    with h5py.File(tmp_path / "open.h5", "a") as file:
        file.attrs["complete"] = False
    expected = {
        "absent.h5": "no such file",
        "empty.h5": "not one or is damaged",
        "text.h5": "not one or is damaged",
        "cut.h5": "not one or is damaged",
        "other.h5": "another HDF5 file",
        "open.h5": "never finished",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            Store(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected a store of 48×56×48 volumes; got 6×7×5"):
        Store(tmp_path / "good.h5", (48, 56, 48))
    with pytest.raises(InputError, match="exists"):
        StoreWriter(tmp_path / "good.h5", SPEC.shape, SPEC)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_dataset_gives_training_its_items(
    tmp_path: Path, rng: np.random.Generator, in_memory: bool
) -> None:
    arrays = written(tmp_path / "heads.h5", rng)
    dataset = StoreDataset(tmp_path / "heads.h5", "train", in_memory=in_memory)
    assert len(dataset) == 3
    item = pickle.loads(pickle.dumps(dataset))[2]
    assert item["image"].shape == (1, *SPEC.shape)
    np.testing.assert_allclose(item["image"][0].numpy(), arrays[2], atol=2e-5)
    assert item["covariates"][0] == 22
    assert bool(item["covariates"][1].isnan())
    with pytest.raises(InputError, match="split 'test'"):
        StoreDataset(tmp_path / "heads.h5", "test")


def test_a_forked_worker_opens_its_own_file(
    tmp_path: Path, rng: np.random.Generator, generator: torch.Generator
) -> None:
    """The parent's handle is open when the workers start; their items are right and the handle stays the parent's."""
    arrays = written(tmp_path / "heads.h5", rng, 9)
    dataset = StoreDataset(tmp_path / "heads.h5", "train")
    parent = dataset.store.file
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, multiprocessing_context="fork", generator=generator
    )
    images = torch.cat([batch["image"] for batch in loader])
    np.testing.assert_allclose(images[:, 0].numpy(), arrays[:8], atol=2e-5)
    assert dataset.store.file is parent
