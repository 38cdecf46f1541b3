"""Further routes of radiata-medical's commands, which write more files a scan, or after the training."""

from pathlib import Path

from commands import Command
from commands_medical_training import make as make_training

__all__ = ["COMMANDS"]


def make(folder: Path) -> None:
    """The inputs of trainings; net.safetensors (a segmenter), head/ (a run of one), a hole.nii.gz in each of scans/."""
    import numpy as np
    import torch

    from radiata_core.checkpoint import save_model
    from radiata_imaging.nifti import read_volume, write_volume
    from radiata_imaging.volume import Volume
    from radiata_medical.cli import run
    from radiata_medical.model.segmenter_network import SegmenterNetwork

    make_training(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(folder / "net.safetensors", SegmenterNetwork(35, channels=(4, 8)), metadata={})
    head = (
        "train", folder / "scans", "--task", "head", "--labels", folder / "maps", "--start", folder / "p2.safetensors",
        "--slices", "2", "--members", "2", "--steps", "6", "--out", folder / "head",
    )  # fmt: skip
    assert run([str(word) for word in head]) == 0
    scan = read_volume(folder / "scans" / "h0.nii.gz")
    hole = np.zeros(scan.shape, np.float32)
    hole[10:15, 12:18, 8:12] = 1
    write_volume(folder / "hole.nii.gz", Volume(hole, scan.affine), dtype="int16")


PRIOR = (
    "train in/labels.h5 --out out --task prior --dims 2 --channels 8 8 --window 16 --steps 2 --batch-size 4 --together 2 "
    "--warmup 1 --checkpoint-every 1 --validate-every 2 --validation-scans 1 --calibration-windows 1 --log-every 1 "
    "--no-tensorboard"
)
SAMPLE = (
    "restore in/scans --task inpaint --mask in/hole.nii.gz --mode sample --draws 2 --evaluations 2 --slices k "
    "--model in/p2.safetensors --restorer none --save residual invented measured draws --batch-size 24 --out out"
)
COMMANDS = (
    Command(
        "medical", tuple(PRIOR.split()), make, ("--resume",), ("out/checkpoints/step-*",),
        name="medical train --calibration-windows", changed="labels.h5",
    ),
    Command(
        "medical", tuple(SAMPLE.split()), make, items=("out/*_restored.nii.gz",), name="medical restore --mode sample",
        changed="scans",
    ),
    Command(
        "medical", ("segment", "in/scans", "--out", "out", "--model", "in/net.safetensors", "--window", "32", "--tta", "2",
                    "--entropy", "--posteriors"), make,
        items=("out/*_dseg.nii.gz",), name="medical segment --posteriors", changed="scans",
    ),
    Command(
        "medical", ("segment", "in/scans", "--out", "out", "--method", "features", "--model", "in/head", "--entropy"), make,
        items=("out/*_dseg.nii.gz",), name="medical segment --method features", changed="scans",
    ),
)  # fmt: skip
