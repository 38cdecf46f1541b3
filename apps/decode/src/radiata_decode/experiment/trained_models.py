"""A trained decoder is a folder: its card, its numbers, and how responses must be standardised before it sees them.

    model.json                 format "radiata-decoder/1", route, subject, voxels, regions, rule, picture size, figures
    standardiser.safetensors   mean and standard deviation of every voxel in training
    ...                        the route's own files

A card is written last: a folder without one is a training that is not finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256, write_json
from radiata_core.weights import read_tensors, write_tensors
from radiata_decode.data.normalisation import Standardiser
from radiata_decode.data.repeats import Averaged, averaged
from radiata_decode.data.subject import Subject

__all__ = ["ModelCard", "chosen_voxels", "read_card", "standardised", "write_card"]

FORMAT = "radiata-decoder/1"


@dataclass(frozen=True)
class ModelCard:
    """What a trained decoder says of itself.

    Attributes:
        folder: Where it is.
        route: image, surface, motion or category.
        facts: The rest of model.json.
    """

    folder: Path
    route: str
    facts: dict[str, Any]

    @property
    def sha256(self) -> dict[str, str]:
        """Name -> checksum of every file with numbers, for the sidecars of what it makes."""
        return {path.name: sha256(path) for path in sorted(self.folder.glob("*.safetensors"))}

    def voxels_of(self, subject: Subject) -> np.ndarray:
        """Which voxels of a subject the model reads, whole numbers.

        Raises:
            InputError: another number of voxels than in training, or regions that are not there.
        """
        count = int(self.facts["subject_voxels"])
        if len(subject.voxels) != count:
            raise InputError(
                f"expected a subject of {count} voxels, as the model was trained with; got {len(subject.voxels)} in "
                f"{subject.folder}. Decode the same person, prepared the same way."
            )
        return chosen_voxels(subject, tuple(self.facts["rois"]))

    def standardiser(self) -> Standardiser:
        """Statistics of the training responses."""
        tensors = read_tensors(self.folder / "standardiser.safetensors")
        return Standardiser.from_arrays(
            str(self.facts["zscore"]), {name: value.numpy() for name, value in tensors.items()}
        )


def chosen_voxels(subject: Subject, rois: tuple[str, ...]) -> np.ndarray:
    """Numbers of the voxels in any of some regions; of all voxels without a region.

    Raises:
        InputError: a region that the subject has not, or without voxels.
    """
    if not rois:
        return np.arange(len(subject.voxels))
    known = subject.rois
    for name in rois:
        if name not in known:
            raise InputError(
                f"expected a region of {subject.folder} ({', '.join(known) or 'it has none'}); got {name}."
            )
    found = np.flatnonzero(np.any([known[name] for name in rois], axis=0))
    if not len(found):
        raise InputError(f"expected voxels in {', '.join(rois)}; got none. Choose other regions.")
    return found


def standardised(
    subject: Subject,
    split: str | None,
    statistics: Standardiser,
    voxels: np.ndarray,
    count: int | None = None,
) -> Averaged:
    """Mean standardised responses to each stimulus of a split; see `data.repeats.averaged`."""
    return averaged(subject, split, count=count, voxels=voxels, standardiser=statistics)


def write_card(folder: Path, route: str, statistics: Standardiser, facts: Mapping[str, Any]) -> None:
    """Write standardiser and card; the last step of a training."""
    arrays = {
        name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in statistics.arrays().items()
    }
    with atomic_path(folder / "standardiser.safetensors") as part:
        write_tensors(part, arrays)
    write_json(
        folder / "model.json", {"format": FORMAT, "route": route, "zscore": statistics.rule, **dict(facts)}
    )


def read_card(folder: Path) -> ModelCard:
    """The card of a trained decoder.

    Raises:
        InputError: no such folder, one without a card (training is not finished), or a card of another kind.
    """
    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"expected a trained decoder (a folder with model.json); got {folder}. Train one with `radiata-decode train`, "
            "or finish its training with --resume."
        )
    card = read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT or "route" not in card:
        raise InputError(f"expected a decoder's card ({FORMAT}) in {path}; got another file.")
    return ModelCard(
        folder, str(card["route"]), {key: card[key] for key in card if key not in ("format", "route")}
    )
