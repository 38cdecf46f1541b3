"""Train, decode and synthesize on a small simulated subject: each stimulus by itself, and what does not fit is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.decoded import read_decoded
from radiata_decode.data.subject import read_subject
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.image_decoding import seeds_of
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.synthesize import Synthesize
from radiata_decode.experiment.train import Train
from radiata_decode.model.identification import correlation_matrix, two_way, wins
from radiata_decode.model.permutation import permutation_test
from radiata_decode.model.ridge import SharedRidge


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject and a decoder of it."""
    folder = tmp_path_factory.mktemp("decode")
    write_simulated_subject(folder / "subject", kind="image", train=120, test=30, voxels=300, seed=4)
    Train((folder / "subject",), folder / "run", basis="training", components=60).run()
    return folder


def decoded(place: Path, out: str, **options: object) -> np.ndarray:
    task = Decode(
        place / "subject", place / "run", place / out, overwrite=True, **{"generator": "none", **options}
    )  # type: ignore[arg-type]
    task.run()
    return read_decoded(place / out).arrays["images"]


def test_pictures_are_identified_above_chance(place: Path) -> None:
    """2-way on 30 test pictures against 2000 wrong pairings of pictures and brains: error rate 1 %."""
    from radiata_decode.data.stimuli import read_stimuli

    found = decoded(place, "a")
    names = read_decoded(place / "a").stimulus
    truth = read_stimuli(place / "subject").images(names)
    similarity = correlation_matrix(truth.reshape(30, -1).astype(float), found.reshape(30, -1).astype(float))
    assert permutation_test(wins(similarity), np.random.default_rng(0), None, 2000).p < 0.01
    card = read_json(place / "a" / "decoded.json")
    assert (
        card["GeneratedBy"][0]["Name"] == "radiata-decode"
        and card["SyntheticData"]
        and card["SimulatedSubject"]
    )


def test_a_stimulus_alone_is_what_it_is_among_others(place: Path) -> None:
    everyone, names = decoded(place, "b"), read_decoded(place / "b").stimulus
    one = decoded(place, "c", stimuli=(names[7], names[2]))
    assert (
        np.abs(one.astype(int) - everyone[[7, 2]].astype(int)).max() <= 1
    )  # rounding of a product of another size
    assert seeds_of(names, 0, 1)[7] == seeds_of([names[7]], 0, 1)[0]
    assert len(set(seeds_of(names, 0, 1) + seeds_of(names, 0, 2))) == 60


def test_sharpness_adds_contrast_and_repeats_take_noise_away(place: Path) -> None:
    plain, sharp = decoded(place, "d"), decoded(place, "e", sharpness=1.0)
    assert sharp.std((1, 2)).mean() > 1.05 * plain.std((1, 2)).mean()
    assert not np.array_equal(plain, decoded(place, "f", repeats=1))


def test_retrieval_shows_a_training_picture(place: Path) -> None:
    from radiata_decode.data.stimuli import read_stimuli

    found = decoded(place, "g", generator="retrieval")
    training = read_stimuli(place / "subject").images(
        read_json(place / "run" / "model.json")["training_stimuli"]
    )
    assert all((training == picture).all((1, 2, 3)).any() for picture in found)


def test_the_decoder_is_the_ridge_of_training_trials_alone(place: Path) -> None:
    """Test responses replaced by noise: the same decoder."""
    import h5py

    other = place / "other"
    shutil.copytree(place / "subject", other)
    subject = read_subject(other)
    with h5py.File(other / "responses.h5", "r+") as opened:
        values = opened["responses"][()]
        values[subject.rows("test")] = 100.0
        opened["responses"][...] = values
    Train((other,), place / "run2", basis="training", components=60).run()
    one, two = ((place / name / "ridge.safetensors").read_bytes() for name in ("run", "run2"))
    assert one == two


def test_a_region_does_not_depend_on_its_neighbours(place: Path) -> None:
    regions = list(read_subject(place / "subject").rois)
    for out, rois in (("all", tuple(regions)), ("one", (regions[1],))):
        Synthesize(
            place / "subject", place / "run", place / out, rois=rois, generator="none", overwrite=True
        ).run()
    both, one = (read_decoded(place / out).arrays["images"] for out in ("all", "one"))
    assert np.abs(both[1].astype(int) - one[0].astype(int)).max() <= 1
    assert not np.array_equal(both[0], both[1])


