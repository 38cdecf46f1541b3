"""Commands of radiata-latents on nine neurons."""

from pathlib import Path

from commands import Command

__all__ = ["COMMANDS"]

TRAIN = (
    "--network radiata --latents 3 --hidden 4 --batch-size 8 --checkpoint-every 2 --validate-every 4 "
    "--validation-trials 2 --log-every 2 --no-tensorboard"
)


def make(folder: Path) -> None:
    """tiny.h5, a population with held-out neurons, and run/, a model of it."""
    import numpy as np

    from radiata_latents.cli import run
    from radiata_latents.data.lorenz import lorenz_population, split_conditions
    from radiata_latents.data.population import save_population

    for seed, name in ((3, "tiny.h5"), (4, "other-tiny.h5")):
        data = split_conditions(lorenz_population(conditions=6, trials=8, neurons=9, seed=seed))
        save_population(data.assign_coords(heldout=("neuron", np.arange(9) % 4 == 1)), folder / name)
    words = ["train", str(folder / "tiny.h5"), "--out", str(folder / "run"), "--steps", "4", *TRAIN.split()]
    assert run(words) == 0


COMMANDS = (
    Command(
        "latents", ("prepare", "--preset", "lorenz", "--trials", "4", "--conditions", "5", "--neurons", "8", "--out",
                    "out/lorenz.h5"), make,
    ),
    Command(
        "latents", ("train", "in/tiny.h5", "--out", "out", "--steps", "6", *TRAIN.split()), make, ("--resume",),
        ("out/checkpoints/step-*",), changed="tiny.h5",
    ),
    Command(
        "latents", ("train", "in/tiny.h5", "--out", "out", "--steps", "4", "--members", "2", *TRAIN.split()), make,
        ("--resume",), ("out/member-*/checkpoints/step-*",), name="latents train --members", changed="tiny.h5",
    ),
    Command("latents", ("infer", "in/tiny.h5", "--model", "in/run", "--out", "out/rates.h5"), make),
    Command("latents", ("sample", "--model", "in/run", "--trials", "4", "--out", "out/made.h5"), make),
    Command(
        "latents", ("forecast", "in/tiny.h5", "--model", "in/run", "--bins", "3", "--draws", "4", "--out",
                    "out/rates.h5"), make,
    ),
    Command(
        "latents", ("evaluate", "in/tiny.h5", "--model", "in/run", "--out", "out", "--draws", "20", "--no-baselines"),
        make,
    ),
)  # fmt: skip
