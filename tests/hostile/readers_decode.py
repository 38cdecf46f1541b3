"""Readers of `radiata_decode`: responses, subject folders, stimuli, surfaces, series, designs, pictures."""

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from reader import Reader
from scipy.io import savemat

from radiata_decode.data.arrays import open_rows, read_arrays, read_rows, read_trials
from radiata_decode.data.cifti_movies import cortex, cortex_series
from radiata_decode.data.decoded import Decoded, read_decoded, write_decoded
from radiata_decode.data.haxby import read_category_runs
from radiata_decode.data.image_features import read_features
from radiata_decode.data.nsd_design import read_design
from radiata_decode.data.regions import read_ctab
from radiata_decode.data.resized_pictures import named_pictures, picture_files
from radiata_decode.data.stimuli import read_stimuli, write_stimuli
from radiata_decode.data.subject import read_subject
from radiata_decode.data.subject_writer import write_subject
from radiata_decode.data.surface_files import surface_series, volume_interval
from radiata_decode.data.tables import read_table
from radiata_decode.data.volumes import hdf5_length, hdf5_series, masked_series, read_mask
from radiata_decode.model.efficientnet_lite import efficientnet_lite0

__all__ = ["READERS"]

AFFINE = np.diag([2.0, 2, 2, 1])


def _values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _trials(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"stimulus": [f"s{n % 4}" for n in range(count)], "session": 1, "run": 1 + np.arange(count) // 4,
         "split": ["test" if n % 4 == 3 else "train" for n in range(count)]}
    )  # fmt: skip


def _rows(name: str) -> Any:
    def read(folder: Path) -> None:
        key, (count, _) = open_rows(folder / name)
        read_rows(folder / name, key, 0, min(count, 4))

    return read


def _hdf5(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["responses"] = _values(6, 5)


def _series(folder: Path) -> None:
    image = nib.Nifti1Image(_values(3, 4, 5, 6), AFFINE)
    image.header.set_zooms((2, 2, 2, 1.5))
    nib.save(image, folder / "bold.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), AFFINE), folder / "mask.nii.gz")
    lines = [
        f"{label} {run}"
        for label, run in (("face", 0), ("house", 0), ("face", 0), ("face", 1), ("rest", 1), ("house", 1))
    ]
    (folder / "attributes.txt").write_text("\n".join(lines) + "\n")


def _plain_series(folder: Path) -> None:
    nib.save(nib.Nifti1Image(_values(3, 4, 5, 6), AFFINE), folder / "bold.nii")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), AFFINE), folder / "mask.nii")


def _gifti(encoding: str) -> Any:
    def make(folder: Path) -> None:
        arrays = [
            nib.gifti.GiftiDataArray(_values(8), "NIFTI_INTENT_TIME_SERIES", encoding=encoding)
            for _ in range(3)
        ]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / "lh.func.gii")

    return make


def _read_gifti(folder: Path) -> None:
    surface_series(folder / "lh.func.gii")
    volume_interval(folder / "lh.func.gii")


def _cifti(folder: Path) -> None:
    left = nib.cifti2.BrainModelAxis.from_surface(np.arange(5), 10, "CortexLeft")
    right = nib.cifti2.BrainModelAxis.from_surface(np.arange(4), 10, "CortexRight")
    image = nib.Cifti2Image(_values(6, 9), header=(nib.cifti2.SeriesAxis(0, 2.0, 6), left + right))
    nib.save(image, folder / "a.dtseries.nii")


def _read_cifti(folder: Path) -> None:
    rows, _ = cortex(folder / "a.dtseries.nii")
    cortex_series(folder / "a.dtseries.nii").read(slice(0, 3), rows)


def _betas(folder: Path) -> None:
    with h5py.File(folder / "b.hdf5", "w") as file:
        file["betas"] = np.ones((6, 5, 4, 3), np.int16)


def _read_betas(folder: Path) -> None:
    hdf5_length(folder / "b.hdf5", "betas")
    hdf5_series(folder / "b.hdf5", "betas", np.ones((3, 4, 5), bool))


def _subject(folder: Path) -> None:
    write_subject(
        folder / "s",
        _values(8, 5),
        _trials(8),
        pd.DataFrame({"x": np.arange(5.0), "roi_V1": [1, 1, 0, 0, 0]}),
    )


def _read_subject(folder: Path) -> None:
    subject = read_subject(folder / "s")
    subject.responses(slice(0, 4))
    assert subject.rois is not None


def _stimuli(folder: Path) -> None:
    (folder / "s").mkdir()
    table = pd.DataFrame({"stimulus": ["a", "b", "c"], "category": ["x", "y", "x"]})
    write_stimuli(folder / "s", table, images=np.zeros((3, 4, 4, 3), np.uint8))


def _read_stimuli(folder: Path) -> None:
    found = read_stimuli(folder / "s")
    found.images(list(found.table["stimulus"])[:2])


def _decoded(folder: Path) -> None:
    arrays = {"images": np.zeros((2, 4, 4, 3), np.uint8), "probabilities": np.ones((2, 2), np.float32)}
    write_decoded(folder / "decoded.h5", Decoded(["a", "b"], arrays, "image", "test", ("cat", "house")))


def _features(folder: Path) -> None:
    with h5py.File(folder / "f.h5", "w") as file:
        file["features"] = _values(3, 4)


def _arrays(folder: Path) -> None:
    np.save(folder / "r.npy", _values(8, 5))
    _trials(8).to_csv(folder / "t.csv", index=False)
    pd.DataFrame({"x": np.arange(5)}).to_csv(folder / "v.tsv", index=False, sep="\t")


