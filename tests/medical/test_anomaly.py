"""`anomaly` from files to files: a lesion is marked where it is, on the scan's grid; healthy scans set the threshold."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume, write_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume
from radiata_medical.data.structures import CODES, STRUCTURES
from radiata_medical.experiment.anomaly import Anomaly
from radiata_medical.model.prior import build_prior

from .small_head import small_scan

AFFINE = np.array([[-1.0, 0.1, 0, 20], [-0.1, -1.0, 0, 30], [0, 0, 1.2, -20], [0, 0, 0, 1]])
LESION = (slice(16, 22), slice(26, 32), slice(8, 13))
"""Where the first index is small: in the right of the head."""


def write_head(folder: Path, name: str, seed: int, lesion: float = 0.0, axcodes: str = "LPS") -> Path:
    image, labels = small_scan("t1", seed)
    image[LESION] += lesion
    for path, array in ((folder / f"{name}.nii.gz", 500 * image), (folder / f"{name}_dseg.nii.gz", labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        place = path if "dseg" not in path.name else folder.with_name(folder.name + "-labels") / path.name
        place.parent.mkdir(exist_ok=True)
        write_volume(place, reorient(Volume(array, AFFINE), axcodes), dtype="float32")
    return folder / f"{name}.nii.gz"


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained: its estimate is c_skip (x + n), a shrunken copy, so a lesion is a larger residual."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, build_prior(2, channels=(8, 16)), metadata={"dims": 2})
    return str(path)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for seed in range(2):
        write_head(folder / "healthy", f"c{seed}", 10 + seed)
    return folder


def command(source: Path, out: Path, cohort: Path, prior: str, **options) -> Anomaly:
    defaults = {
        "healthy": cohort / "healthy", "healthy_labels": cohort / "healthy-labels", "model": prior, "level": 1.0, "draws": 2,
        "features": False, "labels": source.parent.with_name(source.parent.name + "-labels"),
    }  # fmt: skip
    return Anomaly(source, out, **(defaults | options))


def marked(out: Path) -> np.ndarray:
    return read_volume(out / "p_clusters.nii.gz", allow_constant=True).array > 0


def test_a_lesion_is_marked_where_it_is(tmp_path: Path, cohort: Path, prior: str) -> None:
    scan = write_head(tmp_path / "in", "p", 3, lesion=0.6)
    command(scan, tmp_path / "out", cohort, prior).run()
    found = marked(tmp_path / "out")
    truth = np.zeros_like(found)
    truth[LESION] = True
    core = tuple(slice(side.start + 1, side.stop - 1) for side in LESION)
    assert found[core].mean() > 0.8
    assert found[~truth].mean() < 0.02
    for word in ("clusters", "zmap", "anomaly", "pseudohealthy"):
        volume = read_volume(tmp_path / "out" / f"p_{word}.nii.gz")
        np.testing.assert_array_equal(volume.affine, read_volume(scan).affine)
    z = read_volume(tmp_path / "out" / "p_zmap.nii.gz").array
    assert z[truth].mean() > 2
    with (tmp_path / "out" / "p_clusters.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert first["side"] == "right"
    codes = read_volume(tmp_path / "in-labels" / "p_dseg.nii.gz").array[found].astype(int)
    assert first["structure"] == STRUCTURES[CODES.index(int(np.bincount(codes).argmax()))].name
    centre = AFFINE[:3, :3] @ [18.5, 28.5, 10] + AFFINE[:3, 3]
    assert [float(first[f"{a}_mm"]) for a in "xyz"] == pytest.approx(centre.tolist(), abs=2.0)
    assert float(first["size_ml"]) == pytest.approx(0.6 * truth.sum() * 1.2 / 1000, rel=0.5)
    card = json.loads((tmp_path / "out" / "p_clusters.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-medical"
    assert card["ResearchOnly"] is True
    assert "research only" in card["Description"]


def test_healthy_scans_set_the_rate(tmp_path: Path, cohort: Path, prior: str) -> None:
    """Another healthy head: the share of voxels above the threshold is the one asked for, within a factor of two."""
    scan = write_head(tmp_path / "in", "p", 50)
    command(scan, tmp_path / "out", cohort, prior, false_positives=0.01, smallest_ml=0.0, score="z").run()
    brain = np.isin(
        read_volume(tmp_path / "in-labels" / "p_dseg.nii.gz").array, (2, 3, 4, 10, 24, 41, 42, 43, 49)
    )
    assert 0.005 < marked(tmp_path / "out")[brain].mean() < 0.02


def test_the_same_head_on_other_axes_has_the_same_findings(tmp_path: Path, cohort: Path, prior: str) -> None:
    maps = []
    for codes in ("LPS", "RAS"):
        scan = write_head(tmp_path / codes, "p", 3, 0.6, codes)
        command(scan, tmp_path / f"out-{codes}", cohort, prior, batch_size=4 if codes == "RAS" else 8).run()
        maps.append(reorient(read_volume(tmp_path / f"out-{codes}" / "p_zmap.nii.gz"), "LPS").array)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-3)


def test_calibration_is_kept_and_finished_scans_too(tmp_path: Path, cohort: Path, prior: str) -> None:
    scan = write_head(tmp_path / "in", "p", 3, lesion=0.6)
    first = command(scan, tmp_path / "out", cohort, prior)
    first.run()
    path = tmp_path / "out" / "p_clusters.nii.gz"
    stamp = path.stat().st_mtime_ns
    again = dataclasses.replace(
        first, healthy=None, healthy_labels=None, calibration=tmp_path / "out" / "calibration.json"
    )
    again.run()
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match=r"calibration for draws 5; got one for 2"):
        dataclasses.replace(again, draws=5).run()


def test_a_calibration_is_made_once_and_that_of_others_is_not_replaced(
    tmp_path: Path, cohort: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that was stopped goes on without its healthy scans; other healthy scans or maps of them want --overwrite."""
    scan = write_head(tmp_path / "in", "p", 3, lesion=0.6)
    first = command(scan, tmp_path / "out", cohort, prior)
    first.run()
    table = tmp_path / "out" / "calibration.json"
    stamp = table.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(Anomaly, "_evidence", lambda *_: pytest.fail("a healthy scan was searched again"))
        first.run()
    for change in ({"window": 2.0}, {"healthy_labels": tmp_path / "other-labels"}):
        shutil.copytree(cohort / "healthy-labels", tmp_path / "other-labels", dirs_exist_ok=True)
        path = tmp_path / "other-labels" / "c0_dseg.nii.gz"
        labels = read_volume(path)
        write_volume(path, Volume(np.where(labels.array == 4, 2, labels.array), labels.affine), dtype="int16")
        with pytest.raises(
            InputError, match=r"calibration\.json, made from others or with others.*--overwrite"
        ):
            dataclasses.replace(first, **change).run()
    assert table.stat().st_mtime_ns == stamp


