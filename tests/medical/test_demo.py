"""The demo on a block of the head with tiny untrained models: what it writes, that it repeats, what it refuses."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_core.unrolled import UnrolledRestorer
from radiata_imaging.nifti import read_volume
from radiata_medical.data.example_head import cut_block, example_head, lesion_mask
from radiata_medical.experiment.demo import Demo
from radiata_medical.model.prior import SIGMA_DATA, build_prior
from radiata_medical.model.segmenter_network import SegmenterNetwork


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tiny = (8, 8, 8)
    save_model(folder / "prior.safetensors", build_prior(3, tiny), metadata={"dims": 3})
    unrolled = UnrolledRestorer(build_prior(3, tiny), start_sd=SIGMA_DATA)
    save_model(folder / "restorer.safetensors", unrolled, metadata={"dims": 3})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SegmenterNetwork(channels=(8, 8, 8, 8, 8), dims=3)
    save_model(folder / "segmenter.safetensors", network, metadata={"dims": 3})
    return {name: str(folder / f"{name}.safetensors") for name in ("prior", "restorer", "segmenter")}


@pytest.mark.slow
def test_a_short_demo(tmp_path: Path, models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """All four tasks; each result on the grid of the block, with a card; the page stands alone; the seed is the voxels."""
    out = tmp_path / "demo"
    Demo(out, block=32, **models).run()
    said = capsys.readouterr().out.splitlines()
    assert str(out) in said[-1] and said[0].startswith("4x under-sampled k-space: ")
    head = read_volume(out / "colin27.nii.gz")
    volumes = sorted(out.glob("*.nii.gz"))
    assert len(volumes) == 1 + 3 * 3 + 2
    for path in volumes:
        card = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert card["GeneratedBy"][0]["Name"] == "radiata-medical" and card["NotForClinicalUse"]
    for name in (
        "colin27-sr_restored",
        "colin27-kspace_restored",
        "colin27-inpaint_measured",
        "colin27_dseg",
    ):
        result = read_volume(out / f"{name}.nii.gz", allow_constant=True)
        assert result.shape == head.shape and np.allclose(result.affine, head.affine), name
    with (out / "scores.csv").open() as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["kspace", "sr", "inpaint"] and rows["inpaint"]["psnr_hole_db"]
    text = (out / "report.html").read_text()
    assert "not for clinical use" in text.lower() and "the error is result minus truth" in text
    assert json.loads((out / "run.json").read_text())["state"] == "done"
    with pytest.raises(InputError, match="--overwrite"):
        Demo(out, block=32, **models).run()
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in volumes}
    Demo(out, block=32, tasks=("sr",), overwrite=True, **models).run()
    left = sorted(path.name for path in out.glob("*.nii.gz"))
    assert left == ["colin27-sr_measured.nii.gz", "colin27-sr_residual.nii.gz", "colin27-sr_restored.nii.gz",
                    "colin27.nii.gz"]  # fmt: skip
    assert {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in left
    }.items() <= before.items()


def test_the_head_that_comes_along_is_the_one_of_the_card() -> None:
    import tomllib

    card = tomllib.loads((Path(__file__).parents[2] / "datasets" / "colin27.toml").read_text())
    digest = hashlib.sha256(example_head().read_bytes()).hexdigest()
    assert digest in card["sha256"].values() and card["redistributable"] and card["in_repository"]
    notice = (example_head().parent / "NOTICE.md").read_text()
    assert digest in notice and "Montreal Neurological Institute" in notice


def test_blocks_and_holes_lie_where_they_should() -> None:
    """A block keeps the world position of its voxels; the hole is a ball of 7.2 ml on the left, within it."""
    head = read_volume(example_head())
    block = cut_block(head, 60)
    assert block.shape == (60, 60, 60)
    at = np.linalg.solve(head.affine, block.affine @ [5, 6, 7, 1])[:3].round().astype(int)
    assert block.array[5, 6, 7] == head.array[tuple(at)]
    hole = lesion_mask(head)
    centre = head.affine @ [*np.argwhere(hole).mean(0), 1]
    assert centre[:3] == pytest.approx([-26, -18, 24], abs=0.1)
    assert hole.sum() / 1000 == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.02)
    assert head.array[hole].min() > 20, "all of it is brain"
    small = lesion_mask(cut_block(head, 40))
    assert 0 < small.sum() < 0.1 * small.size
    with pytest.raises(InputError, match="at least 24 mm"):
        cut_block(head, 5)


def test_what_is_refused(tmp_path: Path) -> None:
    for wrong in ({"noise": 0.0}, {"seed": -1}, {"tasks": ()}):
        with pytest.raises(InputError, match="Leave the defaults"):
            Demo(tmp_path / "demo", **wrong).run()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="model's name"):
        Demo(tmp_path / "demo", prior="absent").run()
    assert not (tmp_path / "demo").exists()
