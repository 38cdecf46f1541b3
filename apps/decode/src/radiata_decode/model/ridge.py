r"""The ridge that every stage shares: one Gram matrix and one decomposition of the responses, any number of targets.

All targets of a subject – pixels, latents, hundreds of embedding tokens, flow – are regressed on the same responses.
Solving each by itself repeats the expensive part, the Gram matrix and its factorisation, once a target block. Here it is
done once (`SharedRidge`), and what is left is two matrix products a block:

$$ \hat Y = \bar Y + \tilde X_* \tilde X^\top C, \qquad
   C = (K + \alpha)^{-1}\tilde Y = Q\,(w + \alpha)^{-1} Q^\top \tilde Y . $$

The decomposition gives the leave-one-out prediction of every training trial for every penalty as well (`loo_ridge`).
They choose the penalty of each target group, they are the honest R², and a generator that will see predictions is trained
on them, never on in-sample predictions, which are far too good. Numbers agree with scikit-learn's `Ridge` of the same
penalty, trial weights and voxel scaling.

    shared = SharedRidge(responses, sample_weights=repeat_weights(repeats), voxel_weights=ceiling**0.5)
    fit = shared.fit(targets, groups=token_of_target)
    shared.decoder(fit).save("decoder.safetensors")

What is kept of a fit is its `RidgeDecoder`. For targets too many to keep, `streamed_ridge`.

References:
    C. Saunders, A. Gammerman, V. Vovk (1998). Ridge regression learning algorithm in dual variables. ICML, section 2.
    F. Ozcelik, R. VanRullen (2023). Natural scene reconstruction from fMRI signals using generative latent diffusion.
    https://arxiv.org/abs/2303.05334 (what is regressed on what).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.loo_ridge import (
    Spectrum,
    dual_spectrum,
    loo_errors,
    primal_spectrum,
    scaled_leverage,
)
from radiata_decode.model.penalty_groups import checked_alphas, checked_groups, looked_at
from radiata_decode.model.response_scale import ROWS, ResponseScale, response_scale
from radiata_decode.model.ridge_decoder import RidgeDecoder

__all__ = ["RidgeDecoder", "RidgeFit", "SharedRidge"]

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class RidgeFit:
    """One penalty a target, the dual coefficients, and what the other trials say about each trial.

    Attributes:
        alphas: Penalty, (t,), > 0.
        dual: C, (n, t): predictions are `target_mean + kernel_rows @ dual`.
        loo: Prediction of each training trial from all others, (n, t), in units of the targets.
        loo_r2: 1 - (leave-one-out error) / (error of the leave-one-out mean), (t,), ≤ 1; 0 for a constant target.
        target_mean: Weighted mean of the training targets, (t,).
    """

    alphas: Tensor
    dual: Tensor
    loo: Tensor
    loo_r2: Tensor
    target_mean: Tensor

    def predict(self, kernel_rows: Tensor) -> Tensor:
        """Predictions (m, t) from `SharedRidge.kernel_rows` (m, n)."""
        return torch.addmm(self.target_mean, kernel_rows, self.dual)


class SharedRidge:
    """Responses, decomposed once.

    Args:
        responses: (n, v), an array, tensor or memory map; it is read in blocks and referred to, not copied.
        sample_weights: (n,), > 0; None: 1. See `reliability_weights.repeat_weights`.
        voxel_weights: (v,), ≥ 0, multiply the centred voxels; the root of the noise ceiling is a good choice.
        standardise: Divide each voxel by its standard deviation first.
        dtype: Precision of products and of what is kept; sums and the decomposition are float64 always. In float32 the
            relative error of predictions is about 10⁻⁷ × (largest eigenvalue / α): enough for any penalty that helps
            with noise; float64 for penalties near 0.
        device: Where products are made.

    Attributes:
        scale: Centre and weight of each voxel.
        spectrum: Eigenvectors, eigenvalues.
        alphas: The penalties that `fit` tries by default, mean eigenvalue × 10⁻³ … 10⁴, (15,).

    Raises:
        InputError: fewer than three trials, NaN, weights of another length or not positive.
    """

    def __init__(
        self,
        responses: Array,
        *,
        sample_weights: Array | None = None,
        voxel_weights: Array | None = None,
        standardise: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        weights = _checked_sample_weights(sample_weights, responses)
        self.scale: ResponseScale = response_scale(responses, weights, voxel_weights, standardise=standardise)
        self.responses, self.dtype, self.device = responses, dtype, torch.device(device)
        self.root = weights.sqrt().to(self.device)
        self.spectrum: Spectrum = self._primal() if self.primal else self._dual()
        total = float(self.spectrum.values.double().sum())
        if not total > 0:
            raise InputError(
                "expected responses that vary over trials; got constant ones. Check what was prepared."
            )
        self.alphas = (total / (self.trials - 1)) * torch.logspace(-3, 4, 15, dtype=torch.float64)

    @property
    def trials(self) -> int:
        """n."""
        return len(self.root)

    @property
    def voxels(self) -> int:
        """v."""
        return len(self.scale.mean)

    @property
    def primal(self) -> bool:
        """Whether there are so few voxels that their covariance is decomposed instead of the Gram matrix."""
        return self.voxels < self.trials - 1

    def _dual(self) -> Spectrum:
        gram = torch.zeros(self.trials, self.trials, dtype=torch.float64, device=self.device)
        root = self.root.to(self.dtype)[:, None]
        for _, block in self.scale.blocks(self.responses, dtype=self.dtype, device=self.device):
            block *= root
            gram += block @ block.T
        return dual_spectrum(gram, self.root, self.dtype)

    def _primal(self) -> Spectrum:
        covariance = torch.zeros(self.voxels, self.voxels, dtype=torch.float64, device=self.device)
        for rows in self._row_blocks():
            block = self._weighted(self.responses, rows, torch.float64) * self.root[rows, None]
            covariance += block.T @ block
        values, directions = primal_spectrum(covariance, self.root)
        basis = torch.empty(self.trials, len(values), dtype=self.dtype, device=self.device)
        rest = 1.0 - (self.root / self.root.norm()).square()
        for rows in self._row_blocks():
            block = self._weighted(self.responses, rows, torch.float64) * self.root[rows, None] @ directions
            rest[rows] -= block.square().sum(1)
            basis[rows] = block.to(self.dtype)
        kinds = (values, rest.clamp(min=0), self.root)
        return Spectrum(basis, *(each.to(self.dtype) for each in kinds))

    def _row_blocks(self) -> list[slice]:
        return [slice(start, min(start + ROWS, self.trials)) for start in range(0, self.trials, ROWS)]

    def _weighted(self, responses: Array, rows: slice, dtype: torch.dtype) -> Tensor:
        blocks = self.scale.blocks(responses, rows=rows, dtype=dtype, device=self.device)
        return torch.cat([block for _, block in blocks], 1)

    def kernel_rows(self, responses: Array) -> Tensor:
        """X̃* X̃ᵀ: similarity of responses (m, v) to each training trial, (m, n).

        Raises:
            InputError: another number of voxels, or a value that is not finite.
        """
        self.scale.check(responses)
        result = torch.zeros(responses.shape[0], self.trials, dtype=self.dtype, device=self.device)
        ours = self.scale.blocks(self.responses, dtype=self.dtype, device=self.device)
        theirs = self.scale.blocks(responses, dtype=self.dtype, device=self.device)
        for (_, block), (_, other) in zip(ours, theirs, strict=True):
            result.addmm_(other, block.T)
        return result * self.root.to(self.dtype)

    def centred(self, targets: Array) -> tuple[Tensor, Tensor]:
        """√s (Y - Ȳ), (n, t), and Ȳ, (t,), both in `dtype`.

        Raises:
            InputError: another number of rows than trials, or a target that is not finite.
        """
        if len(targets.shape) != 2 or targets.shape[0] != self.trials or targets.shape[1] < 1:
            raise InputError(
                f"expected targets of ({self.trials}, t), a row for each training trial; got {tuple(targets.shape)}. "
                "Give both in the same order of stimuli."
            )
        values = targets if isinstance(targets, Tensor) else torch.from_numpy(np.array(targets))
        values = values.detach().to(self.device, self.dtype)
        share = (self.root.square() / self.root.square().sum()).to(self.dtype)
        mean = share @ values
        if not torch.isfinite(mean).all():  # one value that is not finite makes the mean so
            raise InputError("expected finite targets; got NaN or infinity. Leave those stimuli out.")
        centred = values - mean
        rounding = share @ centred  # of a mean in float32: taken out, it would count as signal
        mean += rounding
        return (centred - rounding).mul_(self.root.to(self.dtype)[:, None]), mean

    def fit(
        self,
        targets: Array,
        groups: Array | Sequence[int] | None = None,
        alphas: Array | Sequence[float] | float | None = None,
        *,
        subset: int = 2000,
        generator: torch.Generator | None = None,
        chunk: int = 1024,
    ) -> RidgeFit:
        """Coefficients, leave-one-out predictions and R² of all targets.

        Args:
            targets: (n, t); a memory map is read `chunk` columns at a time.
            groups: Targets with one number share a penalty, (t,) whole numbers; None: each has its own.
            alphas: Penalties to choose from by the leave-one-out error; one number is taken as it is. None: `self.alphas`.
            subset: About how many targets are looked at to choose the penalties of all groups together; at least 8
                of each group.
            generator: Chooses that subset; None: one of seed 0.
            chunk: Targets at a time.

        Raises:
            InputError: targets, groups or penalties that do not fit or are not finite.
        """
        if len(targets.shape) != 2:
            raise InputError(
                f"expected targets of (trial, target); got {tuple(targets.shape)}. Flatten them."
            )
        number = targets.shape[1]
        chosen = self.choose(targets, groups, alphas, subset=subset, generator=generator, chunk=chunk)
        dual, loo = (torch.empty(self.trials, number, dtype=self.dtype, device=self.device) for _ in range(2))
        r2, mean = (torch.empty(number, dtype=self.dtype, device=self.device) for _ in range(2))
        for start in range(0, number, chunk):
            part = slice(start, start + chunk)
            centred, mean[part] = self.centred(targets[:, part])
            dual[:, part], loo[:, part], r2[part] = self.solve(centred, chosen[part])
            loo[:, part] += mean[part]
        return RidgeFit(chosen, dual, loo, r2, mean)

    def solve(self, centred: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Dual coefficients (n, t), leave-one-out predictions minus the target mean (n, t), leave-one-out R² (t,).

        Args:
            centred: √s (Y - Ȳ), (n, t).
            alphas: Penalty of each, (t,).
        """
        spectrum = self.spectrum
        coordinates = spectrum.basis.T @ centred
        outside = spectrum.outside(centred, coordinates)
        coordinates /= spectrum.values[:, None] + alphas
        dual = spectrum.basis @ coordinates
        different, which = alphas.unique(return_inverse=True)
        residual = (outside + dual * alphas) / scaled_leverage(spectrum, different)[:, which]
        left = 1 - spectrum.root.square() / spectrum.root.square().sum()  # of the mean alone
        total = (centred / left[:, None]).square().sum(0)
        r2 = torch.where(total > 0, 1 - residual.square().sum(0) / total.where(total > 0, 1.0), 0.0)
        return dual, (centred - residual) / spectrum.root[:, None], r2

    def choose(
        self,
        targets: Array,
        groups: Array | Sequence[int] | None = None,
        alphas: Array | Sequence[float] | float | None = None,
        *,
        subset: int = 2000,
        generator: torch.Generator | None = None,
        chunk: int = 1024,
    ) -> Tensor:
        """The penalty of each target that its group predicts best with, leaving one trial out, (t,)."""
        number = targets.shape[1]
        grid = checked_alphas(self.alphas if alphas is None else alphas).to(self.device, self.dtype)
        if len(grid) == 1:
            return grid.repeat(number)
        label = checked_groups(groups, number)
        looked = looked_at(label, subset, generator or torch.Generator().manual_seed(0))
        errors = torch.zeros(len(grid), int(label.max()) + 1, dtype=torch.float64, device=self.device)
        leverage = scaled_leverage(self.spectrum, grid)
        for start in range(0, len(looked), chunk):
            columns = looked[start : start + chunk]
            centred, _ = self.centred(targets[:, columns if isinstance(targets, Tensor) else columns.numpy()])
            found = loo_errors(self.spectrum, centred, grid, leverage).double()
            errors.index_add_(1, label[columns].to(self.device), found)
        return grid[errors.argmin(0)][label.to(self.device)]

    def decoder(self, fit: RidgeFit) -> RidgeDecoder:
        """What is kept of a fit: weights (v, t) where they are smaller than responses and dual coefficients."""
        if self.voxels * fit.dual.shape[1] <= self.trials * (self.voxels + fit.dual.shape[1]):
            return RidgeDecoder(self.scale, fit.target_mean.cpu(), weights=self.weights(fit.dual).cpu())
        trained = torch.tensor(np.asarray(self.responses), dtype=torch.float32)
        dual = (fit.dual * self.root.to(self.dtype)[:, None]).cpu()
        return RidgeDecoder(self.scale, fit.target_mean.cpu(), trained=trained, dual=dual)

    def weights(self, dual: Tensor) -> Tensor:
        """X̃ᵀ C, (v, t): how much each centred, weighted voxel adds to each target (or direction of targets)."""
        weighted = dual * self.root.to(dual)[:, None]
        result = torch.empty(self.voxels, dual.shape[1], dtype=dual.dtype, device=dual.device)
        for part, block in self.scale.blocks(self.responses, dtype=dual.dtype, device=dual.device):
            result[part] = block.T @ weighted
        return result


def _checked_sample_weights(weights: Array | None, responses: Array) -> Tensor:
    shape = tuple(getattr(responses, "shape", ()))
    if len(shape) != 2 or shape[0] < 3:
        raise InputError(
            f"expected responses of (trial, voxel) with at least three trials to train on; got shape {shape}."
        )
    if weights is None:
        return torch.ones(shape[0], dtype=torch.float64)
    result = torch.tensor(np.asarray(weights), dtype=torch.float64)
    if result.shape != shape[:1] or not torch.isfinite(result).all() or not (result > 0).all():
        raise InputError(
            f"expected one finite weight > 0 for each of {shape[0]} trials; got {tuple(result.shape)}, least "
            f"{float(result.min()) if result.numel() else float('nan'):g}. Leave out trials of no weight."
        )
    return result
