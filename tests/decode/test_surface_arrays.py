"""An Algonauts folder, and folders of hemisphere files, become what is in them."""

from pathlib import Path

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.surface_arrays import read_surface
from radiata_decode.data.surface_files import surface_series, surface_values


@pytest.fixture
def algonauts(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, dict[str, np.ndarray], np.ndarray]:
    training = tmp_path / "training_split"
    (training / "training_fmri").mkdir(parents=True)
    (training / "training_images").mkdir()
    (tmp_path / "roi_masks").mkdir()
    pictures = rng.integers(0, 255, (12, 16, 20, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures, start=1):  # not padded: 10 must not come before 2
        cv2.imwrite(str(training / "training_images" / f"train-{number}.png"), picture[:, :, ::-1])
    values = {
        "lh": rng.normal(size=(12, 5)).astype(np.float32),
        "rh": rng.normal(size=(12, 4)).astype(np.float32),
    }
    for side, array in values.items():
        np.save(training / "training_fmri" / f"{side}_training_fmri.npy", array)
        labels = np.arange(array.shape[1])
        np.save(tmp_path / "roi_masks" / f"{side}.prf-visualrois_challenge_space.npy", labels)
        whole = np.zeros(20)
        whole[3 : 3 + array.shape[1]] = 1
        np.save(tmp_path / "roi_masks" / f"{side}.all-vertices_fsaverage_space.npy", whole)
    return tmp_path, values, pictures


def test_algonauts(algonauts) -> None:
    folder, values, pictures = algonauts
    found = read_surface(folder, image_size=8)
    np.testing.assert_array_equal(found.parts[0].read(), np.concatenate([values["lh"], values["rh"]], 1))
    assert found.trials["stimulus"].tolist() == [f"train-{n}" for n in range(1, 13)]
    assert found.voxels["vertex"].tolist() == [3, 4, 5, 6, 7, 3, 4, 5, 6]
    assert found.voxels["roi_V1"].tolist() == [0, 1, 1, 0, 0, 0, 1, 1, 0]
    images = found.stimuli(["train-11", "train-2"]).images
    assert images.shape == (2, 8, 8, 3)
    middle = (
        pictures[10, :, 2:18].astype(float).reshape(8, 2, 8, 2, 3).mean((1, 3))
    )  # cropped to a square, areas averaged
    np.testing.assert_allclose(images[0:1][0], middle, atol=1)


@pytest.mark.parametrize("form", ["gii", "mgh", "npy"])
def test_sessions_of_a_folder(tmp_path: Path, rng: np.random.Generator, form: str) -> None:
    """Rows of the table follow the files in natural order; a mask is a pair of label files."""
    values = {
        (s, side): rng.normal(size=(3, n)).astype(np.float32)
        for s in (2, 10)
        for side, n in (("lh", 4), ("rh", 5))
    }
    for (session, side), array in values.items():
        path = tmp_path / f"{side}.betas_{session}.{'func.gii' if form == 'gii' else form}"
        if form == "gii":
            arrays = [nibabel.gifti.GiftiDataArray(row, datatype="NIFTI_TYPE_FLOAT32") for row in array]
            nibabel.save(nibabel.GiftiImage(darrays=arrays), path)
        elif form == "mgh":
            nibabel.save(nibabel.MGHImage(array.T.reshape(-1, 1, 1, 3).copy(), np.eye(4)), path)
        else:
            np.save(path, array)
        np.testing.assert_array_equal(surface_series(path), array)
    inside = {"lh": [0, 1, 1, -1], "rh": [1, 0, 0, 0, 2]}
    for side, labels in inside.items():
        nibabel.save(
            nibabel.MGHImage(np.array(labels, np.float32).reshape(-1, 1, 1), np.eye(4)),
            tmp_path / f"{side}.roi.mgz",
        )
    pd.DataFrame({"stimulus": list("abcdef")}).to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    found = read_surface(tmp_path, trials=tmp_path / "trials.tsv", mask="roi")
    assert found.trials["session"].tolist() == [1, 1, 1, 2, 2, 2] and len(found.parts) == 2
    expected = np.concatenate([values[10, "lh"][:, 1:3], values[10, "rh"][:, [0, 4]]], 1)
    np.testing.assert_array_equal(found.parts[1].read(), expected)
    assert found.voxels["vertex"].tolist() == [1, 2, 0, 4]
    pd.DataFrame({"stimulus": list("abcde")}).to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"for each of 6 trials in the hemisphere files; got 5"):
        read_surface(tmp_path, trials=tmp_path / "trials.tsv")
    with pytest.raises(InputError, match=r"4 vertices|another surface"):
        surface_values(tmp_path / "lh.roi.mgz", 5)


def test_bad_input(algonauts, tmp_path: Path) -> None:
    folder, _, _ = algonauts
    (folder / "training_split/training_images/train-1.png").unlink()
    with pytest.raises(InputError, match=r"one picture a trial .*12 and 12 trials .*and 11 pictures"):
        read_surface(folder)
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "lh_x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match=r"rh_x.npy beside lh_x.npy"):
        read_surface(other, trials=other / "none.tsv")
    np.save(other / "lh_x.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"array of numbers"):
        read_surface(other)
    (other / "lh_x.npy").unlink()
    (other / "lh.x.mgh").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot be read"):
        read_surface(other)
