"""Training from the command's side: runs, ensembles, resuming to the bit, a way back from losses that are not finite."""

import dataclasses
import math
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radiata_core import trainer
from radiata_core.errors import InputError
from radiata_core.runs import read_json, read_log, write_json
from radiata_latents.data.trials import TrialCounts
from radiata_latents.experiment import training_run
from radiata_latents.experiment.models import load_network, members_of
from radiata_latents.experiment.presets import set_options, with_preset, write_preset
from radiata_latents.experiment.train import FOLDERS, Train
from radiata_latents.experiment.validation_scores import informed_shares, validation_scores
from radiata_latents.model.objective import TrialBound

from .tiny_population import command, tiny_options, tiny_population, written

PRESETS = Path(__file__).parents[2] / "shared" / "presets"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("population"))


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of standard error."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (
            "radiata",
            [
                "--latents",
                "3",
                "--hidden",
                "4",
                "--no-coupled",
                "--dynamics",
                "first-order",
                "--readout-units",
                "5",
            ],
        ),
        ("lfads", ["--generator", "6", "--inputs", "1"]),
        ("paper", ["--hidden", "8", "--inner", "8"]),
    ],
)
def test_every_network_trains_and_is_scored(
    network: str, options: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*tiny_options(2), *options]
    words[1] = network
    del words[words.index("--factors") : words.index("--factors") + 2]
    words = words if "--hidden" not in options else words[:2] + words[4:]
    assert command("train", data, "--out", tmp_path / "run", *words) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(tmp_path / "run" / "model.safetensors")
    scores = read_json(tmp_path / "run" / "scores.json")
    assert scores["finished"] and scores["step"] == 2 and math.isfinite(scores["co_bps"])
    assert 0 <= scores["informed"]["start"] <= 1
    assert len(scores.get("frequency_hz", [])) == (3 if network == "radiata" else 0)
    assert len(scores.get("damping", [])) == (3 if network == "radiata" else 0)
    assert len(scores.get("mode_frequency_hz", [])) == len(scores.get("mode_decay_s", []))
    loaded = load_network(tmp_path / "run")
    assert loaded.metadata["kind"] == network and loaded.metadata["step"] == 2
    if network == "radiata":
        assert loaded.network.options["dynamics"] == "first-order" and not loaded.network.options["coupled"]


def test_it_learns_and_scores_what_was_written(data: Path, tmp_path: Path) -> None:
    """Sixty updates bring the validation loss down; the score in the file is that of the weights in the file."""
    options = [word for word in tiny_options(60) if word != "gru"]
    options[0] = "--network=gru"
    assert (
        command(
            "train", data, "--out", tmp_path / "run", *options, "--learning-rate", "0.02", "--warmup", "5"
        )
        == 0
    )
    losses = [
        row["validation_loss"] for row in read_log(tmp_path / "run" / "log.jsonl") if "validation_loss" in row
    ]
    assert losses[-1] < 0.98 * losses[0]
    scores, record = read_json(tmp_path / "run" / "scores.json"), read_json(tmp_path / "run" / "run.json")
    again = validation_scores([load_network(tmp_path / "run").network], tiny_population())
    assert scores["co_bps"] == pytest.approx(again["co_bps"], abs=1e-9) and scores["co_bps"] > 0.02
    assert record["state"] == "done" and record["trials"] == 40 and record["data"][data.name]
    assert record["scores"]["co_bps"] == scores["co_bps"]


