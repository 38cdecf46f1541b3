"""Students of a T1 model: what they know before training, what the command writes, and drawing with few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.runs import read_json
from radiata_core.seeds import generators_of, noise_of
from radiata_imaging.nifti import read_volume
from radiata_t1.experiment.distil import Distil
from radiata_t1.experiment.sample import Sample, file_name
from radiata_t1.model.samplers import Sampler, SamplerName
from radiata_t1.model.students import student_of

from .conftest import tiny_train


@pytest.fixture(scope="module")
def teacher_run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    tiny_train(tiny_store, out, prediction="rflow", steps=40, checkpoint_every=40, validate_every=40).run()
    return out


def distil(run: Path, out: Path, **options: object) -> Distil:
    small = {"steps": 4, "rank": 3, "warmup": 1, "log_every": 1, "checkpoint_every": 2, "tensorboard": False}
    return Distil(out=out, model=str(run), **(small | options))  # type: ignore[arg-type]


def test_a_student_starts_as_its_teacher(teacher_run: Path) -> None:
    """With all components of the anchor, the flow map on its diagonal is the teacher, bit by bit."""
    teacher = load_model(teacher_run / "model.safetensors").denoiser
    student = student_of(teacher, "ctm", 4)  # type: ignore[arg-type]
    assert isinstance(student, NetworkFlowMap)
    x = noise_of(generators_of([1, 2]), (1, 8, 8, 8), torch.float32, "cpu")
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(student(x, t), teacher(x, t))


def test_one_jump_of_an_untrained_student_is_the_gaussian_head(teacher_run: Path) -> None:
    """With the network silenced, noise goes to the anchor's Gaussian in one evaluation as in twenty."""
    teacher = load_model(teacher_run / "model.safetensors").denoiser
    student = student_of(teacher, "ctm", 4)  # type: ignore[arg-type]
    for parameter in student.network.parameters():
        torch.nn.init.zeros_(parameter)
    event = (1, 8, 8, 8)
    with torch.no_grad():
        one = Sampler(SamplerName.FLOW_MAP, 1)(student, [0, 1, 2], event)
        many = Sampler(SamplerName.FLOW_MAP, 20)(student, [0, 1, 2], event)
    torch.testing.assert_close(one, many, atol=1e-4, rtol=0)
    assert float(one.std()) > 0.1


def test_distilling_a_flow_map_learns_and_resumes_to_the_bit(
    teacher_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """Loss falls; a run stopped in the middle and resumed writes the same weights; the model says how to draw."""
    whole = distil(teacher_run, tmp_path / "whole", store=tiny_store)
    whole.run()
    halves = distil(teacher_run, tmp_path / "halves", store=tiny_store, max_minutes=0.0)
    halves.run()
    for _ in range(4):
        distil(teacher_run, tmp_path / "halves", store=tiny_store, max_minutes=0.0, resume=True).run()
    first, second = (load_model(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    for (name, a), b in zip(
        first.denoiser.state_dict().items(), second.denoiser.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert first.metadata["sampling"] == {"sampler": "flow-map", "grid": "linear", "steps": 4}
    assert first.metadata["distillation"]["method"] == "ctm"


def test_reflow_draws_its_pairs_once_and_resumes_to_the_bit(
    teacher_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """Pairs are drawn and kept; a student stopped and resumed is the same; the model says how it was made."""
    options = {"method": "reflow", "pairs": tmp_path / "pairs", "pair_count": 6, "pair_steps": 3}
    distil(teacher_run, tmp_path / "whole", store=tiny_store, **options).run()
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "pairs").iterdir()}
    for resume in (False, True, True, True, True):
        more = options | {"max_minutes": 0.0, "resume": resume}
        distil(teacher_run, tmp_path / "halves", store=tiny_store, **more).run()
    assert kept == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "pairs").iterdir()}
    first, second = (load_model(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    for (name, a), b in zip(
        first.denoiser.state_dict().items(), second.denoiser.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert first.metadata["sampling"]["sampler"] == "ddim"
    assert first.metadata["distillation"]["pairs"] == 6
    with pytest.raises(InputError, match="expected --pairs"):
        distil(teacher_run, tmp_path / "x", method="reflow").run()


def test_a_run_goes_on_from_an_earlier_student(teacher_run: Path, tiny_store: Path, tmp_path: Path) -> None:
    """--start takes the weights of a student (here: unchanged by a step size of almost nothing) and says whose."""
    distil(teacher_run, tmp_path / "first", store=tiny_store).run()
    earlier = load_model(tmp_path / "first" / "model.safetensors")
    options = {"start": str(tmp_path / "first"), "steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    distil(teacher_run, tmp_path / "second", store=tiny_store, **options).run()
    later = load_model(tmp_path / "second" / "model.safetensors")
    for name, value in earlier.denoiser.state_dict().items():
        torch.testing.assert_close(later.denoiser.state_dict()[name], value, atol=1e-9, rtol=0)
    assert later.metadata["distillation"]["started_from_sha256"] == earlier.sha256
    with pytest.raises(InputError, match=r"expected a NetworkFlowMap on .*; got NetworkDenoiser"):
        distil(teacher_run, tmp_path / "third", store=tiny_store, start=str(teacher_run)).run()


def test_heads_of_a_student_take_its_own_sampler(teacher_run: Path, tiny_store: Path, tmp_path: Path) -> None:
    """`sample --steps 2` of a flow map jumps twice, says so beside the file, and fresh noise changes the head."""
    distil(teacher_run, tmp_path / "run", store=tiny_store, steps=2).run()
    Sample(out=tmp_path / "two", model=str(tmp_path / "run"), steps=2).run()
    card = read_json(tmp_path / "two" / file_name(0).replace(".nii.gz", ".json"))
    assert (card["Sampler"], card["Steps"], card["Evaluations"]) == ("flow-map", 2, 2)
    Sample(out=tmp_path / "fresh", model=str(tmp_path / "run"), steps=2, fresh=1.0).run()
    two, fresh = (read_volume(tmp_path / name / file_name(0)).array for name in ("two", "fresh"))
    assert not np.allclose(two, fresh)


def test_what_a_student_cannot_do_is_refused(teacher_run: Path, tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected --store"):
        distil(teacher_run, tmp_path / "x").run()
    with pytest.raises(InputError, match="expected a rank between 1 and 4"):
        distil(teacher_run, tmp_path / "x", store=tiny_store, rank=5).run()
    with pytest.raises(InputError, match="expected a distilled flow map"):
        Sample(out=tmp_path / "y", model=str(teacher_run), sampler="flow-map").run()
    with pytest.raises(InputError, match="fresh"):
        Sample(out=tmp_path / "y", model=str(teacher_run), fresh=2.0).run()