def test_what_does_not_fit_is_one_line(place: Path, tmp_path: Path) -> None:
    write_simulated_subject(tmp_path / "small", kind="image", train=20, test=5, voxels=100, repeats=1)
    run = place / "run"
    with pytest.raises(InputError, match=r"300 voxels.*got 100"):
        Decode(tmp_path / "small", run, tmp_path / "out").run()
    with pytest.raises(InputError, match="trained decoder"):
        Decode(place / "subject", tmp_path / "absent", tmp_path / "out").run()
    with pytest.raises(InputError, match=r"such as .*; got nobody"):
        Decode(place / "subject", run, tmp_path / "out", stimuli=("nobody",), generator="none").run()
    with pytest.raises(InputError, match="a region of"):
        Synthesize(place / "subject", run, tmp_path / "out2", rois=("V9",), generator="none").run()
    with pytest.raises(InputError, match="embeddings as NAME=FILE"):
        Train((place / "subject",), tmp_path / "run", basis="training", embeddings=("clip",)).run()
    with pytest.raises(InputError, match="one subject for the route image"):
        Train((place / "subject", place / "subject"), tmp_path / "run").run()


def test_embeddings_come_along_in_the_order_of_the_stimuli(place: Path, tmp_path: Path) -> None:
    """An embedding that is a linear function of the responses' own ridge target: as scikit-learn-tested ridge says."""
    from radiata_decode.data.stimuli import read_stimuli
    from radiata_decode.experiment.trained_models import read_card, standardised
    from radiata_decode.model.image_decoder import ImageDecoder

    subject, stimuli = read_subject(place / "subject"), read_stimuli(place / "subject")
    names = stimuli.table["stimulus"].tolist()
    values = np.stack([stimuli.images([name])[0].mean((0, 1)) for name in names])[:, None].astype(np.float32)
    np.save(tmp_path / "e.npy", values)
    Train((place / "subject",), tmp_path / "run", basis="training", components=20, weighted=False,
          embeddings=(f"colour={tmp_path / 'e.npy'}",)).run()  # fmt: skip
    card = read_card(tmp_path / "run")
    train = standardised(subject, "train", card.standardiser(), card.voxels_of(subject))
    shared = SharedRidge(train.responses)
    fit = shared.fit(values[[names.index(n) for n in train.stimulus], 0], np.zeros(3, np.int64))
    test = standardised(subject, "test", card.standardiser(), card.voxels_of(subject))
    expected = fit.predict(shared.kernel_rows(test.responses))
    found = (
        ImageDecoder.load(tmp_path / "run").decode(test.responses, lengthen=False).embeddings["colour"][:, 0]
    )
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_the_posterior_mean_comes_along_and_may_be_left_out(tmp_path: Path) -> None:
    """Without it pictures are those of a model that never learnt it; with it 80 pictures are identified better."""
    from radiata_decode.data.stimuli import read_stimuli

    subject = tmp_path / "subject"
    write_simulated_subject(subject, kind="image", train=600, test=80, voxels=600, seed=3)
    Train((subject,), tmp_path / "plain").run()
    Train((subject,), tmp_path / "learnt", posterior=True).run()
    made = {}
    for name, run, posterior in (
        ("ridge", "plain", True),
        ("left out", "learnt", False),
        ("joined", "learnt", True),
    ):
        Decode(subject, tmp_path / run, tmp_path / name, generator="none", posterior=posterior).run()
        made[name] = read_decoded(tmp_path / name)
    assert np.array_equal(made["ridge"].arrays["images"], made["left out"].arrays["images"])
    truth = read_stimuli(subject).images(made["joined"].stimulus).reshape(80, -1).astype(float)
    similarity = {
        name: correlation_matrix(truth, d.arrays["images"].reshape(80, -1).astype(float))
        for name, d in made.items()
    }
    gain = two_way(similarity["joined"]) - two_way(similarity["ridge"])
    assert gain.mean() > 2 * gain.std(ddof=1) / 80**0.5


def test_too_few_pictures_for_the_posterior_mean_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="400 training pictures or more"):
        Train((place / "subject",), tmp_path / "run", basis="training", components=20, posterior=True).run()
