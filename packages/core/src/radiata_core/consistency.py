r"""Consistency distillation: the trajectory objective whose every jump ends at the data.

A consistency function sends each state of one trajectory to that trajectory's end, $f(x_t, t) = G(x_t, t, 0)$; it is the
flow map at s = 0, and in the Euler form $G(x, t, 0) = g(x, t, 0)$, so the boundary $f(x, 0) = x$ needs no skip
weights. It is learnt by asking that neighbours on a trajectory agree,

$$\mathcal L = \mathbb E\; w(t_n)\, d\big(f_\theta(x_{t_n}, t_n),\;
  \mathrm{sg}\, f_{\bar\theta}(\hat x_{t_{n+1}}, t_{n+1})\big),
  \qquad \hat x_{t_{n+1}} = \mathrm{Solver}(x_{t_n}, t_n, t_{n+1}),$$

which is `flowmap_objectives.ConsistencyTrajectory` with depth 1 and s = 0: `consistency_distillation` says only that. Its
sampler is `flowmaps.sample_flow_map` with gamma = 1: jump to the data, add noise, jump again.

What is given up: only s = 0 is trained, so such a map has no other jumps and no denoiser on its diagonal; more steps help
it by new noise alone. docs/flow-maps.md has the comparison.

References:
    Song, Dhariwal, Chen & Sutskever, "Consistency models", 2023, https://arxiv.org/abs/2303.01469, eq. 7, algorithms 1, 2.
    Kim et al., "Consistency trajectory models", 2023, https://arxiv.org/abs/2310.02279, section 3 (CD as special case).
"""

from collections.abc import Callable

from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.flowmap_objectives import Balance, ConsistencyTrajectory
from radiata_core.flowmaps import FlowMap, trapezoid_step
from radiata_core.objectives import LossFunction, Regression, SquaredError
from radiata_core.paths import Path

__all__ = ["consistency_distillation"]


def consistency_distillation(
    teacher: Denoiser,
    grid: Callable[[int, Path], Tensor],
    *,
    steps: int = 18,
    depth: int = 1,
    loss: LossFunction | None = None,
    weight: Callable[[Tensor, Tensor], Tensor] | None = None,
    target: FlowMap | None = None,
    denoising: Regression | None = None,
    denoising_weight: float | Balance = 1.0,
    step: Callable[..., Tensor] = trapezoid_step,
) -> ConsistencyTrajectory:
    """The objective of consistency distillation, for `train.train` or a loop of one's own.

    Args:
        teacher: The denoiser whose trajectories are to be collapsed; on the student's path.
        grid: Grid of times, `(steps, path) -> (steps + 1,)`, e.g. `times.KarrasGrid()`.
        steps: Steps of the grid, 18 in the paper for 32 x 32 images.
        depth: Most teacher steps between the two states, 1 in the paper.
        loss: Distance of the two ends; None for the squared error.
        weight: Weight of a row as a function of (t, 0), or None for 1.
        target: Flow map of the later state, e.g. an average of the student as in the paper; None for the stopped student.
        denoising: Regression on the diagonal, which the paper has not, or None.
        denoising_weight: Its factor.
        step: One step of the teacher.

    Raises:
        InputError: as `ConsistencyTrajectory`.
    """
    return ConsistencyTrajectory(
        teacher,
        grid,
        steps,
        depth,
        loss=SquaredError() if loss is None else loss,
        weight=weight,
        denoising=denoising,
        denoising_weight=denoising_weight,
        target=target,
        to_data=1.0,
        step=step,
    )
