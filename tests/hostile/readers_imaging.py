"""Readers of `radiata_imaging`: volumes, DICOM, tables, stores, networks of the browser."""

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from reader import Reader

from radiata_core.kernels import GaussianKernel
from radiata_core.paths import LinearPath
from radiata_core.specs import describe
from radiata_imaging.bids import find_scans
from radiata_imaging.headers import inspect_header
from radiata_imaging.manifest import check_entries
from radiata_imaging.meshnet import read_meshnet
from radiata_imaging.nifti import read_volume
from radiata_imaging.pair_store import PairSpec, PairStore, noise_law, write_pairs
from radiata_imaging.preprocess import PreprocessSpec, Record
from radiata_imaging.region_tables import read_regions
from radiata_imaging.store import Item, Store, StoreWriter

__all__ = ["READERS", "volume_array"]

SPEC = PreprocessSpec(spacing=8.0, shape=(6, 7, 5))


def volume_array(shape: tuple[int, ...] = (5, 6, 7), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 900, shape)


def _nifti(name: str, dtype: str = "int16", kind: Any = nib.Nifti1Image) -> Any:
    def make(folder: Path) -> None:
        image = kind(volume_array().astype(dtype), np.diag([2.0, 2, 2, 1]))
        image.set_qform(image.affine, code=1)
        nib.save(image, folder / name)

    return make


def _mgh(name: str) -> Any:
    return lambda folder: nib.save(
        nib.MGHImage(volume_array().astype(np.float32), np.diag([2.0, 2, 2, 1])), folder / name
    )


def _dicom(folder: Path) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    series = generate_uid(entropy_srcs=["hostile"])
    (folder / "series").mkdir()
    for number in range(4):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item: Any = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID, item.Modality = series, "MR"
        item.Rows, item.Columns, item.SamplesPerPixel, item.PhotometricInterpretation = 5, 6, 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
        item.PixelSpacing, item.ImageOrientationPatient = [2.0, 2.0], [1.0, 0, 0, 0, 1, 0]
        item.ImagePositionPatient, item.RescaleSlope, item.RescaleIntercept = [0.0, 0, 2.0 * number], 1, 0
        item.PixelData = volume_array((5, 6), number).astype("<u2").tobytes()
        item.save_as(folder / "series" / f"{number}.dcm", enforce_file_format=True)


def _manifest(name: str) -> Any:
    separator = "\t" if name.endswith("tsv") else ","
    rows = [
        ["path", "subject", "session", "split", "age", "sex", "ml_brain"],
        ["a.nii", "01", "1", "train", "34", "F", "1200"],
        ["b/b.nii", "02", "1", "test", "n/a", "M", "1100.5"],
        ["c.nii.gz", "03", "2", "val", "71", "F", ""],
    ]
    return lambda folder: (folder / name).write_text("\n".join(separator.join(row) for row in rows) + "\n")


def _entries(name: str) -> Any:
    def read(folder: Path) -> None:
        found = find_scans(folder / name)
        check_entries(found.entries)
        for entry in found.entries:
            assert entry.path.is_relative_to(folder) or "/" in (folder / name).read_text("utf-8-sig"), (
                entry.path
            )

    return read


def _bids(folder: Path) -> None:
    for subject in ("01", "02"):
        anat = folder / "tree" / f"sub-{subject}" / "ses-1" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-{subject}_ses-1_T1w.nii").write_bytes(b"\0")
        (folder / "tree" / f"sub-{subject}" / f"sub-{subject}_sessions.tsv").write_text(
            "session_id\tage\nses-1\t30\n"
        )
    (folder / "tree" / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t31\tF\nsub-02\tn/a\tM\n"
    )


def _stats(folder: Path) -> None:
    (folder / "aseg.stats").write_text(
        "# Title\n# ColHeaders Index SegId NVoxels Volume_mm3 StructName\n"
        " 1 4 100 1000.5 Left-Lateral-Ventricle\n 2 10 90 900 Left-Thalamus\n"
    )


def _store(folder: Path) -> None:
    writer = StoreWriter(folder / "heads.h5", SPEC.shape, SPEC, covariates=("age",), regions=("brain",))
    for number, split in enumerate(("train", "train", "test")):
        array = volume_array(SPEC.shape, number).astype(np.float32) / 450 - 1
        writer.append(
            Item(
                array,
                f"{number:02d}",
                split,
                source="a.nii",
                covariates={"age": 30.0},
                volumes={"brain": 9.0},
            )
        )
    writer.finish()


def _read_store(folder: Path) -> None:
    with Store(folder / "heads.h5") as store:
        for split in ("train", None):
            for index in store.indices(split):
                store.array(int(index))
                if store.record(int(index)):
                    Record.from_dict(store.record(int(index)))
        assert store.volumes is None or len(store.volumes)


ITEM = Item(
    volume_array(SPEC.shape).astype(np.float32) / 450 - 1, "01", source="a.nii", covariates={"age": 30.0}
)
PART = f"heads.h5.parts/{hashlib.sha256(StoreWriter.key(ITEM).encode()).hexdigest()[:32]}.part.h5"


def _parts(folder: Path) -> None:
    StoreWriter(folder / "heads.h5", SPEC.shape, SPEC, covariates=("age",)).append(ITEM)


def _read_parts(folder: Path) -> None:
    """An unfinished store is gone on with."""
    writer = StoreWriter(folder / "heads.h5", SPEC.shape, SPEC, covariates=("age",))
    if writer.has(ITEM):
        writer.record(ITEM)
    writer.finish()


