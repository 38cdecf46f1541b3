"""The motion route through its verbs: a run folder, flow that reads back, films from the first frame, each by itself."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.decoded import Decoded, read_decoded
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.motion_stimuli import stimulus_flow
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.train import Train
from radiata_decode.experiment.trained_models import read_card


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A simulated subject of moved photographs, with exact flow."""
    folder = tmp_path_factory.mktemp("motion-runs") / "person"
    return write_simulated_subject(folder, "motion", train=60, test=20, voxels=200, repeats=2, frames=5)


@pytest.fixture(scope="module")
def run(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with the continuous method on two areas."""
    out = tmp_path_factory.mktemp("motion-run") / "run"
    Train((subject.folder,), out, "motion", rois=("MT", "V1")).run()
    return out


@pytest.fixture(scope="module")
def decoded(subject: Subject, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoded:
    """All test films."""
    out = tmp_path_factory.mktemp("motion-decoded") / "out"
    Decode(subject.folder, run, out, batch_size=8).run()
    return read_decoded(out)


def test_a_run_has_a_card_and_what_it_decodes_beats_no_motion(
    subject: Subject, run: Path, decoded: Decoded
) -> None:
    card = read_card(run)
    assert card.route == "motion"
    assert card.facts["rois"] == ["MT", "V1"]
    assert card.facts["measured"]["epe_loo"] < card.facts["measured"]["epe_zero"]
    assert (decoded.route, decoded.split, decoded.provides) == ("motion", "test", "video")
    truth = stimulus_flow(read_stimuli(subject.folder), decoded.stimulus, 16, 1).numpy()
    flow = decoded.arrays["flow"]
    assert flow.shape == truth.shape == (20, 1, 2, 16, 16)
    pooled = np.corrcoef(flow.mean((3, 4)).ravel(), truth.mean((3, 4)).ravel())[0, 1]
    assert pooled > 0.3  # 40 numbers: p < .05 one-sided above .26


def test_films_begin_with_the_true_first_frame_and_have_as_many_frames(
    subject: Subject, decoded: Decoded
) -> None:
    shown = read_stimuli(subject.folder).movies(decoded.stimulus)
    films = decoded.arrays["movies"]
    assert films.shape == shown.shape
    np.testing.assert_array_equal(films[:, 0], shown[:, 0])
    assert (films[:, -1] != shown[:, 0]).any()


def test_a_film_alone_is_the_film_in_the_batch(
    subject: Subject, run: Path, decoded: Decoded, tmp_path: Path
) -> None:
    name = decoded.stimulus[7]
    Decode(subject.folder, run, tmp_path / "one", stimuli=(name,), batch_size=1).run()
    alone = read_decoded(tmp_path / "one")
    assert alone.stimulus == [name]
    np.testing.assert_allclose(alone.arrays["flow"][0], decoded.arrays["flow"][7], rtol=0, atol=1e-5)
    difference = alone.arrays["movies"][0].astype(int) - decoded.arrays["movies"][7]
    assert np.abs(difference).max() <= 1  # one rounding


def test_without_a_generator_there_is_flow_alone_and_no_stimuli_are_needed(
    subject: Subject, run: Path, decoded: Decoded, tmp_path: Path
) -> None:
    bare = tmp_path / "bare" / subject.folder.name
    shutil.copytree(subject.folder, bare, ignore=shutil.ignore_patterns("stimuli.*", "signal.*"))
    Decode(bare, run, tmp_path / "out", generator="none").run()
    found = read_decoded(tmp_path / "out")
    assert found.provides == "flow"
    np.testing.assert_array_equal(found.arrays["flow"], decoded.arrays["flow"])
    with pytest.raises(InputError, match=r"expected stimuli\.h5"):
        Decode(bare, run, tmp_path / "films").run()


def test_training_again_leaves_nothing_of_the_other_method(subject: Subject, tmp_path: Path) -> None:
    first = Train((subject.folder,), tmp_path / "run", "motion", method="codebook", steps=2, rois=("MT",))
    first.run()
    assert (tmp_path / "run" / "network.safetensors").is_file()
    assert read_card(tmp_path / "run").facts["motion"]["optimiser_steps"] == 2
    dataclasses.replace(first, method="continuous", steps=None, overwrite=True).run()
    assert not (tmp_path / "run" / "network.safetensors").exists()
    assert "codebook" not in read_card(tmp_path / "run").facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": Path("nowhere")}, "expected a subject folder"),
        ({"generator": "retrieval"}, "expected a generator of films"),
        ({"generator": "nothing-like-it"}, "expected one of none, retrieval"),
        ({"stimuli": ("train-00000",)}, "expected a stimulus of the test trials"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(
    subject: Subject, run: Path, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dataclasses.replace(Decode(subject.folder, run, tmp_path / "out"), **change).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "decoded.h5").exists()


def test_steps_below_one_and_pictures_are_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected --steps of 1 or more; got 0"):
        Train((subject.folder,), tmp_path / "run", "motion", steps=0).run()
    assert not (tmp_path / "run" / "model.json").exists()
