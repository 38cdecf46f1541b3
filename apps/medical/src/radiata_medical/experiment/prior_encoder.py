"""A perceptual distance that knows heads: what the decoder of a prior sees in slices of a restored scan and of the true one.

Activations of a 2-D prior at small noise levels, on axial slices spread evenly over the scan; at each position the channels
of a layer are made a vector of length one, as in LPIPS, so that the distance is that of what is seen there and not of how
strongly. Noise comes from fixed seeds: equal scans are at distance 0, and a distance is the same on every day.

References:
    R. Zhang et al. (2018). The unreasonable effectiveness of deep features as a perceptual metric. arXiv:1801.03924, eq. 1.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from radiata_core.checkpoint import load_model
from radiata_core.denoiser_features import DenoiserFeatures
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_medical.model.weights import find_model

__all__ = ["PriorEncoder"]

_LEVELS = (0.1, 0.3)
_SLICES = 9
_PURPOSE = 73


@dataclass(frozen=True, eq=False)
class PriorEncoder:
    """From a scan in units of the prior, (x, y, z), to features.

    Attributes:
        name: For the table.
        features: Of the prior.
        multiple: Of which the axes of a slice must be.
    """

    name: str
    features: DenoiserFeatures
    multiple: int

    @classmethod
    def of(cls, model: str) -> Self:
        """The encoder of a prior by name, file or run.

        Raises:
            InputError: no such model, or one that is no prior of slices.
        """
        loaded = load_model(find_model(model))
        denoiser: Any = loaded.denoiser.eval()
        if loaded.metadata.get("dims") != 2 or not hasattr(denoiser, "path"):
            raise InputError(
                f"expected a prior of slices (2-D) for --encoder; got {model}. Take prior-2d, or random."
            )
        multiple = int(getattr(denoiser.network, "multiple", 8))
        return cls(f"decoder of {model}", DenoiserFeatures(denoiser, _LEVELS, estimate=False), multiple)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        depth = array.shape[2]
        chosen = np.unique(np.rint(np.linspace(0.1, 0.9, _SLICES) * (depth - 1)).astype(int))
        slices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array[:, :, chosen], 2, 0))).float()[
            :, None
        ]
        edges = [-n % self.multiple for n in slices.shape[2:]]
        padded = torch.nn.functional.pad(slices, (0, edges[1], 0, edges[0]))
        found = []
        for number, row in enumerate(padded.split(1)):
            for values in self.features.maps(row, generators_of([number], _PURPOSE)):
                length = values.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8)
                found.append((values / length).flatten() / (values[0, 0].numel() ** 0.5))
        return torch.cat(found).numpy()
