r"""Predictions of targets that are too many to keep: one hat matrix, the targets streamed past it.

For m new responses and a penalty, everything that ridge does to any target is one matrix (m, n),

$$ \hat Y = \bar Y + H_\alpha \tilde Y, \qquad H_\alpha = \tilde X_* \tilde X^\top Q\,(w + \alpha)^{-1} Q^\top . $$

At the size of the Natural Scenes Dataset (8859 training pictures, 982 test pictures) it has 35 MB, where the weights of
257 × 768 embedding targets have 12.4 GB. Targets come in blocks – a token, some columns of a memory map – and nothing of
them is kept but their predictions, which are handed over block by block.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_decode.model.loo_ridge import loo_errors, scaled_leverage
from radiata_decode.model.penalty_groups import checked_alphas
from radiata_decode.model.ridge import SharedRidge

__all__ = ["StreamedPrediction", "StreamedRidge", "ridge_flops", "target_blocks"]


@dataclass(frozen=True)
class StreamedPrediction:
    """One block of targets.

    Attributes:
        values: Predictions, (m, c).
        alpha: The block's penalty.
        loo_r2: Leave-one-out R² of the targets that chose it, pooled; NaN where the penalty was given.
    """

    values: Tensor
    alpha: float
    loo_r2: float


class StreamedRidge:
    """The hat matrix of some new responses, for each penalty that is asked for.

    Args:
        shared: The decomposed training responses.
        responses: (m, v), new.

    Raises:
        InputError: responses that do not fit.
    """

    def __init__(self, shared: SharedRidge, responses: np.ndarray | Tensor) -> None:
        self.shared = shared
        self._coordinates = shared.kernel_rows(responses) @ shared.spectrum.basis
        self._hats: dict[float, Tensor] = {}

    def hat(self, alpha: float) -> Tensor:
        """H, (m, n): predictions are the target mean + H @ √s (Y - Ȳ). Made once a penalty."""
        if alpha not in self._hats:
            spectrum = self.shared.spectrum
            self._hats[alpha] = self._coordinates / (spectrum.values + alpha) @ spectrum.basis.T
        return self._hats[alpha]

    def predict(
        self,
        blocks: Iterable[np.ndarray | Tensor],
        alphas: Any = None,
        *,
        subset: int = 16,
        generator: torch.Generator | None = None,
    ) -> Iterator[StreamedPrediction]:
        """Predictions of each block (n, c), in order; a block shares one penalty.

        Args:
            blocks: Targets, as from `target_blocks`; each is a group.
            alphas: Penalties to choose from by the leave-one-out error, one number to take as it is; None: `shared.alphas`.
            subset: How many columns of a block, at random, choose its penalty; it costs 2 n² for each and each penalty.
            generator: Chooses them; None: one of seed 0.

        Raises:
            InputError: a block of other rows than there are training trials, or with NaN; no penalty above 0.
        """
        grid = checked_alphas(self.shared.alphas if alphas is None else alphas).to(self._coordinates)
        generator = generator or torch.Generator().manual_seed(0)
        leverage = scaled_leverage(self.shared.spectrum, grid) if len(grid) > 1 else None
        for block in blocks:
            centred, mean = self.shared.centred(block)
            alpha, r2 = float(grid[0]), float("nan")
            if leverage is not None:
                columns = torch.randperm(centred.shape[1], generator=generator)[:subset]
                alpha, r2 = self._chosen(centred[:, columns.to(centred.device)], grid, leverage)
            yield StreamedPrediction(torch.addmm(mean, self.hat(alpha), centred), alpha, r2)

    def _chosen(self, centred: Tensor, grid: Tensor, leverage: Tensor) -> tuple[float, float]:
        spectrum = self.shared.spectrum
        errors = loo_errors(spectrum, centred, grid, leverage).double().sum(1)
        left = 1 - spectrum.root.square() / spectrum.root.square().sum()
        total = float((centred / left[:, None]).square().sum())
        best = int(errors.argmin())
        return float(grid[best]), 1 - float(errors[best]) / total if total > 0 else 0.0


def target_blocks(targets: Any, columns: int = 1024) -> Iterator[np.ndarray]:
    """Blocks (n, c) of targets in memory, in a memory map, or in an HDF5 data set; only one is read at a time.

    Args:
        targets: (n, t), cut into `columns` at a time; or (n, token, dimension), a token at a time.
        columns: Of a two-dimensional array.
    """
    if len(targets.shape) == 3:
        for token in range(targets.shape[1]):
            yield np.asarray(targets[:, token])
        return
    for start in range(0, targets.shape[1], columns):
        yield np.asarray(targets[:, start : start + columns])


def ridge_flops(trials: int, voxels: int, new: int, targets: int, blocks: int) -> dict[str, float]:
    """Floating-point operations of the shared ridge and of a solver called once a block, by part.

    Args:
        trials: n.
        voxels: v.
        new: m.
        targets: t, in all blocks together.
        blocks: How often the other solver is called (with the Gram matrix and Cholesky, as scikit-learn does for v > n).
    """
    n, v, m, t = float(trials), float(voxels), float(new), float(targets)
    gram, factor = 2 * n * n * v, n**3 / 3
    shared = {
        "gram": gram,
        "decomposition": 9 * n**3,  # reduction to tridiagonal form, divide and conquer, back transformation
        "hat": 2 * m * n * v + 4 * m * n * n,
        "predictions": 2 * m * n * t,
    }
    loop = {
        "gram": blocks * gram,
        "factor": blocks * factor,
        "solve": 2 * n * n * t,
        "weights": 2 * n * v * t,
        "predictions": 2 * m * v * t,
    }
    return {f"shared_{k}": x for k, x in shared.items()} | {f"loop_{k}": x for k, x in loop.items()}
