"""Stimuli by name, in any order, and tables whose words stay words."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.stimuli import LinkedRows, read_stimuli, write_stimuli
from radiata_decode.data.tables import read_table, write_table

NAMES = pd.DataFrame({"stimulus": ["b", "NA", "0010", "a"], "caption": ["a cat", "", 'two, "dogs"', "n"]})


def test_any_order_and_repeats(tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    movies = rng.integers(0, 256, (4, 2, 3, 5, 3), dtype=np.uint8)
    flow = rng.normal(size=(4, 1, 2, 3, 5)).astype(np.float32)
    stimuli = write_stimuli(tmp_path, NAMES, images=images, movies=movies, flow=flow, frames_per_s=12.5)
    wanted, rows = ["a", "0010", "a", "NA"], [3, 2, 3, 1]
    np.testing.assert_array_equal(stimuli.images(wanted), images[rows])
    np.testing.assert_array_equal(stimuli.movies(wanted), movies[rows])
    np.testing.assert_array_equal(stimuli.flow(wanted), flow[rows])
    assert stimuli.images([]).shape == (0, 3, 5, 3)
    assert stimuli.frames_per_s == 12.5
    assert stimuli.table["caption"].tolist() == NAMES["caption"].tolist()
    with pytest.raises(InputError, match="got c, 1 that are not there"):
        stimuli.images(["a", "c"])


def test_a_large_collection_is_linked_and_not_copied(tmp_path: Path, rng: np.random.Generator) -> None:
    brick = rng.integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "all.h5", "w") as opened:
        opened["imgBrick"] = brick
    rows = np.array([40, 3, 17, 4])
    stimuli = write_stimuli(tmp_path / "s", NAMES, images=LinkedRows(tmp_path / "all.h5", "imgBrick", rows))
    np.testing.assert_array_equal(stimuli.images(["a", "b", "0010"]), brick[[4, 40, 17]])
    assert (tmp_path / "s" / "stimuli.h5").stat().st_size < brick.nbytes / 2
    np.testing.assert_array_equal(read_stimuli(tmp_path / "s").images(["a", "a"]), brick[[4, 4]])
    with pytest.raises(InputError, match=r"rows below 50 of .*; got 50"):
        write_stimuli(tmp_path / "t", NAMES, images=LinkedRows(tmp_path / "all.h5", "imgBrick", rows + 10))
    with pytest.raises(InputError, match="a dataset images in"):
        write_stimuli(tmp_path / "t", NAMES, images=LinkedRows(tmp_path / "all.h5", "images", rows))
    (tmp_path / "all.h5").rename(tmp_path / "moved.h5")
    with pytest.raises(InputError, match=r"Has it moved\?"):
        stimuli.images(["a"])
    with pytest.raises(InputError, match=r"Has it moved\?"):
        read_stimuli(tmp_path / "s")


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    whole = np.zeros((4, 3, 3, 3), np.uint8)
    for options, message in (
        ({}, "expected images, movies or flow"),
        ({"images": whole[:3]}, r"images of \(4, y, x, 3\); got \(3, 3, 3, 3\)"),
        ({"images": whole.astype(np.float32)}, "images of uint8; got float32"),
        ({"images": whole[..., :1]}, "convert to RGB"),
        ({"movies": whole[:, None]}, "frames a second > 0 with movies; got None"),
        ({"flow": np.zeros((4, 1, 3, 2, 2), np.float32)}, r"flow of \(4, step, 2, y, x\)"),
    ):
        with pytest.raises(InputError, match=message):
            write_stimuli(tmp_path, NAMES, **options)
    with pytest.raises(InputError, match="got b twice"):
        write_stimuli(tmp_path, NAMES.assign(stimulus=["b", "b", "c", "d"]), images=whole)
    assert list(tmp_path.iterdir()) == []


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected stimuli\.h5 and stimuli\.tsv"):
        read_stimuli(tmp_path)
    write_stimuli(tmp_path, NAMES, images=np.zeros((4, 3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="which exists"):
        write_stimuli(tmp_path, NAMES, images=np.zeros((4, 3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="expected movies in"):
        read_stimuli(tmp_path).movies(["a"])
    write_table(NAMES[:3], tmp_path / "stimuli.tsv")
    with pytest.raises(InputError, match="expected 4 rows"):
        read_stimuli(tmp_path)
    (tmp_path / "stimuli.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        read_stimuli(tmp_path)


def test_tables_keep_words_and_numbers_apart(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"stimulus": ["007", "NA", "n/a"], "category": ["None", "1", ""], "onset_s": [0.5, np.nan, 2.0]}
    )
    write_table(table, tmp_path / "t.tsv")
    read = read_table(tmp_path / "t.tsv", ("stimulus",))
    assert read["stimulus"].tolist() == ["007", "NA", "n/a"] and read["category"].tolist() == [
        "None",
        "1",
        "",
    ]
    np.testing.assert_array_equal(read["onset_s"], table["onset_s"])
    assert (tmp_path / "t.tsv").read_text().splitlines()[2] == "NA\t1\tn/a"
    with pytest.raises(InputError, match="without tabs"):
        write_table(table.assign(category=["a\tb", "", ""]), tmp_path / "u.tsv")
    (tmp_path / "u.tsv").write_text("stimulus\tsplit\tsplit\na\ttrain\ttest\n")
    with pytest.raises(InputError, match="once; got split more than once"):
        read_table(tmp_path / "u.tsv")
    (tmp_path / "u.tsv").write_text("stimulus\ta\nx\t1\t2\t3\n")
    with pytest.raises(InputError, match=r"expected 2 values separated by tabs .* got 4 in row 1"):
        read_table(tmp_path / "u.tsv")
    (tmp_path / "u.tsv").write_text("")
    with pytest.raises(InputError, match=r"u\.tsv"):
        read_table(tmp_path / "u.tsv", ("stimulus",))