def test_stopped_by_the_clock_and_resumed_gives_the_same_bits(data: Path, tmp_path: Path) -> None:
    """`--max-minutes 0` stops after the first step of each session; three sessions end in the weights of one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [*tiny_options(3), "--dropout", "0.3"]
    assert command("train", data, "--out", whole, *options) == 0
    for session in range(3):
        more = ["--resume"] if session else []
        assert command("train", data, "--out", broken, *options, "--max-minutes", "0", *more) == 0
        assert read_json(broken / "scores.json")["finished"] == (session == 2)
        assert same_weights(whole, broken) == (session == 2)
    assert len(read_json(broken / "run.json")["sessions"]) == 2


def test_stopped_by_a_signal_says_130_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("train", data, "--out", whole, *tiny_options(4)) == 0
    original = trainer.Trainer.fit

    def told(self, dataset, order, validation, stop):
        stop.number = 15
        return original(self, dataset, order, validation, stop)

    monkeypatch.setattr(trainer.Trainer, "fit", told)
    capsys.readouterr()
    assert command("train", data, "--out", broken, *tiny_options(4)) == 130
    assert "step 1 is saved in" in line_of(capsys)
    assert not (broken / "model.safetensors").exists() and not (broken / "scores.json").exists()
    assert read_json(broken / "run.json")["state"] == "interrupted"
    monkeypatch.undo()
    assert command("train", data, "--out", broken, *tiny_options(4), "--resume") == 0
    assert same_weights(whole, broken)


def test_an_ensemble_is_its_members_and_skips_those_that_are_finished(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Member k is the training of seed + k; asked for one more, the others are not touched; its score is of mean rates."""
    many, alone = tmp_path / "many", tmp_path / "alone"
    assert command("train", data, "--out", many, *tiny_options(), "--seed", "5", "--members", "2") == 0
    assert command("train", data, "--out", alone, *tiny_options(), "--seed", "6") == 0
    assert same_weights(many / "member-1", alone)
    before = [(path / "model.safetensors").stat().st_mtime_ns for path in sorted(many.glob("member-*"))]
    options = [*tiny_options(), "--seed", "5", "--members", "3"]
    assert command("train", data, "--out", many, *options, "--resume") == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(many)
    members = members_of(many)
    assert len(members) == 3 and [path.stat().st_mtime_ns for path in members[:2]] == before
    scores = read_json(many / "scores.json")
    networks = [load_network(path).network for path in members]
    assert scores["co_bps"] == pytest.approx(
        validation_scores(networks, tiny_population())["co_bps"], abs=1e-9
    )
    assert [one["step"] for one in scores["members"]] == [8, 8, 8]
    (many / "member-0" / ".lock").touch()  # killed before it let go
    record = many / "member-1" / "run.json"
    write_json(record, read_json(record) | {"state": "running"})  # killed after its scores
    assert command("train", data, "--out", many, *options, "--resume") == 0
    assert read_json(record)["state"] == "done" and same_weights(many / "member-1", alone)
    assert not list(many.rglob(".lock"))
    options[options.index("--members") + 1] = "1"
    assert command("train", data, "--out", many, *options, "--overwrite") == 0
    assert (many / "model.safetensors").is_file() and not list(many.glob("member-*"))


class Breaking(TrialBound):
    """Its loss is NaN in step 6, as often as `times` says."""

    times = 0

    def __call__(self, model, counts, generators, *, observed=None):
        loss = super().__call__(model, counts, generators, observed=observed)
        if self.step == 6 and model.training and Breaking.times > 0:
            Breaking.times -= 1
            return dataclasses.replace(loss, value=loss.value * math.nan)
        return loss


def test_after_a_loss_that_is_not_finite_it_goes_back_with_half_the_rate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps after the checkpoint are done again at half the learning rate; resuming later keeps to it."""
    monkeypatch.setattr(training_run, "objective_of", lambda task, trials: Breaking(shown=0.7))
    run, options = (
        tmp_path / "run",
        [*tiny_options(10), "--no-cosine", "--warmup", "1", "--learning-rate", "0.01"],
    )
    Breaking.times = 1
    assert command("train", data, "--out", run, *options) == 0
    assert "got nan at step 7; back to step 4, learning rate 0.005" in capsys.readouterr().err
    rates = {row["step"]: row["learning_rate"] for row in read_log(run / "log.jsonl") if "loss" in row}
    assert rates == {2: 0.01, 4: 0.01, 6: 0.005, 8: 0.005, 10: 0.005}
    assert read_json(run / "run.json")["retries"] == 1
    weights = load_file(run / "model.safetensors")
    assert command("train", data, "--out", run, *options, "--resume") == 0
    assert all(
        torch.equal(value, weights[key]) for key, value in load_file(run / "model.safetensors").items()
    )
    Breaking.times = 2
    capsys.readouterr()
    assert command("train", data, "--out", tmp_path / "twice", *options) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2 and "error: expected a finite loss; got nan at step 7" in said[1]
    Breaking.times = 1
    assert command("train", data, "--out", tmp_path / "never", *options, "--retries", "0") == 1
    assert "expected a finite loss" in line_of(capsys)


def test_without_neurons_held_out_hidden_counts_are_scored(tmp_path: Path) -> None:
    """The score hides what it scores: an encoder that copies its input gains nothing by it."""

    class Copy:
        heldin, bins = 9, 50

        def encode(self, seen):
            return None

        def rates(self, seen):
            return seen + 0.05

    data = tiny_population(heldout=False)
    found = validation_scores([Copy()], data)
    assert found["score"] == "hidden_bps" and "co_bps" not in found and found["hidden_bps"] < 0
    assert found["informed"] == {}


def test_forward_bins_are_scored_beside(tmp_path: Path) -> None:
    path = written(tmp_path, forward=5)
    assert command("train", path, "--out", tmp_path / "run", *tiny_options(2)) == 0
    assert math.isfinite(read_json(tmp_path / "run" / "scores.json")["fp_bps"])


def test_a_posterior_that_says_nothing_is_warned_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The released model's start, charged by some hundreds of the bound, has collapsed before it learned anything."""
    words = (
        "--network paper --hidden 8 --inner 8 --steps 2 --batch-size 8 --validation-trials 1 --no-tensorboard"
    )
    assert command("train", data, "--out", tmp_path / "run", *words.split()) == 0
    assert "warning: the latents carry next to nothing (informed share: start 0.0" in line_of(capsys)
    shares = informed_shares(
        load_network(tmp_path / "run").network, TrialCounts(tiny_population()).counts[..., :7]
    )
    assert 0 <= shares["start"] < 0.05


