"""A segmenter that leaves as a bundle is loaded and run by MONAI, and finds what `segment` finds."""

import errno

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, load

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.cli import run
from radiata_medical.experiment.outputs import Facts, write_image
from radiata_medical.experiment.segmenter_bundle import write_segmenter_bundle
from radiata_medical.experiment.segmenting_models import load_segmenter
from radiata_medical.model.segmenter_network import SegmenterNetwork

# MONAI warns that a configuration can run code; this one was written a line before.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture
def model(tmp_path):
    """A network of 35 random classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = SegmenterNetwork(channels=(4, 8), residual_units=1).eval()
    save_model(tmp_path / "tiny.safetensors", network, metadata={"temperature": 1.5})
    return tmp_path / "tiny.safetensors"


def test_monai_loads_and_runs_it(tmp_path, model, rng):
    shape = (40, 36, 32)
    scan = Volume(rng.uniform(1, 200, shape).astype(np.float32), centred_affine(shape, 1.0, "RAS"))
    path = write_image(tmp_path / "head.nii.gz", scan.array, scan, Facts("test", "scan", {}, generated=False))
    out = tmp_path / "bundles" / "tiny"
    assert run(["convert", str(model), "--to", "monai-bundle", "--out", str(out)]) == 0
    network = load("tiny", bundle_dir=str(out.parent), workflow_type="inference", device="cpu")
    expected = load_model(model).denoiser.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    workflow = ConfigWorkflow(
        config_file=str(out / "configs" / "inference.json"), meta_file=str(out / "configs" / "metadata.json"),
        logging_file=False, workflow_type="infer", bundle_root=str(out), output_dir=str(tmp_path / "found"),
        images=[str(path)], device="cpu", **{"inferer#window": 32},
    )  # fmt: skip
    workflow.initialize()
    assert not workflow.check_properties()
    (written,) = workflow.run()[0]
    found = np.asarray(nib.load(written).dataobj)
    ours = load_segmenter("network", [str(model)], window=32).segment(scan).segmentation
    np.testing.assert_array_equal(found, ours.codes)
    assert len(np.unique(found)) > 1 and written.with_name("head_dseg.tsv").is_file()


def test_another_kind_of_model_is_refused(tmp_path, model, monkeypatch):
    monkeypatch.setattr(
        "radiata_medical.experiment.segmenter_bundle.load_model",
        lambda path: type("Other", (), {"denoiser": torch.nn.Identity(), "metadata": {}, "sha256": ""})(),
    )
    with pytest.raises(InputError, match=r"expected a segmenter; got .*, a Identity\. Name another"):
        write_segmenter_bundle(tmp_path / "out", str(model))


def test_a_new_bundle_is_whole_or_absent_and_the_same_twice(tmp_path, model, monkeypatch):
    first, second = (write_segmenter_bundle(tmp_path / name, str(model)) for name in ("one", "two"))
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(names) == 3
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    (first / "eval").mkdir()
    write_segmenter_bundle(first, str(model))
    assert (first / "eval").is_dir()  # what a bundle made stays when its files are replaced
    monkeypatch.setattr("radiata_imaging.monai_bundle.write_json", _no_space)
    with pytest.raises(OSError, match="No space"):
        write_segmenter_bundle(tmp_path / "three", str(model))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "tiny.json", "tiny.safetensors", "two"]


def _no_space(path, thing):
    raise OSError(errno.ENOSPC, "No space left on device")
