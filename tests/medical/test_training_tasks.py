"""Rendered scans as training data, and what each task is trained with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.joint_denoisers import JointDenoiser
from radiata_core.seeds import generators_of
from radiata_core.unrolled import UnrolledRestorer
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.structures import CODES, TISSUES, tissue_channels
from radiata_medical.data.synthesis import ScanSpec, synthesise
from radiata_medical.experiment.synthetic_training import Heads, OnSyntheticScans, People, load_heads
from radiata_medical.experiment.training_tasks import (
    TASKS,
    metadata_of,
    network_of,
    numbers_of,
    objective_of,
)
from radiata_medical.model.segmenter_network import SegmenterNetwork

from .tiny_labels import tiny_store


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    with LabelMaps(tiny_store(tmp_path_factory.mktemp("labels") / "labels.h5")) as store:
        return load_heads(store, "cpu")


class Seen:
    """An objective that keeps what it is given."""

    path = "its path"

    def __call__(self, denoiser, x0, generators, **conditions):
        self.x0, self.conditions = x0, conditions
        return denoiser


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def test_people_are_the_training_or_the_validation_heads_and_never_the_test(heads: Heads) -> None:
    assert heads.people == ("person-0", "person-1", "person-2") and heads.training == 2
    assert [int(People(heads, "train")[i]["image"]) for i in range(2)] == [0, 1]
    held = People(heads, "validation", 3)
    assert len(held) == 3 and {int(held[i]["image"]) for i in range(3)} == {2}


def test_rows_are_slices_of_one_rendering(heads: Heads) -> None:
    """Rows that stand together are every third slice of what the first row's generator renders; a row of the next run is
    another head's."""
    spec, seen = ScanSpec(shape=(16, 16, 1)), Seen()
    objective = OnSyntheticScans(
        seen, heads, spec, True, together=3, gap=3, contrast=False, labels="structures"
    )
    assert objective.path == "its path"
    assert objective("returned", rows(0, 0, 0, 1), generators_of(range(4), 0)) == "returned"
    assert seen.x0.shape == (4, 1, 16, 16) and seen.conditions["labels"].shape == (4, 16, 16)
    generators = generators_of(range(4), 0)
    first = synthesise(heads.heads[0], replace(spec, shape=(16, 16, 7)), generators[0])
    second = synthesise(heads.heads[1], replace(spec, shape=(16, 16, 7)), generators[3])
    for row, (scan, place) in enumerate([(first, 0), (first, 3), (first, 6), (second, 0)]):
        assert torch.equal(seen.x0[row, 0], scan.image[:, :, place])
        assert torch.equal(seen.conditions["labels"][row], scan.labels[:, :, place].long())


def test_blocks_are_parts_of_one_rendering(heads: Heads) -> None:
    spec, seen = ScanSpec(shape=(16, 16, 8)), Seen()
    OnSyntheticScans(seen, heads, spec, False, together=2, contrast=False)(
        None, rows(1, 1), generators_of([5, 6], 0)
    )
    whole = synthesise(heads.heads[1], replace(spec, shape=(16, 16, 16)), generators_of([5], 0)[0])
    assert torch.equal(torch.cat([*seen.x0[:, 0]], -1), whole.image)


def test_contrast_is_told_hidden_in_part_or_hidden(heads: Heads) -> None:
    """Of 400 rows half are hidden whole, and of the numbers of the others 15 % (within 4 standard errors)."""
    seen = Seen()
    objective = OnSyntheticScans(seen, heads, ScanSpec(shape=(8, 8, 1)), True, together=20)
    objective(None, rows(*[0] * 400), generators_of(range(400), 1))
    told = seen.conditions["covariates"]
    hidden = torch.isnan(told)
    whole = hidden.all(1)
    assert abs(float(whole.float().mean()) - 0.5) < 4 * np.sqrt(0.25 / 400)
    assert abs(float(hidden[~whole].float().mean()) - 0.15) < 4 * np.sqrt(0.13 / 800)
    assert "labels" not in seen.conditions
    run = told[:20][~hidden[:20].any(1)]
    assert len(run) > 1 and torch.equal(run[0], run[1]), "rows of one rendering have one contrast"


