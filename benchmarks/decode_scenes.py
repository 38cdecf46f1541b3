"""What is left when the scenes were never seen: pictures decoded by a decoder that was not shown their photographs.

A part of the section image of `benchmarks/decode.py`. Test crops of the simulation share their photograph, never a pixel,
with training crops. Here the test crops of five photographs, drawn by the seed, are decoded twice: by a decoder taught with
crops of all fourteen photographs, and by one taught with as many crops of the nine others alone. Both have a basis of their
own training pictures; the generator that ships was trained on (left parts of) all fourteen, so it is left out.
"""

import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from decode_image import METRICS, Figures, plain, print_table, shown, trained
from radiata_decode.data.loading import unit_images
from radiata_decode.data.photographs import PHOTOGRAPHS
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.model.extractors import GaborFeatures
from radiata_decode.model.score_table import score_table

HELD_OUT = 5


def scenes_section(*, seeds: int = 3, quick: bool = False) -> dict[str, Any]:
    """Scores with the scenes in training and without, of the ridge and of retrieval."""
    train, test, draws = (300, 60, 100) if quick else (1000, 200, 1000)
    found: Figures = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        new = set(rng.choice(PHOTOGRAPHS, HELD_OUT, replace=False))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            subject = write_simulated_subject(
                folder / "subject", kind="image", train=train, test=test, seed=seed, subject=seed
            )
            stimuli = read_stimuli(subject.folder)
            table = stimuli.table.assign(new=stimuli.table["group"].isin(new))
            taught = table[table["split"] == "train"]
            others = taught.loc[~taught["new"], "stimulus"].tolist()
            mixed = rng.choice(taught["stimulus"].to_numpy(), len(others), replace=False).tolist()
            tested = tuple(table.loc[table["new"] & (table["split"] == "test"), "stimulus"])
            made = {}
            for word, kept in (("scenes in training", mixed), ("scenes held out", others)):
                part = only(subject, kept)
                card = trained(part, folder / word.replace(" ", "-"), "training")
                task = Decode(subject.folder, model=card.folder, out=folder / "decoded", stimuli=tested)
                for generator, label in (("none", "ridge"), ("retrieval", "retrieval")):
                    made[f"{word}: {label}"] = shown(part, card, replace(task, generator=generator))
            truth = unit_images(stimuli.images(tested))
        for row in score_table(truth, made, rng, extractors=[GaborFeatures()], draws=draws):
            found[row.decoder][row.metric].append(row)
    print_table(f"image, {HELD_OUT} of {len(PHOTOGRAPHS)} photographs, {seeds} seeds", found, METRICS)
    return {"scenes": plain(found)}


def only(subject: Subject, training: list[str]) -> Subject:
    """The subject with these training stimuli alone."""
    trials = subject.trials.copy()
    spare = (trials["split"] == "train") & ~trials["stimulus"].isin(training)
    trials.loc[spare, "split"] = "validation"
    return replace(subject, trials=trials)
