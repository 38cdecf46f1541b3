"""Writing a store: in any order, through SIGKILL, and what is refused on the way in."""

import multiprocessing
import os
import queue
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.store import Store
from radiata_imaging.store_writer import Item, StoreWriter

SPEC = PreprocessSpec(spacing=8.0, shape=(6, 7, 5))


def heads(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, *SPEC.shape)).astype(np.float32)


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


def test_parts_without_an_item_go_and_others_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = StoreWriter(tmp_path / "heads.h5", SPEC.shape, SPEC)
    writer.tidy()
    assert list(tmp_path.iterdir()) == []
    writer = StoreWriter(tmp_path / "heads.h5", SPEC.shape, SPEC)
    writer.append(Item(heads(rng, 1)[0], "01"))
    writer.tidy()
    assert len(writer) == 1
    writer.finish()
    writer.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["heads.h5"]
