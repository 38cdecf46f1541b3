"""Commands of radiata-t1 on stages of a cascade, DICOM folders and results: heads of 12 x 12 x 12 voxels of 4 mm."""

import contextlib
from pathlib import Path

import numpy as np
from commands import Command
from commands_t1 import STEPS, ball, store

__all__ = ["COMMANDS"]

SMALL = (
    "--channels", "4", "6", "--down-blocks", "0", "1", "--up-blocks", "1", "1", "--batch-size", "2", "--warmup", "1",
    "--log-every", "1", "--validate-every", "2", "--no-tensorboard",
)  # fmt: skip
STAGE = (*SMALL, "--network", "unet", "--block", "4", "--checkpoint-every", "1")
BASE = ("train", "coarse.h5", "--out", "base", *SMALL, "--rank", "2", "--prediction", "rflow", "--steps", "2")
DRAWN = ("sample", "--model", "base", "--seeds", "0", "1", "--steps", "2", "--out", "heads")


def make(folder: Path) -> None:
    """fine.h5 and coarse.h5, base/ (a model of 4 mm), 4mm/ and 2mm/ (stages), heads/ (drawn), series/ (DICOM folders)."""
    from radiata_imaging.dicom_images import write_dicom_series
    from radiata_imaging.dicom_origin import Origin
    from radiata_imaging.volume import Volume, centred_affine
    from radiata_t1.cli import run

    people = ["train"] * 3 + ["validation", "test"]
    store(folder / "coarse.h5", 4.0, (12, 12, 12), people)
    store(folder / "fine.h5", 2.0, (24, 24, 24), people)
    store(folder / "other-fine.h5", 2.0, (24, 24, 24), people[1:])
    stages = [
        ("train", "fine.h5", "--stage", stage, "--out", name, *STAGE, "--steps", "2", "--seed", seed)
        for stage, name, seed in (("4mm", "4mm", "0"), ("2mm", "2mm", "0"), ("2mm", "other-2mm", "1"))
    ]
    with contextlib.chdir(folder):
        for words in (BASE, *stages, DRAWN):
            assert run(words) == 0, words
    rng = np.random.default_rng(1)
    for number in range(4):
        scan = np.rint(60 + 50 * ball((30, 34, 32), 0.9, rng)).astype(np.float32)
        origin = Origin("scanner", f"{number}", f"{number}" * 64, "scan", synthetic=False)
        for name, array in (("series", scan), ("other-series", scan[::-1])):
            volume = Volume(np.ascontiguousarray(array), centred_affine(scan.shape, 6.0, "RAS"))
            if name == "series" or number == 0:
                write_dicom_series(volume, folder / name / f"p{number}", origin)


COMMANDS = (
    Command(
        "t1", ("report", "in/heads", "--out", "out/report.html"), make
    ),
    Command(
        "t1", ("report", "in/2mm", "--out", "out/report.html"), make, name="t1 report of a training"
    ),
    Command(
        "t1", ("prepare", "in/series", "--out", "out/heads.h5", "--spacing", "12", "--shape", "16", "18", "16"), make,
        items=("out/*.parts/*.part.h5",), name="t1 prepare DICOM", changed="series", made_anew=True,
    ),
    Command(
        "t1", ("sample", "--model", "in/base", "--resolution", "2mm", "--cascade", "in/4mm", "in/2mm", "--seeds", "0", "1",
               "2", "--steps", "2", "--batch-size", "1", "--out", "out"), make,
        items=("out/*.nii.gz",), name="t1 sample --resolution", changed="2mm",
    ),
    Command(
        "t1", ("train", "in/fine.h5", "--stage", "2mm", "--out", "out", "--steps", "4", *STAGE), make, ("--resume",), STEPS,
        name="t1 train --stage", changed="fine.h5",
    ),
    Command(
        "t1", ("convert", "in/heads/sub-syn0000_desc-synthetic_T1w.nii.gz", "--to", "dicom-series", "--out", "out/series"),
        make, name="t1 convert --to dicom-series",
    ),
    Command(
        "t1", ("convert", "in/base", "--to", "monai-bundle", "--out", "out/bundle"), make,
        name="t1 convert --to monai-bundle",
    ),
)  # fmt: skip