def test_a_scan_can_be_its_own_reference(tmp_path: Path, cohort: Path, prior: str) -> None:
    scan = write_head(tmp_path / "in", "p", 3, lesion=0.6)
    command(scan, tmp_path / "out", cohort, prior, healthy=None, features=True).run()
    assert marked(tmp_path / "out")[LESION].mean() > 0.5
    card = json.loads((tmp_path / "out" / "p_clusters.json").read_text())
    assert card["OwnReference"] is True


def test_no_brain_and_bad_options_are_one_line(tmp_path: Path, cohort: Path, prior: str) -> None:
    scan = write_head(tmp_path / "in", "p", 3)
    labels = read_volume(tmp_path / "in-labels" / "p_dseg.nii.gz")
    write_volume(
        tmp_path / "other.nii.gz", Volume(258.0 * (labels.array > 0), labels.affine), dtype="float32"
    )
    with pytest.raises(InputError, match="expected a brain in the scan; got none"):
        command(scan, tmp_path / "out", cohort, prior, healthy=None, labels=tmp_path / "other.nii.gz").run()
    for options, message in (
        ({"calibration": tmp_path / "c.json"}, "got both"),
        ({"false_positives": 0.0}, "--false-positives in"),
        ({"draws": 0}, "--draws and --batch-size >= 1"),
        ({"score": "features"}, "Take --score smooth"),
    ):
        with pytest.raises(InputError, match=message):
            command(scan, tmp_path / "none", cohort, prior, **options).run()
    assert not (tmp_path / "none").exists()
