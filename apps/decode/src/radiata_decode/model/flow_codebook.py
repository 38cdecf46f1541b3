r"""A codebook of flow vectors, so that motion is predicted as a choice: k-means on what was seen to move in training.

A vector is named by its nearest code, and a classifier gives probabilities $p_c$ of the codes in each cell. Two ways back:

    mean     $\sum_c p_c\, e_c$, the mean of the distribution: least squared error
    median   the point with the least expected distance $\sum_c p_c \lVert w - e_c \rVert$: least endpoint error, found by
             Weiszfeld's iteration

The mean of two opposite motions is no motion; the median goes to the more likely one. What the codes themselves cost is the
*quantisation error*: the mean distance of vectors from their codes, which no classifier on the codebook can go below (with
the hard choice).

References:
    BrainNRDS (2024), section on the flow decoder: 40 vectors, probability-weighted sum. https://arxiv.org/abs/2406.02659.
    E. Weiszfeld (1937). Sur le point pour lequel la somme des distances de n points donnés est minimum. Tohoku
    Mathematical Journal 43.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.flow_grids import check_flow

__all__ = ["FlowCodebook"]

WEISZFELD_STEPS = 20


@dataclass(frozen=True, eq=False)
class FlowCodebook:
    """Codes.

    Attributes:
        vectors: (k, 2), cells of the grid a frame step, x to the right and y downward.
    """

    vectors: Tensor

    @property
    def size(self) -> int:
        """k."""
        return len(self.vectors)

    @classmethod
    def fit(
        cls, flow: Tensor, size: int = 40, *, rng: np.random.Generator, sample: int = 40_000
    ) -> "FlowCodebook":
        """Codes of training flow.

        Args:
            flow: (n, step, 2, y, x).
            size: k; 40 in BrainNRDS.
            rng: Which vectors are looked at, and where codes start.
            sample: How many vectors are looked at.

        Raises:
            InputError: not flow, fewer than two codes, or fewer different vectors than codes.
        """
        from sklearn.cluster import KMeans

        check_flow(flow)
        vectors = flow.movedim(2, -1).reshape(-1, 2).double().cpu().numpy()
        chosen = vectors[rng.permutation(len(vectors))[:sample]]
        if not 2 <= size <= len(np.unique(chosen, axis=0)):
            raise InputError(
                f"expected 2 to {len(np.unique(chosen, axis=0))} codes, as many different vectors as there are; got {size}."
            )
        found = KMeans(size, n_init=2, random_state=int(rng.integers(2**31))).fit(chosen)
        order = np.argsort(np.linalg.norm(found.cluster_centers_, axis=1), kind="stable")  # slowest first
        return cls(torch.from_numpy(found.cluster_centers_[order]).float())

    def codes(self, flow: Tensor) -> Tensor:
        """Number of the nearest code of each vector, (n, step, y, x) int64."""
        return self._distances(flow).argmin(-1)

    def decode(self, probabilities: Tensor, way: str = "mean") -> Tensor:
        """Flow (n, step, 2, y, x) from probabilities of the codes.

        Args:
            probabilities: (n, step, k, y, x), >= 0, adding up to 1 over k.
            way: mean or median.

        Raises:
            InputError: another number of codes, or another way.
        """
        if probabilities.ndim != 5 or probabilities.shape[2] != self.size:
            raise InputError(
                f"expected probabilities (n, step, {self.size}, y, x); got {tuple(probabilities.shape)}."
            )
        if way not in ("mean", "median"):
            raise InputError(f"expected to decode by mean or median; got {way}.")
        codes = self.vectors.to(probabilities)
        found = torch.einsum("nskyx,kc->nscyx", probabilities, codes)
        for _ in range(WEISZFELD_STEPS if way == "median" else 0):
            pull = probabilities.movedim(2, -1) / (self._distances(found) + 1e-4)
            weight = pull / pull.sum(-1, keepdim=True)
            found = torch.einsum("nsyxk,kc->nscyx", weight, codes)
        return found

    def quantisation_error(self, flow: Tensor) -> float:
        """Mean distance of vectors from their codes, cells a frame step."""
        return float(self._distances(flow).amin(-1).double().mean())

    def _distances(self, flow: Tensor) -> Tensor:
        """(n, step, y, x, k)."""
        check_flow(flow)
        points = flow.movedim(2, -1)
        return torch.cdist(points.reshape(-1, 2), self.vectors.to(flow)).reshape(*points.shape[:-1], -1)
