"""`infer`: files that are whole, submissions in the benchmark's form, and one line for what does not fit."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from radiata_core import commands
from radiata_latents.data.population import save_population
from radiata_latents.data.rates_file import check_belongs, load_rates
from radiata_latents.data.submission import load_submission
from radiata_latents.experiment.infer import Infer
from radiata_latents.experiment.inference import infer_rates
from radiata_latents.experiment.models import load_network

from .conftest import wavy_population


def call(*words: object) -> int:
    return commands.main("radiata-latents", "Latents.", {"infer": Infer}, ["infer", *map(str, words)])


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a call that fails."""
    assert call(*words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "error: expected" in lines[0], lines
    return lines[0]


def test_writes_what_inference_says(results: Path, wavy: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "rates.h5"
    assert (
        call(results / "wavy.h5", "--model", results / "radiata.safetensors", "--out", out, "--passes", 3)
        == 0
    )
    loaded = load_network(results / "radiata.safetensors")
    own = infer_rates([loaded.network], wavy, 3)
    found = load_rates(out)
    for name in own.data_vars:
        np.testing.assert_allclose(found[name].values, own[name].values, rtol=1e-6)
    check_belongs(found, wavy)
    card = json.loads((tmp_path / "rates.json").read_text())
    assert card["Kind"] == "radiata" and card["Passes"] == 3
    assert {source["SHA256"] for source in card["Sources"]} >= {loaded.sha256}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.h5", "rates.json"]


def test_an_ensemble_and_a_split(results: Path, wavy: xr.Dataset, tmp_path: Path) -> None:
    words = ("--model", results / "ensemble", "--split", "validation", "--out", tmp_path / "rates.h5")
    assert call(results / "wavy.h5", *words) == 0
    members = [load_network(results / "ensemble" / f"member-{i}").network for i in range(2)]
    found = load_rates(tmp_path / "rates.h5")
    np.testing.assert_allclose(
        found["rates"].values, infer_rates(members, wavy)["rates"].values[24:30], rtol=1e-5
    )
    assert found.attrs["model"] == "ensemble" and found.attrs["members"] == 2
    assert found["trial"].values.tolist() == list(range(24, 30))


@pytest.mark.parametrize("bin_s", [0.005, 0.02])
def test_submission_is_the_benchmarks(results: Path, wavy: xr.Dataset, tmp_path: Path, bin_s: float) -> None:
    """All keys, blocks in the right place, `_20` at 20 ms."""
    from radiata_latents.data.rates_file import rates_dataset
    from radiata_latents.experiment.submissions import parts_of, write_submission

    cells = wavy.copy(deep=True).assign_attrs(bin_s=bin_s)
    rates = rates_dataset(cells, wavy["rates"].values)
    parts = parts_of(cells, "nlb:mc_maze_small")
    write_submission(tmp_path / "sub.h5", parts, cells, rates)
    (group,) = load_submission(tmp_path / "sub.h5").items()
    assert group[0] == ("mc_maze_small" if bin_s == 0.005 else "mc_maze_small_20")
    truth, heldout = rates["rates"].values, wavy["heldout"].values
    wanted = {
        "train_rates_heldin": truth[:30, :17][..., ~heldout],
        "train_rates_heldout": truth[:30, :17][..., heldout],
        "eval_rates_heldin": truth[30:, :17][..., ~heldout],
        "eval_rates_heldout": truth[30:, :17][..., heldout],
        "eval_rates_heldin_forward": truth[30:, 17:][..., ~heldout],
        "eval_rates_heldout_forward": truth[30:, 17:][..., heldout],
    }
    assert set(group[1]) == set(wanted)
    for key, block in wanted.items():
        np.testing.assert_array_equal(group[1][key], block)
    assert json.loads((tmp_path / "sub.json").read_text())["Trials"] == {"train": 30, "eval": 6}


def test_submission_by_the_command(results: Path, tmp_path: Path) -> None:
    words = ("--model", results / "gru.safetensors", "--out", tmp_path / "rates.h5")
    more = ("--submission", tmp_path / "sub.h5", "--preset", "nlb:mc_rtt")
    assert call(results / "wavy.h5", *words, *more) == 0
    with h5py.File(tmp_path / "sub.h5") as file:
        assert list(file) == ["mc_rtt_20"] and len(file["mc_rtt_20"]) == 6


def test_a_submission_whose_rates_never_came_is_kept_and_gone_on_from(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (results / "wavy.h5", "--model", results / "gru.safetensors", "--out", tmp_path / "rates.h5")
    more = ("--submission", tmp_path / "sub.h5", "--preset", "nlb:mc_rtt")
    assert call(*words, *more) == 0
    rates, first = (tmp_path / "rates.h5").read_bytes(), (tmp_path / "sub.h5").stat()
    (tmp_path / "rates.h5").unlink()  # as after a kill between the two
    assert call(*words, *more, "--passes", "2") == 1, "another submission"
    assert "sub.h5, which exists" in capfd.readouterr().err
    assert call(*words, *more) == 0
    assert (tmp_path / "rates.h5").read_bytes() == rates
    assert (tmp_path / "sub.h5").stat().st_ino == first.st_ino
    assert call(*words, *more) == 1, "both are there"


def test_rates_in_hz_do_not_leave(wavy: xr.Dataset, tmp_path: Path) -> None:
    from radiata_core.errors import InputError
    from radiata_latents.data.rates_file import rates_dataset
    from radiata_latents.experiment.submissions import parts_of, write_submission

    rates = rates_dataset(wavy, wavy["rates"].values / 0.02)
    with pytest.raises(InputError, match="Multiply rates in Hz"):
        write_submission(tmp_path / "sub.h5", parts_of(wavy, "mc_rtt"), wavy, rates)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_one_line_and_leaves_nothing(
    results: Path, wavy: xr.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    save_population(wavy.isel(time=slice(1, None)), folder / "short.h5")
    save_population(wavy.assign_coords(neuron=[f"cell{i}" for i in range(10)]), folder / "named.h5")
    save_population(wavy_population(heldout=False), folder / "bare.h5")
    shutil.copy(results / "gru.safetensors", folder / "gru.safetensors")
    shutil.copy(results / "radiata.json", folder / "gru.json")
    out, model = tmp_path / "out.h5", results / "gru.safetensors"
    says = [
        ("expected observed bins 17", (folder / "short.h5", "--model", model)),
        ("got 'cell0' for 'unit0'", (folder / "named.h5", "--model", model)),
        ("expected 8 neurons held in and 2 held out", (folder / "bare.h5", "--model", model)),
        ("no such file", (folder / "none.h5", "--model", model)),
        ("got 'nothing'", (results / "wavy.h5", "--model", "nothing")),
        ("Copy both files again", (results / "wavy.h5", "--model", folder / "gru.safetensors")),
        ("--passes >= 0", (results / "wavy.h5", "--model", model, "--passes=-2")),
        ("--submission with --preset", (results / "wavy.h5", "--model", model, "--preset", "nlb:mc_rtt")),
        (
            "expected one of mc_maze",
            (results / "wavy.h5", "--model", model, "--submission", tmp_path / "s.h5", "--preset", "lorenz"),
        ),
        (
            "--split all and another name",
            (results / "wavy.h5", "--model", model, "--submission", tmp_path / "s.h5", "--split", "test"),
        ),
        ("data set; got none", (results / "wavy.h5", "--model", model, "--submission", tmp_path / "s.h5")),
    ]
    for text, words in says:
        assert text in refused(capfd, *words, "--out", out)
    assert "ending in .h5" in refused(
        capfd, results / "wavy.h5", "--model", model, "--out", tmp_path / "a.npz"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_overwritten_unasked(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rates.h5"
    out.write_bytes(b"mine")
    words = (results / "wavy.h5", "--model", results / "gru.safetensors", "--out", out)
    assert "--overwrite" in refused(capfd, *words)
    assert out.read_bytes() == b"mine"
    assert call(*words, "--overwrite") == 0
    assert load_rates(out).attrs["kind"] == "gru"
