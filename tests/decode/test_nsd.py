"""A small NSD on the disk: volumes in NIfTI and in HDF5 give one subject, the design from table and .mat one split."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from radiata_core.errors import InputError
from radiata_decode.data.nsd import read_nsd
from radiata_decode.data.nsd_design import TRIALS, picture_name, picture_row, read_design

GRID = (4, 5, 3)
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])


def save(volume: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), path)


@pytest.fixture
def nsd(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """Root, mask, betas (session, x, y, z, trial) int16, and masterordering of two sessions; session 2 in both forms."""
    inside = rng.random(GRID) < 0.5
    save(
        np.where(inside, 1, np.where(rng.random(GRID) < 0.5, -1, 0)).astype(np.int16),
        tmp_path / ROI / "nsdgeneral.nii.gz",
    )
    save(rng.integers(-1, 8, GRID).astype(np.int16), tmp_path / ROI / "prf-visualrois.nii.gz")
    save(rng.integers(-1, 6, GRID).astype(np.int16), tmp_path / ROI / "floc-faces.nii.gz")
    save(rng.gamma(3, 0.2, GRID).astype(np.float32), tmp_path / BETAS / "ncsnr.nii.gz")
    betas = rng.integers(-2000, 2000, (2, *GRID, TRIALS)).astype(np.int16)
    save(betas[0], tmp_path / BETAS / "betas_session01.nii.gz")
    save(betas[1], tmp_path / BETAS / "betas_session02.nii.gz")
    order = rng.integers(1, 10001, 2 * TRIALS)
    pictures = np.stack([rng.permutation(73000)[:10000] + 1 for _ in range(8)])
    runs = np.tile(np.repeat(np.arange(1, 13), np.resize([63, 62], 12)), 2)
    table = pd.DataFrame(
        {
            "SUBJECT": 1, "SESSION": np.repeat([1, 2], TRIALS), "RUN": runs,
            "TRIAL": np.concatenate([np.arange(1, (runs[:TRIALS] == r).sum() + 1) for r in range(1, 13)] * 2),
            "73KID": pictures[0, order - 1], "10KID": order,
        }
    )  # fmt: skip
    behaviour = tmp_path / "nsddata/ppdata/subj01/behav"
    behaviour.mkdir(parents=True)
    table.to_csv(behaviour / "responses.tsv", sep="\t", index=False)
    experiments = tmp_path / "nsddata/experiments/nsd"
    experiments.mkdir(parents=True)
    savemat(
        experiments / "nsd_expdesign.mat",
        {"masterordering": order[None].astype(float), "subjectim": pictures.astype(float)},
    )
    return tmp_path, inside, betas, order


def to_hdf5(root: Path, betas: np.ndarray, session: int) -> None:
    """The same session as MATLAB writes it; the NIfTI file goes."""
    (root / BETAS / f"betas_session{session:02d}.nii.gz").unlink()
    with h5py.File(root / BETAS / f"betas_session{session:02d}.hdf5", "w") as file:
        file.create_dataset("betas", data=betas[session - 1].transpose(3, 2, 1, 0))


def test_both_forms_of_a_session_are_one_subject_in_percent(nsd) -> None:
    root, inside, betas, _ = nsd
    first = read_nsd(root, subject=1)
    truth = [betas[s][inside].T / np.float32(300) for s in (0, 1)]
    for part, values in zip(first.parts, truth, strict=True):
        np.testing.assert_allclose(part.read(), values, rtol=1e-6)
    to_hdf5(root, betas, 2)
    second = read_nsd(root, subject=1)
    assert second.parts[1].files[0].suffix == ".hdf5"
    np.testing.assert_allclose(second.parts[1].read(), truth[1], rtol=1e-6)
    pd.testing.assert_frame_equal(second.voxels, first.voxels)


def test_regions_and_ceilings_are_of_the_masked_voxels(nsd) -> None:
    root, inside, _, _ = nsd
    table = read_nsd(root, subject=1).voxels
    labels = nibabel.load(root / ROI / "prf-visualrois.nii.gz").get_fdata()[inside]
    faces = nibabel.load(root / ROI / "floc-faces.nii.gz").get_fdata()[inside]
    assert (table["roi_V1"].to_numpy() == np.isin(labels, (1, 2))).all()
    assert (table["roi_V4"].to_numpy() == (labels == 7)).all()
    assert (table["roi_OFA"].to_numpy() == (faces == 1)).all()
    np.testing.assert_allclose(
        table["ncsnr"], nibabel.load(root / BETAS / "ncsnr.nii.gz").get_fdata()[inside]
    )
    np.testing.assert_allclose(table[["x", "y", "z"]], 1.8 * np.argwhere(inside), atol=1e-4)


def test_table_and_mat_say_the_same(nsd) -> None:
    """Also runs; shared pictures (10KID <= 1000) are the test, and the manifest says how many were seen."""
    root, _, _, order = nsd
    table, source = read_design(root, 1)
    assert source.name == "responses.tsv"
    source.unlink()
    matlab, source = read_design(root, 1)
    assert source.name == "nsd_expdesign.mat"
    pd.testing.assert_frame_equal(table, matlab)
    assert ((matlab["split"] == "test").to_numpy() == (order <= 1000)).all()
    seen = len(set(order[:TRIALS][order[:TRIALS] <= 1000].tolist()))
    assert f"{seen} of 1000" in read_nsd(root, subject=1, sessions=[1]).about["test_rule"]
    assert picture_row(picture_name(72999)) == 72999 and picture_name(0) == "nsd-00000"


def test_pictures_are_linked_or_made_smaller(nsd, rng: np.random.Generator) -> None:
    from radiata_decode.data.stimuli import LinkedRows

    root = nsd[0]
    names = ["nsd-00003", "nsd-00001", "nsd-00003"]
    assert read_nsd(root, subject=1).stimuli(names) is None  # the file is not there
    pictures = np.repeat(np.repeat(rng.integers(0, 255, (5, 8, 8, 3)), 4, 1), 4, 2).astype(np.uint8)
    (root / "nsddata_stimuli/stimuli/nsd").mkdir(parents=True)
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = pictures
    linked = read_nsd(root, subject=1).stimuli(names).images
    assert isinstance(linked, LinkedRows) and linked.rows.tolist() == [3, 1, 3]
    small = read_nsd(root, subject=1, image_size=8).stimuli(names).images
    np.testing.assert_array_equal(small[0:3], pictures[[3, 1, 3], ::4, ::4])


def test_surfaces_of_fsaverage(nsd, rng: np.random.Generator) -> None:
    root = nsd[0]
    folder = root / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
    labels = root / "nsddata/freesurfer/fsaverage/label"
    folder.mkdir(parents=True)
    labels.mkdir(parents=True)
    sides = {
        side: rng.normal(size=(n, 1, 1, TRIALS)).astype(np.float32) for side, n in (("lh", 7), ("rh", 6))
    }
    numbers = {
        side: rng.integers(0, 3, (len(values), 1, 1)).astype(np.int32) for side, values in sides.items()
    }
    for side, values in sides.items():
        nibabel.save(nibabel.MGHImage(values, np.eye(4)), folder / f"{side}.betas_session01.mgh")
        nibabel.save(nibabel.MGHImage(numbers[side], np.eye(4)), labels / f"{side}.prf-visualrois.mgz")
    found = read_nsd(root, subject=1, space="fsaverage", mask="prf-visualrois", ncsnr=False)
    kept = {side: values.reshape(-1) > 0 for side, values in numbers.items()}
    np.testing.assert_array_equal(
        found.parts[0].read(), np.concatenate([sides[s].reshape(-1, TRIALS)[kept[s]] for s in sides]).T
    )
    assert found.voxels["hemisphere"].tolist() == ["left"] * kept["lh"].sum() + ["right"] * kept["rh"].sum()
    assert found.voxels["vertex"].tolist() == [*np.flatnonzero(kept["lh"]), *np.flatnonzero(kept["rh"])]
    assert (
        found.voxels["roi_V1d"].to_numpy()
        == np.concatenate([numbers[s].reshape(-1)[kept[s]] == 2 for s in sides])
    ).all()


def test_what_is_missing_is_said_with_how_to_get_it(nsd) -> None:
    root, _, betas, _ = nsd
    (root / BETAS / "ncsnr.nii.gz").unlink()
    with pytest.raises(
        InputError, match=r"(?s)ncsnr.nii.gz; got no such file.*aws s3 cp .*ncsnr.nii.gz.*--without-ncsnr"
    ):
        read_nsd(root, subject=1)
    assert "ncsnr" not in read_nsd(root, subject=1, ncsnr=False).voxels
    with pytest.raises(InputError, match=r"session 9 .* got none"):
        read_nsd(root, subject=1, sessions=[9], ncsnr=False)
    with pytest.raises(
        InputError, match=r"mask .*nothere.nii.gz; got no such file.*s3://natural-scenes-dataset"
    ):
        read_nsd(root, subject=1, mask="nothere", ncsnr=False)
    with pytest.raises(InputError, match=r"subject 1 to 8"):
        read_nsd(root, subject=9)
    save(np.ones((4, 5, 2), np.int16), root / ROI / "floc-faces.nii.gz")
    with pytest.raises(InputError, match=r"regions on the grid of the mask, 4×5×3; got 4×5×2"):
        read_nsd(root, subject=1, ncsnr=False)
    save(betas[0][..., :700], root / BETAS / "betas_session01.nii.gz")
    with pytest.raises(InputError, match=r"expected 700 trials of session 1 in the design.* got 750"):
        read_nsd(root, subject=1, rois=("none",), ncsnr=False)
    (root / "nsddata/ppdata/subj01/behav/responses.tsv").unlink()
    (root / "nsddata/experiments/nsd/nsd_expdesign.mat").write_bytes(b"not a mat file")
    with pytest.raises(InputError, match=r"masterordering and subjectim"):
        read_nsd(root, subject=1)
    (root / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink()
    with pytest.raises(InputError, match=r"got neither. Fetch one: aws s3 cp"):
        read_nsd(root, subject=1)
