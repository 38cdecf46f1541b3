"""Headers that lie are refused before their voxels are made room for."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.foreign_files import VARIABLE, foreign
from radiata_imaging.declared_images import check_gifti, check_image
from radiata_imaging.headers import inspect_header
from radiata_imaging.nifti import read_volume

AFFINE = np.diag([2.0, 2, 2, 1])


def saved(path: Path, kind: type = nib.Nifti1Image) -> bytes:
    nib.save(kind(np.arange(210, dtype=np.float32).reshape(5, 6, 7), AFFINE), path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_whole_files_pass(tmp_path: Path, kind: type) -> None:
    for name in ("a.nii", "a.nii.gz"):
        saved(tmp_path / name, kind)
        check_image(tmp_path / name)
    saved(tmp_path / "a.mgz", nib.MGHImage)
    check_image(tmp_path / "a.mgz")


def test_extensions_pass(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), AFFINE)
    for words in (b"one", b"x" * 5000):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", words))
    nib.save(image, tmp_path / "a.nii.gz")
    check_image(tmp_path / "a.nii.gz")


CHANGES = {
    "2000³ of a kilobyte": (40, struct.pack("<4h", 3, 2000, 2000, 2000)),  # was: 64 GB asked for
    "negative": (42, struct.pack("<h", -5)),
    "eight axes": (40, struct.pack("<h", 8)),
    "no such type": (70, struct.pack("<h", 3)),
    "voxels at NaN": (108, struct.pack("<f", float("nan"))),
    "voxels at 10⁹": (108, struct.pack("<f", 1e9)),  # was: a compressed file is unpacked up to there
    "voxels at -8": (108, struct.pack("<f", -8)),
    "no header": (0, b"\0\0\0\0"),
    "an extension of 2 GB": (348, b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 6)),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_is_refused(tmp_path: Path, what: str, packed: bool) -> None:
    content = bytearray(saved(tmp_path / "a.nii"))
    if "extension" in what:
        content[352:352] = bytes(32)
        content[108:112] = struct.pack("<f", 384)
    place, value = CHANGES[what]
    content[place : place + len(value)] = value
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    for read in (read_volume, inspect_header):
        with pytest.raises(InputError, match="expected"):
            read(path)


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 KB that hold 32 MB: allowed as long as so much may be declared."""
    content = bytearray(saved(tmp_path / "a.nii")[:352])
    content[40:48] = struct.pack("<4h", 3, 200, 200, 200)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(content) + bytes(200**3 * 4)))
    check_image(tmp_path / "b.nii.gz")
    monkeypatch.setenv(VARIABLE, str(2**24))
    with pytest.raises(InputError, match=f"declares 32,000,000.*{VARIABLE}"):
        read_volume(tmp_path / "b.nii.gz")


def test_mgh_that_lies_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved(tmp_path / "a.mgh", nib.MGHImage))
    content[4:20] = struct.pack(">4i", 30000, 30000, 30000, 30000)
    (tmp_path / "b.mgh").write_bytes(content)
    with pytest.raises(InputError, match="cannot hold"):
        read_volume(tmp_path / "b.mgh")


def gifti(tmp_path: Path, **keywords: str) -> str:
    array = nib.gifti.GiftiDataArray(np.zeros(8, np.float32), "NIFTI_INTENT_TIME_SERIES", **keywords)
    nib.save(nib.gifti.GiftiImage(darrays=[array]), tmp_path / "a.func.gii")
    check_gifti(tmp_path / "a.func.gii")
    return (tmp_path / "a.func.gii").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("GZipBase64Binary", "ExternalFileBinary"),
        ('Dim0="8"', 'Dim0="99999999999999"'),
        ('Dim0="8"', 'Dim0="-8"'),
        ("<GIFTI", '<!DOCTYPE GIFTI [<!ENTITY x SYSTEM "file:///etc/passwd">]><GIFTI'),
        ('Dimensionality="1"', 'Dimensionality="2"'),
    ],
)
def test_gifti_that_lies_or_points_elsewhere_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = gifti(tmp_path, encoding="GIFTI_ENCODING_B64GZ")
    assert old in text
    (tmp_path / "b.func.gii").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match="expected"), foreign("expected values on a surface"):
        check_gifti(tmp_path / "b.func.gii")


def test_quaternions_of_no_rotation_are_a_warning(tmp_path: Path) -> None:
    """The header's table ended in a ValueError where the sform is good."""
    image = nib.Nifti1Image(np.arange(210, dtype=np.float32).reshape(5, 6, 7), AFFINE)
    image.set_qform(AFFINE, code=1)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[256:260] = struct.pack("<f", 3e38)
    (tmp_path / "a.nii").write_bytes(content)
    assert "qform that is no rotation (sform used)" in inspect_header(tmp_path / "a.nii").warnings
