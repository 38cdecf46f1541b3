"""Pages of results: what stands in the folder stands on the page, nothing is fetched, warnings are not lost."""

import re
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.runs import sole_writer
from radiata_imaging.nifti import read_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.experiment.evaluate import Evaluate
from radiata_medical.experiment.outputs import Facts, write_image, write_labels
from radiata_medical.experiment.report import Report
from radiata_medical.experiment.report_labels import colours_of

SHAPE = (18, 20, 14)
SCAN = Volume(np.zeros(SHAPE), centred_affine(SHAPE, (1.0, 1.0, 2.0), "RAS"))


def facts(what: str = "restored", **figures: object) -> Facts:
    return Facts("radiata-medical restore", what, {"a.nii.gz": "0" * 64}, figures=figures)


def restored(folder: Path, names: tuple[str, ...] = ("a", "b")) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        array = rng.uniform(100, 900, SHAPE)
        write_image(folder / "scans" / f"{name}.nii.gz", array, SCAN, facts("scan"))
        told = facts(
            Method="relaxed prox", Evaluations=24, DataConsistency=1.02, Warnings=["voxels of <4> mm"]
        )
        write_image(folder / "out" / f"{name}_restored.nii.gz", array + 5, SCAN, told)
        write_image(folder / "out" / f"{name}_sd.nii.gz", np.full(SHAPE, 7.0), SCAN, facts("sd"))
    return folder


def labels(folder: Path) -> Path:
    codes = np.zeros(SHAPE, np.int16)
    codes[4:8, 4:12, 3:9], codes[9:13, 4:12, 3:9] = 17, 53
    write_labels(folder / "out" / "a_dseg.nii.gz", codes, SCAN, facts("segmented"))
    write_labels(folder / "ref" / "a_dseg.nii.gz", codes, SCAN, facts("segmented"))
    return folder


def test_a_page_of_restored_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both cases with picture and view, the card's figures in a table, its warning escaped, nothing from a network."""
    folder = restored(tmp_path)
    Report(folder / "out", scans=folder / "scans").run()
    page = folder / "out" / "report.html"
    text = page.read_text()
    assert str(page) in capsys.readouterr().out
    assert "not for clinical use" in text.lower()
    assert text.count("<img") == 2 and text.count('class="viewer"') == 2
    assert "misfit / noise" in text and "1.02" in text and "voxels of &lt;4&gt; mm" in text
    assert "given and result on one grey scale" in text
    assert not re.search(r"""(src|href)\s*=\s*["']https?://""", text)
    with pytest.raises(InputError, match="pass --overwrite"):
        Report(folder / "out").run()
    with sole_writer(page), pytest.raises(InputError, match="in use by process"):
        Report(folder / "out", overwrite=True).run()


def test_a_simulation_shows_the_truth(tmp_path: Path) -> None:
    """The scan of a simulation is the truth: measured, truth, restored and its error."""
    folder = restored(tmp_path, ("a",))
    told = facts(Method="unrolled", PSNR=31.2, PSNRMeasured=25.0)
    array = read_volume(folder / "scans" / "a.nii.gz").array
    write_image(folder / "out" / "a_restored.nii.gz", array + 5, SCAN, told)
    write_image(folder / "out" / "a_measured.nii.gz", array * 0.5, SCAN, facts("measured"))
    Report(folder / "out", scans=folder / "scans").run()
    text = (folder / "out" / "report.html").read_text()
    assert "the error is result minus truth" in text and "31.2" in text


def test_without_the_scans_it_says_so(tmp_path: Path) -> None:
    folder = restored(tmp_path)
    Report(folder / "out", out=tmp_path / "page.html", limit=1, viewers=0).run()
    text = (tmp_path / "page.html").read_text()
    assert "give --scans for before and after" in text
    assert text.count("<img") == 1 and 'class="viewer"' not in text
    assert text.count("_restored.nii.gz") >= 2, "the table has all cases"


def test_the_run_says_where_the_scans_were(tmp_path: Path) -> None:
    from radiata_core.runs import Run

    folder = restored(tmp_path)
    with Run(folder / "out", "radiata-medical restore", {"scan": str(folder / "scans")}, resume=True):
        pass
    Report(folder / "out").run()
    text = (folder / "out" / "report.html").read_text()
    assert "given and result on one grey scale" in text and "radiata-medical restore" in text


def test_a_page_of_segmentations(tmp_path: Path) -> None:
    """Colours are those of the table beside the map; volumes are those of the map."""
    folder = labels(restored(tmp_path, ("a",)))
    (folder / "out" / "a_restored.nii.gz").unlink()
    colours = colours_of(folder / "out" / "a_dseg.nii.gz")
    assert colours[17] == ("left hippocampus", (220, 216, 20))
    (folder / "out" / "a_dseg.tsv").write_text("index\tname\tcolor\n17\thorn\t#0102ff\n")
    assert colours_of(folder / "out" / "a_dseg.nii.gz")[17] == ("horn", (1, 2, 255))
    Report(folder / "out", scans=folder / "scans").run()
    text = (folder / "out" / "report.html").read_text()
    ml = (read_volume(folder / "out" / "a_dseg.nii.gz").array == 17).sum() * 2 / 1000
    assert "horn" in text and f"{ml:.4g}" in text and "Labels over a.nii.gz" in text


def test_a_page_of_an_evaluation(tmp_path: Path) -> None:
    folder = labels(tmp_path)
    write_image(folder / "out" / "a_probseg.nii.gz", np.full(SHAPE, 0.8), SCAN, facts("probability"))
    Evaluate(folder / "out", folder / "ref", tmp_path / "e").run()
    Report(tmp_path / "e").run()
    text = (tmp_path / "e" / "report.html").read_text()
    assert "Reliability" in text and "By structure" in text and "95 % interval" in text
    folder = restored(tmp_path / "images")
    Evaluate(folder / "out", folder / "scans", tmp_path / "f", compare=folder / "out").run()
    Report(tmp_path / "f").run()
    text = (tmp_path / "f" / "report.html").read_text()
    assert "psnr" in text and "Against the other method" in text and "coverage90" in text


def test_nothing_to_report_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="got none of them"):
        Report(tmp_path / "empty").run()
    with pytest.raises(InputError, match="expected a folder of results"):
        Report(tmp_path / "absent").run()
