"""Trainings of radiata-medical beside that of a prior, on slices of 16 x 16 voxels."""

from pathlib import Path

import numpy as np
from commands import Command
from commands_medical import codes

__all__ = ["COMMANDS"]


def make(folder: Path) -> None:
    """labels.h5, p2.safetensors (a prior of slices), scans/ with maps/ (for heads)."""
    import torch

    from radiata_core.checkpoint import save_model
    from radiata_core.seeds import generator_of
    from radiata_imaging.nifti import write_volume
    from radiata_imaging.volume import Volume
    from radiata_medical.data.label_maps import label_map, write_label_maps
    from radiata_medical.model.prior import build_prior

    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    cases = []
    for number, split in enumerate(("train", "train", "validation", "test")):
        volume = Volume(codes(0.05 * number), affine)
        cases.append(label_map(volume, f"case-{number}", f"person-{number}", split, margin=2))
    write_label_maps(folder / "labels.h5", cases)
    write_label_maps(folder / "other-labels.h5", cases[1:])
    prior, generator = build_prior(2, (8, 8)), generator_of(2)
    with torch.no_grad():
        for weight in prior.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    save_model(folder / "p2.safetensors", prior, metadata={"dims": 2})
    for number in range(2):
        found = codes(0.1 * number)
        image = 20.0 * np.sqrt(found) + np.random.default_rng(number).standard_normal(found.shape)
        for name, array in (("scans", image), ("other-scans", image[::-1])):
            volume = Volume(np.ascontiguousarray(array, np.float32), affine)
            write_volume(folder / name / f"h{number}.nii.gz", volume, dtype="float32")
        balls = Volume(np.isin(found, (2, 4)).astype(np.float32), affine)
        write_volume(folder / "maps" / f"h{number}_dseg.nii.gz", balls, dtype="int16")


TRAIN = (
    "train in/labels.h5 --out out --dims 2 --window 16 --steps 4 --batch-size 4 --together 2 --warmup 1 "
    "--checkpoint-every 1 --validate-every 2 --validation-scans 2 --log-every 1 --no-tensorboard --task"
)
HEAD = (
    "train in/scans --task head --labels in/maps --start in/p2.safetensors --out out --slices 2 --members 2 --steps 6 "
    "--log-every 1"
)


def _training(task: str, *words: str) -> Command:
    return Command(
        "medical", (*TRAIN.split(), task, *words), make, ("--resume",), ("out/checkpoints/step-*",),
        name=f"medical train --task {task}", changed="labels.h5",
    )  # fmt: skip


COMMANDS = (
    _training("segmenter", "--channels", "4", "8"),
    _training("restorer", "--start", "in/p2.safetensors"),
    _training("joint", "--channels", "8", "8"),
    Command("medical", tuple(HEAD.split()), make, name="medical train --task head", changed="scans"),
)
