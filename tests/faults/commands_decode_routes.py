"""Commands of radiata-decode by route: trainings of categories, motion and cortex, what they decode, pictures of regions."""

from pathlib import Path

from commands import Command

__all__ = ["COMMANDS"]


def make(folder: Path) -> None:
    """Subjects person/ (pictures), films/, blocks/ (categories); a run of each route; encoded/ and decoded/ of person."""
    import numpy as np
    import pandas as pd

    from radiata_decode.cli import run
    from radiata_decode.data.subject import write_subject
    from radiata_decode.experiment.simulating import write_simulated_subject

    for seed, names in enumerate((("person", "films"), ("other-person", "other-films"))):
        write_simulated_subject(folder / names[0], train=30, test=6, repeats=1, voxels=60, seed=seed)
        write_simulated_subject(
            folder / names[1], "motion", train=24, test=6, voxels=60, repeats=1, frames=4, seed=seed
        )
    rng = np.random.default_rng(0)
    rows = [
        {"stimulus": f"b{k:02d}", "session": 1, "run": 1 + k // 4, "category": ("face", "house")[k % 2],
         "split": "test" if k >= 20 else "train"}
        for k in range(24)
    ]  # fmt: skip
    responses = rng.normal(size=(24, 12)) + 2 * np.outer(np.arange(24) % 2, rng.normal(size=12))
    write_subject(folder / "blocks", responses.astype(np.float32), pd.DataFrame(rows))
    here = str(folder)
    for words in (
        f"train {here}/person --out {here}/images --basis training --components 20",
        f"train {here}/films --out {here}/motion --route motion",
        f"train {here}/blocks --out {here}/category --route category",
        f"train {here}/person --out {here}/surface --route surface --steps 1",
        f"encode {here}/person --features pixels --permutations 20 --out {here}/encoded",
        f"decode {here}/person --model {here}/images --generator none --out {here}/decoded",
    ):
        assert run(words.split()) == 0, words


def _command(words: str, name: str = "", **more: object) -> Command:
    return Command("decode", tuple(words.split()), make, name=name, **more)  # type: ignore[arg-type]


COMMANDS = (
    _command("train in/blocks --route category --out out", "decode train category", again=("--resume",)),
    _command("train in/films --route motion --out out", "decode train motion", again=("--resume",), changed="films"),
    _command(
        "train in/films --route motion --method both --steps 4 --out out", "decode train motion --method both",
        again=("--resume",), items=("out/training/checkpoints/step-*",), changed="films",
    ),
    _command(
        "train in/person --route surface --steps 2 --out out", "decode train surface", again=("--resume",),
        items=("out/*/checkpoints/step-*",), changed="person",
    ),
    _command("synthesize in/person --model in/images --generator own --steps 2 --out out"),
    _command("decode in/films --model in/motion --out out", "decode decode motion"),
    _command("decode in/blocks --model in/category --generator none --out out", "decode decode category"),
    _command("decode in/person --model in/surface --steps 2 --draws 2 --out out", "decode decode surface"),
    _command("demo --parts haxby --generator none --permutations 20 --out out"),
    _command("report in/encoded --out out/report.html"),
    _command("report in/decoded --out out/report.html", "decode report of a decoding"),
)  # fmt: skip
