"""What was decoded beside what was seen: the same stimuli in one order, their runs, their responses.

Rows are sorted by the name of the stimulus, so no score, interval or control depends on the order in a file. A stimulus'
run is that of its trials; averages over several runs are permuted among those of the same sessions, and among all where
that leaves most of them alone.

A decoded file says which subject it was made from. Another one, even one that saw the same stimuli, is refused.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.decoded import Decoded, read_decoded
from radiata_decode.data.normalisation import Standardiser, subject_standardiser
from radiata_decode.data.repeats import Averaged
from radiata_decode.data.sidecar import sidecar_path
from radiata_decode.data.stimuli import Stimuli, read_stimuli
from radiata_decode.data.subject import SPLITS, Subject
from radiata_decode.experiment.trained_models import ModelCard, standardised

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compared", "run_labels"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Decoded stimuli of a subject.

    Attributes:
        decoded: Rows in the order of `names`.
        subject: Who saw them.
        card: Of the decoder, where it is known.
        runs: Of each stimulus; permutations stay within.
        within: What `runs` are, in words.
        decoding: Options of the command that decoded; empty where they are not known.
        notes: What a reader must know before the numbers.
    """

    decoded: Decoded
    subject: Subject
    card: ModelCard | None
    runs: tuple[str, ...]
    within: str
    decoding: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Stimuli, sorted."""
        return self.decoded.stimulus

    @property
    def synthetic(self) -> bool:
        """Responses were simulated."""
        return bool(self.subject.manifest.get("SyntheticData", False))

    @property
    def held_out(self) -> bool:
        """The stimuli are not those of training."""
        return self.decoded.split != "train"

    def stimuli(self) -> Stimuli:
        """Of the subject."""
        return read_stimuli(self.subject.folder)

    def training_names(self) -> list[str]:
        """Stimuli of training; none where the subject has no training trials."""
        trials = self.subject.trials
        return trials.loc[trials["split"] == "train", "stimulus"].astype(str).drop_duplicates().tolist()

    def standardiser(self) -> tuple[Standardiser, np.ndarray]:
        """Statistics and numbers of the model's voxels; without a model, of all voxels and training trials."""
        if self.card is not None:
            return self.card.standardiser(), self.card.voxels_of(self.subject)
        return subject_standardiser(self.subject), np.arange(len(self.subject.voxels))

    def responses(self) -> tuple[Averaged, np.ndarray]:
        """Mean standardised responses: of training stimuli, and of the decoded ones in their order."""
        statistics, voxels = self.standardiser()
        count = self.decoding.get("repeats")
        training = standardised(self.subject, "train", statistics, voxels)
        found = standardised(self.subject, self.decoded.split, statistics, voxels, count)
        places = {name: row for row, name in enumerate(found.stimulus)}
        return training, found.responses[[places[name] for name in self.names]]


def compared(decoded: Path, subject: Subject, card: ModelCard | None = None) -> Comparison:
    """Read what was decoded and check that it belongs to the subject.

    Args:
        decoded: Folder of `decode`, or its decoded.h5.
        subject: Whose stimuli and responses.
        card: Of the model that decoded.

    Raises:
        InputError: an unreadable file, stimuli that the subject did not see, a file of another subject, a model of another.
    """
    file = Path(decoded) / "decoded.h5" if Path(decoded).is_dir() else Path(decoded)
    found = read_decoded(file)
    _check_stimuli(file, found, subject)
    _check_source(file, subject)
    if card is not None:
        card.voxels_of(subject)
        if card.route != found.route:
            raise InputError(
                f"expected the model that decoded {file}, of the route {found.route}; got {card.route} in {card.folder}."
            )
    order = sorted(range(len(found.stimulus)), key=found.stimulus.__getitem__)
    names = [found.stimulus[row] for row in order]
    arrays = {name: array[order] for name, array in found.arrays.items()}
    runs, within = run_labels(subject.trials, found.split, names)
    return Comparison(
        Decoded(names, arrays, found.route, found.split, found.categories), subject, card, tuple(runs), within,
        _decoding(file), tuple(_notes(found, names, card)),
    )  # fmt: skip


def run_labels(trials: "pd.DataFrame", split: str, names: list[str]) -> tuple[list[str], str]:
    """Label of each stimulus within which pairings may be permuted, and what it stands for.

    Args:
        trials: Of the subject.
        split: Whose trials count.
        names: Stimuli.
    """
    part = trials[trials["split"] == split]
    shown = part["stimulus"].astype(str)
    runs = part["session"].astype(str) + "/" + part["run"].astype(str)
    for what, labels in (("runs", runs), ("sessions", part["session"].astype(str))):
        sets = labels.groupby(shown).agg(lambda words: " ".join(sorted(set(words))))
        found = [str(sets[name]) for name in names]
        alone = {label for label, times in Counter(found).items() if times == 1}
        if 2 * len(alone) <= len(found) and len(found) > 1:
            others = next((label for label in found if label not in alone), "")
            joint = others if len(alone) == 1 else "alone in their run"
            return [joint if label in alone else label for label in found], f"within {what}"
    return ["all"] * len(names), "over all stimuli, whose repeats lie in several runs"


def _check_stimuli(file: Path, found: Decoded, subject: Subject) -> None:
    if not found.stimulus:
        raise InputError(f"expected decoded stimuli in {file}; got none. Decode again.")
    twice = sorted(name for name, times in Counter(found.stimulus).items() if times > 1)
    if twice:
        raise InputError(
            f"expected each stimulus once in {file}; got {twice[0]} more than once. Decode again."
        )
    if found.split not in SPLITS:
        raise InputError(
            f"expected decoded {', '.join(SPLITS)} stimuli in {file}; got pictures of {found.split or 'nothing known'}. "
            "There is nothing to compare them with."
        )
    part = subject.trials[subject.trials["split"] == found.split]
    known = set(part["stimulus"].astype(str))
    missing = [name for name in found.stimulus if name not in known]
    if missing:
        raise InputError(
            f"expected {found.split or 'decoded'} stimuli of {subject.folder}; got {missing[0]} in {file}, {len(missing)} "
            f"of {len(found.stimulus)} that are none. Pass the subject it was decoded from."
        )


def _check_source(file: Path, subject: Subject) -> None:
    card = sidecar_path(file)
    if not card.is_file():
        return
    about = read_json(card)
    sources = about.get("Sources", []) if isinstance(about, dict) else []
    known = {str(one.get("SHA256")) for one in sources if isinstance(one, dict)}
    if known and subject.sha256 not in known:
        raise InputError(
            f"expected the subject that {file} was decoded from; got {subject.folder}, whose trials, voxels or responses "
            "are others. Pass that subject, or decode again."
        )


def _decoding(file: Path) -> dict[str, Any]:
    record = file.with_name("run.json")
    found = read_json(record) if record.is_file() else {}
    if not isinstance(found, dict) or found.get("command") != "radiata-decode decode":
        return {}
    return dict(found.get("options", {}))


def _notes(found: Decoded, names: list[str], card: ModelCard | None) -> list[str]:
    notes = []
    if found.split == "train":
        notes.append(
            "Training stimuli were decoded: these scores say what is remembered, not what can be decoded."
        )
    elif card is not None:
        taught = sorted(set(names) & set(map(str, card.facts.get("training_stimuli", []))))
        if taught:
            notes.append(f"{len(taught)} of {len(names)} stimuli taught the model, such as {taught[0]}.")
    if len(names) == 1:
        notes.append("One stimulus: nothing to identify it among, no permutation, no interval.")
    return notes
