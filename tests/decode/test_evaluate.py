"""Evaluation against known answers: the truth is perfect, another's pictures are at chance, controls are always there."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.decoded import Decoded, write_decoded
from radiata_decode.data.sidecar import write_sidecar
from radiata_decode.data.stimuli import StimulusArrays
from radiata_decode.data.subject import Subject, read_subject, write_subject
from radiata_decode.data.tables import read_table
from radiata_decode.experiment.evaluate import Evaluate
from radiata_decode.model.image_scores import resized

TRAIN, TEST, SIDE = 30, 12, 16
CATEGORIES = ("cat", "face", "house")


def smooth(count: int, rng: np.random.Generator) -> np.ndarray:
    coarse = torch.from_numpy(rng.random((count, 3, 5, 5), dtype=np.float32))
    return (resized(coarse, (SIDE, SIDE)) * 255).round().byte().movedim(1, -1).numpy()


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Voxels are projections of pictures; six test stimuli a run; films whose flow is one vector each."""
    rng = np.random.default_rng(5)
    count = TRAIN + TEST
    images = smooth(count, rng)
    signal = (images.reshape(count, -1) / 255.0) @ rng.normal(size=(SIDE * SIDE * 3, 20))
    names = [f"train{k:02d}" for k in range(TRAIN)] + [f"test{k:02d}" for k in range(TEST)]
    flow = (
        np.broadcast_to(rng.normal(size=(count, 1, 2, 1, 1)), (count, 1, 2, 8, 8)).astype(np.float32).copy()
    )
    trials = pd.DataFrame(
        {"trial": range(count), "stimulus": names, "session": 1, "run": np.arange(count) // 6 + 1, "repeat": 1,
         "split": ["train"] * TRAIN + ["test"] * TEST, "category": [CATEGORIES[k % 3] for k in range(count)]}
    )  # fmt: skip
    table = pd.DataFrame(
        {"stimulus": names, "group": [f"scene{k % 7}" for k in range(TRAIN)] + ["new"] * 8 + ["scene1"] * 4}
    )
    folder = tmp_path_factory.mktemp("evaluate") / "subject"
    responses = (signal + 0.1 * rng.normal(size=signal.shape)).astype(np.float32)
    return write_subject(
        folder, responses, trials, pd.DataFrame({"voxel": range(20)}), {"source": "test", "SyntheticData": True},
        StimulusArrays(table, images=images, flow=flow),
    )  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not painted, which takes most of the time."""
    monkeypatch.setattr("radiata_imaging.plots.png", lambda figure, dpi=0: b"")


def test_names(subject: Subject) -> list[str]:
    return subject.trials.loc[subject.trials["split"] == "test", "stimulus"].tolist()


test_names.__test__ = False  # type: ignore[attr-defined]


def evaluated(subject: Subject, decoded: Decoded, folder: Path, **changes: object) -> pd.DataFrame:
    """Decoder and metric → row of scores.tsv."""
    write_decoded(folder / "decoded" / "decoded.h5", decoded)
    task = Evaluate(folder / "decoded", subject.folder, folder / "out", extractors=(), permutations=99)
    dataclasses.replace(task, **changes).run()  # type: ignore[arg-type]
    return read_table(folder / "out" / "scores.tsv").set_index(["decoder", "metric"])


def pictures(subject: Subject) -> tuple[list[str], np.ndarray]:
    from radiata_decode.data.stimuli import read_stimuli

    names = test_names(subject)
    return names, read_stimuli(subject.folder).images(names)


def test_perfect_pictures_score_one_and_all_controls_stand_beside(subject: Subject, tmp_path: Path) -> None:
    names, seen = pictures(subject)
    draws = np.stack([seen, seen[:, ::-1]], 1)
    arrays = {"images": seen, "low_level": seen // 2, "draws": draws[:, ::-1]}
    rows = evaluated(subject, Decoded(names, arrays, "image", "test"), tmp_path)
    for metric in ("pixcorr", "ssim", "ssim_legacy", "pixels 2-way"):
        assert rows.loc[("decoder", metric), "mean"] == pytest.approx(1.0, abs=1e-6)
        others = rows.xs(metric, level="metric")["mean"].drop(["decoder", "low level"])
        assert (others < 0.9).all()
    assert rows.loc[("decoder", "pixels 2-way"), "p"] == 1 / 100
    assert list(dict.fromkeys(rows.index.get_level_values(0))) == [
        "decoder", "low level", "single draw", "mean image", "permuted brain", "retrieval",
    ]  # fmt: skip
    assert rows.loc[("mean image", "pixels 2-way"), "mean"] == pytest.approx(0.5, abs=0.01)
    assert rows.xs("pixcorr", level="metric")["control"].tolist() == [0] * 3 + [1] * 3
    record = read_json(tmp_path / "out" / "scores.json")
    assert record["synthetic"] and record["permuted"] == "within runs"
    assert record["overlap"]["both"] == 0 and record["overlap"]["groups"] == pytest.approx(4 / 12)
    seen_rows = {(row["group"], row["metric"]): row for row in record["groups"]}
    assert seen_rows["seen in training", "pixcorr"]["cases"] == 4
    assert seen_rows["not seen in training", "pixcorr"]["cases"] == 8
    gains = {(row["other"], row["metric"]): row for row in record["differences"]}
    assert gains["permuted brain", "pixcorr"]["low"] > 0.2
    gallery = read_json(tmp_path / "out" / "gallery.json")
    assert gallery["columns"]["row"][:3] == ["best", "median", "worst"] and gallery["SyntheticData"]
    assert gallery["GeneratedBy"][0]["Name"] == "radiata-decode" and len(gallery["Sources"]) == 2
    assert {"gallery.png", "scores.png", "permutations.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_pictures_of_other_stimuli_are_at_chance(subject: Subject, tmp_path: Path, undrawn: None) -> None:
    names, _ = pictures(subject)
    other = smooth(len(names), np.random.default_rng(77))
    rows = evaluated(subject, Decoded(names, {"images": other}, "image", "test"), tmp_path)
    assert rows.loc[("decoder", "pixels 2-way"), "low"] < 0.5 < rows.loc[("decoder", "pixels 2-way"), "high"]
    assert rows.loc[("decoder", "pixels 2-way"), "p"] > 0.05
    assert rows.loc[("retrieval", "pixcorr"), "mean"] > rows.loc[("decoder", "pixcorr"), "mean"]


def test_the_order_of_rows_changes_nothing(subject: Subject, tmp_path: Path, undrawn: None) -> None:
    names, seen = pictures(subject)
    noisy = seen // 2 + smooth(len(names), np.random.default_rng(3)) // 2
    order = np.random.default_rng(1).permutation(len(names))
    turned = Decoded([names[row] for row in order], {"images": noisy[order]}, "image", "test")
    for folder, decoded in (("a", Decoded(names, {"images": noisy}, "image", "test")), ("b", turned)):
        evaluated(subject, decoded, tmp_path / folder)
    for file in ("scores.tsv", "per_stimulus.tsv", "gallery.csv", "permutations.json"):
        first, second = ((tmp_path / folder / "out" / file).read_text() for folder in "ab")
        strip = re.compile(r'"SHA256": "\w+"')  # of the files, which differ
        assert strip.sub("", first) == strip.sub("", second)


def test_one_picture_and_one_colour(
    subject: Subject, tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names, seen = pictures(subject)
    rows = evaluated(subject, Decoded(names[:1], {"images": seen[:1]}, "image", "test"), tmp_path / "one")
    assert rows.loc[("decoder", "pixcorr"), "mean"] == pytest.approx(1.0)
    assert not any("2-way" in metric for _, metric in rows.index)
    assert capsys.readouterr().out.count("One stimulus: nothing to identify it among") == 1
    flat = seen.copy()
    flat[3:5] = 90
    rows = evaluated(subject, Decoded(names, {"images": flat}, "image", "test"), tmp_path / "flat")
    assert rows.loc[("decoder", "pixcorr"), "left_out"] == 2
    assert rows.loc[("decoder", "pixcorr"), "mean"] == pytest.approx(1.0)
    assert "2 of 12 decoded or seen pictures have one colour" in capsys.readouterr().out


def test_motion_that_was_seen_has_no_error(subject: Subject, tmp_path: Path, undrawn: None) -> None:
    from radiata_decode.data.stimuli import read_stimuli

    names = test_names(subject)
    flow = read_stimuli(subject.folder).flow(names)
    rows = evaluated(subject, Decoded(names, {"flow": flow}, "motion", "test"), tmp_path)
    assert rows.loc[("decoder", "epe"), "mean"] == 0
    assert rows.loc[("decoder", "epe skill"), "mean"] == 1
    for metric in ("field cosine", "flow 2-way", "cosine >= 0.25 cells"):
        assert rows.loc[("decoder", metric), "mean"] == pytest.approx(1.0)
    zero = float(np.linalg.norm(flow, axis=2).mean())
    assert rows.loc[("zero flow", "epe"), "mean"] == pytest.approx(zero)
    assert set(rows.index.get_level_values(0)) == {
        "decoder", "zero flow", "mean flow", "random training flow", "permuted brain", "retrieval", "image only",
    }  # fmt: skip
    assert rows.loc[("permuted brain", "epe skill"), "mean"] < 0
    one = evaluated(subject, Decoded(names[:1], {"flow": flow[:1]}, "motion", "test"), tmp_path / "one")
    assert ("decoder", "flow 2-way") not in one.index and one.loc[("decoder", "epe"), "mean"] == 0


def test_categories_have_accuracy_chance_and_confusion(
    subject: Subject, tmp_path: Path, undrawn: None
) -> None:
    names = test_names(subject)
    truth = np.array([int(name[4:]) % 3 for name in names])
    answers = truth.copy()
    answers[:3] = (answers[:3] + 1) % 3
    likely = np.full((len(names), 3), 0.1, np.float32)
    likely[np.arange(len(names)), answers] = 0.8
    decoded = Decoded(names, {"probabilities": likely}, "category", "test", CATEGORIES)
    rows = evaluated(subject, decoded, tmp_path)
    assert rows.loc[("decoder", "accuracy"), "mean"] == pytest.approx(9 / 12)
    assert rows.loc[("decoder", "accuracy"), "chance"] == pytest.approx(1 / 3)
    assert rows.loc[("decoder", "log loss"), "mean"] == pytest.approx(
        -(9 * np.log(0.8) + 3 * np.log(0.1)) / 12, abs=1e-5
    )
    assert rows.loc[("commonest in training", "accuracy"), "mean"] == pytest.approx(1 / 3)
    assert rows.loc[("commonest in training", "log loss"), "mean"] == pytest.approx(np.log(3))
    record = read_json(tmp_path / "out" / "scores.json")
    assert np.trace(record["confusion"]) == 9 and np.sum(record["confusion"], 1).tolist() == [4, 4, 4]


def test_what_belongs_to_another_subject_is_refused(subject: Subject, tmp_path: Path) -> None:
    names, seen = pictures(subject)

    def refused(decoded: Decoded, words: str, **sources: str) -> None:
        write_decoded(tmp_path / "decoded.h5", decoded)
        if sources:
            write_sidecar(tmp_path / "decoded.h5", sources)
        with pytest.raises(InputError, match=words):
            Evaluate(tmp_path / "decoded.h5", subject.folder, tmp_path / "out").run()
        assert not (tmp_path / "out").exists()

    refused(Decoded(["elsewhere", *names[1:]], {"images": seen}, "image", "test"), "got elsewhere.*1 of 12")
    refused(Decoded([names[0], *names[:-1]], {"images": seen}, "image", "test"), "each stimulus once")
    refused(Decoded(["V1"], {"images": seen[:1]}, "image", "regions"), "pictures of regions")
    refused(Decoded(names, {"images": seen}, "image", "test"), "the subject that", other="0" * 64)


def test_training_stimuli_are_said_to_be_remembered(
    subject: Subject, tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiata_decode.data.stimuli import read_stimuli

    names = [f"train{k:02d}" for k in range(8)]
    seen = read_stimuli(subject.folder).images(names)
    rows = evaluated(subject, Decoded(names, {"images": seen}, "image", "train"), tmp_path)
    assert "retrieval" not in rows.index.get_level_values(0)
    assert "what is remembered" in capsys.readouterr().out


def test_options_and_words_that_mean_nothing(subject: Subject, tmp_path: Path) -> None:
    names, seen = pictures(subject)
    write_decoded(tmp_path / "decoded.h5", Decoded(names, {"images": seen}, "image", "test"))
    task = Evaluate(tmp_path / "decoded.h5", subject.folder, tmp_path / "out")
    with pytest.raises(InputError, match="got alexnet, which is neither"):
        dataclasses.replace(task, extractors=("alexnet",)).run()
    with pytest.raises(InputError, match="19 or more"):
        dataclasses.replace(task, permutations=5).run()


def test_without_noise_the_decoder_reaches_the_ceiling(
    subject: Subject, tmp_path: Path, undrawn: None
) -> None:
    """The ceiling decodes signal.h5 with the model; where that holds the responses themselves, the rows agree."""
    import h5py

    from radiata_decode.experiment.decode import Decode
    from radiata_decode.experiment.image_training import ImageOptions, train_images

    folder = tmp_path / "subject"
    shutil.copytree(subject.folder, folder)
    with h5py.File(folder / "signal.h5", "w") as opened:
        opened["signal"] = subject.responses()
        opened["stimulus"] = np.array(subject.trials["stimulus"].tolist(), dtype=h5py.string_dtype())
    (tmp_path / "model").mkdir()
    options = ImageOptions(size=SIDE, components=6, basis="training", weighted=False)
    train_images(read_subject(folder), options, tmp_path / "model")
    Decode(folder, tmp_path / "model", tmp_path / "decoded", generator="none").run()
    task = Evaluate(
        tmp_path / "decoded", folder, tmp_path / "out", tmp_path / "model", extractors=(), permutations=99
    )
    task.run()
    rows = read_table(tmp_path / "out" / "scores.tsv").set_index(["decoder", "metric"])
    for metric in ("pixcorr", "ssim", "pixels 2-way"):
        ceiling = rows.loc[("noise-free ceiling", metric), "mean"]
        assert ceiling == pytest.approx(rows.loc[("decoder", metric), "mean"], abs=2e-3)  # of 8 bits
    sources = {one["Name"] for one in read_json(tmp_path / "out" / "scores.json")["Sources"]}
    assert {"subject", "decoded.h5", "model/ridge.safetensors"} <= sources


def test_a_decoder_that_only_knows_the_run_is_no_decoder(
    subject: Subject, tmp_path: Path, undrawn: None
) -> None:
    """One picture a run fits the pictures of that run; permuted within runs, it scores exactly the same: p = 1."""
    names, seen = pictures(subject)
    means = np.repeat(seen.reshape(2, 6, SIDE, SIDE, 3).mean(1), 6, axis=0).astype(np.uint8)
    rows = evaluated(subject, Decoded(names, {"images": means}, "image", "test"), tmp_path)
    assert rows.loc[("decoder", "pixcorr"), "mean"] > 0.2
    assert rows.loc[("decoder", "pixcorr"), "p"] == 1
