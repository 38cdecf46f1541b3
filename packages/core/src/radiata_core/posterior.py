r"""Posterior sampling with a denoiser as prior: one loop for the whole literature of training-free inverse problems.

A measurement y = A x_0 + n with noise of standard deviation s, a prior known by E[x_0 | x_t]. All methods walk a grid of
times from noise to data and repeat four moves:

    renoise     x_t = alpha e + sigma (old and fresh noise)                          `renoising`
    denoise     D = E[x_0 | x_t]                                                     any `Denoiser`, one evaluation
    relax       e <- e + w (D - e)                                                   `relaxation`
    data step   e <- towards A e = y, by gradient, projection, prox, moments         `data_steps`, `steering_steps`

A `PosteriorMethod` is a choice of each; `posterior_presets` has DPS, FlowChef, FLAIR, DDNM, DDRM, DDS, DiffPIR, PiGDM, MMPS,
PnP-Flow and Flower, and Radiata's own. The gradient of the network is needed by DPS, PiGDM and MMPS only.

Two promises, which pull apart: the best single image is the posterior *mean* (`relaxed_prox`), a *sample* has the spread
that the truth has about it (`calibrated`), and looks worse. `posterior_calibration` measures the second. Denoising needs no
loop: the posterior mean given x_0 plus white noise *is* the denoiser (`denoise_once`), in one evaluation.

The same loop with a `LossStep` steers any sampler by any differentiable loss (`steer`): a classifier, an edit.

References:
    Chung et al., "Diffusion posterior sampling for general noisy inverse problems", 2023, https://arxiv.org/abs/2209.14687.
    Daras et al., "A survey on diffusion models for inverse problems", 2024, https://arxiv.org/abs/2410.00083.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.data_steps import Problem
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.kernels import require_gaussian
from radiata_core.operators import LinearOperator
from radiata_core.posterior_walk import PosteriorMethod, Walk
from radiata_core.renoising import FixedShare, MixedNoise
from radiata_core.solvers import Callback
from radiata_core.steering_steps import LossStep
from radiata_core.types import Batch, Measurement, Row, Times

__all__ = ["PosteriorMethod", "PosteriorSample", "denoise_once", "misfit", "sample_posterior", "steer"]


@dataclass(frozen=True, eq=False)
class PosteriorSample:
    """What a posterior sampler found.

    Attributes:
        x: (batch, *event).
        misfit: Root mean square of y - A x of every row, in units of y; near the noise's if the measurement is explained.
        evaluations: Calls of the denoiser, counted.
    """

    x: Batch
    misfit: Row
    evaluations: int


def sample_posterior(
    denoiser: Denoiser,
    operator: LinearOperator,
    y: Measurement,
    noise_sd: float,
    times: Times,
    method: PosteriorMethod,
    generators: Sequence[torch.Generator],
    *,
    callback: Callback | None = None,
    **conditions: Any,
) -> PosteriorSample:
    """Images that the prior likes and that explain the measurement; a row depends on its own y and generator only.

    Several samples of one measurement are several rows: `y.repeat_interleave(draws, 0)` and as many generators.

    Args:
        denoiser: The prior, on any path with Gaussian noise.
        operator: A.
        y: Measurements, (batch, *measurement).
        noise_sd: Standard deviation of the noise of every number in y, in units of y, >= 0; 0 asks for A x = y.
        times: Grid from noise to data, (n + 1,), falling, ending at 0. A Karras grid from 10 to 0.02 times the data's
            standard deviation suits images; a smaller first level saves steps where y says much.
        method: One of `posterior_presets`, or one's own.
        generators: One a row.
        callback: Called after each evaluation with a `solvers.Step`.
        conditions: Passed on to the denoiser.

    Raises:
        InputError: shapes, noise, grid or generators do not fit, the noise of the prior is not Gaussian, or the denoiser
            gave a value of another shape or one that is not finite.
    """
    if not (math.isfinite(noise_sd) and noise_sd >= 0):
        raise InputError(
            f"expected a standard deviation >= 0 of the measurement's noise; got {noise_sd}. 0 means none."
        )
    if not bool(torch.isfinite(y).all()):
        raise InputError("expected a finite measurement; got NaN or infinity. Mask what was not measured.")
    if operator.complex_event:
        raise InputError(
            f"expected an operator on real events, as the denoiser's are; got {operator}. "
            "Compose it with a map of two real channels to complex numbers."
        )
    problem = Problem(operator, y, float(noise_sd))
    first = operator.adjoint(y)
    walk = Walk(denoiser, times, method, generators, problem, callback, conditions)
    x = walk.run(first, started=False)
    return PosteriorSample(x, misfit(operator, x, y), walk.evaluations)


def steer(
    denoiser: Denoiser,
    x: Batch,
    times: Times,
    loss: Callable[[Tensor], Tensor],
    step: float,
    generators: Sequence[torch.Generator] = (),
    *,
    fresh: float = 0.0,
    through_network: bool = False,
    callback: Callback | None = None,
    **conditions: Any,
) -> Batch:
    """A sample whose E[x_0 | x_t] goes down a differentiable loss on the way: FlowChef for classifiers and edits.

    x_s <- alpha_s D + sigma_s n - step grad loss(D), without the network's gradient unless asked for. To edit an image,
    start from it at a time below 1 (`paths.add_noise`) and let the loss hold what must stay.

    Args:
        denoiser: E[x_0 | x_t].
        x: State at the first time, (batch, *event).
        times: Grid, falling, ending at 0; the first may be below 1.
        loss: (batch, *event) to (batch,), in any unit.
        step: > 0, in squared units of the data per unit of the loss.
        generators: One a row, if there is fresh noise.
        fresh: Share of fresh noise in the variance, in [0, 1]; 0 follows the ODE.
        through_network: Take the gradient through the network: exact, twice the memory.
        callback: Called after each evaluation with a `solvers.Step`.
        conditions: Passed on to the denoiser.

    Raises:
        InputError: as `sample_posterior`, or the loss is not one number a row.

    References:
        Patel et al., "Steering rectified flow models in the vector field for controlled image generation" (FlowChef), 2024,
            https://arxiv.org/abs/2412.00100, eq. 9.
    """
    if not (math.isfinite(step) and step > 0):
        raise InputError(
            f"expected a step > 0; got {step}. Try one that moves the data by a tenth of its sd."
        )
    method = PosteriorMethod(LossStep(loss, step, through_network), MixedNoise(FixedShare(fresh)))
    return Walk(denoiser, times, method, generators, None, callback, conditions).run(x, started=True)


def denoise_once(denoiser: Denoiser, y: Batch, noise_sd: float, **conditions: Any) -> Batch:
    """E[x_0 | x_0 + n = y] for white noise n of a known standard deviation: one evaluation, and no estimate has less MSE.

    D(alpha_t y, t) at the time where sigma/alpha is the standard deviation.

    Args:
        denoiser: E[x_0 | x_t].
        y: Noisy samples, (batch, *event), in the units of the network.
        noise_sd: > 0, in units of y, within the path.

    Raises:
        InputError: no time of the path has this noise level.
    """
    require_gaussian(denoiser, "denoising of Gaussian noise")
    if not (math.isfinite(noise_sd) and noise_sd > 0):
        raise InputError(f"expected noise > 0; got {noise_sd}. Without noise there is nothing to remove.")
    t = denoiser.path.time_of_log_snr(torch.tensor(-math.log(noise_sd), dtype=torch.float64))
    c = denoiser.path.coefficients(t)
    if not math.isclose(float(c.sigma), noise_sd * float(c.alpha), rel_tol=1e-6):
        raise InputError(
            f"expected noise of at most {float(c.sigma / c.alpha):.4g}, where the path ends; got {noise_sd}. "
            "Scale the data down, or use a path that goes further."
        )
    with torch.no_grad():
        return denoiser(float(c.alpha) * y, t, **conditions)


def misfit(operator: LinearOperator, x: Batch, y: Measurement) -> Row:
    """Root mean square of y - A x of every row, in units of y, over real and imaginary parts as numbers of their own."""
    error = (y - operator(x)).flatten(1)
    error = torch.view_as_real(error).flatten(1) if error.is_complex() else error
    return error.square().mean(1).sqrt()