def _read_arrays(folder: Path) -> None:
    reading = read_arrays(folder / "r.npy", folder / "t.csv", voxels=folder / "v.tsv")
    for part in reading.parts:
        part.read()


def _design(folder: Path) -> None:
    place = folder / "nsddata" / "ppdata" / "subj01" / "behav"
    place.mkdir(parents=True)
    rows = [
        "SESSION\tRUN\tTRIAL\t73KID\t10KID",
        "1\t1\t1\t46003\t626",
        "1\t1\t2\t61883\t5013",
        "1\t1\t3\t829\t4850",
    ]
    (place / "responses.tsv").write_text("\n".join(rows) + "\n")


def _picture(folder: Path) -> None:
    import cv2

    (folder / "p").mkdir()
    cv2.imwrite(str(folder / "p" / "a.png"), np.full((8, 8, 3), 90, np.uint8))


def _read_picture(folder: Path) -> None:
    named_pictures(picture_files(folder / "p"), 8, ["a"]).images[0:1]


READERS = (
    Reader(
        "trials, csv",
        lambda f: _trials(6).to_csv(f / "t.csv", index=False),
        lambda f: read_trials(f / "t.csv"),
        (("t.csv", "csv"),),
    ),
    Reader(
        "table, tsv",
        lambda f: _trials(6).to_csv(f / "t.tsv", index=False, sep="\t"),
        lambda f: read_table(f / "t.tsv", ("stimulus",)),
        (("t.tsv", "tsv"),),
    ),
    Reader(
        "responses, npy", lambda f: np.save(f / "a.npy", _values(6, 5)), _rows("a.npy"), (("a.npy", "npy"),)
    ),
    Reader(
        "responses, npz",
        lambda f: np.savez(f / "a.npz", a=_values(6, 5)),
        _rows("a.npz"),
        (("a.npz", "zip"),),
    ),
    Reader("responses, hdf5", _hdf5, _rows("a.h5"), (("a.h5", "hdf5"),)),
    Reader(
        "responses, mat",
        lambda f: savemat(f / "a.mat", {"a": _values(6, 5)}, do_compression=True),
        _rows("a.mat"),
        (("a.mat", "binary"),),
    ),
    Reader(
        "responses, csv",
        lambda f: np.savetxt(f / "a.csv", _values(6, 5), delimiter=","),
        _rows("a.csv"),
        (("a.csv", "csv"),),
    ),
    Reader(
        "arrays and tables", _arrays, _read_arrays, (("r.npy", "npy"), ("t.csv", "csv"), ("v.tsv", "tsv"))
    ),
    Reader(
        "subject",
        _subject,
        _read_subject,
        (
            ("s/manifest.json", "json"),
            ("s/responses.h5", "hdf5"),
            ("s/trials.tsv", "tsv"),
            ("s/voxels.tsv", "tsv"),
        ),
    ),
    Reader("stimuli", _stimuli, _read_stimuli, (("s/stimuli.h5", "hdf5"), ("s/stimuli.tsv", "tsv"))),
    Reader("decoded", _decoded, lambda f: read_decoded(f / "decoded.h5"), (("decoded.h5", "hdf5"),)),
    Reader("gifti", _gifti("GIFTI_ENCODING_B64GZ"), _read_gifti, (("lh.func.gii", "xml"),)),
    Reader("gifti, text", _gifti("GIFTI_ENCODING_ASCII"), _read_gifti, (("lh.func.gii", "xml"),)),
    Reader(
        "surface, mgh",
        lambda f: nib.save(nib.MGHImage(_values(8, 1, 1, 3), np.eye(4)), f / "lh.mgh"),
        lambda f: surface_series(f / "lh.mgh"),
        (("lh.mgh", "mgh"),),
    ),
    Reader("cifti", _cifti, _read_cifti, (("a.dtseries.nii", "nifti"),)),
    Reader(
        "series",
        _plain_series,
        lambda f: masked_series(f / "bold.nii", read_mask(f / "mask.nii")[0]),
        (("bold.nii", "nifti"), ("mask.nii", "nifti")),
    ),
    Reader(
        "category runs",
        _series,
        read_category_runs,
        (("bold.nii.gz", "nifti-gz"), ("attributes.txt", "text"), ("mask.nii.gz", "nifti-gz")),
    ),
    Reader("series, hdf5", _betas, _read_betas, (("b.hdf5", "hdf5"),)),
    Reader(
        "colour table",
        lambda f: (f / "a.ctab").write_text("# x\n0 Unknown 0 0 0 0\n1 V1v 10 20 30 0\n2 V1d 1 2 3 0\n"),
        lambda f: read_ctab(f / "a.ctab"),
        (("a.ctab", "text"),),
    ),
    Reader("features, hdf5", _features, lambda f: read_features(f / "f.h5", 3), (("f.h5", "hdf5"),)),
    Reader(
        "features, npy",
        lambda f: np.save(f / "f.npy", _values(3, 4)),
        lambda f: read_features(f / "f.npy", 3),
        (("f.npy", "npy"),),
    ),
    Reader(
        "design",
        _design,
        lambda f: read_design(f, 1),
        (("nsddata/ppdata/subj01/behav/responses.tsv", "tsv"),),
    ),
    Reader("pictures", _picture, _read_picture, (("p/a.png", "png"),)),
    Reader(
        "weights, pth",
        lambda f: torch.save({"a": torch.ones(3)}, f / "a.pth"),
        lambda f: _refusing(f / "a.pth"),
        (("a.pth", "torch"),),
    ),
)


def _refusing(path: Path) -> None:
    """Weights of another network are refused as well: a valid seed of 13 MB would take too long to mutate."""
    from radiata_core.errors import InputError

    try:
        efficientnet_lite0(path)
    except InputError as error:
        if "of another network" not in str(error):
            raise
