"""MONAI pipelines: dictionary transforms from a path to a batch, cached in memory or on disk, fed by a thread.

    {"image": path, …} → ReadHeadd → PrepareHeadd | → RandAffined, RandFlipd → ThreadDataLoader → {"image": (B, 1, x, y, z)}
                                     cache boundary

What does not change between epochs stands left of the boundary and is computed once: in memory (`CacheDataset`) or on disk
(`PersistentDataset`, read back with `weights_only=True`, in a folder named after the specification so that another
specification never meets another's files). Resampling and random transforms run on `device` when it is a GPU.

Augmentation is light and off unless asked: turning and shifting by cubic interpolation (linear low-passes every turned head,
and a model learns the blur), what enters from outside is background, and heads are not mirrored unless `flip` says so:
left and right differ.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset, ThreadDataLoader
from monai.transforms import Compose, EnsureTyped, MapTransform, RandAffined, RandFlipd

from radiata_core.errors import InputError
from radiata_core.specs import describe
from radiata_imaging.manifest import Entry
from radiata_imaging.nifti import read_volume
from radiata_imaging.preprocess import BACKGROUND, PreprocessSpec, prepare_volume

__all__ = [
    "Augmentation",
    "PrepareHeadd",
    "ReadHeadd",
    "augmented",
    "head_dataset",
    "head_loader",
    "random_transforms",
]


class ReadHeadd(MapTransform):
    """Replaces a path by its `Volume`.

    Args:
        keys: Keys that hold paths.
        assume_axcodes: See `read_volume`.
    """

    def __init__(self, keys: Sequence[str] | str = "image", *, assume_axcodes: str | None = None) -> None:
        super().__init__(keys)
        self.assume_axcodes = assume_axcodes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = read_volume(out[key], assume_axcodes=self.assume_axcodes)
        return out


class PrepareHeadd(MapTransform):
    """Replaces a `Volume` by the prepared head, float32 (1, x, y, z) in [−1, 1], on `device`.

    Args:
        keys: Keys that hold volumes.
        spec: Grid, field of view and percentiles.
        device: Where to resample and where the result stays.
    """

    def __init__(
        self,
        keys: Sequence[str] | str = "image",
        spec: PreprocessSpec | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(keys)
        self.spec, self.device = spec or PreprocessSpec(), torch.device(device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            prepared = prepare_volume(out[key], self.spec, device=self.device)
            out[key] = torch.from_numpy(prepared.array)[None].to(self.device)
        return out


@dataclass(frozen=True)
class Augmentation:
    """How much a head may be moved. All zero, the default, changes nothing.

    Attributes:
        rotation: Largest angle about each axis, degrees.
        shift: Largest shift along each axis, voxels.
        scale: Largest relative change of size along each axis, such as 0.03.
        probability: Share of the heads that are moved.
        flip: Probability of mirroring left and right. It destroys laterality; leave it at 0 unless that is wanted.
        cubic: Cubic interpolation on the CPU; linear is what a GPU has (and blurs).
    """

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    probability: float = 1.0
    flip: float = 0.0
    cubic: bool = True

    def __post_init__(self) -> None:
        if min(self.rotation, self.shift, self.scale) < 0 or not (
            0 <= self.probability <= 1 and 0 <= self.flip <= 1
        ):
            raise InputError(
                f"expected sizes ≥ 0 and probabilities in 0..1; got {self}. Correct the augmentation."
            )


def random_transforms(
    augmentation: Augmentation, *, seed: int, left_right: int = 0, device: torch.device | str = "cpu"
) -> Compose:
    """The random part of a pipeline as a seeded MONAI `Compose` on the key `image`; empty where nothing is asked.

    Args:
        augmentation: How much.
        seed: Of the transforms' own random state; no global one is touched.
        left_right: Spatial axis that runs from right to left.
        device: Where linear interpolation is computed.
    """
    steps: list[Any] = []
    if augmentation.probability and max(augmentation.rotation, augmentation.shift, augmentation.scale):
        angle = float(np.deg2rad(augmentation.rotation))
        steps += [
            _Offsetd("image", -BACKGROUND),  # zero padding then means background
            RandAffined(
                "image",
                prob=augmentation.probability,
                rotate_range=[angle] * 3,
                translate_range=[augmentation.shift] * 3,
                scale_range=[augmentation.scale] * 3,
                mode=3 if augmentation.cubic else "bilinear",
                padding_mode="constant" if augmentation.cubic else "zeros",
                device=None if augmentation.cubic else torch.device(device),
            ),
            _Offsetd("image", BACKGROUND),
            _Clampd("image"),
        ]
    if augmentation.flip:
        steps.append(RandFlipd("image", prob=augmentation.flip, spatial_axis=left_right))
    if steps:
        steps.append(
            EnsureTyped("image", track_meta=False)
        )  # a MetaTensor slows every operation of a network
    transforms = Compose(steps)
    transforms.set_random_state(seed)
    return transforms


class _Offsetd(MapTransform):
    """Adds a constant."""

    def __init__(self, keys: str, offset: float) -> None:
        super().__init__(keys)
        self.offset = offset

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return dict(data) | {key: data[key] + self.offset for key in self.key_iterator(dict(data))}


class _Clampd(MapTransform):
    """Clips to [−1, 1]: cubic interpolation overshoots."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return dict(data) | {key: data[key].clamp(-1, 1) for key in self.key_iterator(dict(data))}


