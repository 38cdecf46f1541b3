"""What is written lies where the scan lies, and says what it is."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radiata_core import commands
from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.scans import Case, output_path
from radiata_medical.experiment.outputs import (
    Facts,
    free_path,
    is_finished,
    sources_of,
    write_description,
    write_image,
    write_labels,
)
from radiata_medical.experiment.report import Report
from radiata_medical.experiment.restore import Restore
from radiata_medical.experiment.segment import Segment
from radiata_medical.experiment.segmenting_outputs import probability_path
from radiata_medical.model.prior import build_prior
from radiata_medical.model.segmenter_network import SegmenterNetwork

FACTS = Facts(
    "radiata-medical restore",
    "restored",
    {"head.nii.gz": "ab"},
    {"prior-3d": "cd"},
    {"mode": "mean", "draws": 1},
)


@pytest.fixture
def oblique(rng: np.random.Generator) -> Volume:
    """Turned by 20 degrees, anisotropic, left-handed."""
    c, s = np.cos(0.35), np.sin(0.35)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-c, s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([0.8, 1.1, 3.0])
    affine[:3, 3] = (31.4, -15.9, 26.5)
    return Volume(rng.normal(size=(7, 6, 5)).astype(np.float32), affine)


def test_an_image_lies_on_the_scan_and_says_that_it_is_made_up(tmp_path: Path, oblique: Volume) -> None:
    path = write_image(tmp_path / "r.nii.gz", 2 * oblique.array, oblique, FACTS)
    image = nib.load(path)
    np.testing.assert_allclose(image.affine, oblique.affine, atol=1e-5)
    np.testing.assert_array_equal(image.get_fdata(), 2 * oblique.array)
    said = bytes(image.header["descrip"]).decode()
    assert "synthetic" in said and "not for clinical use" in said
    card = json.loads((tmp_path / "r.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-medical"
    assert card["SourceFiles"] == [{"Name": "head.nii.gz", "SHA256": "ab"}] and card["Sources"] == [
        "head.nii.gz"
    ]
    assert card["Models"] == [{"Name": "prior-3d", "SHA256": "cd"}]
    assert card["Options"] == {"mode": "mean", "draws": 1} and card["NotForClinicalUse"] is True


def test_labels_come_with_their_names_and_colours(tmp_path: Path, oblique: Volume) -> None:
    codes = np.zeros(oblique.shape, np.int16)
    codes[1:3], codes[4] = 41, 9999
    path = write_labels(tmp_path / "s_dseg.nii.gz", codes, oblique, replace(FACTS, generated=False))
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(image.dataobj), codes)
    np.testing.assert_allclose(image.affine, oblique.affine, atol=1e-5)
    assert "synthetic" not in bytes(image.header["descrip"]).decode()
    rows = list(csv.DictReader((tmp_path / "s_dseg.tsv").read_text().splitlines(), delimiter="\t"))
    assert [(row["index"], row["name"]) for row in rows] == [
        ("0", "background"),
        ("41", "right cerebral white matter"),
        ("9999", "label 9999"),
    ]
    assert all(len(row["color"]) == 7 and row["color"][0] == "#" for row in rows)


def test_a_finished_result_is_one_with_the_same_facts(tmp_path: Path, oblique: Volume) -> None:
    path = tmp_path / "r.nii"
    assert not is_finished(path, FACTS)
    write_image(path, oblique.array, oblique, FACTS)
    assert is_finished(path, replace(FACTS, figures={"Seconds": 3.0}))
    assert not is_finished(path, replace(FACTS, options={"mode": "sample", "draws": 1}))
    assert not is_finished(path, replace(FACTS, models={"prior-3d": "ef"}))
    (tmp_path / "r.json").write_text("{")
    assert not is_finished(path, FACTS)


def test_another_shape_and_what_exists_are_refused(tmp_path: Path, oblique: Volume) -> None:
    with pytest.raises(InputError, match="7×6×5"):
        write_image(tmp_path / "r.nii", oblique.array[:-1], oblique, FACTS)
    with pytest.raises(InputError, match="whole numbers"):
        write_labels(tmp_path / "l.nii", oblique.array, oblique, FACTS)
    path = write_image(tmp_path / "r.nii", oblique.array, oblique, FACTS)
    with pytest.raises(InputError, match="--overwrite"):
        free_path(path, False)
    assert free_path(path, True) == path
    for changes, why in (
        ({"sources": {"head.nii.gz": "xy"}}, r"made from another head\.nii\.gz \(SHA-256 ab…, now xy…\)"),
        ({"models": {"prior-3d": "xy"}}, "made from another prior-3d"),
        ({"options": {"mode": "sample"}}, "made with other options"),
    ):
        with pytest.raises(InputError, match=why):
            free_path(path, False, replace(FACTS, **changes))
    path.unlink()  # a process was killed between the card and the image
    assert free_path(path, False, FACTS) == path and not is_finished(path, FACTS)


def test_sources_have_the_checksum_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sources_of(tmp_path / "a")["a"].startswith("ba7816bf")


def test_results_in_a_bids_tree_pass_the_validator(
    tmp_path: Path, oblique: Volume, bids_errors: Callable[[Path], list[str]]
) -> None:
    """Label map with its table, probabilities, images; with a session and without; beside the records of the run."""
    for name in ("sub-01_T1w", "sub-02_ses-1_FLAIR"):
        place = Path(*[part for part in name.split("_") if part[:3] in ("sub", "ses")], "anat")
        case = Case(name, Path("x"), place, bids=True)
        write_labels(output_path(tmp_path, case, "dseg"), 3 * (oblique.array > 0), oblique, FACTS)
        write_image(probability_path(tmp_path, case, "left thalamus"), oblique.array, oblique, FACTS)
        for word in ("restored", "sd", "draw-1", "entropy"):
            write_image(output_path(tmp_path, case, word), oblique.array, oblique, FACTS)
    write_description(tmp_path, "Results")
    for name in ("run.json", "log.jsonl", "failures.json", "volumes.csv", "report.html"):
        (tmp_path / name).write_text("{}")
    assert bids_errors(tmp_path) == []


# The commands, on a BIDS tree ----------------------------------------------------------------------------------------------

SCANS = (
    "sub-01/anat/sub-01_T1w",
    "sub-01/anat/sub-01_acq-fast_run-2_FLAIR",
    "sub-02/ses-1/anat/sub-02_ses-1_T2w",
    "sub-03/anat/sub-03_desc-preproc_T1w",
)
BALL = (20, 24, 18)
VERBS = {"segment": Segment, "restore": Restore, "report": Report}


def run(*words: object) -> int:
    return commands.main("radiata-medical", "", VERBS, [str(word) for word in words])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy balls of three people: two contrasts, a session, entities, and one that is a derivative itself."""
    folder = tmp_path_factory.mktemp("bids")
    index = np.stack(np.meshgrid(*map(np.arange, BALL), indexing="ij"), -1)
    away = np.linalg.norm(index - (np.array(BALL) - 1) / 2, axis=-1)
    noise = np.random.default_rng(0).normal(0, 9, BALL)
    head = 400.0 * (away < 9) + 300.0 * (away < 5) + index[..., 0] + noise
    for name in SCANS:
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(head.astype(np.float32), centred_affine(BALL, 2.0, "LPS")), path)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained segmenter of all structures, and an untrained prior with a made-up spread."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(folder / "segmenter.safetensors", SegmenterNetwork(35, channels=(4, 8)), metadata={})
    spread = {"kappa": [0.05, 0.2, 1.0], "variance": [5e-4, 3e-3, 2e-2]}
    save_model(folder / "prior.safetensors", build_prior(3, (4, 8)), metadata={"dims": 3, "spread": spread})
    return folder