def test_tissues_are_the_groups_of_structures(heads: Heads) -> None:
    one, other = Seen(), Seen()
    for seen, labels in ((one, "structures"), (other, "tissues")):
        OnSyntheticScans(seen, heads, ScanSpec(shape=(24, 24, 1)), True, labels=labels)(
            None, rows(0, 1), generators_of([0, 1], 2)
        )
    codes = np.array(CODES)[one.conditions["labels"].numpy()]
    for number, group in enumerate(TISSUES.values(), start=1):
        assert np.array_equal(other.conditions["labels"].numpy() == number, np.isin(codes, group))
    assert int(tissue_channels().max()) + 1 == 9


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_network_and_scans(task: str, dims: int, heads: Heads) -> None:
    channels = (4, 4, 4) if task == "segmenter" else (8, 8)
    network = network_of(task, dims, channels, None, 0)
    kinds = {
        "prior": EDMDenoiser,
        "restorer": UnrolledRestorer,
        "segmenter": SegmenterNetwork,
        "joint": JointDenoiser,
    }
    assert isinstance(network, kinds[task])
    objective = objective_of(task, dims, heads, 16, 2)
    assert objective.spec.shape == (16, 16, 1 if dims == 2 else 16) and objective.slices == (dims == 2)
    assert objective.contrast == (task != "segmenter")
    assert objective.labels == {"segmenter": "structures", "joint": "tissues"}.get(task, "none")
    numbers = numbers_of(task, dims)
    assert numbers.window % 16 == 0 and numbers.batch_size % numbers.together == 0
    said = metadata_of(task, dims, 16, 2, "labels.h5")
    assert said["task"] == task and said["dims"] == dims and "Not for clinical use" in said["intended_use"]


def test_scans_of_the_store_are_taken_with_their_labels(tmp_path: Path) -> None:
    with LabelMaps(tiny_store(tmp_path / "s.h5", images=True)) as store:
        stored = load_heads(store, "cpu", images=True)
    objective = replace(objective_of("prior", 2, stored, 16, 2, rendered=False), objective=Seen())
    objective(None, rows(0, 1), generators_of([0, 1], 0))
    assert "covariates" not in objective.objective.conditions and bool(
        torch.isfinite(objective.objective.x0).all()
    )


def test_a_start_of_another_kind_or_dimension_is_refused(tmp_path: Path) -> None:
    from radiata_core.checkpoint import save_model

    files = {}
    for task in TASKS:
        files[task] = str(tmp_path / f"{task}.safetensors")
        channels = (4, 4, 4) if task == "segmenter" else (8, 8)
        save_model(Path(files[task]), network_of(task, 2, channels, None, 0), metadata={})
    for task in TASKS:
        for source, file in files.items():
            if source == task or (task, source) == ("restorer", "prior"):
                assert network_of(task, 2, None, file, 0) is not None
                with pytest.raises(InputError, match="expected a model of 3 dimensions"):
                    network_of(task, 3, None, file, 0)
            else:
                with pytest.raises(
                    InputError, match=rf"expected a \w+ to start a {task} from; got .*{source}"
                ):
                    network_of(task, 2, None, file, 0)


def test_a_restorer_begins_as_its_prior(tmp_path: Path) -> None:
    from radiata_core.checkpoint import save_model

    prior = network_of("prior", 2, (8, 8), None, 3)
    save_model(tmp_path / "p.safetensors", prior, metadata={})
    restorer = network_of("restorer", 2, None, str(tmp_path / "p.safetensors"), 0)
    assert isinstance(restorer, UnrolledRestorer)
    assert all(
        torch.equal(a, b) for a, b in zip(prior.parameters(), restorer.denoiser.parameters(), strict=True)
    )
