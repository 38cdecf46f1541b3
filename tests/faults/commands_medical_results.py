"""What radiata-medical makes of scans that have label maps, and of results: on heads of 28 x 32 x 12 voxels."""

from pathlib import Path

import numpy as np
from commands import Command
from commands_medical import codes

__all__ = ["COMMANDS"]


def make(folder: Path) -> None:
    """Heads in scans/ and healthy/ with their maps/, p2.safetensors (a prior of slices), net.safetensors (a segmenter),
    series/ (DICOM), results/ of it."""
    import torch

    from radiata_core.checkpoint import save_model
    from radiata_core.seeds import generator_of
    from radiata_imaging.dicom import read_dicom_series
    from radiata_imaging.dicom_images import write_dicom_series
    from radiata_imaging.dicom_origin import Origin
    from radiata_imaging.nifti import write_volume
    from radiata_imaging.volume import Volume
    from radiata_medical.experiment.outputs import Facts, write_image, write_labels
    from radiata_medical.model.prior import build_prior
    from radiata_medical.model.segmenter_network import SegmenterNetwork

    prior, generator = build_prior(2, (8, 8)), generator_of(2)
    with torch.no_grad():
        for weight in prior.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    save_model(folder / "p2.safetensors", prior, metadata={"dims": 2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(folder / "net.safetensors", SegmenterNetwork(35, channels=(4, 8)), metadata={})
    for number in range(4):
        head = _head(number)
        whole = "scans" if number < 2 else "healthy"
        write_volume(folder / whole / f"p{number}.nii.gz", head, dtype="float32")
        maps = Volume(codes(0.0)[:, :, 6:18].astype(np.float32), head.affine)
        write_volume(folder / "maps" / f"p{number}_dseg.nii.gz", maps, dtype="int16")
    write_volume(folder / "other-scans" / "p0.nii.gz", _head(9), dtype="float32")
    origin = Origin("scanner", "x", "0" * 64, "scan", synthetic=False)
    write_dicom_series(_head(5), folder / "series", origin)
    scan = read_dicom_series(folder / "series").volume
    facts = Facts("radiata-medical restore", "restored", {"head.nii.gz": "ab"})
    for word, part in (("restored", 1.0), ("sd", 0.1), ("draw-1", 1.1), ("draw-2", 0.9)):
        write_image(folder / "results" / f"head_{word}.nii.gz", part * scan.array, scan, facts)
    found = np.where(scan.array > 60, 17, np.where(scan.array > 40, 53, 0))
    write_labels(folder / "results" / "head_dseg.nii.gz", found, scan, facts)


def _head(seed: int) -> "Volume":
    """12 slices of a head whose codes are those of `codes(0)`."""
    from radiata_imaging.volume import Volume

    found = codes(0.0)[:, :, 6:18]
    image = 20 * np.sqrt(found) * (found < 200) + 3 * np.random.default_rng(seed).standard_normal(found.shape)
    return Volume(image.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))


TRANSLATE = "translate in/scans --to t2 --labels in/maps --model in/p2.safetensors --draws 1 --out out"
LIKE = (
    "translate in/scans --like in/healthy/p2.nii.gz --like-labels in/maps/p2_dseg.nii.gz --method histogram "
    "--labels in/maps --out out"
)
ANOMALY = (
    "anomaly in/scans --healthy in/healthy --healthy-labels in/maps --labels in/maps --model in/p2.safetensors --draws 1 "
    "--out out"
)


def _convert(source: str, to: str, out: str, *words: str) -> Command:
    return Command(
        "medical",
        ("convert", source, "--to", to, "--out", f"out/{out}", *words),
        make,
        name=f"medical convert --to {to}",
    )


COMMANDS = (
    Command(
        "medical", tuple(TRANSLATE.split()), make, items=("out/*_translated.nii.gz",), changed="scans",
    ),
    Command(
        "medical", tuple(LIKE.split()), make, items=("out/*_translated.nii.gz",), name="medical translate --like",
        changed="scans",
    ),
    Command(
        "medical", tuple(ANOMALY.split()), make, items=("out/*_clusters.nii.gz", "out/calibration.json"), changed="scans",
    ),
    _convert("in/results/head_dseg.nii.gz", "dicom-seg", "head.dcm", "--reference", "in/series"),
    _convert("in/results/head_restored.nii.gz", "dicom-series", "series", "--reference", "in/series"),
    _convert("in/results/head_restored.nii.gz", "dicom-pictures", "pictures", "--reference", "in/series"),
    _convert("in/results/head_restored.nii.gz", "netcdf", "head.nc"),
    _convert("in/series", "nifti", "head.nii.gz"),
    _convert("in/net.safetensors", "monai-bundle", "bundle"),
    Command(
        "medical", ("report", "in/results", "--out", "out/report.html"), make
    ),
)  # fmt: skip