def _pairs(folder: Path) -> None:
    spec = PairSpec(
        describe(LinearPath()),
        (3, 4),
        "t",
        "velocity",
        "ddim",
        {"kind": "linear-grid"},
        4,
        1.0,
        noise_law(GaussianKernel()),
        False,
        "float16",
        {"covariates": [2]},
    )
    write_pairs(
        folder / "a.pairs.h5", spec, range(3), volume_array((3, 3, 4)), {"covariates": np.zeros((3, 2))}
    )


def _read_pairs(folder: Path) -> None:
    store = PairStore(folder / "a.pairs.h5")
    try:
        for row in range(min(3, len(store))):
            store.x0(row)
            store.noise(row)
    finally:
        store.close()


def _meshnet(folder: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [
        ("c0/kernel", [3, 3, 3, 1, 2]),
        ("c0/bias", [2]),
        ("c1/kernel", [1, 1, 1, 2, 3]),
        ("c1/bias", [3]),
    ]
    layers: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"name": "input"}, "inbound_nodes": []}
    ]
    for name, size, filters, before in (("c0", 3, 2, "input"), ("c1", 1, 3, "a0")):
        config = {
            "name": name,
            "kernel_size": [size] * 3,
            "filters": filters,
            "use_bias": True,
            "dilation_rate": [1, 1, 1],
            "padding": "same",
            "strides": [1, 1, 1],
            "data_format": "channels_last",
            "activation": "linear",
        }
        layers.append({"class_name": "Conv3D", "config": config, "inbound_nodes": [[[before, 0, 0, {}]]]})
        if name == "c0":
            layers.append(
                {
                    "class_name": "Activation",
                    "config": {"name": "a0", "activation": "relu"},
                    "inbound_nodes": [[["c0", 0, 0, {}]]],
                }
            )
    model = {
        "_comment": "quantile",
        "modelTopology": {"model_config": {"class_name": "Functional", "config": {"layers": layers}}},
        "weightsManifest": [
            {
                "paths": ["model.bin"],
                "weights": [{"name": n, "shape": s, "dtype": "float32"} for n, s in shapes],
            }
        ],
    }
    (folder / "net").mkdir()
    (folder / "net" / "model.json").write_text(json.dumps(model))
    (folder / "net" / "model.bin").write_bytes(
        b"".join(rng.standard_normal(shape).astype("<f4").tobytes() for _, shape in shapes)
    )
    (folder / "net" / "colormap.json").write_text(json.dumps({"labels": ["background", "grey", "white"]}))


READERS = (
    Reader("nifti", _nifti("a.nii"), lambda f: read_volume(f / "a.nii"), (("a.nii", "nifti"),)),
    Reader(
        "nifti, float",
        _nifti("a.nii", "float32"),
        lambda f: read_volume(f / "a.nii", min_axis=1),
        (("a.nii", "nifti"),),
    ),
    Reader(
        "nifti-2",
        _nifti("a.nii", "float64", nib.Nifti2Image),
        lambda f: read_volume(f / "a.nii"),
        (("a.nii", "nifti"),),
    ),
    Reader(
        "nifti, gzip",
        _nifti("a.nii.gz"),
        lambda f: read_volume(f / "a.nii.gz", assume_axcodes="RAS"),
        (("a.nii.gz", "nifti-gz"),),
    ),
    Reader(
        "nifti, header",
        _nifti("a.nii.gz"),
        lambda f: inspect_header(f / "a.nii.gz"),
        (("a.nii.gz", "nifti-gz"),),
    ),
    Reader("mgh", _mgh("a.mgh"), lambda f: read_volume(f / "a.mgh"), (("a.mgh", "mgh"),)),
    Reader("mgz", _mgh("a.mgz"), lambda f: read_volume(f / "a.mgz"), (("a.mgz", "mgz"),)),
    Reader(
        "dicom",
        _dicom,
        lambda f: read_volume(f / "series"),
        tuple((f"series/{n}.dcm", "dicom") for n in range(3)),
    ),
    Reader("manifest, csv", _manifest("m.csv"), _entries("m.csv"), (("m.csv", "csv"),)),
    Reader("manifest, tsv", _manifest("m.tsv"), _entries("m.tsv"), (("m.tsv", "tsv"),)),
    Reader(
        "bids tables",
        _bids,
        lambda f: check_entries(find_scans(f / "tree").entries),
        (("tree/participants.tsv", "tsv"), ("tree/sub-01/sub-01_sessions.tsv", "tsv")),
    ),
    Reader(
        "regions, csv",
        lambda f: (f / "r.csv").write_text("subject,brain_ml,left\n01,1200,3\n02,1100,4.5\n"),
        lambda f: read_regions(f / "r.csv"),
        (("r.csv", "csv"),),
    ),
    Reader(
        "regions, long",
        lambda f: (f / "r.tsv").write_text("subject\tregion\tml\n01\ta\t3\n01\tb\t4\n02\ta\t3\n02\tb\t4\n"),
        lambda f: read_regions(f / "r.tsv"),
        (("r.tsv", "tsv"),),
    ),
    Reader("regions, stats", _stats, lambda f: read_regions(f / "aseg.stats"), (("aseg.stats", "text"),)),
    Reader("store", _store, _read_store, (("heads.h5", "hdf5"),)),
    Reader("store, parts", _parts, _read_parts, (("heads.h5.parts/store.json", "json"), (PART, "hdf5"))),
    Reader("pairs", _pairs, _read_pairs, (("a.pairs.h5", "hdf5"),)),
    Reader(
        "meshnet",
        _meshnet,
        lambda f: read_meshnet(f / "net"),
        (
            ("net/model.json", "json"),
            ("net/model.bin", "binary"),
            ("net/model.json", "json"),
            ("net/colormap.json", "json"),
        ),
    ),
)
