"""Blocks of categories from both layouts, and the slice that ships."""

import hashlib
import tomllib
from pathlib import Path

import nibabel
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.haxby import block_trials, detrended, read_category_runs, read_haxby, shipped_example

ROOT = Path(__file__).resolve().parents[2]
TR = 2.5


def shown() -> tuple[np.ndarray, np.ndarray]:
    """Two runs: rest 4, face 5, rest 3, cat 5, rest 3; and the run of each volume."""
    labels = np.array([0] * 4 + [1] * 5 + [0] * 3 + [4] * 5 + [0] * 3)
    return np.tile(labels, 2), np.repeat([0, 1], len(labels))


@pytest.fixture
def pymvpa(tmp_path: Path, rng: np.random.Generator) -> Path:
    labels, runs = shown()
    values = rng.normal(1000, 5, (3, 4, 1, len(labels)))
    values[1, :, 0, :] += 40 * np.roll(labels == 1, 2)  # faces, two volumes later
    image = nibabel.Nifti1Image(values.round().astype(np.int16), np.eye(4))
    image.header["pixdim"][4] = TR
    nibabel.save(image, tmp_path / "bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 1), np.int16), np.eye(4)), tmp_path / "mask.nii.gz")
    (tmp_path / "attributes.txt").write_text("".join(f"{a} {b}\n" for a, b in zip(labels, runs, strict=True)))
    return tmp_path


def test_a_block_is_the_mean_of_its_lagged_volumes(pymvpa: Path) -> None:
    runs = read_category_runs(pymvpa)
    series = detrended(runs.series, runs.run, 0)
    values, table = block_trials(series, runs, 5.0)
    assert table["stimulus"].tolist() == ["face_run-01", "cat_run-01", "face_run-02", "cat_run-02"]
    np.testing.assert_allclose(values[2], series[20 + 6 : 20 + 11].mean(0), rtol=1e-5)
    assert table["onset_s"].tolist() == [4 * TR, 12 * TR] * 2
    single, rows = block_trials(series, runs, 5.0, average=False)
    np.testing.assert_array_equal(single[:5], series[6:11])
    assert rows["onset_s"].tolist()[:5] == [TR * k for k in range(4, 9)] and len(rows) == 20
    assert (values[[0, 2], 4:8] > values[[1, 3], 4:8] + 1).all()  # the voxels that were made to follow faces


def test_a_lag_never_takes_from_the_next_run(pymvpa: Path) -> None:
    runs = read_category_runs(pymvpa)
    marked = np.where(runs.run == 1, 0.0, 1.0)[:, None].repeat(12, 1)
    values, table = block_trials(marked, runs, 12.5)
    assert (values == (table["run"].to_numpy() - 1)[:, None]).all()


def test_detrending_is_polyfit_in_each_run(pymvpa: Path) -> None:
    runs = read_category_runs(pymvpa)
    t = np.arange(20)
    for order in (0, 1, 3):
        column = runs.series[20:, 5].astype(float)
        flat = column - np.polyval(np.polyfit(t - 10, column, order), t - 10)
        np.testing.assert_allclose(
            detrended(runs.series, runs.run, order)[20:, 5], flat / flat.std(ddof=1), atol=1e-4
        )


def test_openfmri_says_the_same(pymvpa: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("openfmri")
    folder = root / "sub001"
    image = nibabel.load(pymvpa / "bold.nii.gz")
    (folder / "masks/orig").mkdir(parents=True)
    nibabel.save(nibabel.load(pymvpa / "mask.nii.gz"), folder / "masks/orig/brain.nii.gz")
    (root / "models/model001").mkdir(parents=True)
    (root / "models/model001/condition_key.txt").write_text("task001 cond001 face\ntask001 cond002 cat\n")
    for number in (1, 2):
        run = folder / f"BOLD/task001_run00{number}"
        onsets = folder / f"model/model001/onsets/task001_run00{number}"
        run.mkdir(parents=True)
        onsets.mkdir(parents=True)
        part = nibabel.Nifti1Image(np.asarray(image.dataobj)[..., 20 * (number - 1) : 20 * number], np.eye(4))
        part.header["pixdim"][4] = TR
        nibabel.save(part, run / "bold.nii.gz")
        small = nibabel.Nifti1Image(np.zeros((2, 2, 2, 20), np.int16), np.eye(4))
        nibabel.save(small, run / "bold_25mm.nii.gz")  # another grid, which must not be taken
        (onsets / "cond001.txt").write_text("".join(f"{t} 0.5 1\n" for t in np.arange(10.0, 22.4, TR)))
        (onsets / "cond002.txt").write_text("30 12.5 1\n")
    ours, theirs = read_category_runs(pymvpa), read_category_runs(folder)
    assert ours.category.tolist() == theirs.category.tolist() and ours.run.tolist() == theirs.run.tolist()
    np.testing.assert_array_equal(ours.series, theirs.series)


def test_the_slice_that_ships_is_that_of_its_card() -> None:
    card = tomllib.loads((ROOT / "datasets/haxby-slice.toml").read_text(encoding="utf-8"))
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((shipped_example() / name).read_bytes()).hexdigest() == digest, name
    reading = read_haxby(shipped_example())
    assert len(reading.parts) == 12 and len(reading.voxels) == 530
    assert reading.trials["category"].value_counts().to_dict() == dict.fromkeys(
        reading.about["categories"], 12
    )
    assert "CC BY-SA 3.0" in (shipped_example() / "NOTICE.md").read_text(encoding="utf-8")


def test_bad_input(pymvpa: Path) -> None:
    runs = read_category_runs(pymvpa)
    with pytest.raises(InputError, match=r"lag of 0 to 30"):
        block_trials(runs.series, runs, -1)
    lines = (pymvpa / "attributes.txt").read_text().splitlines()
    (pymvpa / "attributes.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match=r"for each of 40 volumes; got 39"):
        read_category_runs(pymvpa)
    (pymvpa / "attributes.txt").write_text("\n".join(["9 0"] * 40))
    with pytest.raises(InputError, match=r"labels 0 to 8"):
        read_category_runs(pymvpa)
    (pymvpa / "mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"the mask in .*mask.nii.gz; got no such file"):
        read_category_runs(pymvpa)
