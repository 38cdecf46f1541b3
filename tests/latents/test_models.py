"""Networks by name: sizes and means of a population, found again in a fresh process, refused where they do not fit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.data.trials import TrialCounts
from radiata_latents.experiment.models import (
    ModelKind,
    check_fits,
    find_model,
    load_network,
    members_of,
    metadata_of,
    network_for,
)
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.paper_objective import PaperBound

from .tiny_population import tiny_population

SMALL = {
    "radiata": {"latents": 3, "hidden": 4},
    "gru": {"hidden": 4},
    "lfads": {"generator": 5},
    "paper": {"hidden": 8},
}


@pytest.mark.parametrize("kind", list(ModelKind))
def test_a_network_begins_at_the_mean_counts_of_training_trials(kind: ModelKind) -> None:
    """Its read-out's bias is the log of each neuron's mean, held-in neurons first, unobserved bins left out; the objective
    of its kind takes it, with companions as the trainer's validation hands them on."""
    data = tiny_population(forward=5)
    data["observed"][:, :10] = False
    data["counts"][:, :10] = 0
    network = network_for(kind, data, SMALL[kind])
    assert (network.neurons, network.heldin, network.bins, network.forward_bins) == (9, 7, 45, 5)
    train = data.isel(trial=data["split"].values == "train")["counts"].values[:, 10:]
    order = [0, 2, 3, 4, 6, 7, 8, 1, 5]
    readout = network.decoder.readout if kind == "paper" else network.readout
    readout = getattr(readout, "linear", readout)
    np.testing.assert_allclose(readout.bias.detach().numpy(), np.log(train.mean((0, 1))[order]), rtol=1e-5)
    items = TrialCounts(data)
    bound = PaperBound() if kind == "paper" else TrialBound()
    counts, observed = items.counts[:3], items.observed[:3]
    one, other = (
        bound(network.eval(), counts, generators_of(range(3)), observed=o).value
        for o in (observed, observed.float())
    )
    assert torch.equal(one, other) and torch.isfinite(one)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    data = tiny_population()
    one, same, other = (network_for("lfads", data, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_a_wide_bin_lowers_the_band() -> None:
    """Bins of 100 ms hold 5 Hz at most; the network's own default, 8 Hz, would be refused."""
    data = tiny_population()
    wide = data.assign_coords(time=np.arange(50) * 0.1).assign_attrs(bin_s=0.1)
    assert network_for("radiata", wide, {"latents": 3}).options["band_hz"] == [0.3, 5.0]


def test_unknown_kinds_and_options_are_refused() -> None:
    data = tiny_population()
    with pytest.raises(InputError, match="expected a network out of radiata, gru, lfads, paper; got 'ndt'"):
        network_for("ndt", data)
    with pytest.raises(InputError, match=r"the network gru takes.*'latents'"):
        network_for("gru", data, {"latents": 3})
    with pytest.raises(InputError, match=r"switches of the released model.*'lag'"):
        network_for("paper", data, {"switches": {"lag": False}})
    assert network_for("paper", data, {"hidden": 8, "switches": {"lagged": False}}).switches.lagged is False
    data = data.assign_coords(split=("trial", ["test"] * 48))
    with pytest.raises(InputError, match="expected training trials"):
        network_for("gru", data)


def test_metadata_says_what_a_network_was_made_for() -> None:
    said = metadata_of(tiny_population(forward=5), "radiata")
    assert said == {
        "application": "radiata-latents",
        "kind": "radiata",
        "neurons": ["0", "2", "3", "4", "6", "7", "8", "1", "5"],
        "heldin": 7,
        "bins": 45,
        "forward_bins": 5,
        "bin_s": 0.02,
        "start_s": 0.0,
        "source": "synthetic: lorenz",
    }


def test_only_a_population_like_it_fits() -> None:
    data = tiny_population()
    card = metadata_of(data, "gru")
    check_fits(card, data)
    wide = data.assign_coords(time=np.arange(50) * 0.1).assign_attrs(bin_s=0.1)
    for other, words in (
        (wide, "bins of width 0.02.*got 0.1"),
        (data.isel(time=slice(40)), "observed bins 50.*got 40"),
        (tiny_population(forward=5), "observed bins 50.*got 45"),
        (tiny_population(heldout=False), "7 neurons held in and 2 held out.*got 9 and 0"),
        (data.isel(neuron=slice(8)), "7 neurons held in and 2 held out.*got 6 and 2"),
        (data.isel(neuron=[2, 1, 0, *range(3, 9)]), "got '2' for '0' and 1 more"),
    ):
        with pytest.raises(InputError, match=words):
            check_fits(card, other)


def saved(path: Path, kind: str = "gru") -> Path:
    data = tiny_population()
    save_model(path, network_for(kind, data, SMALL[kind]), metadata=metadata_of(data, kind))
    return path


def test_models_are_found_by_folder_file_and_member(tmp_path: Path) -> None:
    one = saved(tmp_path / "run" / "model.safetensors")
    assert find_model(tmp_path / "run") == find_model(one) == one
    both = [saved(tmp_path / "many" / f"member-{k}" / "model.safetensors") for k in (10, 9)]
    assert members_of(tmp_path / "many") == both[::-1]
    assert members_of(tmp_path / "run") == [one]
    with pytest.raises(InputError, match=r"an ensemble of 2\. Name a member"):
        find_model(tmp_path / "many")
    both[0].unlink()
    with pytest.raises(InputError, match=r"model\.safetensors in .*member-10"):
        members_of(tmp_path / "many")
    with pytest.raises(InputError, match="expected a model's name"):
        find_model(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder without it"):
        load_network(tmp_path / "empty")


def test_a_model_of_another_application_is_refused(tmp_path: Path) -> None:
    data = tiny_population()
    save_model(tmp_path / "m.safetensors", network_for("gru", data), metadata={"application": "radiata-t1"})
    with pytest.raises(InputError, match=r"expected a model of radiata-latents.*radiata-t1"):
        load_network(tmp_path / "m.safetensors")


def test_a_fresh_process_rebuilds_every_network(tmp_path: Path) -> None:
    """Only this module is imported there: it has to register what the files name. Neither MONAI nor torch's compiler is
    imported on the way: each takes seconds that no network here needs."""
    paths = [saved(tmp_path / f"{kind}.safetensors", kind) for kind in ModelKind]
    script = "import sys; from radiata_latents.experiment.models import load_network\n"
    script += "print([type(load_network(path).network).__name__ for path in sys.argv[1:]])\n"
    script += "print([name for name in ('monai', 'torch._dynamo') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, timeout=300
    )
    built, unused = done.stdout.splitlines() or [done.stderr, ""]
    assert built == "['LangevinFlow', 'GRUSmoother', 'LFADS', 'PaperLangevinFlow']"
    assert unused == "[]"
