"""Commands of radiata-decode on sixty voxels."""

from pathlib import Path

from commands import Command

__all__ = ["COMMANDS"]


def make(folder: Path) -> None:
    """betas.npy with trials.tsv (two sessions), subject/, run/ (a decoder), decoded/."""
    import numpy as np

    from radiata_decode.cli import run

    rng = np.random.default_rng(0)
    for name in ("betas.npy", "other-betas.npy"):
        np.save(folder / name, rng.normal(size=(40, 12)).astype(np.float32))
    rows = [f"p{k % 20:02d}\t{1 + k // 20}\t{1 + k % 2}\n" for k in range(40)]
    (folder / "trials.tsv").write_text("stimulus\tsession\trun\n" + "".join(rows))
    words = (
        ["prepare", "simulate-images", "--out", "subject", "--train-stimuli", "30", "--test-count", "8", "--showings", "1",
         "--voxel-count", "60"],
        ["train", "subject", "--out", "run", "--basis", "training", "--components", "8"],
        ["decode", "subject", "--model", "run", "--out", "decoded", "--generator", "none"],
    )  # fmt: skip
    for one in words:
        assert (
            run([str(folder / word) if word in ("subject", "run", "decoded") else word for word in one]) == 0
        ), one


COMMANDS = (
    Command(
        "decode", ("prepare", "from-arrays", "in/betas.npy", "--trials", "in/trials.tsv", "--out", "out/subject"), make,
        items=("out/.subject.parts/*.h5",), changed="betas.npy", made_anew=True,
    ),
    Command(
        "decode", ("train", "in/subject", "--out", "out", "--basis", "training", "--components", "8"), make, ("--resume",)
    ),
    Command(
        "decode", ("decode", "in/subject", "--model", "in/run", "--generator", "none", "--pictures", "--out", "out"), make
    ),
    Command(
        "decode", ("encode", "in/subject", "--features", "pixels", "--permutations", "20", "--out", "out"), make
    ),
    Command(
        "decode", ("evaluate", "in/decoded", "--subject", "in/subject", "--permutations", "20", "--out", "out"), make
    ),
)  # fmt: skip
