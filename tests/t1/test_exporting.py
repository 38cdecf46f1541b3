"""A model that leaves as a bundle is loaded and run by MONAI; a head that leaves as DICOM is read back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, load

from radiata_core.checkpoint import load_model
from radiata_core.runs import sole_writer
from radiata_imaging.dicom import read_dicom_series
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_t1.cli import run
from radiata_t1.experiment.sample import Sample, file_name

# MONAI warns that a configuration can run code; this one was written a line before.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    assert run(["convert", str(tiny_run), "--to", "monai-bundle", "--out", str(out)]) == 0
    return out


def test_monai_loads_the_network_with_its_weights(bundle: Path, tiny_run: Path) -> None:
    network = load(bundle.name, bundle_dir=str(bundle.parent), workflow_type="inference", device="cpu")
    expected = load_model(tiny_run).denoiser.state_dict()
    found = network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_monai_runs_it_and_draws_what_sample_draws(bundle: Path, tiny_run: Path, tmp_path: Path) -> None:
    """MONAI's own check of an inference workflow, then the same head to a few steps of the stored scale."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"), meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False, workflow_type="infer", bundle_root=str(bundle), output_dir=str(tmp_path / "drawn"), seeds=[4],
        device="cpu", **{"inferer#steps": 3},
    )  # fmt: skip
    workflow.initialize()
    assert not workflow.check_properties()
    (written,) = workflow.run()[0]
    workflow.finalize()
    Sample(out=tmp_path / "sample", model=str(tiny_run), seeds=(4,), steps=3, batch_size=1).run()
    ours = read_volume(tmp_path / "sample" / file_name(4))
    theirs = read_volume(written)
    np.testing.assert_allclose(theirs.affine, ours.affine)
    assert np.abs(theirs.array - ours.array).max() < 0.2  # of 1000
    assert (
        json.loads(written.with_name(written.name.replace(".nii.gz", ".json")).read_text())["SyntheticImage"]
        is True
    )


def test_a_folder_with_something_else_is_kept(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    for more in ([], ["--overwrite"]):
        assert run(["convert", str(tiny_run), "--to", "monai-bundle", "--out", str(tmp_path), *more]) == 1
        assert "expected a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_drawn_head_becomes_a_series_of_no_patient(tiny_run: Path, tmp_path: Path) -> None:
    Sample(out=tmp_path, model=str(tiny_run), seeds=(1,), steps=2).run()
    head, out = tmp_path / file_name(1), tmp_path / "dicom"
    assert run(["convert", str(head), "--to", "dicom-series", "--out", str(out)]) == 0
    series, volume = read_dicom_series(out), read_volume(head)
    back = reorient(series.volume, volume.axcodes)
    np.testing.assert_allclose(back.array, volume.array, atol=0.02)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert series.slices[0].PatientName == "SYNTHETIC^RADIATA"
    assert series.slices[0].SeriesDescription == "SYNTHETIC T1-weighted head, not for clinical use"
    with sole_writer(tmp_path / "again"):
        assert run(["convert", str(head), "--to", "dicom-series", "--out", str(tmp_path / "again")]) == 1
    assert not (tmp_path / "again").exists()
