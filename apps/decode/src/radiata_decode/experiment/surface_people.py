"""People on one canvas, ready for training: their averaged responses as pictures of the cortex, with what they saw.

    subject folders → places of voxels → common canvas → each person's sparse matrix
                    → standardised, averaged trials ──────────┘ → items {"image", "cortex", "mask", ...}

A picture of the cortex is made when an item is asked for: one sparse product. Responses stay in memory as vectors, which is
some forty times less than the 700 GB of rendered maps that NSD's eight people would need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.data.cortical_positions import FlatPositions, flat_positions
from radiata_decode.data.flat_map import Canvas, CortexImage, common_canvas, cortex_image
from radiata_decode.data.loading import unit_images
from radiata_decode.data.normalisation import subject_standardiser
from radiata_decode.data.repeats import Averaged, averaged
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject

__all__ = ["SurfaceItems", "SurfacePerson", "people_on_canvas", "surface_items"]


@dataclass(frozen=True)
class SurfacePerson:
    """One person on the canvas.

    Attributes:
        subject: The folder.
        cortex: Their matrices.
        rule: Of standardising: none, train or session.
    """

    subject: Subject
    cortex: CortexImage
    rule: str = "session"

    def averages(self, split: str, count: int | None = None) -> Averaged:
        """Standardised responses, averaged over repeats."""
        return averaged(
            self.subject, split, count=count, standardiser=subject_standardiser(self.subject, self.rule)
        )

    def pictures(self, responses: np.ndarray) -> Tensor:
        """Pictures of the cortex (n, 1, y, x) of responses (n, voxel)."""
        return torch.from_numpy(self.cortex.images(responses))


def people_on_canvas(
    subjects: Sequence[Subject],
    size: int = 128,
    *,
    canvas: Canvas | None = None,
    rule: str = "session",
    regions: Sequence[str] = (),
) -> list[SurfacePerson]:
    """Each person with the matrices of the canvas that all share.

    Voxels count by the root of their noise ceiling, where it is known.

    Args:
        subjects: At least one.
        size: Side of the canvas, pixels.
        canvas: One that a model was trained on; None: the one that shows all voxels of all.
        rule: Of standardising.
        regions: Names of ROI columns that count; none: all voxels.

    Raises:
        InputError: no subject, one without positions, or a region that somebody lacks.
    """
    if not subjects:
        raise InputError("expected at least one subject; got none.")
    places = [_chosen(subject, regions) for subject in subjects]
    canvas = common_canvas(places, size) if canvas is None else canvas
    return [
        SurfacePerson(subject, cortex_image(place, canvas, reliability=_reliability(subject)), rule)
        for subject, place in zip(subjects, places, strict=True)
    ]


def _chosen(subject: Subject, regions: Sequence[str]) -> FlatPositions:
    found = flat_positions(subject.voxels)
    if not regions:
        return found
    missing = [name for name in regions if name not in subject.rois]
    if missing:
        raise InputError(
            f"expected the regions {', '.join(missing)} in {subject.folder}; got {', '.join(subject.rois) or 'none'}."
        )
    inside = np.logical_or.reduce([subject.rois[name] for name in regions])
    return FlatPositions(found.hemisphere, found.x, found.y, found.kept & inside)


def _reliability(subject: Subject) -> np.ndarray | None:
    ceiling = subject.noise_ceiling
    return None if ceiling is None else np.sqrt(np.clip(ceiling, 0, 1)).astype(np.float64)


class SurfaceItems(torch.utils.data.Dataset):
    """Items of all people, one after the other; `group` says whose each is.

    Args:
        people: On one canvas.
        averages: Of each, in the same order.
        extras: Further entries of each item, one tensor a stimulus: name → stimulus → tensor.
        images: Side of the pictures that were seen, pixels; None: no pictures, items are {"image": cortex, "mask": mask}.
    """

    def __init__(
        self,
        people: Sequence[SurfacePerson],
        averages: Sequence[Averaged],
        extras: Mapping[str, Mapping[str, Tensor]] | None = None,
        images: int | None = None,
    ) -> None:
        self.people, self.averages, self.extras = list(people), list(averages), dict(extras or {})
        self.where = [
            (who, row) for who, part in enumerate(self.averages) for row in range(len(part.stimulus))
        ]
        self.masks = [torch.from_numpy(p.cortex.mask).float().unsqueeze(0) for p in self.people]
        self.seen = (
            None
            if images is None
            else [
                unit_images(read_stimuli(p.subject.folder).images(a.stimulus), images)
                for p, a in zip(self.people, self.averages, strict=True)
            ]
        )

    @property
    def group(self) -> list[int]:
        """Whose each item is."""
        return [who for who, _ in self.where]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> dict[str, Any]:
        who, row = self.where[index]
        person, average = self.people[who], self.averages[who]
        cortex = person.pictures(average.responses[row : row + 1])[0]
        if self.seen is None:
            return {"image": cortex, "mask": self.masks[who]}
        name = average.stimulus[row]
        item = {"image": self.seen[who][row], "cortex": cortex}
        return item | {key: values[name] for key, values in self.extras.items()}


def surface_items(
    people: Sequence[SurfacePerson],
    split: str,
    *,
    images: int | None = None,
    extras: Mapping[str, Mapping[str, Tensor]] | None = None,
    count: int | None = None,
) -> SurfaceItems:
    """Items of a split.

    Args:
        people: On one canvas.
        split: train, validation or test.
        images: Side of the pictures; None: cortex alone.
        extras: See `SurfaceItems`.
        count: Repeats that are averaged; None: all.

    Raises:
        InputError: a person without trials of that split, or without stimuli.
    """
    return SurfaceItems(people, [person.averages(split, count) for person in people], extras, images)
