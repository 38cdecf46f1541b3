"""Commands of radiata-latents on nine neurons."""

from pathlib import Path

from commands import Command

__all__ = ["COMMANDS"]

TRAIN = (
    "--network radiata --latents 3 --hidden 4 --batch-size 8 --checkpoint-every 2 --validate-every 4 "
    "--validation-trials 2 --log-every 2 --no-tensorboard"
)


SPACE = (
    "hidden = 4\nlatents = { choices = [3, 4] }\nlearning_rate = { low = 1e-3, high = 1e-2, log = true }\n"
)
PRESET = "validation_trials = 2\ncheckpoint_every = 2\nkeep = 1\n"


def make(folder: Path) -> None:
    """tiny.h5 with held-out neurons; run/, a model of it; moving.h5 with behaviour and rates.h5; space.toml, preset.toml;
    submission.h5 and targets.h5 of the benchmark."""
    import numpy as np
    import xarray as xr

    from radiata_latents.cli import run
    from radiata_latents.data.lorenz import lorenz_population, split_conditions
    from radiata_latents.data.population import load_population, save_population

    for seed, name in ((3, "tiny.h5"), (4, "other-tiny.h5")):
        data = split_conditions(lorenz_population(conditions=6, trials=8, neurons=9, seed=seed))
        save_population(data.assign_coords(heldout=("neuron", np.arange(9) % 4 == 1)), folder / name)
    words = ["train", str(folder / "tiny.h5"), "--out", str(folder / "run"), "--steps", "4", *TRAIN.split()]
    assert run(words) == 0
    (folder / "space.toml").write_text(SPACE)
    (folder / "preset.toml").write_text(PRESET)
    cells = load_population(folder / "tiny.h5")
    moved = cells["rates"].values @ np.random.default_rng(0).standard_normal((9, 2))
    cells = cells.assign(
        behaviour=xr.DataArray(moved, dims=("trial", "time", "channel"), coords={"channel": ["x", "y"]})
    )
    save_population(cells, folder / "moving.h5")
    words = [
        "infer",
        str(folder / "moving.h5"),
        "--model",
        str(folder / "run"),
        "--out",
        str(folder / "rates.h5"),
    ]
    assert run(words) == 0
    _benchmark(folder)


def _benchmark(folder: Path) -> None:
    """What the benchmark calls mc_rtt_20: rates of a submission, and the targets that it is scored against."""
    import h5py
    import numpy as np

    from radiata_latents.data.submission import save_submission

    rng = np.random.default_rng(0)
    rates = {
        f"{part}_rates_{word}": rng.uniform(0.1, 0.6, (8, 24, neurons))
        for part in ("train", "eval")
        for word, neurons in (("heldin", 5), ("heldout", 3))
    }
    save_submission(folder / "submission.h5", {"mc_rtt_20": rates})
    with h5py.File(folder / "targets.h5", "w") as file:
        for part in ("train", "eval"):
            file[f"mc_rtt_20/{part}_behavior"] = rates[f"{part}_rates_heldin"][..., :2] + rng.normal(
                0, 0.1, (8, 24, 2)
            )
        for word in ("heldin", "heldout"):
            file[f"mc_rtt_20/eval_spikes_{word}"] = rng.poisson(rates[f"eval_rates_{word}"]).astype(float)


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
    Command(
        "latents", ("sweep", "in/tiny.h5", "--out", "out", "--trials", "3", "--steps", "4", "--batch-size", "8", "--space",
                    "in/space.toml", "--preset", "in/preset.toml"), make, ("--resume",),
        ("out/trial-*/checkpoints/step-*",), changed="tiny.h5",
    ),
    Command(
        "latents", ("sweep", "in/tiny.h5", "--out", "out", "--trials", "4", "--steps", "9", "--batch-size", "8", "--halving",
                    "--space", "in/space.toml", "--preset", "in/preset.toml"), make, ("--resume",),
        ("out/**/trial-*/checkpoints/step-*",), name="latents sweep --halving",
        changed="tiny.h5",
    ),
    Command(
        "latents", ("decode", "in/moving.h5", "--model", "in/run", "--rates", "in/rates.h5", "--out", "out"), make
    ),
    Command(
        "latents", ("score", "in/submission.h5", "--targets", "in/targets.h5", "--json", "out/scores.json"), make
    ),
    Command(
        "latents", ("report", "in/run", "--out", "out/report.html", "--pictures", "out/pictures"), make
    ),
)  # fmt: skip
