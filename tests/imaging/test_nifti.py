"""Files: what is read is what is there, what is written is read back to the bit, what is broken is refused in one line."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import Intensity, read_volume, sidecar_path, write_volume
from radiata_imaging.volume import Volume, centred_affine

SHAPE = (6, 7, 8)
AFFINE = centred_affine(SHAPE, (1.0, 1.5, 2.0), "LPS")


def ramp() -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE)


def saved(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE, **header: object) -> Path:
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh"])
def test_every_format_gives_the_same_volume(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    kind = nib.MGHImage if suffix.startswith(".mg") else nib.Nifti1Image
    data = kind(ramp().astype(np.float32), AFFINE).to_bytes()
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, ramp())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64, ">i2"])
def test_every_type_of_voxel_is_read(tmp_path: Path, dtype: object) -> None:
    array = (ramp() % 200).astype(dtype)
    np.testing.assert_array_equal(read_volume(saved(tmp_path / "a.nii.gz", array)).array, array)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp().astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.5, -3)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    stored = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj.get_unscaled())
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").array, 0.5 * stored - 3)


def test_trailing_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    assert read_volume(saved(tmp_path / "a.nii", ramp()[..., None].astype(np.int16))).shape == SHAPE


def test_metres_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp().astype(np.int16), np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, AFFINE, rtol=1e-5, atol=1e-5)


def test_a_header_without_orientation_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", ramp().astype(np.int16), None, pixdim=[1, 1, 1.5, 2, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"without sform and qform .* --assume-axcodes RAS"):
        read_volume(path)
    np.testing.assert_allclose(read_volume(path, assume_axcodes="LPS").affine, AFFINE)
    data = bytearray(nib.MGHImage(ramp().astype(np.float32), AFFINE).to_bytes())
    data[28:30] = b"\0\0"  # goodRASFlag
    (tmp_path / "a.mgz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(InputError, match="assume-axcodes"):
        read_volume(tmp_path / "a.mgz")


def broken(folder: Path, kind: str) -> Path:
    """One file of each kind of bad input."""
    array = ramp().astype(np.float32)
    path = folder / ("head.nii" if kind.startswith("nii ") else "head.nii.gz")
    if kind in ("nan", "inf"):
        array[1, 2, 3] = float(kind)
    match kind:
        case "absent":
            return path
        case "0-byte":
            path.write_bytes(b"")
        case "text named gz":
            path.write_text("subject,age\n01,30\n")
        case "nii text":
            path.write_text("subject,age\n01,30\n" * 40)
        case "truncated gz" | "nii truncated":
            noise = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
            saved(path, noise)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "header cut":
            saved(path, array)
            path.write_bytes(path.read_bytes()[:40])
        case "4-D":
            saved(path, np.stack([array, array], -1))
        case "2-D":
            saved(path, array[:, :, :1])
        case "int64 overflow":
            saved(path, ramp().astype(np.int64) + 2**60)
        case "float64 overflow":
            saved(path, ramp() * 1e300)
        case "complex":
            saved(path, array.astype(np.complex64))
        case "constant":
            saved(path, np.full(SHAPE, 7, np.int16))
        case "singular":
            saved(path, array)
            image = nib.load(path)
            image = nib.Nifti1Image(array, AFFINE, image.header)
            image.header["srow_x"] = image.header["srow_y"]
            path = folder / "head.nii"
            data = bytearray(image.to_bytes())
            data[280:296] = data[296:312]  # srow_x becomes srow_y
            path.write_bytes(bytes(data))
        case "nii absurd":
            image = nib.Nifti1Image(array, AFFINE)
            data = bytearray(image.to_bytes())
            data[42:48] = np.array([30000, 30000, 30000], np.int16).tobytes()
            path.write_bytes(bytes(data))
        case "nii negative":
            data = bytearray(nib.Nifti1Image(array, AFFINE).to_bytes())
            data[42:48] = np.array([-5, 7, 8], np.int16).tobytes()
            path.write_bytes(bytes(data))
        case "other suffix":
            path = folder / "head.png"
            path.write_bytes(b"\x89PNG")
        case _:
            saved(path, array)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "no such file"),
        ("0-byte", "empty .0-byte. file"),
        ("text named gz", "expected gzip data"),
        ("nii text", "readable volume"),
        ("truncated gz", "truncated or damaged"),
        ("nii truncated", "truncated"),
        ("header cut", "truncated or damaged"),
        ("4-D", "one 3-D volume; got 6×7×8×2"),
        ("2-D", "4 or more voxels"),
        ("nan", "got 1 NaN and 0 infinite"),
        ("inf", "got 0 NaN and 1 infinite"),
        ("int64 overflow", "exact in float32"),
        ("float64 overflow", "overflowing"),
        ("complex", "grey levels"),
        ("constant", "got the constant 7"),
        ("singular", "singular"),
        ("nii absurd", "voxels"),
        ("nii negative", "expected"),
        ("other suffix", "expected one of"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    """Expected, got, what to do, and which file; never a traceback of a library."""
    path = broken(tmp_path, kind)
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("expected")
    assert "got" in text
    assert path.name in text


def test_an_empty_mask_can_be_read_when_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8))
    assert read_volume(path, allow_constant=True).array.max() == 0


@pytest.mark.parametrize(("dtype", "step"), [("int16", 1 / 32), ("uint16", 1 / 64), ("float32", 1e-4)])
def test_the_fixed_scale_comes_back(
    tmp_path: Path, rng: np.random.Generator, dtype: str, step: float
) -> None:
    """-1 is 0 and 1 is 1000 in every file; the error is half a step; what was read is written again to the same bytes."""
    values = rng.uniform(-1, 1, SHAPE).astype(np.float32)
    values[0, 0, :2] = -1, 1
    path = write_volume(
        tmp_path / "a.nii.gz", Volume(values, AFFINE), dtype=dtype, intensity=Intensity(), sidecar={}
    )
    read = read_volume(path)
    assert read.array[0, 0, 0] == 0
    assert read.array[0, 0, 1] == 1000
    assert np.abs(read.array - Intensity().to_file(values)).max() <= step / 2
    again = Volume(Intensity().from_file(read.array), read.affine)
    write_volume(tmp_path / "b.nii.gz", again, dtype=dtype, intensity=Intensity())
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").array, read.array)
    if dtype != "float32":
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_header_says_where_and_what(tmp_path: Path) -> None:
    volume = Volume(ramp() / 200 - 0.5, AFFINE)
    path = write_volume(
        tmp_path / "sub" / "a.nii.gz",
        volume,
        description="synthetic, radiata-t1, seed 7",
        sidecar={"SyntheticImage": True, "Seed": 7},
        intensity=Intensity(),
    )
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_sform(), AFFINE)
    np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"
    assert bytes(header["descrip"]).rstrip(b"\0") == b"synthetic, radiata-t1, seed 7"
    sidecar = json.loads(sidecar_path(path).read_text())
    assert sidecar["Seed"] == 7
    assert sidecar["IntensityMap"]["StoredSlope"] == 1 / 32
    assert sidecar["IntensityMap"]["ClippedFraction"] == pytest.approx((volume.array > 1).mean())
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.json", "a.nii.gz"]


def test_whole_numbers_are_kept_and_others_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "labels.nii.gz", Volume(ramp(), AFFINE), dtype="int16")
    np.testing.assert_array_equal(read_volume(tmp_path / "labels.nii.gz").array, ramp())
    for array, dtype in ((ramp() + 0.5, "int16"), (ramp() - 1, "uint16"), (ramp() * 1000, "int16")):
        with pytest.raises(InputError, match="whole numbers"):
            write_volume(tmp_path / "b.nii.gz", Volume(array, AFFINE), dtype=dtype)
    with pytest.raises(InputError, match="dtype"):
        write_volume(tmp_path / "b.nii.gz", Volume(ramp(), AFFINE), dtype="int8")
    with pytest.raises(InputError, match=r"\.nii"):
        write_volume(tmp_path / "b.mgz", Volume(ramp(), AFFINE))
    with pytest.raises(InputError, match="79 bytes"):
        write_volume(tmp_path / "b.nii", Volume(ramp(), AFFINE), description="x" * 80)
    assert not list(tmp_path.glob("b*"))


def test_a_single_slice_is_read_where_one_voxel_is_enough(tmp_path: Path) -> None:
    """Stored with three axes or with two; heads go on needing four voxels an axis."""
    flat = np.arange(42, dtype=np.float32).reshape(6, 7)
    for name, array in (("thin.nii", flat[..., None]), ("flat.nii", flat)):
        path = saved(tmp_path / name, array)
        np.testing.assert_array_equal(read_volume(path, min_axis=1).array, flat[..., None])
        with pytest.raises(InputError, match="expected"):
            read_volume(path)
