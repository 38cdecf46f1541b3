"""Simulated subject folders: what they promise, and that they can be made again byte by byte."""

import json

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.repeats import averaged
from radiata_decode.data.simulated_cortex import SimulatedCortex
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import read_subject
from radiata_decode.experiment.simulating import noise_free, write_simulated_subject

SMALL = {"train": 20, "test": 10, "repeats": 2, "voxels": 60, "size": 16}


@pytest.fixture
def subject(tmp_path):
    return write_simulated_subject(tmp_path / "sub", **SMALL, seed=3)


def test_the_folder_says_that_it_is_simulated_and_holds_all_parts(subject):
    again = read_subject(subject.folder)
    assert again.manifest["SyntheticData"] is True and again.manifest["trials"] == {"train": 40, "test": 20}
    assert set(again.rois) == {"V1", "V2", "V3", "V4"}
    card = json.loads((subject.folder / "signal.json").read_text())
    assert card["SyntheticData"] is True and card["GeneratedBy"][0]["Name"] == "radiata-decode"
    stimuli = read_stimuli(subject.folder)
    assert stimuli.shapes == {"images": (30, 16, 16, 3)}
    assert {"stimulus", "group", "split"} <= set(stimuli.table.columns)
    assert (again.trials.groupby("stimulus").size() == 2).all()
    assert again.trials.groupby("session")["stimulus"].nunique().eq(30).all()


def test_the_truth_beside_it_is_the_signal_of_its_own_pictures(subject):
    stimuli = read_stimuli(subject.folder)
    ids = ["test-00004", "train-00007"]
    cortex = SimulatedCortex(3, voxels=60, size=16)
    assert np.allclose(noise_free(subject, ids), cortex.signal(stimuli.images(ids)), atol=1e-5)
    means = averaged(subject, "train")
    error = means.responses - noise_free(subject, means.stimulus)
    ceiling = subject.noise_ceiling
    assert (error**2).mean() == pytest.approx((1 - ceiling).mean() / 2, rel=0.15)


def test_the_same_seed_gives_the_same_bytes_and_another_subject_saw_the_same(subject, tmp_path):
    again = write_simulated_subject(tmp_path / "again", **SMALL, seed=3)
    assert again.sha256 == subject.sha256
    other = write_simulated_subject(tmp_path / "other", **SMALL, seed=3, subject=1)
    pictures = [read_stimuli(s.folder).images(["train-00002", "test-00009"]) for s in (subject, other)]
    assert np.array_equal(*pictures)
    assert not np.allclose(other.responses([0]), subject.responses([0]))


def test_a_subject_of_motion_has_films_with_flow(tmp_path):
    subject = write_simulated_subject(
        tmp_path / "sub", "motion", train=6, test=3, repeats=1, voxels=40, size=16, frames=4
    )
    stimuli = read_stimuli(subject.folder)
    assert stimuli.shapes == {"movies": (9, 4, 16, 16, 3), "flow": (9, 3, 2, 16, 16)}
    assert stimuli.frames_per_s == 4.0 and "MT" in subject.rois
    with h5py.File(subject.folder / "signal.h5") as opened:
        assert opened["signal"].shape == (9, 40)


def test_nothing_is_left_behind_by_a_mistake(tmp_path, subject):
    for options, message in (
        ({"kind": "sound"}, "expected a kind of image or motion"),
        ({"repeats": 0}, "at least one training stimulus"),
        ({"films": [tmp_path / "a.mp4"]}, "expected no films for pictures"),
        ({"kind": "motion", "films": [tmp_path / "a.mp4"]}, "got no such file"),
        ({"voxels": 2}, "expected areas of"),
        ({"size": 500}, "expected pictures of"),
    ):
        with pytest.raises(InputError, match=message):
            write_simulated_subject(tmp_path / "new", **(SMALL | options))
    with pytest.raises(InputError, match="which exists"):
        write_simulated_subject(subject.folder, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


def test_only_simulations_know_the_truth(subject):
    (subject.folder / "signal.h5").unlink()
    with pytest.raises(InputError, match="known of simulations only"):
        noise_free(subject, ["train-00000"])