def head_dataset(
    entries: Sequence[Entry],
    spec: PreprocessSpec | None = None,
    *,
    covariates: Sequence[str] = (),
    augmentation: Augmentation | None = None,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    workers: int = 1,
    assume_axcodes: str | None = None,
    device: torch.device | str = "cpu",
) -> Dataset:
    """A map-style dataset straight from files: prepared heads in memory, or on disk where `cache_dir` is given.

    Items are {"image": float32 (1, x, y, z), "covariates": float32 (K,)}; `covariates` is left out for K = 0.

    Args:
        entries: Scans.
        spec: Grid, field of view and percentiles.
        covariates: Names, in the order of the columns; missing values are NaN.
        augmentation: Random transforms applied anew each time an item is asked for.
        seed: Of the random transforms (a `head_loader` reseeds them from its generator).
        cache_dir: Folder for prepared heads; they survive the process.
        workers: Threads that fill the memory cache.
        assume_axcodes: See `read_volume`.
        device: Where transforms run and heads are kept in memory.

    Raises:
        InputError: there are no entries.
    """
    if not entries:
        raise InputError("expected at least one scan for the dataset; got none. Check the split.")
    spec = spec or PreprocessSpec()
    items = [_item(entry, covariates) for entry in entries]
    prepare = [ReadHeadd(assume_axcodes=assume_axcodes), PrepareHeadd(spec=spec, device=device)]
    random = random_transforms(
        augmentation or Augmentation(), seed=seed, left_right=_left_right(spec), device=device
    )
    transforms = Compose([*prepare, *random.transforms])
    transforms.set_random_state(seed)
    if cache_dir is None:
        return CacheDataset(items, transforms, num_workers=workers, progress=False, copy_cache=False)
    name = hashlib.sha256(json.dumps(describe(spec), sort_keys=True).encode()).hexdigest()[:16]
    return PersistentDataset(items, transforms, cache_dir=Path(cache_dir) / name, weights_only=True)


def _item(entry: Entry, covariates: Sequence[str]) -> dict[str, Any]:
    item: dict[str, Any] = {"image": str(entry.path)}
    if covariates:
        values = [float(entry.covariates.get(name, np.nan)) for name in covariates]
        item["covariates"] = torch.tensor(values, dtype=torch.float32)
    return item


def _left_right(spec: PreprocessSpec) -> int:
    return next(index for index, code in enumerate(spec.axcodes) if code in "LR")


def augmented(
    dataset: torch.utils.data.Dataset,
    augmentation: Augmentation,
    *,
    seed: int = 0,
    left_right: int = 0,
    device: torch.device | str = "cpu",
) -> Dataset:
    """Any dataset of items with `image` (a `StoreDataset`, say) with random transforms behind it."""
    return Dataset(dataset, random_transforms(augmentation, seed=seed, left_right=left_right, device=device))


def head_loader(
    dataset: torch.utils.data.Dataset,
    batch_size: int,
    *,
    generator: torch.Generator,
    shuffle: bool = True,
    buffer: int = 2,
) -> ThreadDataLoader:
    """Batches, the next ones prepared by a thread while the network works (no process, so GPU transforms are allowed).

    Args:
        dataset: Map-style dataset.
        batch_size: Heads a batch.
        generator: Source of the order and of the random transforms' seeds.
        shuffle: Another order each epoch.
        buffer: Batches kept ready.
    """
    return ThreadDataLoader(
        dataset,
        buffer_size=buffer,
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=0,
    )
