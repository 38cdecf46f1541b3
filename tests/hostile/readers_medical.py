"""Readers of `radiata_medical`: scans, masks, label maps, k-space, degradations."""

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from reader import Reader
from readers_imaging import volume_array

from radiata_imaging.volume import Volume
from radiata_medical.data.degradation_chains import read_degradation
from radiata_medical.data.kspace_files import read_kspace
from radiata_medical.data.label_maps import LabelMap, LabelMaps, write_label_maps
from radiata_medical.data.label_reading import codebook, read_labels
from radiata_medical.data.scans import find_cases, read_mask, read_scan

__all__ = ["READERS"]

AFFINE = np.diag([2.0, 2, 2, 1])


def _kspace() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((2, 3, 8, 6)) + 1j * rng.standard_normal((2, 3, 8, 6))).astype(np.complex64)


def _kspace_h5(folder: Path) -> None:
    with h5py.File(folder / "k.h5", "w") as file:
        file["kspace"] = _kspace()
        file["sensitivities"] = _kspace()


def _labels(folder: Path) -> None:
    codes = np.zeros((6, 6, 6), np.int16)
    codes[:3] = 2
    codes[3:5] = 3
    codes[5:] = 4
    nib.save(nib.Nifti1Image(codes, AFFINE), folder / "dseg.nii.gz")


def _store(folder: Path) -> None:
    codes = np.zeros((4, 4, 4), np.int16)
    codes[:2] = 2
    codes[2:3] = 3
    image = np.ones((4, 4, 4), np.float16)
    cases = [LabelMap(f"case-{n}", f"p{n}", "train", codes, np.eye(4), image, "0" * 64) for n in range(2)]
    write_label_maps(folder / "m.h5", cases)


def _read_store(folder: Path) -> None:
    with LabelMaps(folder / "m.h5") as store:
        for name in store.of_split(("train", "validation")):
            store.person(name)
            store.read(name)


def _mask(folder: Path) -> None:
    inside = np.zeros((5, 6, 7), np.uint8)
    inside[2:4, 2:4, 2:4] = 1
    nib.save(nib.Nifti1Image(inside, AFFINE), folder / "mask.nii")


def _read_mask(folder: Path) -> Any:
    return read_mask(folder / "mask.nii", Volume(volume_array().astype(np.float32), AFFINE))


def _scan(folder: Path) -> None:
    nib.save(nib.Nifti1Image(volume_array((8, 8, 8)).astype(np.int16), AFFINE), folder / "a.nii.gz")


CHAIN = '[[steps]]\ntask = "deblur"\nfwhm = [1.5]\n\n[[steps]]\ntask = "sr"\nmeasured_spacing = [4.0]\naxis = "k"\n'
SINGLE = '{"task": "denoise", "sd": 0.1}'


def _single(folder: Path) -> None:
    from radiata_medical.data.degradation_chains import TASKS

    text = __import__("json").dumps(TASKS["denoise"]().describe(), default=list)
    (folder / "d.json").write_text(text)


READERS = (
    Reader(
        "scan", _scan, lambda f: [read_scan(case.path) for case in find_cases(f)], (("a.nii.gz", "nifti-gz"),)
    ),
    Reader("mask", _mask, _read_mask, (("mask.nii", "nifti"),)),
    Reader("labels", _labels, lambda f: read_labels(f / "dseg.nii.gz"), (("dseg.nii.gz", "nifti-gz"),)),
    Reader(
        "label names",
        lambda f: (f / "dseg.tsv").write_text("index\tname\n0\tbackground\n1\tgrey\n2\twhite\n"),
        lambda f: codebook(f / "dseg.tsv"),
        (("dseg.tsv", "tsv"),),
    ),
    Reader("label maps", _store, _read_store, (("m.h5", "hdf5"),)),
    Reader(
        "k-space, npy",
        lambda f: np.save(f / "k.npy", _kspace()[0]),
        lambda f: read_kspace(f / "k.npy"),
        (("k.npy", "npy"),),
    ),
    Reader("k-space, hdf5", _kspace_h5, lambda f: read_kspace(f / "k.h5"), (("k.h5", "hdf5"),)),
    Reader(
        "degradation, toml",
        lambda f: (f / "d.toml").write_text(CHAIN),
        lambda f: read_degradation(f / "d.toml").describe(),
        (("d.toml", "toml"),),
    ),
    Reader(
        "degradation, json",
        _single,
        lambda f: read_degradation(f / "d.json").describe(),
        (("d.json", "json"),),
    ),
)
