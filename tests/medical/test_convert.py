"""`convert` from a NIfTI that this program wrote, and the series its scan came from, to DICOM beside that scan."""

import json

import numpy as np
import pytest
import xarray as xr
from pydicom import dcmread

from radiata_core.runs import sole_writer
from radiata_imaging.dicom import read_dicom_series
from radiata_imaging.dicom_images import write_dicom_series
from radiata_imaging.dicom_origin import Origin
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.cli import run
from radiata_medical.data.label_reading import label_names
from radiata_medical.experiment.outputs import Facts, write_image, write_labels

FACTS = Facts("radiata-medical restore", "restored", {"head.nii.gz": "ab"})
SHAPE = (12, 10, 6)


@pytest.fixture
def scanned(tmp_path):
    """The folder of a series, and the scan as it was read and turned before it was segmented."""
    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    scan = Volume(voxels, centred_affine(SHAPE, (1.0, 1.0, 2.0), "LPS"))
    folder = write_dicom_series(
        scan, tmp_path / "scan", Origin("scanner", "x", "0" * 64, "scan", synthetic=False)
    )
    return folder, reorient(read_dicom_series(folder).volume, "RAS")


@pytest.fixture
def labelled(tmp_path, scanned):
    codes = np.zeros(SHAPE, np.int16)
    codes[2:5, 3:6, 1:4], codes[7, 7, 4] = 17, 53
    return write_labels(tmp_path / "head_dseg.nii.gz", codes, scanned[1], FACTS)


def test_a_label_map_becomes_a_segmentation_of_the_series(tmp_path, scanned, labelled, capsys):
    highdicom = pytest.importorskip("highdicom", reason="pip install 'radiata-imaging[dicom]'")
    out = tmp_path / "seg.dcm"
    assert run(["convert", str(labelled), "--reference", str(scanned[0]), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    item = highdicom.seg.segread(out)
    names = [item.get_segment_description(n).segment_label for n in item.segment_numbers]
    assert names == ["left hippocampus", "right hippocampus"]
    volume = item.get_volume(combine_segments=True).array
    assert [(volume == n).sum() for n in (1, 2)] == [27, 1]
    card = json.loads((tmp_path / "seg.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-medical" and card["Sources"][0]["Name"] == labelled.name


def test_an_image_becomes_a_series_that_says_whether_it_is_synthetic(tmp_path, scanned):
    folder, scan = scanned
    image = write_image(tmp_path / "head_restored.nii.gz", scan.array, scan, FACTS)
    out = tmp_path / "restored"
    call = ["convert", str(image), "--to", "dicom-series", "--out", str(out)]
    assert run([*call, "--reference", str(folder)]) == 0
    series = read_dicom_series(out)
    np.testing.assert_array_equal(series.volume.array, read_dicom_series(folder).volume.array)
    assert series.slices[0].SyntheticData == "YES"
    assert series.slices[0].StudyInstanceUID == dcmread(folder / "0001.dcm").StudyInstanceUID
    assert run([*call, "--overwrite"]) == 0  # of no patient
    assert read_dicom_series(out).slices[0].PatientName == "SYNTHETIC^RADIATA"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "expected --reference FOLDER"),
        (["--reference", "absent"], "expected a folder with a DICOM series; got absent"),
        (["--to", "dicom-series"], "which exists"),
        (["--to", "dicom-series", "--overwrite"], "expected a series that convert wrote"),
    ],
)
def test_what_cannot_be_converted_is_one_line(tmp_path, labelled, capsys, more, said):
    out = tmp_path / ("seg.dcm" if "--to" not in more else "taken")
    if "--to" in more:
        out.mkdir()
        (out / "mine.txt").write_text("keep me")
    assert run(["convert", str(labelled), "--out", str(out), *more]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists() or (out / "mine.txt").read_text() == "keep me"


def test_two_processes_do_not_make_one_output(tmp_path, scanned, labelled, capsys):
    out = tmp_path / "images"
    with sole_writer(out):
        assert run(["convert", str(labelled), "--to", "dicom-series", "--out", str(out)]) == 1
    assert "in use by process" in capsys.readouterr().err and not out.exists()


def test_names_of_labels_come_from_the_table_beside_them(tmp_path):
    assert label_names(tmp_path / "none.tsv")[17][0] == "left hippocampus"
    table = tmp_path / "dseg.tsv"
    table.write_text("index\tname\tcolor\n0\tbackground\t#000000\n4\tmy lesion\t#ff8000\n")
    assert label_names(table)[4] == ("my lesion", (255, 128, 0))


def test_maps_and_draws_of_a_scan_become_one_data_set(tmp_path, scanned):
    """What lies on another grid, or belongs to another scan, stays out."""
    _, scan = scanned
    for word, more in (("restored", 0), ("sd", 1), ("draw-2", 3), ("draw-10", 4), ("draw-1", 2)):
        write_image(tmp_path / f"head_{word}.nii.gz", scan.array + more, scan, FACTS)
    other = Volume(scan.array[:6], scan.affine)
    write_image(tmp_path / "head_residual.nii.gz", other.array, other, FACTS)
    write_image(tmp_path / "head_2_sd.nii.gz", scan.array, scan, FACTS)
    out = tmp_path / "head.nc"
    assert run(["convert", str(tmp_path / "head_restored.nii.gz"), "--to", "netcdf", "--out", str(out)]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert set(found.data_vars) == {"restored", "sd", "draws"}
        shift = (found["draws"] - found["restored"]).mean(("x", "y", "z")).values
        np.testing.assert_allclose(shift, [2, 3, 4], atol=1e-3)
        assert found.attrs["title"] == "restored of head_restored.nii.gz" and len(found.attrs["sha256"]) == 64


def test_a_series_becomes_nifti_in_the_same_place(tmp_path, scanned):
    folder, scan = scanned
    out = tmp_path / "scan.nii.gz"
    assert run(["convert", str(folder), "--to", "nifti", "--out", str(out)]) == 0
    back = reorient(read_volume(out), "RAS")
    np.testing.assert_allclose(back.array, scan.array, atol=1e-3)
    np.testing.assert_allclose(back.affine, scan.affine, atol=1e-4)
    assert json.loads((tmp_path / "scan.json").read_text())["GeneratedBy"][0]["Name"] == "radiata-medical"
