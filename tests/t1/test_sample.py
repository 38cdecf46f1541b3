"""Sampling from the command's side: a seed is a sample, files are complete, wrong input is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume
from radiata_t1 import cli
from radiata_t1.experiment.sample import Sample, file_name
from radiata_t1.model.samplers import GridName, Sampler, SamplerName, start_state
from radiata_t1.model.weights import find_model


@pytest.mark.parametrize(
    "sampler", ["dpmpp-2m", "unipc-2", "ddim", "ddpm", "ab2", "sde-dpmpp-2m", "heun", "adaptive"]
)
def test_a_seed_is_the_same_alone_and_in_a_batch(sampler: str, tiny_run: Path, tmp_path: Path) -> None:
    """Seeds 0, 5, 7 in one batch and each alone, byte for byte in the files."""
    common = {"model": str(tiny_run), "steps": 4, "sampler": sampler}
    Sample(out=tmp_path / "all", seeds=(0, 5, 7), batch_size=3, **common).run()
    for seed in (0, 5, 7):
        Sample(out=tmp_path / "one", seeds=(seed,), batch_size=3, **common).run()
        together, alone = (tmp_path / folder / file_name(seed) for folder in ("all", "one"))
        assert together.read_bytes() == alone.read_bytes()
    Sample(out=tmp_path / "pair", seeds=(5, 7), batch_size=2, **common).run()
    for seed in (5, 7):
        difference = read_volume(tmp_path / "pair" / file_name(seed)).array
        difference = difference - read_volume(tmp_path / "all" / file_name(seed)).array
        assert np.abs(difference).max() < 0.2  # of 1000: a few steps of the stored scale
    heads = [read_volume(tmp_path / "all" / file_name(seed)).array for seed in (0, 5)]
    assert np.abs(heads[0] - heads[1]).mean() > 1


def test_files_say_what_they_are(tiny_run: Path, tmp_path: Path) -> None:
    Sample(out=tmp_path, model=str(tiny_run), seeds=(3,), steps=3, condition=("size=2.0",)).run()
    image = nib.load(tmp_path / file_name(3))
    header = image.header
    assert header["sform_code"] == 1 and header["qform_code"] == 1
    assert np.allclose(image.get_sform(), image.get_qform())
    assert header.get_xyzt_units()[0] == "mm" and nib.aff2axcodes(image.affine) == ("L", "P", "S")
    middle = image.affine @ [3.5, 3.5, 3.5, 1]
    assert np.allclose(middle[:3], 0)
    assert b"synthetic" in header["descrip"].tobytes() and b"not for clinical" in header["descrip"].tobytes()
    sidecar = json.loads((tmp_path / file_name(3).replace(".nii.gz", ".json")).read_text())
    assert (
        sidecar["SyntheticImage"] is True and sidecar["Seed"] == 3 and sidecar["Conditions"] == {"size": 2.0}
    )
    assert sidecar["ModelSHA256"] == load_model(tiny_run / "model.safetensors").sha256
    data = image.get_fdata()
    assert data.min() >= 0 and data.max() <= 1000
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    bundle = json.loads((tmp_path / "configs" / "metadata.json").read_text())
    assert "Not for clinical use" in bundle["intended_use"]
    assert bundle["generated_image"]["voxel_size_mm"] == [24.0] * 3


def test_heads_are_a_bids_derivative_where_that_is_asked_for(
    tiny_run: Path, tmp_path: Path, bids_errors: Callable[[Path], list[str]]
) -> None:
    """The validator finds no error, though run.json, the log and the bundle lie there too; a second call keeps the head."""
    again = Sample(out=tmp_path, model=str(tiny_run), seeds=(3,), steps=2, bids=True)
    again.run()
    path = tmp_path / "sub-syn0003" / "anat" / file_name(3)
    kept = path.stat().st_mtime_ns
    again.run()
    assert path.stat().st_mtime_ns == kept and (tmp_path / "run.json").exists()
    assert bids_errors(tmp_path) == []


def test_a_stopped_queue_goes_on_and_other_settings_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    common = {"model": str(tiny_run), "steps": 3}
    Sample(out=tmp_path, seeds=(0, 1), **common).run()
    kept = {seed: (tmp_path / file_name(seed)).stat().st_mtime_ns for seed in (0, 1)}
    (tmp_path / file_name(1)).unlink()
    Sample(out=tmp_path, seeds=(0, 1, 2), **common).run()
    assert (tmp_path / file_name(0)).stat().st_mtime_ns == kept[0]
    assert (tmp_path / file_name(1)).is_file() and (tmp_path / file_name(2)).is_file()
    with pytest.raises(InputError, match="differs in Steps"):
        Sample(out=tmp_path, seeds=(0,), model=str(tiny_run), steps=4).run()
    Sample(out=tmp_path, seeds=(0,), model=str(tiny_run), steps=4, overwrite=True).run()


def test_dry_run_writes_nothing(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Sample(out=tmp_path / "x", model=str(tiny_run), seeds=(0, 1), dry_run=True).run()
    assert "2 of 2 heads to draw, 60 evaluations each" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


def test_conditions_and_guidance_act(tiny_run: Path) -> None:
    """Conditions change the head, guidance 1 is the plain conditional denoiser, unknown names are refused."""
    denoiser = load_model(tiny_run / "model.safetensors").denoiser
    for parameter in denoiser.parameters():  # six steps of training leave the covariates almost silent
        parameter.data += 0.05 * torch.sin(torch.arange(parameter.numel()).float()).reshape(parameter.shape)
    small, large = (torch.tensor([[value, torch.nan]]) for value in (-1.5, 1.5))
    event = (1, 8, 8, 8)

    def draw(guidance: float, covariates: torch.Tensor | None) -> torch.Tensor:
        given = {} if covariates is None else {"covariates": covariates}
        with torch.inference_mode():
            return Sampler(SamplerName.DDIM, 4, guidance=guidance)(denoiser, [0], event, **given)  # type: ignore[arg-type]

    assert (draw(1.0, small) - draw(1.0, large)).abs().mean() > 1e-3
    assert not torch.equal(draw(1.0, small), draw(3.0, small))
    assert torch.equal(draw(1.0, None), draw(3.0, None))
    assert torch.allclose(draw(0.0, small), draw(1.0, None), atol=1e-6)


def test_parity_samplers_run_on_their_path(tiny_store: Path, tmp_path: Path) -> None:
    from .conftest import tiny_train

    tiny_train(tiny_store, tmp_path / "v", prediction="velocity", steps=2).run()
    for name, steps in (("medforj-2025", 64), ("medforj-2026", 256)):
        sampler = Sampler(SamplerName(name))
        assert sampler.count == steps and sampler.evaluations(False) == steps
        Sample(out=tmp_path / name, model=str(tmp_path / "v"), sampler=name, steps=5).run()  # type: ignore[arg-type]
        assert (tmp_path / name / file_name(0)).is_file()


def test_the_start_carries_the_mean_where_the_path_keeps_some_data(
    tiny_store: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """On the discrete VP path the state at t = 1 has mean alpha_1 mu; on the linear path it is the noise itself."""
    from .conftest import tiny_train

    tiny_train(tiny_store, tmp_path / "v", prediction="velocity", steps=1).run()
    velocity = load_model(tmp_path / "v" / "model.safetensors").denoiser
    noise = torch.zeros(1, 1, 8, 8, 8)
    assert torch.allclose(start_state(velocity, noise)[0], 0.006353 * velocity.anchor.mean, atol=1e-5)  # type: ignore[arg-type, union-attr, operator]
    rflow = load_model(tiny_run / "model.safetensors").denoiser
    assert not start_state(rflow, noise).any()  # type: ignore[arg-type]
    assert Sampler(SamplerName.HEUN, 4, GridName.LOG_SNR).evaluations(True) == 8


def _fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(words) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("radiata-t1 sample: error: expected")
    return error[0]


def test_wrong_models_and_options_are_one_line(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample(model: Path | str, *more: str) -> list[str]:
        return ["sample", "--model", str(model), "--out", str(tmp_path / "out"), *more]

    assert "got 'nowhere'" in _fails(sample("nowhere"), capsys)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_run, broken)
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    _fails(sample(broken), capsys)
    (broken / "model.safetensors").write_bytes(b"")
    _fails(sample(broken), capsys)
    (broken / "model.safetensors").write_bytes(data)
    card = json.loads((broken / "model.json").read_text())
    card["denoiser"]["network"]["channels"] = [8, 16]
    (broken / "model.json").write_text(json.dumps(card))
    _fails(sample(broken), capsys)
    pickled = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, pickled)
    assert "convert" in _fails(sample(pickled), capsys)
    assert "NAME=VALUE" in _fails(sample(tiny_run, "--condition", "size"), capsys)
    assert "'weight'" in _fails(sample(tiny_run, "--condition", "weight=3"), capsys)
    assert "different seeds" in _fails(sample(tiny_run, "--seeds", "1", "1"), capsys)
    assert not (tmp_path / "out").exists()


def test_few_steps_take_the_student_and_nothing_else_does(tmp_path: Path) -> None:
    """Up to 4 steps, no sampler named, no guidance: few-step-4mm; the head is its single jump, and the file says so."""
    student, teacher = find_model("few-step-4mm"), find_model("rflow-4mm")
    cases = [
        ({"steps": 1}, student),
        ({"steps": 4}, student),
        ({"steps": 5}, teacher),
        ({}, teacher),
        ({"steps": 2, "sampler": "ddim"}, teacher),
        ({"steps": 2, "guidance": 2.0}, teacher),
        ({"steps": 2, "model": "rflow-4mm"}, teacher),
    ]
    for options, file in cases:
        folder = tmp_path / "-".join(map(str, options.values()))
        dry_run = options != {"steps": 1}
        Sample(out=folder, seeds=(3,), resolution="4mm", dry_run=dry_run, **options).run()
        assert find_model(Sample(out=folder, **options).model_name()) == file, options
    sidecar = json.loads((tmp_path / "1" / file_name(3).replace(".nii.gz", ".json")).read_text())
    loaded = load_model(student)
    assert sidecar["ModelSHA256"] == loaded.sha256
    with torch.inference_mode():
        head = Sampler(SamplerName.DDIM, 1, GridName.LINEAR)(loaded.denoiser, [3], (1, 48, 56, 48))
    drawn = read_volume(tmp_path / "1" / file_name(3)).array
    assert np.abs(drawn - 500 * (head[0, 0].clamp(-1, 1).numpy() + 1)).max() < 0.5  # of 1000
