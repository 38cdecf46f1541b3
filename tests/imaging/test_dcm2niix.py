"""dcm2niix puts the same series in the same places as our reader, within its bounds, and only when it is asked."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging import dcm2niix
from radiata_imaging.dcm2niix import READER, read_with_dcm2niix
from radiata_imaging.dicom import read_dicom_folder
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient

needed = pytest.mark.skipif(
    not dcm2niix.is_installed(), reason="needs dcm2niix: pip install 'radiata-imaging[dicom]'"
)


@needed
def test_both_readers_agree_on_values_and_places(mr_series, monkeypatch):
    folder = mr_series()
    ours = reorient(read_dicom_folder(folder), "RAS")
    converted = read_with_dcm2niix(folder)
    theirs = reorient(converted.volume, "RAS")
    np.testing.assert_allclose(theirs.array, ours.array)
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)
    assert converted.sidecar["EchoTime"] == pytest.approx(0.0029) and converted.sidecar["FlipAngle"] == 9
    assert not {"PatientName", "PatientID", "PatientBirthDate"} & set(converted.sidecar)
    monkeypatch.setenv(READER, "dcm2niix")
    assert read_volume(folder).axcodes == converted.volume.axcodes != read_dicom_folder(folder).axcodes
    assert sorted(path.suffix for path in folder.iterdir()) == [".dcm"] * 6


@needed
def test_what_it_cannot_read_is_one_line(tmp_path, mr_series):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("no slice")
    with pytest.raises(
        InputError, match=r"expected a series that dcm2niix can convert; got none from .*text"
    ):
        read_with_dcm2niix(tmp_path / "text")
    both = mr_series()
    mr_series("series/deeper", SeriesInstanceUID="1.2.9", SeriesNumber=4)
    for path in (both / "deeper").iterdir():
        path.rename(both / f"other-{path.name}")
    with pytest.raises(InputError, match=r"expected one volume in .*; got 2 from dcm2niix"):
        read_with_dcm2niix(both)


def program(folder: Path, body: str) -> str:
    """A program in its place."""
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path, mr_series, monkeypatch):
    mark = tmp_path / "child"
    body = (
        f"pid = os.fork()\nif not pid:\n    open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    monkeypatch.setattr(dcm2niix, "_found", lambda: program(tmp_path, body))
    began = time.monotonic()
    with pytest.raises(InputError, match="expected dcm2niix to end within 3 s"):
        read_with_dcm2niix(mr_series(), seconds=3.0)
    assert time.monotonic() - began < 60
    if mark.exists():
        wait_for_end(Path("/proc") / mark.read_text() / "stat")


def wait_for_end(stat: Path, seconds: float = 30.0) -> None:
    """Until a process that was killed is gone, or a zombie that nobody has asked for yet: on a busy machine not at once."""
    end = time.monotonic() + seconds
    while True:
        try:
            state = stat.read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        assert time.monotonic() < end, f"still there, in state {state}"
        time.sleep(0.05)


@pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="limits of a child need Linux"
)
def test_it_gets_no_shell_no_environment_and_a_limit_of_memory(tmp_path, mr_series, monkeypatch):
    """A folder whose name a shell would run; the child tells what it was given."""
    told = tmp_path / "told.txt"
    body = (
        "import resource\nfor _ in range(100):\n    time.sleep(0.05)\n"
        "    limit = resource.getrlimit(resource.RLIMIT_AS)[0]\n    if limit > 0: break\n"
        f"open({str(told)!r}, 'w').write(repr((limit, sys.argv[-1], sorted(os.environ))))"
    )
    monkeypatch.setattr(dcm2niix, "_found", lambda: program(tmp_path, body))
    monkeypatch.setenv("RADIATA_MAX_BYTES", str(2**31))
    monkeypatch.setenv("SECRET", "1")
    folder = mr_series("$(touch owned); x")
    with pytest.raises(InputError, match="got none from"):
        read_with_dcm2niix(folder)
    limit, last, environment = eval(told.read_text())
    assert limit == 2**31 and last == str(folder.resolve())
    assert "SECRET" not in environment and "PATH" in environment
    monkeypatch.setenv("RADIATA_MAX_BYTES", "1000")
    with pytest.raises(InputError, match="expected at most 1,000 bytes of files"):
        read_with_dcm2niix(folder)


def test_without_it_and_with_a_wrong_word_there_is_one_line(mr_series, monkeypatch):
    monkeypatch.setattr(dcm2niix, "_found", lambda: None)
    with pytest.raises(InputError, match=r"expected dcm2niix; got none\. pip install"):
        read_with_dcm2niix(mr_series())
    monkeypatch.setenv(READER, "dicom2nifti")
    with pytest.raises(InputError, match="expected RADIATA_DICOM_READER=own or dcm2niix; got 'dicom2nifti'"):
        read_volume(mr_series())
