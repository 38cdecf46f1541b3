"""The store keeps what it is given, survives being stopped, and refuses what is not whole."""

import multiprocessing
import os
import pickle
import queue
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.store import Item, Store, StoreDataset, StoreWriter, decode, encode

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


def test_every_stored_level_survives_a_round_trip() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(encode(decode(levels)), levels)
    assert decode(levels).min() == -1
    assert decode(levels).max() == pytest.approx(1, abs=1e-7)


def test_the_same_items_make_the_same_identity(tmp_path: Path, rng: np.random.Generator) -> None:
    """In whatever order they arrive: `order` says the place."""
    arrays = heads(rng, 3)
    for name, sequence in {"a.h5": (0, 1, 2), "b.h5": (2, 0, 1)}.items():
        writer = StoreWriter(tmp_path / name, SPEC.shape, SPEC)
        for index in sequence:
            writer.append(Item(arrays[index], str(index)), order=index)
        writer.finish()
    first, second = Store(tmp_path / "a.h5"), Store(tmp_path / "b.h5")
    assert first.store_id == second.store_id
    np.testing.assert_array_equal(first.images[()], second.images[()])


def _write_five(path: Path, kill_at: int, answers: Any) -> None:
    writer = StoreWriter(path, SPEC.shape, SPEC)
    for index in range(5):
        if index == kill_at:
            (writer.parts / ".half.tmp.h5").write_bytes(b"half an item")
            os.kill(os.getpid(), signal.SIGKILL)
        item = Item(np.full(SPEC.shape, index / 5, np.float32), str(index), source=str(index))
        answers.put("kept" if writer.has(item) else "made")
        writer.append(item, order=index)
    writer.finish()


def test_a_writer_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: finished items stay, the store does not exist, a second start completes it."""
    store = tmp_path / "heads.h5"
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=_write_five, args=(store, 3, context.Queue()))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not store.exists()
    with pytest.raises(InputError, match="unfinished: run prepare again"):
        Store(store)
    answers: queue.Queue[str] = queue.Queue()
    _write_five(store, -1, answers)
    assert list(answers.queue) == ["kept"] * 3 + ["made"] * 2
    np.testing.assert_allclose([Store(store).array(i).mean() for i in range(5)], np.arange(5) / 5, atol=2e-5)


def test_a_resumed_writer_must_ask_for_the_same(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "heads.h5", SPEC.shape, SPEC)
    with pytest.raises(InputError, match="covariates differ"):
        StoreWriter(tmp_path / "heads.h5", SPEC.shape, SPEC, covariates=("age",))


def test_subjects_stay_in_one_split_and_images_with_one_subject(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    array = heads(rng, 2)
    writer = StoreWriter(tmp_path / "a.h5", SPEC.shape, SPEC)
    writer.append(Item(array[0], "01", "train", session="1"))
    writer.append(Item(array[1], "01", "test", session="2"))
    with pytest.raises(InputError, match="each subject in one split; got 01 in train and test"):
        writer.finish()
    writer = StoreWriter(tmp_path / "b.h5", SPEC.shape, SPEC)
    writer.append(Item(array[0], "01"))
    writer.append(Item(array[0], "02"))
    with pytest.raises(InputError, match="same file"):
        writer.finish()
    assert not (tmp_path / "b.h5").exists()


def test_an_item_must_fit_its_store(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = StoreWriter(tmp_path / "heads.h5", SPEC.shape, SPEC)
    with pytest.raises(InputError, match="expected volumes of 6×7×5; got 3×3×3"):
        writer.append(Item(np.zeros((3, 3, 3), np.float32), "01"))
    with pytest.raises(InputError, match=r"values in \[-1, 1\]; got .*nan"):
        writer.append(Item(np.full(SPEC.shape, np.nan, np.float32), "01"))
    with pytest.raises(InputError, match="split out of"):
        writer.append(Item(heads(rng, 1)[0], "01", split="dev"))
    with pytest.raises(InputError, match="age"):
        writer.append(Item(heads(rng, 1)[0], "01", covariates={"age": 3.0}))
    with pytest.raises(InputError, match="at least one head"):
        writer.finish()


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
