"""From a subject folder to a row a voxel: the features that drive a region explain it, and nothing of the test is seen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.image_features import pixel_features
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.data.stimuli import StimulusArrays
from radiata_decode.data.subject import Subject, write_subject
from radiata_decode.experiment.encoding import EncodingOptions, encode_subject, region_table

TRAIN, TEST = 160, 40


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Eight voxels of luminance (region L), eight of a file's feature (region F), eight of noise (region N)."""
    import torch

    rng = np.random.default_rng(9)
    count = TRAIN + TEST
    images = photograph_crops(count, "train", 32, rng).pictures
    pixels = pixel_features(torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0, 4)
    own = rng.normal(size=(count, 3))
    signal = np.concatenate(
        [pixels @ rng.normal(size=(16, 8)), own @ rng.normal(size=(3, 8)), np.zeros((count, 8))], 1
    )
    signal[:, :16] /= signal[:, :16].std(0)
    names = [f"p{k:03d}" for k in range(count)]
    trials = pd.DataFrame(
        {"trial": range(2 * count), "stimulus": names * 2, "session": 1, "run": 1, "repeat": [1] * count + [2] * count,
         "split": (["train"] * TRAIN + ["test"] * TEST) * 2}
    )  # fmt: skip
    voxels = pd.DataFrame({"voxel": range(24), "ncsnr": [2.0] * 16 + [0.0] * 8})
    voxels["noise_ceiling"] = voxels["ncsnr"] ** 2 / (voxels["ncsnr"] ** 2 + 1)
    for k, name in enumerate("LFN"):
        voxels[f"roi_{name}"] = (np.arange(24) // 8 == k).astype(int)
    responses = (np.tile(signal, (2, 1)) + 0.5 * rng.normal(size=(2 * count, 24))).astype(np.float32)
    folder = tmp_path_factory.mktemp("encoding") / "subject"
    made = write_subject(
        folder, responses, trials, voxels, {"source": "test", "SyntheticData": True},
        StimulusArrays(pd.DataFrame({"stimulus": names}), images=images),
    )  # fmt: skip
    np.save(folder / "own-model.npy", own)
    return made


def test_each_region_is_explained_by_its_own_features(subject: Subject) -> None:
    own = str(subject.folder / "own-model.npy")
    found = encode_subject(subject, EncodingOptions(("pixels", own), partition=True, draws=200))
    rows = region_table(found, subject.rois).set_index(["region", "features"])
    assert rows.loc[("L", "pixels"), "r2_normalised"] > 0.7
    assert rows.loc[("F", own), "r2_normalised"] > 0.85
    assert rows.loc[("F", "pixels"), "r2"] < 0.1
    assert rows.loc[("N", own), "significant"] == 0
    assert np.isnan(rows.loc[("N", own), "r2_normalised"])
    table = found.table
    assert {
        "own_model_r2",
        "pixels_p",
        "unique_pixels",
        "unique_own_model",
        "shared_pixels_own_model",
    } <= set(table)
    np.testing.assert_allclose(table["noise_ceiling"], [4 / (4 + 1 / 2)] * 16 + [0.0] * 8)  # of two repeats
    assert table["unique_pixels"][:8].mean() > 0.5
    assert table["unique_own_model"][8:16].mean() > 0.6
    tests = {(one.region, one.space): one for one in found.tests}
    assert tests["L", "pixels"].q < 0.01
    assert tests["F", own].q < 0.01
    assert tests["N", own].gain.mean < 0.1


def test_the_predictions_of_a_voxel_do_not_depend_on_test_responses(subject: Subject, tmp_path: Path) -> None:
    """Other test responses change scores, never the model."""
    first = encode_subject(subject, EncodingOptions(("pixels",), draws=0))
    responses = subject.responses()
    test = (subject.trials["split"] == "test").to_numpy()
    responses[test] = 100 * np.random.default_rng(0).normal(size=responses[test].shape)
    from radiata_decode.data.stimuli import read_stimuli

    stimuli = read_stimuli(subject.folder)
    arrays = StimulusArrays(stimuli.table, images=stimuli.images(stimuli.table["stimulus"].tolist()))
    other = write_subject(
        tmp_path / "other", responses, subject.trials, subject.voxels, {"source": "test"}, arrays
    )
    second = encode_subject(other, EncodingOptions(("pixels",), draws=0))
    np.testing.assert_allclose(first.predicted["pixels"], second.predicted["pixels"], atol=1e-6)
    assert np.abs(first.scores["pixels"].r2 - second.scores["pixels"].r2).max() > 0.1


def test_voxels_of_a_region_may_share_their_penalty(subject: Subject) -> None:
    found = encode_subject(subject, EncodingOptions(("pixels",), penalty="region", draws=0))
    alphas = found.fits["pixels"].alphas.numpy()
    assert all(len(np.unique(alphas[start : start + 8])) == 1 for start in (0, 8, 16))
    assert len(np.unique(alphas)) > 1


def test_options_that_do_not_go(subject: Subject) -> None:
    with pytest.raises(InputError, match="two or three"):
        EncodingOptions(("gabor",), partition=True)
    with pytest.raises(InputError, match="different spaces"):
        EncodingOptions(("gabor", "gabor"))
    with pytest.raises(InputError, match="voxel, region or all"):
        EncodingOptions(penalty="area")
    with pytest.raises(InputError, match="expected films"):
        encode_subject(subject, EncodingOptions(("motion-energy",)))
