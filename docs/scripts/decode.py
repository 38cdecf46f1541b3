"""The figure and the numbers of docs/decode.md: eight test pictures at random, decoded from a simulated cortex.

python docs/scripts/decode.py
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.image_decoding import decode_images
from radiata_decode.experiment.image_training import ImageOptions, train_images
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.trained_models import read_card
from radiata_decode.model.controls import permuted_brain
from radiata_decode.model.image_scores import pixcorr

IMAGE = Path(__file__).resolve().parents[1] / "images" / "decode.png"
SEED, SHOWN = 0, 8


def reconstructions(folder: Path) -> dict[str, Tensor]:
    """Rows of the figure, (test picture, 3, y, x) each, in [0, 1]; the first is what was seen."""
    subject = write_simulated_subject(folder / "subject", kind="image", seed=SEED, subject=SEED)
    run = folder / "run"
    run.mkdir()
    train_images(subject, ImageOptions(), run)
    card = read_card(run)

    def decoded(generator: str, draws: int = 1) -> dict[str, np.ndarray]:
        task = Decode(subject.folder, model=run, out=folder / "out", generator=generator, draws=draws)
        found = decode_images(subject, card, task)
        names.extend(found.stimulus if not names else ())
        return found.arrays

    names: list[str] = []
    ridge, own, nearest = decoded("none"), decoded("own", draws=2), decoded("retrieval")
    seen = unit_images(read_stimuli(subject.folder).images(names))
    mean = unit_images(own["images"])
    return {
        "seen": seen,
        "ridge alone": unit_images(ridge["images"]),
        "own generator:\nmean of draws": mean,
        "own generator:\none draw": unit_images(own["draws"][:, 0]),
        "control: retrieved\ntraining picture": unit_images(nearest["images"]),
        "control: mean of draws\nof another stimulus": permuted_brain(mean, np.random.default_rng(SEED)),
    }


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        rows = reconstructions(Path(name))
    seen = rows["seen"]
    chosen = np.sort(np.random.default_rng(SEED).choice(len(seen), SHOWN, replace=False))
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(10.4, 6.6), layout="constrained")
    for line, (row, pictures) in zip(axes, rows.items(), strict=True):
        values = pixcorr(seen, pictures)
        label = row.replace("\n", " ")
        if row != "seen":
            print(
                f"{label}: PixCorr {values[chosen].mean():.3f} of the {SHOWN} shown, {np.nanmean(values):.3f} of all"
            )
        for axis, number in zip(line, chosen, strict=True):
            axis.imshow(pictures[number].movedim(0, -1).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row != "seen":
                axis.set_xlabel(f"{values[number]:.2f}", fontsize=8, labelpad=1)
        line[0].set_ylabel(row, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(
        f"Simulated cortex, {SHOWN} of {len(seen)} test pictures at random, each with PixCorr. Outputs of a model, not for "
        "clinical use.",
        fontsize=9,
    )
    figure.savefig(IMAGE, dpi=110)
    plt.close(figure)
    print(IMAGE.relative_to(IMAGE.parents[2]))


if __name__ == "__main__":
    main()
