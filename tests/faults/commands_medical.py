"""Commands of radiata-medical on heads of some thousand voxels."""

from pathlib import Path

import numpy as np
from commands import Command

__all__ = ["COMMANDS", "codes"]


def _radius(shape: tuple[int, ...], shift: float = 0.0) -> np.ndarray:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.sqrt((x - shift) ** 2 + y**2 + z**2)


def codes(shift: float) -> np.ndarray:
    """Nested balls: ventricle, white matter, cortex, fluid, skull, skin."""
    radius = _radius((28, 32, 24), shift)
    edges = [0.2, 0.6, 0.72, 0.78, 0.85, 0.95]
    return np.select([radius < edge for edge in edges], [4, 2, 3, 24, 165, 258], 0).astype(np.int16)


def make(folder: Path) -> None:
    """labels/, labels.h5, net.safetensors, p3.safetensors, scans/, thin/, truth/ and made/."""
    import torch

    from radiata_core.checkpoint import save_model
    from radiata_core.seeds import generator_of
    from radiata_imaging.nifti import write_volume
    from radiata_imaging.volume import Volume, centred_affine
    from radiata_medical.data.label_maps import label_map, write_label_maps
    from radiata_medical.model.prior import build_prior
    from radiata_medical.model.segmenter_network import SegmenterNetwork

    cases = []
    for number, split in enumerate(("train", "train", "validation", "test")):
        volume = Volume(codes(0.05 * number).astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))
        write_volume(folder / "labels" / f"sub-{number:02d}_dseg.nii.gz", volume, dtype="int16")
        whole = Volume(codes(0.05 * number), volume.affine)
        cases.append(label_map(whole, f"case-{number}", f"person-{number}", split, margin=2))
    write_label_maps(folder / "labels.h5", cases)
    write_label_maps(folder / "other-labels.h5", cases[1:])
    volume = Volume(codes(0.3).astype(np.float32), volume.affine)
    write_volume(folder / "other-labels" / "sub-00_dseg.nii.gz", volume, dtype="int16")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SegmenterNetwork(35, channels=(4, 8))
    save_model(folder / "net.safetensors", network, metadata={})
    prior, generator = build_prior(3, (4, 8)), generator_of(3)
    with torch.no_grad():
        for weight in prior.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    spread = {"kappa": [0.05, 0.2, 1.0], "variance": [5e-4, 3e-3, 2e-2]}
    save_model(folder / "p3.safetensors", prior, metadata={"dims": 3, "spread": spread})
    for number in range(3):
        rng = np.random.default_rng(number)
        for name, shape in (("scans", (34, 32, 30)), ("thin", (14, 18, 11)), ("truth", (16, 18, 14))):
            image = 700 * (_radius(shape) < 0.8) * (1 + 0.2 * np.sin(np.indices(shape)[0] / 2))
            image += 10 * rng.standard_normal(shape) + 20
            volume = Volume(image.astype(np.float32), centred_affine(shape, 1.1, "RAS"))
            write_volume(folder / name / f"p{number}.nii.gz", volume, dtype="float32")
            if number == 0:
                other = Volume(volume.array[::-1].copy(), volume.affine)
                write_volume(folder / f"other-{name}" / "p0.nii.gz", other, dtype="float32")
        made = Volume((image + 5).astype(np.float32), volume.affine)
        write_volume(folder / "made" / f"p{number}_restored.nii.gz", made, dtype="float32")


TRAIN = (
    "train in/labels.h5 --out out --task prior --dims 2 --channels 8 8 --window 16 --steps 4 --batch-size 4 --together 2 "
    "--warmup 1 --checkpoint-every 1 --validate-every 2 --validation-scans 2 --calibration-windows 0 --log-every 1 "
    "--no-tensorboard"
)
RESTORE = "restore in/thin --out out --evaluations 2 --tile 8 --halo 4 --model in/p3.safetensors"
COMMANDS = (
    Command(
        "medical", ("prepare", "in/labels", "--out", "out/labels.h5", "--margin", "2"), make,
        items=("out/*.parts/*.h5",), changed="labels", made_anew=True,
    ),
    Command("medical", tuple(TRAIN.split()), make, ("--resume",), ("out/checkpoints/step-*",), changed="labels.h5"),
    Command(
        "medical", ("segment", "in/scans", "--out", "out", "--model", "in/net.safetensors", "--window", "32"), make,
        items=("out/*_dseg.nii.gz",), changed="scans",
    ),
    Command("medical", tuple(RESTORE.split()), make, items=("out/*_restored.nii.gz",), changed="thin"),
    Command("medical", ("evaluate", "in/made", "--reference", "in/truth", "--out", "out", "--draws", "100"), make),
)  # fmt: skip