@pytest.mark.slow
def test_segmentations_of_a_tree_pass_the_validator(
    tree: Path, models: Path, tmp_path: Path, bids_errors: Callable[[Path], list[str]]
) -> None:
    """Label maps with tables, entropy, probabilities, volumes, quality, the page."""
    out, model = tmp_path / "derivatives", models / "segmenter.safetensors"
    words = ("--model", model, "--window", 64, "--entropy", "--posteriors")
    assert run("segment", tree, "--out", out, *words) == 0
    assert run("report", out, "--scans", tree) == 0
    assert len(list(out.rglob("*_dseg.nii.gz"))) == len(SCANS)
    assert bids_errors(out) == []


@pytest.mark.slow
def test_restored_trees_pass_the_validator(
    tree: Path, models: Path, tmp_path: Path, bids_errors: Callable[[Path], list[str]]
) -> None:
    """Images with their spread, draws and residual; a field of brightness; the page."""
    words = ("--model", models / "prior.safetensors", "--evaluations", 2, "--tile", 8, "--halo", 4)
    sampled = ("--noise", 5, "--mode", "sample", "--draws", 2, "--save", "residual", "draws")
    for name, options in (("denoise", sampled), ("bias", ("--save", "field"))):
        out = tmp_path / name
        assert run("restore", tree, "--task", name, "--out", out, *words, *options) == 0
        assert run("report", out, "--scans", tree) == 0
        assert bids_errors(out) == [], name
