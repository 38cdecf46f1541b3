"""`translate` from files to files: on the scan's own grid, whichever way its axes run; resumable; refusing in one line."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume, write_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume
from radiata_medical.experiment.translate import Translate
from radiata_medical.model.prior import build_prior

from .small_head import small_scan

AFFINE = np.array([[-1.0, 0.1, 0, 20], [-0.1, -1.0, 0, 30], [0, 0, 1.2, -20], [0, 0, 0, 1]])


def write_head(folder: Path, axcodes: str = "LPS", contrast: str = "t1") -> tuple[Path, Path]:
    image, labels = small_scan(contrast)
    folder.mkdir(parents=True, exist_ok=True)
    places = folder / "head.nii.gz", folder / "labels.nii.gz"
    for path, array in zip(places, (700 * image, labels), strict=True):
        write_volume(path, reorient(Volume(array, AFFINE), axcodes), dtype="float32")
    return places


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, build_prior(2, channels=(8, 16)), metadata={"dims": 2})
    return str(path)


def command(out: Path, scan: Path, labels: Path, **options) -> Translate:
    return Translate(scan, out, labels=labels, **({"to": "t2"} | options))


def test_t1_becomes_t2_on_its_own_grid(tmp_path: Path) -> None:
    """Curve and painting give the T2 of the same head up to a scale, and the affine is the scan's."""
    scan, labels = write_head(tmp_path / "in")
    truth = small_scan("t2")[0]
    for method in ("curve", "paint"):
        command(tmp_path / method, scan, labels, method=method).run()
        found = read_volume(tmp_path / method / "head_translated.nii.gz")
        np.testing.assert_array_equal(found.affine, read_volume(scan).affine)
        inside = np.isin(read_volume(labels).array, [2, 3, 41, 42, 4, 43, 10, 49])
        fit = np.polyfit(found.array[inside], truth[inside], 1)
        error = truth[inside] - np.polyval(fit, found.array[inside])
        assert fit[0] > 0
        assert error.std() < 0.6 * truth[inside].std()


def test_the_prior_refines_alike_for_any_axes_and_batch(tmp_path: Path, prior: str) -> None:
    """The same head stored RAS gives the same head, voxel by voxel; slices do not depend on how many are taken at once."""
    found = {}
    for codes, batch in (("LPS", 8), ("RAS", 3)):
        scan, labels = write_head(tmp_path / codes, codes)
        out = tmp_path / f"out-{codes}"
        command(out, scan, labels, model=prior, batch_size=batch, steps=2, draws=2).run()
        found[codes] = read_volume(out / "head_translated.nii.gz")
        np.testing.assert_allclose(found[codes].affine, read_volume(scan).affine, atol=1e-5)
    turned = reorient(found["RAS"], "LPS").array
    np.testing.assert_allclose(turned, found["LPS"].array, rtol=1e-4, atol=1e-2)
    command(
        tmp_path / "plain", tmp_path / "LPS/head.nii.gz", tmp_path / "LPS/labels.nii.gz", method="curve"
    ).run()
    plain = read_volume(tmp_path / "plain" / "head_translated.nii.gz").array
    assert np.abs(plain - found["LPS"].array).max() > 1


def test_card_says_synthetic_and_finished_scans_are_kept(tmp_path: Path) -> None:
    scan, labels = write_head(tmp_path / "in")
    verb = command(tmp_path / "out", scan, labels, method="curve")
    verb.run()
    path = tmp_path / "out" / "head_translated.nii.gz"
    card = json.loads((tmp_path / "out" / "head_translated.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-medical"
    assert card["GeneratedPixels"] is True
    assert card["Options"]["to"] == "t2"
    assert card["MeansWanted"]["csf"] > card["MeansWanted"]["white matter"]
    assert b"not for clinical use" in bytes(nib.load(path).header["descrip"])
    first = path.stat().st_mtime_ns
    verb.run()
    assert path.stat().st_mtime_ns == first
    with pytest.raises(InputError, match="exists"):
        dataclasses.replace(verb, to="flair").run()
    dataclasses.replace(verb, to="flair", overwrite=True).run()
    assert path.stat().st_mtime_ns != first


def test_like_a_reference_has_its_tissue_means(tmp_path: Path) -> None:
    scan, labels = write_head(tmp_path / "in")
    reference, its_labels = write_head(tmp_path / "reference", contrast="flair")
    options = {"to": None, "like": reference, "like_labels": its_labels}
    command(tmp_path / "out", scan, labels, method="curve", detail=1.0, **options).run()
    found, wanted = (read_volume(p).array for p in (tmp_path / "out/head_translated.nii.gz", reference))
    tissue = read_volume(labels).array
    for code in (2, 3, 10):  # ventricles of a few voxels are mostly border
        inside = tissue == code
        assert np.median(found[inside]) == pytest.approx(np.median(wanted[inside]), rel=0.12, abs=15)
    command(tmp_path / "matched", scan, labels, method="histogram", **options).run()
    matched = read_volume(tmp_path / "matched/head_translated.nii.gz").array
    assert np.quantile(matched[tissue > 0], 0.9) == pytest.approx(
        np.quantile(wanted[tissue > 0], 0.9), rel=0.05
    )


def test_one_bad_scan_of_a_folder_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scan, labels = write_head(tmp_path / "in")
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.nii.gz").write_bytes(scan.read_bytes())
    (folder / "b.nii.gz").write_bytes(scan.read_bytes()[:2000])
    known = tmp_path / "labels"
    known.mkdir()
    for name in ("a", "b"):
        (known / f"{name}_dseg.nii.gz").write_bytes(labels.read_bytes())
    with pytest.raises(InputError, match=r"got 1 that cannot.* the first, .*b\.nii\.gz: .*truncated"):
        command(tmp_path / "out", folder, known, method="curve").run()
    assert (tmp_path / "out" / "a_translated.nii.gz").is_file()
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert len(failures) == 1
    assert failures[0]["scan"].endswith("b.nii.gz")
    assert "truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": None}, "one of --to and --like; got none"),
        ({"method": "histogram"}, "--like REFERENCE"),
        ({"level": -0.1}, "level >= 0"),
        ({"batch_size": 0}, "--batch-size of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(
    options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        command(tmp_path / "out", tmp_path / "nowhere.nii", tmp_path / "none.nii", **options).run()
    assert not (tmp_path / "out").exists()


def test_labels_of_another_grid_are_refused(tmp_path: Path) -> None:
    scan, labels = write_head(tmp_path / "in")
    moved = read_volume(labels)
    affine = moved.affine.copy()
    affine[0, 3] += 3
    write_volume(tmp_path / "moved.nii.gz", Volume(moved.array, affine), dtype="float32")
    with pytest.raises(InputError, match="on one grid"):
        command(tmp_path / "out", scan, tmp_path / "moved.nii.gz", method="curve").run()
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_volumes_go_through_a_prior_of_volumes(tmp_path: Path) -> None:
    model = tmp_path / "tiny3.safetensors"
    save_model(model, build_prior(3, channels=(8, 16)), metadata={"dims": 3})
    scan, labels = write_head(tmp_path / "in")
    command(tmp_path / "out", scan, labels, model=str(model), dims=3, steps=1, tile=32).run()
    assert np.isfinite(read_volume(tmp_path / "out" / "head_translated.nii.gz").array).all()
