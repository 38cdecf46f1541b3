"""Pairs of response and picture for training: MONAI datasets that read a picture when it is asked for.

    averaged responses + names → monai.data.Dataset → picture by name → {"response": (voxel,), "image": (3, y, x) in [0, 1]}

Responses are in memory (one row a stimulus), pictures on the disk until they are needed; with `cache` they are read once
and kept. The order of a shuffled epoch comes from the generator that is passed in. They stand apart from `loading`, which
every command needs: importing MONAI takes seconds.
"""

from collections.abc import Hashable, Mapping

import torch
from monai.data import CacheDataset, DataLoader
from monai.data import Dataset as MonaiDataset
from monai.transforms import MapTransform

from radiata_core.errors import InputError
from radiata_decode.data.loading import unit_images
from radiata_decode.data.repeats import Averaged
from radiata_decode.data.stimuli import Stimuli

__all__ = ["PictureByName", "pair_loader", "paired"]


class PictureByName(MapTransform):
    """Replace the name under a key by its picture, float32 (3, y, x) in [0, 1].

    Args:
        stimuli: Where pictures are.
        size: Side of the square that they become, pixels; None: as they are.
        keys: Of names.
    """

    def __init__(self, stimuli: Stimuli, size: int | None = None, keys: tuple[str, ...] = ("image",)) -> None:
        super().__init__(keys)
        self.stimuli = stimuli
        self.size = size

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = unit_images(self.stimuli.images([str(found[key])]), self.size)[0]
        return found


def paired(
    responses: Averaged, stimuli: Stimuli, size: int | None = None, *, cache: bool = False
) -> MonaiDataset:
    """Dataset of {"response", "image", "stimulus", "repeats"}, one item a stimulus.

    Args:
        responses: Means over repeats.
        stimuli: With their pictures.
        size: Side of the pictures, pixels; None: as they are.
        cache: Keep pictures in memory once read.

    Raises:
        InputError: a stimulus without a picture.
    """
    if "images" not in stimuli.shapes:
        raise InputError(f"expected images in {stimuli.folder}; got {', '.join(stimuli.shapes)}.")
    stimuli.rows(responses.stimulus)
    items = [
        {"response": torch.from_numpy(row), "image": name, "stimulus": name, "repeats": int(count)}
        for row, name, count in zip(responses.responses, responses.stimulus, responses.repeats, strict=True)
    ]
    transform = PictureByName(stimuli, size)
    if cache:
        return CacheDataset(items, transform, num_workers=None, progress=False)
    return MonaiDataset(items, transform)


def pair_loader(
    dataset: MonaiDataset,
    batch_size: int,
    generator: torch.Generator,
    *,
    shuffle: bool = True,
    workers: int = 0,
) -> DataLoader:
    """Batches {"response": (n, voxel), "image": (n, 3, y, x), "stimulus": names, "repeats": (n,)}.

    Args:
        dataset: Of pairs.
        batch_size: Pairs a batch; the last one may be smaller.
        generator: Of the order.
        shuffle: Another order each epoch.
        workers: Processes that read; 0: this one.
    """
    if batch_size < 1:
        raise InputError(f"expected at least one pair a batch; got {batch_size}.")
    return DataLoader(dataset, workers, batch_size=batch_size, shuffle=shuffle, generator=generator)
