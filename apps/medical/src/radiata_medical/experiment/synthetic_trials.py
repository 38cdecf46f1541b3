"""Trials with known truth: slices with simulated lesions, and pairs of one slice in two contrasts.

They are rendered from label maps of people whom neither prior nor calibration has seen (that is for the caller to keep), and
are what the tables on anomaly and translation are measured on. Images are synthetic, scores on them upper estimates.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.posterior_spread import Spread
from radiata_core.seeds import generator_of, generators_of, rng_of, seed_of
from radiata_core.tiling import TiledDenoiser
from radiata_medical.data.lesions import LesionSpec, lesion_mean, simulate_lesion
from radiata_medical.data.structures import CONTRAST, tissue_channels
from radiata_medical.data.synthesis import Head, ScanSpec, synthesise
from radiata_medical.experiment.anatomy import BRAIN, TISSUE_COUNT
from radiata_medical.model.translation import (
    TranslationOptions,
    curve_image,
    painted,
    quantile_mapping,
    tissue_means,
    translate,
)

__all__ = [
    "LesionTrials",
    "PairTrials",
    "lesion_trials",
    "pair_trials",
    "translation_errors",
    "with_label_errors",
]

_WHITE_MATTER = 1 + CONTRAST.index("white matter")
_ENOUGH = 400  # pixels of white matter that make a slice worth a trial
_SPEC = ScanSpec(
    shape=(160, 192, 1), rotation=6.0, scale=(0.95, 1.05), warp=2.0, texture=(0.01, 0.03), grain=(0.0, 0.03),
    bias=(0.0, 0.08), inside=1.0,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LesionTrials:
    """Slices with or without lesions.

    Attributes:
        images: (trials, 1, x, y), units of the prior.
        lesions: Where they are, bool (trials, x, y).
        brains: Bool (trials, x, y).
        covariates: Measured tissue means for the prior, (trials, 4).
        people: Index of the head of each.
    """

    images: Tensor
    lesions: Tensor
    brains: Tensor
    covariates: Tensor
    people: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PairTrials:
    """Slices in two contrasts.

    Attributes:
        images: In the contrast that is given, (trials, 1, x, y), units of the prior.
        truths: In the one that is wanted.
        tissues: Of every pixel, int64 (trials, x, y).
        people: Index of the head of each.
    """

    images: Tensor
    truths: Tensor
    tissues: Tensor
    people: tuple[int, ...]


def lesion_trials(
    heads: Sequence[Head],
    count: int,
    seed: int,
    *,
    contrast: str = "t1",
    lesion: LesionSpec | None = None,
    shapes: Sequence[np.ndarray] = (),
    spec: ScanSpec = _SPEC,
) -> LesionTrials:
    """Slices of the heads in turn, each with one lesion in its white matter, or none.

    Args:
        heads: Label maps of people.
        count: Trials.
        seed: Of everything.
        contrast: A contrast with a table.
        lesion: How lesions are drawn; None for healthy slices.
        shapes: Sections of real lesions; empty for blobs.
        spec: How slices are rendered.
    """
    rows: list[tuple[Tensor, np.ndarray, np.ndarray, Tensor]] = []
    for trial in range(count):
        image, tissues = _slice(heads[trial % len(heads)], contrast, spec, seed, trial)
        inside = np.isin(tissues, BRAIN)
        means = tissue_means(image[None, None], torch.from_numpy(tissues)[None], TISSUE_COUNT)[0]
        mask, shown = np.zeros(inside.shape, bool), image
        if lesion is not None:
            middle = lesion_mean(contrast, float(means[_WHITE_MATTER]))
            found = simulate_lesion(
                image.numpy(),
                tissues == _WHITE_MATTER,
                inside,
                shapes,
                middle,
                lesion,
                rng_of(seed, 31, trial),
            )
            mask, shown = found.mask, torch.from_numpy(found.image)
        rows.append((shown, mask, inside, means[1 : 1 + len(CONTRAST)]))
    return LesionTrials(
        torch.stack([row[0] for row in rows])[:, None],
        torch.from_numpy(np.stack([row[1] for row in rows])),
        torch.from_numpy(np.stack([row[2] for row in rows])),
        torch.stack([row[3] for row in rows]),
        tuple(trial % len(heads) for trial in range(count)),
    )


def pair_trials(
    heads: Sequence[Head],
    count: int,
    seed: int,
    *,
    given: str = "t1",
    wanted: str = "t2",
    spec: ScanSpec = _SPEC,
) -> PairTrials:
    """Slices of the heads in turn, rendered alike in two contrasts."""
    images, truths, maps = [], [], []
    for trial in range(count):
        head = heads[trial % len(heads)]
        image, tissues = _slice(head, given, spec, seed, trial)
        truth, _ = _slice(head, wanted, spec, seed, trial)
        images.append(image)
        truths.append(truth)
        maps.append(torch.from_numpy(tissues))
    return PairTrials(
        torch.stack(images)[:, None],
        torch.stack(truths)[:, None],
        torch.stack(maps),
        tuple(trial % len(heads) for trial in range(count)),
    )


def with_label_errors(trials: PairTrials, sd: float, seed: int) -> PairTrials:
    """The same pairs with tissue maps as a segmenter might give them: borders displaced by a smooth field.

    Args:
        trials: With exact maps.
        sd: Of the displacement along each axis, pixels; 1 leaves about 83 % of the brain's labels right.
        seed: Of the field.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    maps = []
    for number, tissues in enumerate(trials.tissues.numpy()):
        rng = rng_of(seed, 34, number)
        fields = [gaussian_filter(rng.standard_normal(tissues.shape), 4) for _ in range(2)]
        place = np.indices(tissues.shape) + np.stack([sd * field / field.std() for field in fields])
        maps.append(torch.from_numpy(map_coordinates(tissues, place, order=0, mode="nearest")))
    return dataclasses.replace(trials, tissues=torch.stack(maps))


