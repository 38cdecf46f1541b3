r"""Unrolled restoration: a denoiser and the data step in turn, a few times, trained as one network for every operator.

With y = A x_0 + n, noise of standard deviation s, and D_k the denoiser told the noise level kappa_k,

    mu_0     = argmin_z |A z - y|^2/(2 s^2) + |z|^2/(2 v)                       a ridge solution
    mu_{k+1} = argmin_z |A z - y|^2/(2 s^2) + |z - D_k(mu_k)|^2/(2 r_k^2)       k = 0, ..., K - 1;   r_k^2 = c_k kappa_k^2

No noise is added on the way, so D_k does not see what a diffusion prior was trained on: it removes the *errors of data
steps* (aliases, blocks, an empty hole), of a size that falls with k. A prior is a good start for that and no more: a few
minutes of training through all K steps, on random operators (`operator_families`), make one network that restores anything
linear in K evaluations. The levels kappa_k, the gains c_k and v are learned with it, as logarithms. The operator enters
through its prox alone, which is what makes the restorer agnostic of it, and what holds it to the measurement at the end.

Where A is a multiple of the identity there is nothing to unroll: the posterior mean is D(y, s), in one evaluation
(`posterior.denoise_once`), before training and after it, since denoising is one of the families.

`UnrolledRegression` is the loss, an objective of `train`.

References:
    Aggarwal, Mani & Jacob, "MoDL: model-based deep learning architecture for inverse problems", 2019,
        https://arxiv.org/abs/1712.02862, eqs. 6 to 11 (shared weights, the prox as a layer).
    Hammernik et al., "Learning a variational network for reconstruction of accelerated MRI data", 2018,
        https://doi.org/10.1002/mrm.26977.
    Terris, Hurault, Song & Tachella, "Reconstruct anything model", 2025, https://arxiv.org/abs/2503.08915 (one network for
        many operators).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radiata_core.coefficients import Path, expand
from radiata_core.errors import InputError
from radiata_core.log_squared_error import LogSquaredError
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.objectives import Loss, LossFunction
from radiata_core.operator_families import OperatorFamily, draw_problem
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Scaling
from radiata_core.specs import buildable
from radiata_core.types import Batch, Measurement

__all__ = ["LogSquaredError", "UnrolledRegression", "UnrolledRestorer"]

_PACE = 10.0
"""A logarithm moves ten times as far as a weight at each step of Adam, whose steps know no size."""
_LEAST_RATIO = 1e-5
"""Of rho to |A|^2: below it, rounding in single precision is amplified in the null space of A by 1/rho."""


@buildable("unrolled-restorer")
class UnrolledRestorer(nn.Module):
    """E[x_0 | y] of any linear measurement in a few evaluations of one network.

    Args:
        denoiser: E[x_0 | x_t] as a module; its weights are where training starts.
        levels: kappa_k that the denoiser is told, falling, > 0, in units of the data; as many as evaluations.
        gains: c_k, one a level, > 0; None: 1.
        start_sd: Root of v, > 0, in units of the data.

    Raises:
        InputError: no levels, not one gain a level, or a number that is not positive.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        levels: Sequence[float | int] = (1.2, 0.6, 0.3, 0.15),
        gains: Sequence[float | int] | None = None,
        start_sd: float | int = 0.5,
    ) -> None:
        super().__init__()
        gains = (1.0,) * len(levels) if gains is None else tuple(gains)
        numbers = (*levels, *gains, start_sd)
        if not levels or len(gains) != len(levels) or not all(0 < n < math.inf for n in numbers):
            raise InputError(
                f"expected levels > 0 with a gain > 0 each and a start > 0; got {tuple(levels)}, {gains} and {start_sd}. "
                "Four levels from 1.2 to 0.15 times the data's largest standard deviation are usual."
            )
        self.denoiser = denoiser
        self.options: dict[str, Any] = {
            "denoiser": denoiser,
            "levels": tuple(float(level) for level in levels),
            "gains": tuple(float(gain) for gain in gains),
            "start_sd": float(start_sd),
        }
        self.log_levels = nn.Parameter(torch.tensor(levels, dtype=torch.float32).log() / _PACE)
        self.log_gains = nn.Parameter(torch.tensor(gains, dtype=torch.float32).log() / _PACE)
        self.log_start = nn.Parameter(torch.tensor(start_sd, dtype=torch.float32).log() / _PACE)

    @property
    def path(self) -> Path:
        """The path of the denoiser."""
        path: Path = self.denoiser.path  # type: ignore[assignment]
        return path

    @property
    def levels(self) -> Tensor:
        """kappa_k as learned, (K,)."""
        return (_PACE * self.log_levels).exp()

    @property
    def spreads(self) -> Tensor:
        """r_k^2 as learned, (K,), in squared units of the data."""
        return (_PACE * self.log_gains).exp() * self.levels.square()

    def on(self, denoiser: nn.Module) -> "UnrolledRestorer":
        """The same levels and gains, shared, about another denoiser: one in blocks (`tiling`), say."""
        other = UnrolledRestorer(**(self.options | {"denoiser": denoiser}))
        other.log_levels, other.log_gains, other.log_start = self.log_levels, self.log_gains, self.log_start
        return other

    def evaluations(self, operator: LinearOperator) -> int:
        """Calls of the denoiser for a measurement by this operator: 1 for denoising, else K."""
        return 1 if _factor(operator) else len(self.log_levels)

    def restore(
        self,
        operator: LinearOperator,
        y: Measurement,
        noise_sd: float | int,
        covariates: Tensor | None = None,
        **conditions: Any,
    ) -> Batch:
        """The estimate of x_0, (batch, *event).

        Args:
            operator: A, on real events.
            y: (batch, *measurement).
            noise_sd: s, of every (real and imaginary) number of y, in units of y, >= 0; > 0 for denoising.
            covariates: Passed on to the denoiser if given, (batch, K), NaN where unknown.
            conditions: Passed on too.

        Raises:
            InputError: shapes do not fit, complex events, or a standard deviation out of range.
        """
        if covariates is not None:
            conditions["covariates"] = covariates
        return self.estimates(operator, y, noise_sd, **conditions)[-1]

    forward = restore

    def estimates(
        self,
        operator: LinearOperator,
        y: Measurement,
        noise_sd: float | int,
        *,
        recompute: bool = False,
        **conditions: Any,
    ) -> list[Batch]:
        """mu_1, ..., mu_K, each (batch, *event): one in the case of denoising.

        Args:
            operator: As `restore`.
            y: As `restore`.
            noise_sd: As `restore`.
            recompute: Forget the network's activations and compute them again for the gradient: memory of one evaluation
                in place of K, for a third more time.
            conditions: Passed on to the denoiser.

        Raises:
            InputError: as `restore`.
        """
        factor = _factor(operator)
        if not (math.isfinite(noise_sd) and (noise_sd > 0 or (noise_sd == 0 and not factor))):
            raise InputError(
                f"expected a standard deviation >= 0 of the noise, and > 0 for denoising; got {noise_sd}. "
                "Estimate it where the image is empty."
            )
        if operator.complex_event:
            raise InputError(
                f"expected an operator on real events, as the denoiser's are; got {operator}. Use real=True."
            )
        if factor:
            level = torch.tensor(noise_sd / abs(factor), dtype=torch.float64)
            return [self._denoised(y / factor, level, recompute, conditions)]
        start = (2 * _PACE * self.log_start).exp()
        mu = _data_step(operator, None, y, noise_sd, start)
        found = []
        # Times are of double precision, on the CPU: moved once for all levels.
        levels, spreads = self.levels.cpu().double(), self.spreads
        for level, spread in zip(levels, spreads, strict=True):
            mu = _data_step(operator, self._denoised(mu, level, recompute, conditions), y, noise_sd, spread)
            found.append(mu)
        return found

    def _denoised(self, mu: Tensor, level: Tensor, recompute: bool, conditions: dict[str, Any]) -> Tensor:
        """D(alpha mu, t) at the time where sigma/alpha is the level, in the precision of mu."""
        t = self.path.time_of_log_snr(-level.log())
        state = expand(self.path.coefficients(t).alpha, mu).to(mu) * mu
        if recompute and torch.is_grad_enabled():
            clean = checkpoint(
                lambda state, t: self.denoiser(state, t, **conditions),
                state,
                t,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        else:
            clean = self.denoiser(state, t, **conditions)
        return clean.to(mu)


def _factor(operator: LinearOperator) -> float:
    """The number that the operator multiplies by, 0 if it does anything else."""
    return float(operator.field) if isinstance(operator, Scaling) else 0.0


def _data_step(
    operator: LinearOperator, x: Tensor | None, y: Tensor, noise_sd: float | int, variance: Tensor
) -> Tensor:
    """argmin_z |A z - y|^2/(2 s^2) + |z - x|^2/(2 variance), x = None for 0, outside of mixed precision."""
    with torch.autocast(y.device.type, enabled=False):
        like = operator.adjoint(y) if x is None else x
        rho = (noise_sd**2 / variance).clamp_min(_LEAST_RATIO * float(operator.norm) ** 2)
        return operator.solve(like, rho) if x is None else operator.prox(like, y, rho)


@dataclass(frozen=True)
class UnrolledRegression:
    """The error of an unrolled restorer on random operators: an objective of `train`.

    Rows share an operator in runs of `together`, so that a batch has several. The operator of a run comes from the generator
    of its first row, the noise of a row from its own: all is a function of the seed and the row's number, whatever the
    step, the resuming or the cutting of the batch (by pieces that `together` divides). Validation, which gives each item
    generators of its own, thus sees as many operators as items.

    Attributes:
        families: The law of operators.
        together: Rows that share an operator, >= 1.
        loss: Distance of estimate and truth.
        earlier: Weight of the mean loss of mu_1 ... mu_{K-1} relative to that of mu_K, >= 0.
        recompute: Save memory, see `UnrolledRestorer.estimates`.

    Raises:
        InputError: no family, or a number out of range.
    """

    families: tuple[OperatorFamily, ...]
    together: int = 4
    loss: LossFunction = field(default_factory=LogSquaredError)
    earlier: float | int = 0.1
    recompute: bool = False

    def __post_init__(self) -> None:
        if not self.families or self.together < 1 or not 0 <= self.earlier < math.inf:
            raise InputError(
                f"expected families, together >= 1 and earlier >= 0; got {len(self.families)} families, "
                f"{self.together} and {self.earlier}. Use standard_families(2)."
            )

    def __call__(
        self,
        restorer: UnrolledRestorer,
        x0: Batch,
        generators: Sequence[torch.Generator],
        **conditions: Any,
    ) -> Loss:
        """Loss of the restorer on a batch.

        Args:
            restorer: What is trained.
            x0: Data, (batch, channel, *space).
            generators: One a row, on the CPU.
            conditions: Passed on to its denoiser, one row a sample.

        Raises:
            InputError: not one generator a row.
        """
        if len(generators) != len(x0):
            raise InputError(
                f"expected one generator a sample, {len(x0)}; got {len(generators)}. Make one a sample."
            )
        losses = []
        for first in range(0, len(x0), self.together):
            rows = slice(first, first + self.together)
            given = {name: value[rows] for name, value in conditions.items()}
            losses.append(self._of_run(restorer, x0[rows], generators[rows], given))
        # A batch may hold denoising only; with several processes every parameter must have a gradient all the same.
        numbers = (restorer.log_levels, restorer.log_gains, restorer.log_start)
        per_sample = torch.cat(losses) + 0.0 * torch.stack([n.sum() for n in numbers]).sum()
        return Loss(per_sample.mean(), per_sample, torch.zeros(len(x0), dtype=torch.float64))

    def _of_run(
        self,
        restorer: UnrolledRestorer,
        x0: Tensor,
        generators: Sequence[torch.Generator],
        conditions: dict[str, Any],
    ) -> Tensor:
        drawn = draw_problem(self.families, x0.shape[1:], generators[0], x0.device)
        with torch.no_grad(), torch.autocast(x0.device.type, enabled=False):
            y = GaussianNoise(drawn.noise_sd)(drawn.operator(x0), generators)
        found = restorer.estimates(drawn.operator, y, drawn.noise_sd, recompute=self.recompute, **conditions)
        last = self.loss(found[-1], x0)
        if self.earlier == 0 or len(found) == 1:
            return last
        before = torch.stack([self.loss(estimate, x0) for estimate in found[:-1]]).mean(0)
        return (last + self.earlier * before) / (1 + self.earlier)