def test_wrong_options_are_one_line_and_leave_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for words, code, said in (
        ((tmp_path / "absent.h5",), 1, "expected a population; got no such file"),
        (
            (data, "--network", "gru", "--latents", "3"),
            1,
            "got --latents, which belongs to radiata and lfads",
        ),
        ((data, "--network", "paper", "--beta", "0.5"), 1, "got --beta, which belongs to"),
        ((data, "--corrected"), 1, "got --corrected, which belongs to paper"),
        ((data, "--shown", "1.0"), 1, "shown in (0, 1)"),
        ((data, "--latents", "2"), 1, "3 latents or more"),
        ((data, "--band-hz", "1", "80"), 1, "expected 0 < band < 25 Hz"),
        ((data, "--network", "gru", "--hidden", "0"), 1, "expected options that the network gru takes"),
        ((data, "--dropout", "1.5"), 1, "expected a dropout in [0, 1)"),
        ((data, "--steps", "0"), 1, "expected steps of 1 or more"),
        ((data, "--members", "0"), 1, "expected one member"),
        ((data, "--resume", "--overwrite"), 1, "got both"),
        ((data, "--preset", tmp_path / "absent.toml"), 1, "expected the TOML file"),
    ):
        assert command("train", *words, "--out", out) == code
        line = line_of(capsys)
        assert said in line and line.startswith("radiata-latents train: error: expected"), line
        assert not out.exists()
    assert command("train", data, "--out", out, "--netwrk", "gru") == 2
    assert "--network" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert command("train", data, "--out", out, *tiny_options(2)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert command("train", data, "--out", out, *tiny_options(2)) == 1
    assert "--overwrite" in line_of(capsys)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "model-of-a-plane.json").write_text("{}")
    assert command("train", data, "--out", other, *tiny_options(2), "--overwrite") == 0
    assert (other / "model-of-a-plane.json").is_file()


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "p.toml"
    preset.write_text('network = "gru"\nsteps = 7\nhidden = 8\nema = [0.1]\n')
    assert (
        command("train", data, "--out", tmp_path / "run", "--preset", preset, "--steps", "3", "--dry-run")
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "network: gru\n" in said and "steps: 3\n" in said and "hidden: 8\n" in said and "ema: (0.1,)" in said
    )
    assert "learning_rate: 0.008\n" in said and "clip: 5.0\n" in said
    assert "40 training and 8 validation trials of 50 bins and 9 neurons (2 held out, 0 bins forward)" in said
    assert not (tmp_path / "run").exists()


def test_a_preset_is_checked(tmp_path: Path) -> None:
    task, preset = Train(Path("a.h5"), Path("run"), steps=3), tmp_path / "p.toml"
    for text, words in (
        ("stepz = 7", "got 'stepz'"),
        ('out = "there"', "got 'out'"),
        ("steps = = 7", "expected TOML"),
        ('steps = "many"', "expected steps as train takes it.*'many'"),
        ("learning_rate = true", "expected learning_rate"),
        ('network = "ndt"', "expected network"),
        ("band_hz = [1.0]", "expected band_hz"),
        ('ema = ["a"]', "expected ema"),
    ):
        preset.write_text(text)
        with pytest.raises(InputError, match=words):
            with_preset(task, preset, FOLDERS)


def test_what_is_written_as_a_preset_is_read_as_it_was(tmp_path: Path) -> None:
    given = {
        "network": "gru",
        "ema": (0.05, 0.1),
        "cosine": False,
        "learning_rate": 1e-05,
        "steps": 9,
        "beta": None,
    }
    write_preset(tmp_path / "p.toml", given, "A comment")
    empty = Train(Path("a.h5"), Path("run"))
    assert with_preset(empty, tmp_path / "p.toml", FOLDERS) == set_options(
        empty, {name: value for name, value in given.items() if value is not None}, "here"
    )


@pytest.mark.parametrize("path", sorted(PRESETS.glob("latents-*.toml")), ids=lambda path: path.stem)
def test_a_shared_preset_is_a_training_that_fits(path: Path) -> None:
    """Every value is one that train takes and that its network knows; the network can be built."""
    task = with_preset(Train(Path("a.h5"), Path("run")), path, FOLDERS)
    task.check()
    assert all(
        getattr(task, name) == (tuple(v) if isinstance(v, list) else v)
        for name, v in tomllib.loads(path.read_text()).items()
    )
    network = training_run.network_of(task, tiny_population())
    assert training_run.objective_of(task, 100).at(3) is not None and network.neurons == 9


def test_there_is_a_preset_of_every_network() -> None:
    found = [
        tomllib.loads(path.read_text()).get("network", "radiata") for path in PRESETS.glob("latents-*.toml")
    ]
    assert {"radiata", "gru", "lfads", "paper"} <= set(found)