def translation_errors(
    prior: Any,
    trials: PairTrials,
    options: TranslationOptions | None = None,
    *,
    spread: Spread | None = None,
    guide: Any = None,
    exact: Tensor | None = None,
    detail: float = 0.5,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, tuple[float, ...]]:
    """Method -> root mean square error within the brain of each trial, units of the prior.

    The means wanted are those of the truth, so that the error is one of the method and not of the table.

    Args:
        prior: Of slices; None for the baselines alone.
        trials: Pairs.
        options: Of the prior's refinement.
        spread: As `translation.translate`.
        guide: As there.
        exact: Exact tissues for the brain that is scored, where those of the trials have errors.
        detail: As `translation.curve_image`.
        batch_size: Slices at once.
        seed: Of the noise.
    """
    image, truth, tissues = trials.images, trials.truths, trials.tissues
    means = tissue_means(image, tissues, TISSUE_COUNT)
    wanted = tissue_means(truth, tissues, TISSUE_COUNT)
    matched = torch.stack([quantile_mapping(x[0], y[0])[None] for x, y in zip(image, truth, strict=True)])
    curve = curve_image(image, tissues, means, wanted, BRAIN, detail=detail)
    found = {"histogram": matched, "paint": painted(tissues, wanted), "curve": curve}
    if prior is not None:
        whole = TiledDenoiser(prior, 0, 0)
        parts = []
        for start in range(0, len(curve), batch_size):
            rows = range(start, min(start + batch_size, len(curve)))
            parts.append(
                translate(
                    whole, curve[rows.start : rows.stop], options or TranslationOptions(), generators_of(rows, 32, seed),
                    guide=guide, spread=spread, covariates=wanted[rows.start : rows.stop, 1 : 1 + len(CONTRAST)],
                )
            )  # fmt: skip
        found["prior"] = torch.cat(parts)
    inside = torch.isin(tissues if exact is None else exact, torch.tensor(BRAIN))
    return {name: _errors(result - truth, inside) for name, result in found.items()}


def _errors(difference: Tensor, inside: Tensor) -> tuple[float, ...]:
    return tuple(
        float(row[0][mask].square().mean().sqrt()) for row, mask in zip(difference, inside, strict=True)
    )


def _slice(head: Head, contrast: str, spec: ScanSpec, seed: int, trial: int) -> tuple[Tensor, np.ndarray]:
    """Image (x, y) and tissues of a slice with enough white matter; the same slice for any contrast.

    Raises:
        InputError: twenty slices of the head have none.
    """
    table = tissue_channels()
    wanted = dataclasses.replace(spec, contrasts=((contrast, 1.0),))
    for attempt in range(20):
        scan = synthesise(head, wanted, generator_of(seed_of(seed, trial) % 2**31, 33, attempt))
        tissues = table[scan.labels[:, :, 0].cpu().numpy()].astype(np.int64)
        if (tissues == _WHITE_MATTER).sum() >= _ENOUGH * min(1.0, tissues.size / 30_000):
            return scan.image[:, :, 0].cpu(), tissues
    raise InputError("expected a head with white matter; got twenty slices without. Check the label map.")
