"""`radiata-medical segment` from files to files: labels overlay on the scan, tables agree with them, stopped runs go on."""

import csv
import errno
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from radiata_core import commands
from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume
from radiata_imaging.volume import centred_affine
from radiata_medical.data.scans import Case
from radiata_medical.experiment import segmenting_models
from radiata_medical.experiment.segment import Segment
from radiata_medical.experiment.segmenting_heads import labelled_slices, train_head
from radiata_medical.experiment.segmenting_tables import of_codes, structures, table_of, tissues
from radiata_medical.model.joint_model import build_joint
from radiata_medical.model.prior import build_prior
from radiata_medical.model.segmenter import SegmenterOptions
from radiata_medical.model.segmenter_network import SegmenterNetwork

SHAPES = {"a": (44, 40, 36), "b": (30, 52, 24)}


class Threshold(nn.Module):
    """Class 1 from 0.25 to 0.75 of white, class 2 above."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 40.0 * torch.cat([0.25 - x, 0.25 - (x - 0.5).abs(), x - 0.75], 1)


def affine_of(name: str) -> np.ndarray:
    """a: 1.1 mm, axes towards R, A, S. b: anisotropic, turned by 11 degrees, axes towards P, L, S."""
    if name == "a":
        return centred_affine(SHAPES["a"], 1.1, "RAS")
    turn, a = np.eye(4), np.deg2rad(11.0)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return turn @ centred_affine(SHAPES["b"], (1.4, 0.9, 2.0), "PLS")


def write_scan(
    path: Path, name: str, shift: float = 0.0, noise: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """A dim ball with a bright one in it as a NIfTI; returns the true codes and distances (mm) from the surfaces."""
    shape, affine = SHAPES[name], affine_of(name)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3] - np.array([shift, 0, 0])
    outer = 17 - np.linalg.norm(world, axis=-1)
    inner = 8 - np.linalg.norm(world - np.array([3, -4, 2]), axis=-1)
    codes = np.where(inner > 0, 2, np.where(outer > 0, 1, 0))
    image = 500.0 * codes + 1000 * noise * np.random.default_rng(0).standard_normal(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    out = nib.Nifti1Image(image.astype(np.float32), affine)
    out.header.set_xyzt_units("mm")
    nib.save(out, path)
    return codes, np.minimum(np.abs(outer), np.abs(inner))


def run(*words: object) -> int:
    return commands.main("radiata-medical", "s", {"segment": Segment}, ["segment", *map(str, words)])


@pytest.fixture
def threshold(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The network method thresholds; returns the options it was loaded with."""
    asked: list[dict] = []

    def load(method, model, **options):
        asked.append({"method": method, "model": model, **options})
        table = of_codes([1, 2])
        wanted = SegmenterOptions(window=32, halo=4, posteriors=options["posteriors"])
        return segmenting_models._ByNetwork([Threshold()], wanted, table, {"threshold": "0" * 64})

    monkeypatch.setattr(segmenting_models, "load_segmenter", load)
    return asked


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_gives_labels_that_overlay_and_tables_that_agree(
    threshold: list[dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = {name: write_scan(tmp_path / "scans" / f"{name}.nii.gz", name) for name in SHAPES}
    out = tmp_path / "out"
    assert run(tmp_path / "scans", "--out", out, "--entropy", "--posteriors") == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(out)
    table = {row["case"]: row for row in rows(out / "volumes.csv")}
    quality = {row["case"]: row for row in rows(out / "qc.csv")}
    assert set(table) == set(quality) == set(SHAPES)
    for name, (codes, near) in truth.items():
        scan, made = nib.load(tmp_path / "scans" / f"{name}.nii.gz"), nib.load(out / f"{name}_dseg.nii.gz")
        found = np.asarray(made.dataobj)
        assert made.shape == scan.shape
        np.testing.assert_allclose(made.affine, scan.affine, atol=1e-5)
        assert made.header["sform_code"] > 0 and made.get_data_dtype() == np.uint16
        wrong = found != codes
        assert near[wrong].max(initial=0.0) < 1.5 and wrong.mean() < 0.03
        voxel = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
        assert float(table[name]["label 2 (ml)"]) == pytest.approx((found == 2).sum() * voxel, rel=1e-4)
        card = json.loads((out / f"{name}_dseg.json").read_text(encoding="utf-8"))
        assert card["GeneratedBy"][0]["Name"] == "radiata-medical" and card["NotForClinicalUse"] is True
        assert card["SourceFiles"][0]["Name"] == f"{name}.nii.gz" and card["Models"][0]["SHA256"] == "0" * 64
        assert float(quality[name]["quality"]) == pytest.approx(card["Quality"], abs=1e-4)
        assert quality[name]["look"] == ("yes" if card["Quality"] < 0.65 else "no")
        assert "not for clinical use" in made.header["descrip"].tobytes().decode()
        assert "2\tlabel 2\t#" in (out / f"{name}_dseg.tsv").read_text(encoding="utf-8")
        probability = read_volume(out / f"{name}_label-Label2_probseg.nii.gz").array
        assert ((probability > 0.5) == (found == 2)).mean() > 0.98
        assert read_volume(out / f"{name}_entropy.nii.gz").array.max() <= np.log(3) + 1e-3
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["state"] == "done"


def test_a_stopped_command_goes_on_and_nothing_is_overwritten(
    threshold: list[dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in SHAPES:
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", name)
    out = tmp_path / "out"
    assert run(tmp_path / "scans", "--out", out) == 0
    (out / "b_dseg.json").unlink()
    (out / "b_dseg.nii.gz").unlink()
    kept = (out / "a_dseg.nii.gz").stat().st_mtime_ns
    assert run(tmp_path / "scans", "--out", out) == 0
    assert (out / "a_dseg.nii.gz").stat().st_mtime_ns == kept and (out / "b_dseg.nii.gz").is_file()
    assert len(rows(out / "volumes.csv")) == 2
    tables = [(out / name).read_bytes() for name in ("volumes.csv", "qc.csv")]
    for name in ("volumes.csv", "qc.csv"):  # as after a kill between the last scan and its row
        (out / name).write_text("".join((out / name).read_text().splitlines(True)[:-1]))
    assert run(tmp_path / "scans", "--out", out) == 0
    assert [(out / name).read_bytes() for name in ("volumes.csv", "qc.csv")] == tables
    capfd.readouterr()
    assert run(tmp_path / "scans", "--out", out, "--tta", 2) == 1
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "--overwrite" in said[0] and (out / "a_dseg.nii.gz").stat().st_mtime_ns == kept
    before = (out / "a_dseg.nii.gz").read_bytes()
    assert run(tmp_path / "scans", "--out", out, "--tta", 2, "--overwrite") == 0
    assert (out / "a_dseg.nii.gz").stat().st_mtime_ns > kept
    assert (out / "a_dseg.nii.gz").read_bytes()[400:] != b"" and len(before) > 0


def test_the_same_scan_gives_the_same_bytes(threshold: list[dict], tmp_path: Path) -> None:
    write_scan(tmp_path / "a.nii.gz", "a")
    for out in ("one", "two"):
        assert run(tmp_path / "a.nii.gz", "--out", tmp_path / out) == 0
    assert (tmp_path / "one/a_dseg.nii.gz").read_bytes() == (tmp_path / "two/a_dseg.nii.gz").read_bytes()


def test_a_scan_that_fails_does_not_stop_the_others(
    threshold: list[dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "scans/a.nii.gz", "a")
    (tmp_path / "scans/broken.nii.gz").write_bytes(b"no image\n")
    out = tmp_path / "out"
    assert run(tmp_path / "scans", "--out", out) == 1
    said = capfd.readouterr().err.strip().splitlines()
    assert "error: expected 2 scans" in said[-1] and "1 that failed, the first broken" in said[-1]
    assert (out / "a_dseg.nii.gz").is_file() and len(rows(out / "volumes.csv")) == 1
    assert list(json.loads((out / "run.json").read_text(encoding="utf-8"))["failed"]) == ["broken"]


def test_a_full_disk_ends_it_at_the_first_scan(
    threshold: list[dict], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scan can be written then; each would cost its minutes first."""
    for name in "ab":
        write_scan(tmp_path / f"scans/{name}.nii.gz", name)

    tried: list[str] = []

    def full(out: Path, case: Case, *_: object, **__: object) -> None:
        tried.append(case.name)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("radiata_medical.experiment.segmenting_outputs.write_segmented", full)
    assert run(tmp_path / "scans", "--out", tmp_path / "out") == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "error: no space left on the disk" in line and tried == ["a"]


@pytest.mark.parametrize("content", [b"", b"no image\n"])
def test_a_single_scan_that_fails_leaves_nothing(
    threshold: list[dict], tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.nii.gz").write_bytes(content)
    assert run(tmp_path / "x.nii.gz", "--out", tmp_path / "out") == 1
    assert len(capfd.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
    assert run(tmp_path / "absent", "--out", tmp_path / "out") == 1 and not (tmp_path / "out").exists()


def test_a_label_map_is_no_scan(
    threshold: list[dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    codes, _ = write_scan(tmp_path / "a.nii.gz", "a")
    nib.save(nib.Nifti1Image(codes.astype(np.uint8), affine_of("a")), tmp_path / "labels.nii.gz")
    assert run(tmp_path / "labels.nii.gz", "--out", tmp_path / "out") == 1
    assert "label map" in capfd.readouterr().err


def test_a_bids_tree_gives_derivatives(threshold: list[dict], tmp_path: Path) -> None:
    place = "sub-01/ses-2/anat"
    write_scan(tmp_path / "bids" / place / "sub-01_ses-2_T1w.nii.gz", "a")
    write_scan(tmp_path / "bids" / place / "sub-01_ses-2_FLAIR.nii.gz", "a", shift=1.0)
    out = tmp_path / "out"
    assert run(tmp_path / "bids", "--out", out) == 0
    names = sorted(path.name for path in (out / place).glob("*.nii.gz"))
    assert names == ["sub-01_ses-2_desc-FLAIR_dseg.nii.gz", "sub-01_ses-2_desc-T1w_dseg.nii.gz"]
    assert (
        json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))["DatasetType"]
        == "derivative"
    )
    assert {row["case"] for row in rows(out / "volumes.csv")} == {
        f"{place}/sub-01_ses-2_FLAIR", f"{place}/sub-01_ses-2_T1w"
    }  # fmt: skip


def tiny_network(path: Path, classes: int = 35, seed: int = 0, **metadata: object) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmenterNetwork(classes, channels=(4, 8))
    save_model(path, network, metadata=metadata)
    return path


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Label maps and tables, byte for byte; a scan that cannot be used is named, and the others are done."""
    for name in SHAPES:
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", name)
    (tmp_path / "scans" / "c.nii.gz").write_bytes(b"no scan")
    model = tiny_network(tmp_path / "one.safetensors")
    call = (tmp_path / "scans", "--window", 64, "--model", model)
    assert run(*call, "--out", tmp_path / "one") == 1
    assert run(*call, "--out", tmp_path / "two", "--processes", 2) == 1
    said = capfd.readouterr().err
    assert said.count("c failed: ") == 2 and "Traceback" not in said
    for name in ("a_dseg.nii.gz", "b_dseg.nii.gz", "a_dseg.tsv", "volumes.csv", "qc.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert run(*call, "--out", tmp_path / "two", "--processes", 0) == 1
    assert "expected at least 1 process" in capfd.readouterr().err


def test_networks_from_files_are_an_ensemble_and_have_the_structures(tmp_path: Path) -> None:
    write_scan(tmp_path / "a.nii.gz", "a")
    one = tiny_network(tmp_path / "one.safetensors")
    two = tiny_network(tmp_path / "two.safetensors", seed=1)
    call = (tmp_path / "a.nii.gz", "--window", 64, "--model")
    assert run(*call, one, two, "--out", tmp_path / "both") == 0
    card = json.loads((tmp_path / "both/a_dseg.json").read_text(encoding="utf-8"))
    assert len(card["Models"]) == 2 and card["Evaluations"] % 2 == 0
    assert set(card["VolumesMl"]) == set(structures().labelling.names[1:])
    columns = rows(tmp_path / "both/volumes.csv")[0]
    assert (
        next(iter(columns)) == "case"
        and list(columns)[-1] == "total intracranial (ml)"
        and len(columns) == 36
    )


def test_models_of_another_kind_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "a.nii.gz", "a")
    network = tiny_network(tmp_path / "one.safetensors")
    other = tiny_network(tmp_path / "two.safetensors", classes=5)
    for words, message in (
        (("--method", "features", "--model", network), "expected a model for --method features"),
        (("--method", "diffusion", "--model", network, network), "expected one model"),
        (("--model", network, other), "networks of the same classes"),
        (("--model", other), "no table of them"),
        (("--model", tmp_path / "absent"), "expected a model's name"),
        (("--model", network, "--tta", 9), "1 to 6 passes"),
        (("--model", network, "--batch-size", 0), "at least 1"),
        (("--model", network, "--min-quality", 2), "min-quality in"),
    ):
        assert run(tmp_path / "a.nii.gz", "--out", tmp_path / "out", *words) == 1
        said = capfd.readouterr().err.strip().splitlines()
        assert len(said) == 1 and message in said[0], said
        assert not (tmp_path / "out").exists()


def test_a_single_slice_is_no_volume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "a.nii.gz", "a")
    whole = nib.load(tmp_path / "a.nii.gz")
    nib.save(whole.slicer[:, :, 18:19], tmp_path / "slice.nii.gz")
    network = tiny_network(tmp_path / "one.safetensors")
    assert run(tmp_path / "slice.nii.gz", "--out", tmp_path / "out", "--model", network) == 1
    assert "expected a volume for --method network; got one slice" in capfd.readouterr().err


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained prior with random features."""
    made = build_prior(2, channels=(8, 12), seed=1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_model(path, made, metadata={"dims": 2})
    return path


def labelled(folder: Path, name: str, shift: float = 0.0) -> np.ndarray:
    codes, _ = write_scan(folder / "images" / f"{name}.nii.gz", name, shift)
    (folder / "labels").mkdir(exist_ok=True)
    nib.save(
        nib.Nifti1Image((5 * codes).astype(np.uint8), affine_of(name)),
        folder / "labels" / f"{name}_dseg.nii.gz",
    )
    return 5 * codes


@pytest.mark.slow
def test_a_head_from_labelled_scans_segments_another_scan(prior: Path, tmp_path: Path) -> None:
    labelled(tmp_path, "a")
    labelled(tmp_path, "b")
    head = train_head(
        tmp_path / "images", tmp_path / "labels", tmp_path / "head.safetensors",
        prior=str(prior), slices=3, minutes=None, steps=40, members=2, hidden=12,
    )  # fmt: skip
    truth, _ = write_scan(tmp_path / "c.nii.gz", "a", shift=2.0)
    call = ("--method", "features", "--model", head, "--entropy")
    assert run(tmp_path / "c.nii.gz", "--out", tmp_path / "out", *call) == 0
    found = read_volume(tmp_path / "out/c_dseg.nii.gz").array
    assert set(np.unique(found).tolist()) <= {0.0, 5.0, 10.0}
    for code in (1, 2):
        overlap = (
            2
            * ((found == 5 * code) & (truth == code)).sum()
            / ((found == 5 * code).sum() + (truth == code).sum())
        )
        assert overlap > 0.75, (code, overlap)
    assert read_volume(tmp_path / "out/c_disagreement.nii.gz").array.max() <= np.log(2) + 1e-3
    card = json.loads((tmp_path / "out/c_dseg.json").read_text(encoding="utf-8"))
    assert {model["Name"] for model in card["Models"]} == {str(head), str(prior)}


def test_a_head_wants_its_own_prior(prior: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labelled(tmp_path, "a")
    head = train_head(
        tmp_path / "images/a.nii.gz", tmp_path / "labels/a_dseg.nii.gz", tmp_path / "head.safetensors",
        prior=str(prior), slices=1, minutes=None, steps=1, members=1,
    )  # fmt: skip
    other = tmp_path / "other.safetensors"
    save_model(other, build_prior(2, channels=(8, 12), seed=2), metadata={})
    call = ("--method", "features", "--model", head, "--prior", other)
    assert run(tmp_path / "images/a.nii.gz", "--out", tmp_path / "out", *call) == 1
    assert "expected the prior that" in capfd.readouterr().err


def test_slices_for_training_are_checked(tmp_path: Path) -> None:
    labelled(tmp_path, "a")
    labelled(tmp_path, "b")
    images, labels = tmp_path / "images", tmp_path / "labels"
    data = labelled_slices(images, labels, slices=3)
    assert data.images.shape[0] == data.labels.shape[0] == 6 and data.table.labelling.codes == (0, 5, 10)
    assert set(np.unique(data.labels.numpy()).tolist()) == {-1, 0, 1, 2}
    means = [float(data.images[:, 0][data.labels == code].mean()) for code in range(3)]
    np.testing.assert_allclose(means, [0.0, 0.5, 1.0], atol=0.07)  # labels lie on their slices
    with pytest.raises(InputError, match="on one grid"):
        labelled_slices(images / "a.nii.gz", labels / "b_dseg.nii.gz")
    with pytest.raises(InputError, match="as in a label map"):
        labelled_slices(labels / "a_dseg.nii.gz", labels / "a_dseg.nii.gz")
    noisy = np.random.default_rng(1).integers(0, 255, SHAPES["a"]).astype(np.uint8)
    nib.save(nib.Nifti1Image(noisy, affine_of("a")), tmp_path / "image.nii.gz")
    with pytest.raises(InputError, match="expected a label map"):
        labelled_slices(images / "a.nii.gz", tmp_path / "image.nii.gz")
    strange = np.where(read_volume(labels / "a_dseg.nii.gz").array > 0, 999, 0).astype(np.int16)
    nib.save(nib.Nifti1Image(strange, affine_of("a")), tmp_path / "strange.nii.gz")
    with pytest.raises(InputError, match="got 999"):
        labelled_slices(images / "a.nii.gz", tmp_path / "strange.nii.gz", classes="tissues")


def test_sampling_writes_tissues(tmp_path: Path) -> None:
    write_scan(tmp_path / "a.nii.gz", "a")
    joint = tmp_path / "joint.safetensors"
    save_model(joint, build_joint(2, channels=(8, 12)), metadata={})
    call = (
        "--method",
        "diffusion",
        "--model",
        joint,
        "--draws",
        2,
        "--steps",
        2,
        "--entropy",
        "--min-quality",
        0,
    )
    assert run(tmp_path / "a.nii.gz", "--out", tmp_path / "out", *call) == 0
    made = read_volume(tmp_path / "out/a_dseg.nii.gz", allow_constant=True)
    assert made.shape == SHAPES["a"] and made.array.max() <= 8
    assert (tmp_path / "out/a_disagreement.nii.gz").is_file()
    assert list(rows(tmp_path / "out/volumes.csv")[0])[1] == "csf (ml)"


def test_tables_come_back_from_a_card() -> None:
    for table in (structures(), tissues(), of_codes([1, 5, 9]), of_codes([2, 41, 3, 42, 16])):
        again = table_of({"labels": json.loads(json.dumps(table.card()))}, "x")
        assert again == table
    sides = of_codes([2, 41, 3, 42, 16]).labelling
    assert sides.codes == (0, 2, 3, 16, 41, 42) and sides.flipped == (0, 4, 5, 3, 1, 2)
    assert of_codes([2, 3]).labelling.names == ("background", "label 2", "label 3")
    with pytest.raises(InputError, match="table of labels"):
        table_of({}, "x")


def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys\nfrom radiata_core import commands\nfrom radiata_medical.experiment.segment import Segment\n"
        "code = commands.main('radiata-medical', 's', {'segment': Segment}, ['segment', '--help'])\n"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'monai', 'nibabel', 'scipy')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
