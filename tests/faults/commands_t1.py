"""Commands of radiata-t1 on heads of 8 x 8 x 8 voxels."""

import json
from pathlib import Path

import numpy as np
from commands import Command

__all__ = ["COMMANDS", "STEPS", "ball", "store"]

TRAIN = (
    "--channels", "8", "8", "--down-blocks", "0", "1", "--up-blocks", "1", "1", "--rank", "4", "--batch-size", "4",
    "--warmup", "2", "--log-every", "1", "--validate-every", "3", "--validation-heads", "4", "--no-tensorboard",
)  # fmt: skip


def store(path: Path, edge: float, shape: tuple[int, int, int], people: list[str], sessions: int = 1) -> None:
    """Balls whose radius is the covariate `size`."""
    from radiata_imaging.preprocess import PreprocessSpec
    from radiata_imaging.store import Item, StoreWriter

    rng = np.random.default_rng(3)
    writer = StoreWriter(path, shape, PreprocessSpec(spacing=edge, shape=shape), ("size",))
    for person, split in enumerate(people):
        for session in range(sessions):
            size = rng.uniform(0.4, 0.8)
            image = ball(shape, size, rng)
            item = Item(image, f"{person:02d}", split, f"{session}", covariates={"size": size})
            writer.append(item)
    writer.finish()


def ball(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> np.ndarray:
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = np.sqrt(sum(axis**2 for axis in grid)) < size
    return (np.where(inside, 0.5, -0.8) + 0.05 * rng.standard_normal(shape)).clip(-1, 1).astype(np.float32)


def make(folder: Path) -> None:
    """tiny.h5, run/ (a model of it), labels/, scans/, heads.h5 with drawn/ (for evaluate), rflow.safetensors."""
    import torch
    from safetensors.torch import save_file

    from radiata_core.nets.medforj import MEDFORJ, MedForJUNet
    from radiata_imaging.nifti import Intensity, read_volume, write_volume
    from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
    from radiata_imaging.volume import Volume, centred_affine
    from radiata_t1.cli import run

    rng = np.random.default_rng(1)
    store(folder / "tiny.h5", 24.0, (8, 8, 8), ["train"] * 6 + ["validation"] * 2 + ["test"] * 2, 2)
    store(folder / "other-tiny.h5", 24.0, (8, 8, 8), ["train"] * 7 + ["validation"] * 2 + ["test"] * 2, 2)
    for seed, name in enumerate(("run", "other-run")):
        words = ("train", str(folder / "tiny.h5"), "--out", str(folder / name), "--seed", str(seed))
        assert run([*words, "--prediction", "rflow", "--steps", "2", *TRAIN]) == 0
    for number in (1, 2):
        shape = (44, 50, 44)
        axes = np.meshgrid(*[np.linspace(-1.4, 1.4, n) for n in shape], indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in axes)) / (1 + 0.03 * number)
        codes = np.select([radius < 0.2, radius < 0.8, radius < 1.0, radius < 1.2], [4, 2, 3, 24], 0)
        volume = Volume(codes.astype(np.float32), centred_affine(shape, 1.0, "LPS"))
        write_volume(folder / "labels" / f"seg_{number:02d}.nii.gz", volume, dtype="int16")
        for visit in "ab":
            scan = 60 + 50 * ball((30, 34, 32), 0.9, rng)
            volume = Volume(scan.astype(np.float32), centred_affine(scan.shape, 6.0, "RAS"))
            name = folder / "scans" / f"sub-{number:02d}" / f"ses-{visit}" / "anat"
            write_volume(name / f"sub-{number:02d}_ses-{visit}_T1w.nii.gz", volume, dtype="float32")
    for name in ("labels/seg_01.nii.gz", "scans/sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz"):
        volume = read_volume(folder / name)
        other = Volume(np.ascontiguousarray(volume.array[::-1]), volume.affine)
        write_volume(
            folder / f"other-{name}", other, dtype="int16" if name.startswith("labels") else "float32"
        )
    spec = PreprocessSpec(spacing=8.0, shape=(20, 22, 20))
    store(folder / "heads.h5", spec.spacing, spec.shape, ["train"] * 12 + ["validation"] + ["test"] * 5)
    for seed in range(6):
        volume = Volume(ball(spec.shape, 0.4 + 0.06 * seed, rng), canonical_affine(spec))
        name = folder / "drawn" / f"sub-syn{seed:04d}_desc-synthetic_T1w.nii.gz"
        write_volume(name, volume, intensity=Intensity(), sidecar={"SyntheticImage": True})
    difference = {"channels": [8, 16], "num_res_blocks": 1, "attention_levels": [False, True]}
    (folder / "small.json").write_text(json.dumps(difference))
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in difference.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MedForJUNet(**{**MEDFORJ, **tuples})
    save_file(
        {name: value + 0.01 for name, value in network.state_dict().items()}, folder / "rflow.safetensors"
    )


STEPS = ("out/checkpoints/step-*",)
COMMANDS = (
    Command(
        "t1", ("cohort", "in/labels", "--out", "out/cohort.h5", "--train", "3", "--heldout", "2", "--test", "02",
               "--spacing", "24"), make, items=("out/*.parts/*.part.h5",), quick=True, changed="labels", made_anew=True,
    ),
    Command(
        "t1", ("prepare", "in/scans", "--out", "out/heads.h5", "--spacing", "12", "--shape", "16", "18", "16"), make,
        items=("out/*.parts/*.part.h5",), quick=True, changed="scans", made_anew=True,
    ),
    Command(
        "t1", ("train", "in/tiny.h5", "--out", "out", "--steps", "6", "--checkpoint-every", "2", *TRAIN), make,
        ("--resume",), STEPS, quick=True, changed="tiny.h5",
    ),
    Command(
        "t1", ("distil", "--out", "out", "--model", "in/run", "--store", "in/tiny.h5", "--steps", "4", "--rank", "3",
               "--warmup", "1", "--log-every", "1", "--checkpoint-every", "2", "--no-tensorboard"), make,
        ("--resume",), STEPS, changed="tiny.h5",
    ),
    Command(
        "t1", ("sample", "--model", "in/run", "--seeds", "0", "1", "2", "--steps", "2", "--batch-size", "1", "--out",
               "out"), make, items=("out/*.nii.gz",), quick=True, injured=True, changed="run",
    ),
    Command(
        "t1", ("evaluate", "in/drawn", "--reference", "in/heads.h5", "--out", "out", "--permutations", "19"), make
    ),
    Command(
        "t1", ("convert", "in/rflow.safetensors", "--architecture", "in/small.json", "--out", "out"), make, quick=True
    ),
)  # fmt: skip
