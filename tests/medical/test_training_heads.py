"""`radiata-medical train --task head`: from labelled scans to a run that `segment --method features` takes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.runs import read_json, read_log
from radiata_imaging.nifti import read_volume
from radiata_imaging.volume import centred_affine
from radiata_medical.cli import run
from radiata_medical.model.prior import build_prior

SHAPE = (24, 32, 10)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained prior with random features."""
    made = build_prior(2, channels=(8, 8), seed=1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_model(path, made, metadata={"dims": 2})
    return path


def write_case(folder: Path, name: str, shift: float = 0.0) -> np.ndarray:
    """A bright ball (code 7) in a dim one (code 4), 1 mm; returns the codes."""
    place = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    place[0] -= shift
    radius = np.sqrt((place**2).sum(0))
    codes = np.where(radius < 5, 7, np.where(radius < 10, 4, 0))
    noise = np.random.default_rng(len(name)).standard_normal(SHAPE)
    image = 400.0 * (codes > 0) + 400.0 * (codes == 7) + 10 * noise
    affine = centred_affine(SHAPE, 1.0, "RAS")
    for kind, array in (("scans", image.astype(np.float32)), ("labels", codes.astype(np.uint8))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        ending = "_dseg" if kind == "labels" else ""
        nib.save(nib.Nifti1Image(array, affine), folder / kind / f"{name}{ending}.nii.gz")
    return codes


def train(folder: Path, out: str, prior: Path, *more: object) -> int:
    words = ["train", folder / "scans", "--task", "head", "--labels", folder / "labels", "--start", prior]
    words += ["--slices", 3, "--members", 2, "--out", folder / out, *more]
    return run([str(word) for word in words])


def test_labels_come_back_from_a_run_trained_on_two_scans(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "a")
    write_case(tmp_path, "bb", 2.0)
    assert train(tmp_path, "run", prior, "--steps", 30, "--log-every", 10) == 0
    path = tmp_path / "run" / "model.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert load_model(path).metadata["slices"] == 6
    record = read_json(tmp_path / "run" / "run.json")
    assert record["state"] == "done" and record["slices"] == 6 and len(record["classes"]) == 3
    assert set(record["data"]) == {"a.nii.gz", "bb.nii.gz", "a_dseg.nii.gz", "bb_dseg.nii.gz", str(prior)}
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 10, 20, 30] and rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    truth = write_case(tmp_path / "other", "ccc", -2.0)
    call = [
        "segment",
        tmp_path / "other/scans/ccc.nii.gz",
        "--method",
        "features",
        "--model",
        tmp_path / "run",
    ]
    assert run([str(word) for word in [*call, "--out", tmp_path / "out"]]) == 0
    found = read_volume(tmp_path / "out/ccc_dseg.nii.gz").array
    for code in (4, 7):
        overlap = (
            2 * ((found == code) & (truth == code)).sum() / ((found == code).sum() + (truth == code).sum())
        )
        assert overlap > 0.8, (code, overlap)


def test_steps_alone_repeat_to_the_bit_and_a_seed_does_not(prior: Path, tmp_path: Path) -> None:
    write_case(tmp_path, "a")
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert train(tmp_path, out, prior, "--steps", 2, "--seed", seed) == 0
    one, two, three = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three
    assert train(tmp_path, "one", prior, "--steps", 1) == 1, "nothing is overwritten unasked"
    assert train(tmp_path, "one", prior, "--steps", 1, "--overwrite") == 0


def test_dry_run_counts_slices_and_writes_nothing(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "a")
    assert train(tmp_path, "run", prior, "--dry-run") == 0
    assert f"3 slices of 3 classes on {prior}, 5.0 minutes" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "a")
    deep = tmp_path / "deep.safetensors"
    save_model(deep, build_prior(3, channels=(8, 8)), metadata={"dims": 3})
    for more, message in (
        (("--resume",), "in one go; got --resume"),
        (("--members", 0), "at least 1 and a --seed"),
        (("--max-minutes", 0), "--max-minutes above 0; got 0"),
        (("--slices", 0), "at least 1 slice"),
        (("--start", deep), "expected a 2-D prior"),
        (("--start", tmp_path / "absent"), "expected a model's name"),
        (("--labels", tmp_path / "absent"), "label maps"),
        (("--labels", tmp_path / "scans"), "expected a label map"),
        (("--task", "prior"), "--labels with --task head; got --task prior"),
    ):
        assert train(tmp_path, "run", prior, *more) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and message in said[0], said
        assert not (tmp_path / "run").exists(), more
    assert run(["train", str(tmp_path / "scans"), "--task", "head", "--out", str(tmp_path / "run")]) == 1
    assert "expected --labels with --task head; got none" in capsys.readouterr().err
