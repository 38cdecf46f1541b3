"""Encoding by its verb: features that made the responses explain more than shuffled ones, and what lies in the folder."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.image_features import gabor_features
from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.data.tables import read_table
from radiata_decode.experiment.encode import Encode
from radiata_decode.experiment.simulating import write_simulated_subject


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A simulated subject; beside it, its Gabor features with the stimuli shuffled."""
    folder = tmp_path_factory.mktemp("encode") / "person"
    made = write_simulated_subject(folder, "image", train=60, test=20, voxels=200, repeats=3)
    stimuli = read_stimuli(folder)
    features = gabor_features(unit_images(stimuli.images(list(stimuli.table["stimulus"])), 32))
    np.save(folder / "shuffled.npy", np.random.default_rng(5).permutation(features))
    return made


@pytest.fixture(scope="module")
def out(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gabor features and shuffled ones, with their unique parts."""
    folder = tmp_path_factory.mktemp("encoded") / "out"
    shuffled = str(subject.folder / "shuffled.npy")
    Encode(subject.folder, folder, ("gabor", shuffled), partition=True, permutations=100).run()
    return folder


def test_gabor_features_explain_what_shuffled_ones_do_not(subject: Subject, out: Path) -> None:
    table = read_table(out / "encoding.tsv", ("voxel", "noise_ceiling"))
    assert len(table) == 200
    kept = table[table["noise_ceiling"] > 0.5]
    assert kept["gabor_r"].mean() > 0.3
    assert abs(kept["shuffled_r"].mean()) < 0.15
    assert (table["gabor_p"] < 0.05).sum() > 5
    assert (table["shuffled_p"] < 0.05).mean() < 0.05
    unique = read_table(out / "unique.tsv", ("region", "features", "q"))
    gabor = unique["features"] == "gabor"
    assert unique["unique_r2"][gabor].mean() > 0.02 > unique["unique_r2"][~gabor].mean()


def test_tables_agree_with_the_predictions_in_the_file(subject: Subject, out: Path) -> None:
    with h5py.File(out / "encoding.h5") as opened:
        assert next(iter(opened.attrs["features"])) == "gabor"
        names = opened["stimulus"].asstr()[()].tolist()
        predicted, measured = opened["predicted"][()], opened["measured"][()]
    assert predicted.dtype == measured.dtype == np.float32
    assert predicted.shape == (2, 20, 200)
    assert sorted(names) == [f"test-{number:05d}" for number in range(20)]
    table = read_table(out / "encoding.tsv", ("voxel",))
    error = ((measured - predicted[0]) ** 2).sum(0) / ((measured - measured.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(table["gabor_r2"], 1 - error, atol=1e-4)
    r = [np.corrcoef(predicted[0][:, k], measured[:, k])[0, 1] for k in range(200)]
    np.testing.assert_allclose(table["gabor_r"], r, atol=1e-4)
    regions = read_table(out / "regions.tsv", ("region", "features", "r2", "r2_low", "r2_high"))
    here = (regions["region"] == "V1") & (regions["features"] == "gabor")
    np.testing.assert_allclose(regions["r2"][here], (1 - error)[subject.rois["V1"]].mean(), atol=1e-4)
    assert (regions["r2_low"] <= regions["r2"]).all()
    assert (regions["r2"] <= regions["r2_high"]).all()


def test_the_card_names_sources_and_says_that_it_is_simulated(subject: Subject, out: Path) -> None:
    card = json.loads((out / "encoding.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-decode"
    assert {source["Name"] for source in card["Sources"]} == {"person", "shuffled.npy"}
    assert card["SyntheticData"] is True
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "done"
    assert record["stimuli"] == 20
    for name in ("flat.png", "flat-shuffled.png", "regions.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "simulated" in (out / "flat.json").read_text() or "flat map" in (out / "flat.json").read_text()


def test_an_earlier_encoding_is_kept_unless_it_is_to_be_replaced_and_then_it_goes(
    subject: Subject, out: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path / "out")
    task = Encode(subject.folder, tmp_path / "out", ("pixels",), permutations=0)
    with pytest.raises(InputError, match="overwrite"):
        task.run()
    dataclasses.replace(task, overwrite=True).run()
    assert not (tmp_path / "out" / "unique.tsv").exists()
    assert not (tmp_path / "out" / "flat-shuffled.png").exists()
    assert "gabor_r" not in read_table(tmp_path / "out" / "encoding.tsv", ("pixels_r",)).columns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": Path("nowhere")}, "expected a subject folder"),
        ({"features": ("gabors",)}, "expected features of pixels, .*; got gabors"),
        ({"features": ("gabor", "gabor")}, "expected spaces of features of different names"),
        ({"features": ("gabor",), "partition": True}, "expected two or three --features"),
        ({"permutations": -1}, "expected --permutations"),
    ],
)
def test_what_cannot_be_encoded_is_one_line_and_leaves_nothing(
    subject: Subject, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dataclasses.replace(Encode(subject.folder, tmp_path / "out"), **change).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_subject_without_stimuli_or_with_broken_responses_is_one_line(
    subject: Subject, tmp_path: Path
) -> None:
    bare, broken = tmp_path / "bare", tmp_path / "broken"
    shutil.copytree(subject.folder, bare, ignore=shutil.ignore_patterns("stimuli.*"))
    shutil.copytree(subject.folder, broken)
    (broken / "responses.h5").write_bytes((broken / "responses.h5").read_bytes()[:300])
    for folder, message in ((bare, "expected stimuli.h5"), (broken, "expected an HDF5 file")):
        with pytest.raises(InputError, match=message) as caught:
            Encode(folder, tmp_path / "out").run()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
