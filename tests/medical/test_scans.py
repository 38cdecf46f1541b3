"""Scans are found with their places, and what is no scan is refused in one line."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.scans import Case, find_cases, output_path, read_mask, read_scan, same_grid

SHAPE = (12, 14, 10)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, centred_affine(array.shape[:3]) if affine is None else affine)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def image(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return rng.uniform(0, 100, shape).astype(np.float32)


def refused(call: object, *words: str) -> None:
    with pytest.raises(InputError) as error:
        call()  # type: ignore[operator]
    text = str(error.value)
    assert "\n" not in text and text.startswith("expected") and "got" in text
    assert all(word in text for word in words), text


def test_a_folder_a_file_and_a_bids_tree_give_their_cases(tmp_path: Path, rng: np.random.Generator) -> None:
    """All weighted contrasts of a tree count; derivatives and label maps beside them do not."""
    plain, tree = tmp_path / "plain", tmp_path / "tree"
    for name in ("b.nii.gz", "deep/a.nii", ".hidden/c.nii"):
        save(plain / name, image(rng))
    for name in (
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1/anat/sub-1_FLAIR.nii.gz",
        "sub-1/anat/sub-1_dseg.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_T2w.nii",
        "derivatives/x/sub-1/anat/sub-1_T1w.nii.gz",
    ):
        save(tree / name, image(rng))
    assert [(c.name, str(c.relative), c.bids) for c in find_cases(plain)] == [
        ("b", ".", False),
        ("a", "deep", False),
    ]
    assert [(c.name, str(c.relative), c.bids) for c in find_cases(tree)] == [
        ("sub-1_FLAIR", "sub-1/anat", True),
        ("sub-1_T1w", "sub-1/anat", True),
        ("sub-2_ses-a_T2w", "sub-2/ses-a/anat", True),
    ]
    assert [(c.name, str(c.relative)) for c in find_cases(plain / "b.nii.gz")] == [("b", ".")]


def test_results_keep_the_place_and_take_the_words_of_bids() -> None:
    plain = Case("head", Path("x/deep/head.nii.gz"), Path("deep"))
    tree = Case("sub-1_FLAIR", Path("x/sub-1/anat/sub-1_FLAIR.nii.gz"), Path("sub-1/anat"), True)
    assert output_path("out", plain, "restored") == Path("out/deep/head_restored.nii.gz")
    assert output_path("out", tree, "restored") == Path("out/sub-1/anat/sub-1_desc-restored_FLAIR.nii.gz")
    assert output_path("out", tree, "dseg", ".tsv") == Path("out/sub-1/anat/sub-1_desc-FLAIR_dseg.tsv")


def test_nothing_to_find_and_names_that_would_collide_are_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    refused(lambda: find_cases(tmp_path / "absent"), "nothing at")
    refused(lambda: find_cases(tmp_path), "got none")
    (tmp_path / "a.csv").write_text("path\n")
    refused(lambda: find_cases(tmp_path / "a.csv"), "a.csv")
    save(tmp_path / "h.nii", image(rng))
    save(tmp_path / "h.nii.gz", image(rng))
    refused(lambda: find_cases(tmp_path), "2 called h")
    for name in ("sub-1_T1w", "sub-1_desc-preproc_T1w"):
        save(tmp_path / "bids/sub-1/anat" / f"{name}.nii.gz", image(rng))
    refused(lambda: find_cases(tmp_path / "bids"), "sub-1_T1w and sub-1_desc-preproc_T1w")


def test_an_8_bit_scan_is_read_and_a_label_map_is_not(tmp_path: Path, rng: np.random.Generator) -> None:
    """Even 12 grey levels are an image, and a map of 60 labels is none, be it stored as float."""
    place = np.indices((24, 24, 24)).sum(0)
    grey = np.clip(place / 6 + rng.normal(0, 1.2, place.shape), 0, 11).astype(np.uint8)
    assert read_scan(save(tmp_path / "grey.nii.gz", grey)).array.max() == grey.max()
    blocks = np.kron(rng.permutation(64).reshape(4, 4, 4), np.ones((6, 6, 6))).astype(np.float32)
    refused(lambda: read_scan(save(tmp_path / "labels.nii.gz", blocks)), "label map", "labels.nii.gz")
    assert read_scan(save(tmp_path / "phantom.nii.gz", blocks + 0.25)).shape == (24, 24, 24)


@pytest.mark.needs_shared
def test_real_label_maps_are_refused_and_real_heads_read(shared_data: Path) -> None:
    refused(lambda: read_scan(shared_data / "labels" / "training_seg_05.nii.gz"), "label map")
    assert read_scan(shared_data / "t1" / "colin27_ch2.nii.gz").shape == (181, 217, 181)


def test_what_is_no_scan_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    refused(lambda: read_scan(save(tmp_path / "zero.nii", np.zeros(SHAPE, np.float32))), "constant 0")
    refused(lambda: read_scan(save(tmp_path / "series.nii", image(rng, (*SHAPE, 3)))), "one 3-D volume")
    hole = image(rng)
    hole[3, 3, 3] = np.nan
    refused(lambda: read_scan(save(tmp_path / "nan.nii", hole)), "1 NaN")
    whole = save(tmp_path / "cut.nii", image(rng))
    whole.write_bytes(whole.read_bytes()[:-100])
    refused(lambda: read_scan(whole), "truncated")
    bare = nib.Nifti1Image(image(rng), None)
    nib.save(bare, tmp_path / "bare.nii")
    refused(lambda: read_scan(tmp_path / "bare.nii"), "--assume-axcodes")
    assert read_scan(tmp_path / "bare.nii", assume_axcodes="RAS").axcodes == "RAS"


def test_a_negative_spacing_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "minus.nii", image(rng))
    data = bytearray(path.read_bytes())
    data[80:84] = np.float32(-1.5).tobytes()  # pixdim[1]
    path.write_bytes(bytes(data))
    refused(lambda: read_scan(path), "spacings > 0", "-1.5")


def test_a_single_slice_is_read_with_one_voxel_across(tmp_path: Path, rng: np.random.Generator) -> None:
    assert read_scan(save(tmp_path / "slice.nii", image(rng, (12, 14, 1)))).shape == (12, 14, 1)
    flat = nib.Nifti1Image(image(rng, (12, 14)), np.eye(4))
    flat.set_sform(np.eye(4), 1)
    nib.save(flat, tmp_path / "flat.nii")
    assert read_scan(tmp_path / "flat.nii").shape == (12, 14, 1)
    refused(lambda: read_scan(save(tmp_path / "line.nii", image(rng, (12, 1, 1)))), "two axes")


def test_grids_are_compared_by_places(rng: np.random.Generator) -> None:
    """A shift of a hundredth of a voxel is another grid; of a millionth, rounding of a header."""
    first = Volume(image(rng), centred_affine(SHAPE))
    moved = first.affine.copy()
    moved[0, 3] += 1e-6
    same_grid(first, Volume(first.array, moved))
    moved[0, 3] += 1e-2
    refused(lambda: same_grid(first, Volume(first.array, moved)), "mm apart")
    refused(lambda: same_grid(first, Volume(first.array[:-1], first.affine)), "11×14×10")


def test_masks_are_binary_and_within_the_scan(tmp_path: Path, rng: np.random.Generator) -> None:
    scan = Volume(image(rng), centred_affine(SHAPE))
    marked = np.zeros(SHAPE, np.uint8)
    marked[3:6, 4:7, 2:4] = 7
    good = save(tmp_path / "good.nii.gz", marked, scan.affine)
    np.testing.assert_array_equal(read_mask(good, scan), marked > 0)
    far = scan.affine.copy()
    far[:3, 3] += 500
    refused(lambda: read_mask(save(tmp_path / "far.nii", marked, far), scan), "outside")
    near = scan.affine.copy()
    near[:3, 3] += 1
    refused(lambda: read_mask(save(tmp_path / "near.nii", marked, near), scan), "one grid")
    refused(lambda: read_mask(save(tmp_path / "none.nii", 0 * marked, scan.affine), scan), "empty")
    many = marked.copy()
    many[0, 0, 0] = 3
    refused(lambda: read_mask(save(tmp_path / "many.nii", many, scan.affine), scan), "3 values")
