"""A population as networks take it: trials of some splits, held-in neurons first.

    population → held-in first → small whole numbers → float32 → {"image": (time, neuron), "observed"}

In a file held-out neurons may stand anywhere; inside a network the held-in ones come first, each group in its order, so
that what an encoder may see is `counts[..., :heldin]`. `population.heldin_first` is that order, made there and nowhere else:
what comes out of a network goes back by `inverse = np.argsort(heldin_first(population))`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_latents.data.population import SPLITS, heldin_first

if TYPE_CHECKING:
    from monai.data import DataLoader

__all__ = ["TrialCounts", "heldin_first", "loader"]


class TrialCounts(Dataset):
    """Trials of a population: item i is {"image": float32 (time, neuron), held-in first, "observed": bool (time,)}.

    Args:
        population: See `data.population`.
        splits: Which of its splits, in the population's own order of trials.

    Attributes:
        trials: Index of each item in the population.

    Raises:
        InputError: an unknown split, or one without trials.
    """

    def __init__(self, population: xr.Dataset, splits: Sequence[str] = ("train",)) -> None:
        unknown = sorted(set(splits) - set(SPLITS))
        if unknown or not splits:
            raise InputError(
                f"expected splits among {', '.join(SPLITS)}; got {', '.join(unknown) or 'none'}. Change --split."
            )
        words = population["split"].values
        self.trials = np.flatnonzero(np.isin(words, list(splits)))
        if not len(self.trials):
            there = ", ".join(sorted(set(words.tolist())))
            raise InputError(
                f"expected trials of {' and '.join(splits)}; the population has {there} only. Prepare it with "
                "--validation or --test, or choose another --split."
            )
        counts = population["counts"].values[self.trials][..., heldin_first(population)]
        self._counts = np.ascontiguousarray(counts, np.uint8 if counts.max() < 256 else np.uint16)
        self.observed = torch.from_numpy(population["observed"].values[self.trials].astype(bool))

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.from_numpy(self._counts[index].astype(np.float32))
        return {"image": image, "observed": self.observed[index]}

    @property
    def counts(self) -> Float[Tensor, "trial time neuron"]:
        """All of them at once, float32, held-in neurons first."""
        return torch.from_numpy(self._counts.astype(np.float32))


def loader(
    population: xr.Dataset,
    splits: Sequence[str] = ("train",),
    batch_size: int = 64,
    *,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
) -> "DataLoader":
    """MONAI's loader of batches {"image": (batch, time, neuron), "observed": (batch, time)} of some splits.

    Args:
        population: See `data.population`.
        splits: Which of its splits.
        batch_size: Trials a batch, >= 1; the last batch may be smaller.
        shuffle: In another order every epoch, that depends on the seed and the epoch.
        seed: Of the order.
        workers: Processes; none is fastest, since the counts are in memory.

    Raises:
        InputError: a batch size below 1, or what `TrialCounts` refuses.
    """
    if batch_size < 1:
        raise InputError(f"expected at least one trial a batch; got {batch_size}. Change --batch-size.")
    from monai.data import DataLoader  # imports seconds of networks that no command here needs

    return DataLoader(
        TrialCounts(population, splits),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        generator=generator_of(seed),
    )
