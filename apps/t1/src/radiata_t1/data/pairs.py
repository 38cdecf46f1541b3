"""Pairs of noise and head that a teacher draws: every second one free, the others with the conditions of a training head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.checkpoint import LoadedModel
from radiata_core.seeds import generator_of
from radiata_imaging.pairs import PairDataset, draw_pairs, open_pairs

__all__ = ["drawn_pairs", "pair_conditions"]

_CHOOSE = 11  # key that keeps this choice apart from the seed's noise


def pair_conditions(seeds: Sequence[int], known: np.ndarray | None, count: int) -> Tensor:
    """Standardised covariates `(len(seeds), count)` of the pairs of these seeds, a function of each seed alone.

    Args:
        seeds: One a pair. Odd seeds get no conditions (NaN).
        known: Standardised covariates of the training heads `(heads, count)`; None for no conditions at all.
        count: Number of covariates of the model.
    """
    rows = torch.full((len(seeds), count), torch.nan)
    if known is None or not count:
        return rows
    for position, seed in enumerate(seeds):
        if seed % 2 == 0:
            chosen = int(torch.randint(len(known), (), generator=generator_of(seed, _CHOOSE)))
            rows[position] = torch.from_numpy(known[chosen].astype(np.float32))
    return rows


def drawn_pairs(
    loaded: LoadedModel,
    folder: Path,
    count: int,
    steps: int,
    *,
    known: np.ndarray | None = None,
    batch: int = 8,
    shard: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
) -> PairDataset:
    """The pairs of the seeds 0 .. count - 1, after those that were missing in the folder are drawn.

    Args:
        loaded: The teacher; its checksum marks the pairs.
        folder: Where they are, and stay.
        count: Pairs.
        steps: Steps of UniPC-2.
        known: Standardised covariates of the training heads, as for `pair_conditions`.
        batch: Pairs at a time.
        shard: (i, n): only every n-th seed from i is drawn here; all must be there at the end.
        device: Where the teacher draws; it is moved there.

    Raises:
        InputError: pairs of another teacher, or drawn otherwise, are in the folder.
        Interrupted: after Ctrl-C, with what was drawn.
    """
    denoiser: Any = loaded.denoiser.eval().to(device)
    event = (1, *loaded.metadata["shape"])
    covariates = int(denoiser.network.options["covariates"])

    def conditions(seeds: Sequence[int]) -> Mapping[str, Tensor]:
        return {"covariates": pair_conditions(seeds, known, covariates)} if covariates else {}

    with torch.inference_mode():
        draw_pairs(
            denoiser,
            range(count),
            folder,
            event=event,
            conditions=conditions,
            steps=steps,
            batch=batch,
            shard=shard,
            teacher=loaded.sha256,
            device=device,
        )
    return open_pairs(folder, seeds=range(count), path=denoiser.path, event=event, teacher=loaded.sha256)
