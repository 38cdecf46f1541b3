"""Random search: trials are functions of the seed and their number, none is done twice, the best is that of validation."""

import csv
import math
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from radiata_core import trainer
from radiata_core.errors import InputError
from radiata_core.runs import read_json
from radiata_latents.experiment import search, trial_processes
from radiata_latents.experiment.presets import with_preset
from radiata_latents.experiment.search import Trial, best_of
from radiata_latents.experiment.search_space import SPACES, Between, Choice, drawn, read_space
from radiata_latents.experiment.sweep import Sweep
from radiata_latents.experiment.train import FOLDERS, Train

from .tiny_population import command, tiny_population, written

SMALL = (
    "hidden = 6\nfactors = { choices = [2, 4] }\nlearning_rate = { low = 1e-3, high = 1e-1, log = true }\n"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("population")
    (folder / "space.toml").write_text(SMALL)
    (folder / "preset.toml").write_text("validation_trials = 1\nkeep = 1\ncheckpoint_every = 2\n")
    return written(folder)


def swept(data: Path, out: Path, *more: object, trials: int = 3, steps: int = 4) -> int:
    folder = data.parent
    words = [
        "--network",
        "gru",
        "--trials",
        trials,
        "--steps",
        steps,
        "--batch-size",
        "8",
        "--space",
        folder / "space.toml",
    ]
    return command("sweep", data, "--out", out, *words, "--preset", folder / "preset.toml", *more)


def test_laws_have_their_quantiles() -> None:
    """Uniform in the number or in its logarithm; choices alike. 4000 draws by the search's own streams, |z| < 4.5."""
    assert Between(1.0, 100.0, log=True).at(0.5) == 10 and Between(1.0, 3.0).at(0.25) == 1.5
    assert [Choice(("a", "b", "c")).at(u) for u in (0, 0.34, 0.67, 0.999)] == ["a", "b", "c", "c"]
    space = {"x": Between(1e-4, 1e-2, log=True), "y": Choice((1, 2)), "z": Between(0.0, 1.0)}
    rows = [drawn(space, 0, k) for k in range(4000)]
    for hits in (
        [row["x"] < 1e-3 for row in rows],
        [row["y"] == 1 for row in rows],
        [row["z"] < 0.5 for row in rows],
    ):
        assert abs(sum(hits) - 2000) < 4.5 * 4000**0.5 / 2
    both = sum(row["x"] < 1e-3 and row["z"] < 0.5 for row in rows)
    assert abs(both - 1000) < 4.5 * (4000 * 0.25 * 0.75) ** 0.5


def test_a_trial_depends_on_seed_and_number_only() -> None:
    space = SPACES["radiata"]
    assert drawn(space, 1, 7) == drawn(dict(reversed(space.items())), 1, 7)
    less = {name: law for name, law in space.items() if name != "hidden"}
    assert drawn(less, 1, 7) == {
        name: value for name, value in drawn(space, 1, 7).items() if name != "hidden"
    }
    assert drawn(space, 1, 8) != drawn(space, 1, 7) != drawn(space, 2, 7)


@pytest.mark.parametrize("network", list(SPACES))
def test_every_space_draws_what_train_takes(network: str) -> None:
    sweep = Sweep(Path("a.h5"), Path("s"), network=network)
    for k in range(20):
        sweep.trial(read_space(None, network), k, Path("s")).check()


def test_a_space_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    for text, words in (
        ("beta = { low = 1.0 }", "expected beta = { low, high, log }"),
        ("beta = { low = 1.0, high = 0.1 }", "expected low < high"),
        ("beta = { low = 0.0, high = 0.1, log = true }", "above 0 where log"),
        ("beta = { choices = [] }", "expected choices"),
        ("beta = { choices = 3 }", "expected beta ="),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_space(path, "radiata")
    path.write_text("beta = 0.5\nband_hz = [1.0, 4.0]\n")
    space = read_space(path, "radiata")
    assert drawn(space, 0, 0)["beta"] == 0.5 and drawn(space, 0, 0)["band_hz"] == (1.0, 4.0)
    assert space["latents"] == SPACES["radiata"]["latents"]


def test_the_best_is_that_of_validation_and_a_preset_makes_it_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    assert swept(data, out) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(out / "best.toml")
    found = read_json(out / "sweep.json")
    scores = [read_json(out / f"trial-{k:04d}" / "scores.json")["co_bps"] for k in range(3)]
    assert [trial["score"] for trial in found["trials"]] == scores and found["score"] == "co_bps"
    best = found["best"]["number"]
    assert scores[best] == max(scores)
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert [float(row["co_bps"]) for row in rows] == scores and {row["hidden"] for row in rows} == {"6"}
    task = with_preset(Train(data, tmp_path / "run"), out / "best.toml", FOLDERS)
    drawn_best = found["best"]["options"]
    assert all(getattr(task, name) == value for name, value in drawn_best.items())
    assert (task.network, task.steps, task.batch_size) == ("gru", 4, 8)
    assert command("train", data, "--out", tmp_path / "run", "--preset", out / "best.toml") == 0
    assert read_json(tmp_path / "run" / "scores.json")["co_bps"] == scores[best]


def test_an_interrupted_search_goes_on_and_does_nothing_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the second trial and resumed with one trial more: as if done at once, and trial 0 is not touched."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert swept(data, whole) == 0
    original, calls = trainer.Trainer.fit, []

    def told(self, dataset, order, validation, stop):
        calls.append(self.folder)
        stop.number = 2 if len(calls) == 2 else None
        return original(self, dataset, order, validation, stop)

    monkeypatch.setattr(trainer.Trainer, "fit", told)
    assert swept(data, broken, trials=2) == 130
    assert read_json(broken / "run.json")["state"] == "interrupted"
    capsys.readouterr()
    assert swept(data, broken, trials=2) == 1
    assert "--overwrite" in capsys.readouterr().err
    (broken / "trial-0000" / ".lock").touch()  # as if it had been killed at the end of the first
    assert swept(data, broken, "--resume") == 0
    assert not list(broken.rglob(".lock"))
    assert [folder.name for folder in calls] == ["trial-0000", "trial-0001", "trial-0001", "trial-0002"]
    assert read_json(broken / "sweep.json") == read_json(whole / "sweep.json")
    capsys.readouterr()
    assert swept(data, broken, "--resume", "--seed", "1") == 1
    assert "got one whose seed differs" in capsys.readouterr().err
    assert swept(data, broken, "--overwrite", "--seed", "1", trials=1) == 0
    assert [path.name for path in broken.glob("trial-*")] == ["trial-0000"]


def test_halving_gives_steps_to_the_better(data: Path, tmp_path: Path) -> None:
    """Nine trials of 2 steps, the best three of 6, the best one of 18; a rung's scores decide who is in the next."""
    out = tmp_path / "sweep"
    assert swept(data, out, "--halving", trials=9, steps=18) == 0
    trials = [Trial(**row) for row in read_json(out / "sweep.json")["trials"]]
    by = {rung: [t for t in trials if t.rung == rung] for rung in (2, 1, 0)}
    assert [(len(by[rung]), {t.steps for t in by[rung]}) for rung in (2, 1, 0)] == [
        (9, {2}),
        (3, {6}),
        (1, {18}),
    ]
    for shorter, longer in ((2, 1), (1, 0)):
        order = sorted(by[shorter], key=lambda t: -float(t.score or 0))
        assert {t.number for t in by[longer]} == {t.number for t in order[: len(by[longer])]}
    assert read_json(out / "rung-1" / "trial-0000" / "scores.json")["step"] == 2
    assert tomllib.loads((out / "best.toml").read_text())["steps"] == 18


def test_a_training_that_fails_is_a_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its loss is not finite: no score, the others go on, and it is not tried again; other errors end the search."""
    original, calls = trial_processes.train_one, []

    def failing(task, population, data):
        calls.append(task.out.name)
        if task.out.name == "trial-0001":
            raise InputError("expected a finite loss; got nan at step 3. Lower it.")
        return original(task, population, data)

    monkeypatch.setattr(trial_processes, "train_one", failing)
    assert swept(data, tmp_path / "a") == 0
    trials = read_json(tmp_path / "a" / "sweep.json")["trials"]
    assert [trial["score"] is None for trial in trials] == [False, True, False]
    assert "got nan at step 3" in trials[1]["error"]

    def broken(task, population, data):
        raise InputError("expected a disk; got none.")

    monkeypatch.setattr(trial_processes, "train_one", broken)
    capsys.readouterr()
    assert swept(data, tmp_path / "b") == 1
    assert "error: expected a disk; got none." in capsys.readouterr().err
    with pytest.raises(InputError, match=r"got 1 that failed, the first: nan"):
        best_of([Trial(0, 0, {}, 3, None, "nan")])
    assert best_of([Trial(0, 0, {}, 3, None), Trial(1, 0, {}, 3, 0.2), Trial(2, 0, {}, 3, 0.2)]).number == 1


@pytest.mark.slow
def test_two_processes_find_what_one_does(data: Path, tmp_path: Path) -> None:
    assert swept(data, tmp_path / "one") == swept(data, tmp_path / "two", "--jobs", "2") == 0
    assert read_json(tmp_path / "one" / "sweep.json") == read_json(tmp_path / "two" / "sweep.json")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_end_with_a_search_that_is_killed(data: Path, tmp_path: Path) -> None:
    """Else they would train on, and keep the folders of their trials from whoever goes on."""
    code = "import sys; from radiata_latents.cli import main; main()"
    words = [
        sys.executable,
        "-c",
        code,
        "sweep",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--network",
        "gru",
    ]
    search = subprocess.Popen(
        [*words, "--steps", "100000", "--jobs", "2", "--trials", "2"], stderr=subprocess.DEVNULL
    )
    locks = [tmp_path / "out" / f"trial-{k:04d}" / ".lock" for k in range(2)]
    until(lambda: all(lock.exists() and lock.read_text().endswith("\n") for lock in locks))
    workers = [int(lock.read_text()) for lock in locks]
    search.kill()
    search.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for it."""
    due = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < due, "it never came"
        time.sleep(0.1)


def test_wrong_searches_are_one_line_and_leave_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiata_latents.data.population import save_population

    alone = tiny_population()
    save_population(alone.assign_coords(split=("trial", ["train"] * 48)), tmp_path / "alone.h5")
    for name, text in (
        ("odd", "hiden = 3"),
        ("word", 'hidden = "wide"'),
        ("other", "generator = 5"),
        ("big", "hidden = 0"),
    ):
        (tmp_path / f"{name}.toml").write_text(text)
    out = tmp_path / "out"
    for words, said in (
        ((tmp_path / "absent.h5",), "expected a population; got no such file"),
        ((tmp_path / "alone.h5",), "expected validation trials to choose by"),
        ((data, "--space", tmp_path / "odd.toml"), "got 'hiden'"),
        ((data, "--space", tmp_path / "word.toml"), "got 'wide'"),
        (
            (data, "--network", "gru", "--space", tmp_path / "other.toml"),
            "got --generator, which belongs to lfads",
        ),
        ((data, "--preset", tmp_path / "odd.toml"), "got 'hiden'"),
        ((data, "--network", "gru", "--space", tmp_path / "big.toml"), "options that the network gru takes"),
        ((data, "--trials", "0"), "expected one trial, job and step"),
        ((data, "--steps", "0"), "expected one trial, job and step"),
        ((data, "--resume", "--overwrite"), "got both"),
    ):
        assert command("sweep", *words, "--out", out) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert (
            len(lines) == 1
            and said in lines[0]
            and lines[0].startswith("radiata-latents sweep: error: expected")
        ), lines
        assert not out.exists()
    assert command("sweep", data, "--out", out, "--trails", "3") == 2
    assert "--trials" in capsys.readouterr().err


def test_rungs_are_thirds() -> None:
    assert search.rungs(True) == [2, 1, 0] and search.rungs(False) == [0]
    assert math.isclose(search.ETA, 3)
