"""Motion decoders from a subject folder to files and back; a tiny subject whose flow is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.stimuli import StimulusArrays, read_stimuli
from radiata_decode.data.subject import Subject, write_subject
from radiata_decode.experiment.motion_stimuli import first_frames, frame_features, stimulus_flow
from radiata_decode.experiment.motion_training import MotionOptions, load_motion, train_motion
from radiata_decode.experiment.trained_models import read_card, standardised

TRAIN, TEST = 64, 24


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Whole-field motion in two dimensions, seen by 12 voxels; voxels 12 to 15 are noise. Two repeats."""
    rng = np.random.default_rng(4)
    count = TRAIN + TEST
    motion = rng.normal(size=(count, 2)).astype(np.float32)
    flow = np.broadcast_to(motion[:, None, :, None, None], (count, 3, 2, 16, 16)).copy()
    movies = rng.integers(0, 255, (count, 4, 16, 16, 3), dtype=np.uint8)
    signal = np.concatenate([motion @ rng.normal(size=(2, 12)), np.zeros((count, 4))], 1)
    names = [f"film-{k:03d}" for k in range(count)]
    split = ["train"] * TRAIN + ["test"] * TEST
    trials = pd.DataFrame(
        {"trial": range(2 * count), "stimulus": names * 2, "session": 1, "run": 1, "repeat": [1] * count + [2] * count,
         "split": split * 2}
    )  # fmt: skip
    voxels = pd.DataFrame({"voxel": range(16), "ncsnr": [1.0] * 12 + [0.1] * 4, "roi_MT": [1] * 12 + [0] * 4})
    voxels["noise_ceiling"] = voxels["ncsnr"] ** 2 / (voxels["ncsnr"] ** 2 + 1)
    responses = (np.tile(signal, (2, 1)) + rng.normal(size=(2 * count, 16))).astype(np.float32)
    table = pd.DataFrame({"stimulus": names, "group": [f"photo-{k % 16}" for k in range(count)]})
    stimuli = StimulusArrays(table, movies=movies, flow=flow, frames_per_s=4.0)
    folder = tmp_path_factory.mktemp("motion") / "subject"
    return write_subject(
        folder, responses, trials, voxels, {"source": "test", "SyntheticData": True}, stimuli
    )


def decoded(subject: Subject, out: Path, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """True and decoded flow of the test films, from files alone."""
    train_motion(subject, MotionOptions(grid=4, components=4, **options), out)
    card = read_card(out)
    model, voxels = load_motion(card), card.voxels_of(subject)
    test = standardised(subject, "test", card.standardiser(), voxels)
    stimuli = read_stimuli(subject.folder)
    truth = stimulus_flow(stimuli, test.stimulus, 4, 1)
    return truth, model.predict(test.responses, first_frames(stimuli, test.stimulus))


def epe(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    return float((predicted - truth).norm(dim=2).mean())


def test_motion_is_decoded_and_first_frames_alone_know_nothing(subject: Subject, tmp_path: Path) -> None:
    truth, brain = decoded(subject, tmp_path / "brain")
    _, region = decoded(subject, tmp_path / "region", rois=("MT",))
    _, image = decoded(subject, tmp_path / "image", inputs="image")
    zero = epe(torch.zeros_like(truth), truth)
    assert epe(brain, truth) < 0.7 * zero
    assert epe(region, truth) < 0.7 * zero
    assert epe(image, truth) > 0.9 * zero
    card = read_card(tmp_path / "region")
    assert card.facts["voxels"] == 12
    assert card.facts["synthetic"]
    assert card.facts["measured"]["epe_loo"] < 0.7 * card.facts["measured"]["epe_zero"]


def test_the_codebook_is_trained_on_what_the_ridge_says_of_unseen_films(
    subject: Subject, tmp_path: Path
) -> None:
    truth, both = decoded(
        subject, tmp_path / "run", method="both", codes=12, optimiser_steps=20, batch_size=16, rois=("MT",)
    )
    assert epe(both, truth) < 0.75 * epe(torch.zeros_like(truth), truth)
    measured = read_card(tmp_path / "run").facts["measured"]
    assert measured["epe_held_out_codebook"] < measured["epe_held_out_zero"]
    _, again = decoded(  # over the first run
        subject, tmp_path / "run", method="both", codes=12, optimiser_steps=20, batch_size=16, rois=("MT",)
    )
    torch.testing.assert_close(again, both, rtol=0, atol=0)


def test_flow_is_estimated_where_it_is_not_known_and_features_are_of_the_first_frame(
    subject: Subject,
) -> None:
    stimuli = read_stimuli(subject.folder)
    films = type(stimuli)(stimuli.folder, stimuli.table, {"movies": stimuli.shapes["movies"]}, 4.0)
    ids = ["film-003", "film-001"]
    assert stimulus_flow(films, ids, 4, 3).shape == (2, 3, 2, 4, 4)
    frames = first_frames(films, ids)
    torch.testing.assert_close(frames[1], torch.from_numpy(stimuli.movies(ids)[1, 0]).permute(2, 0, 1) / 255)
    torch.testing.assert_close(frame_features(frames, 4)[1:], frame_features(frames[1:], 4))


def test_what_cannot_be_trained_or_loaded(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="continuous, codebook, both"):
        MotionOptions(method="neither")
    with pytest.raises(InputError, match="expected a region"):
        train_motion(subject, MotionOptions(rois=("V9",)), tmp_path)
    decoded(subject, tmp_path / "ok", inputs="both")
    model = load_motion(read_card(tmp_path / "ok"))
    with pytest.raises(InputError, match="first frames"):
        model.predict(np.zeros((1, 16), np.float32))
    (tmp_path / "ok" / "ridge.safetensors").unlink()
    with pytest.raises(InputError, match="nothing there"):
        load_motion(read_card(tmp_path / "ok"))
