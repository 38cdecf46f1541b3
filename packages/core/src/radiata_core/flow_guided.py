r"""Flow-guided distillation: a one-step student from a rectified flow, with the flow as a second teacher.

Pairs $(\varepsilon, \hat x_0)$ of a solved teacher cost many evaluations each, and are few. A flow that was rectified before
is nearly straight, so that two of its Euler steps from *any* noise are almost as good a target:

$$\mathcal L = \mathbb E\,\ell\big(D_\theta(x_1, 1),\, \hat x_0(\varepsilon)\big)
  + w\,\mathbb E_{\varepsilon', t}\,\ell\big(D_\theta(x'_1, 1),\, \mathrm{sg}\,D_\phi(x'_t, t)\big), \qquad
  x'_t = \mathrm{DDIM}\big(x'_1, 1 \to t;\ \mathrm{sg}\,D_\theta(x'_1, 1)\big).$$

The first sub-step is the student's own (stopped) one, as in the authors' program, or the flow's; the second, from t to 0,
is the flow's. On the linear path it is $x_1 - (1-t)\,v - t\,v_\phi(x_t, t)$, their equation. Fresh noise costs two
evaluations, so the second term sees noise that no pair has, which matters most where pairs are few.

Start the student from the flow's weights. It is sampled by one evaluation, $D_\theta(x_1, 1)$.

References:
    Zhu et al., "SlimFlow", 2024, https://arxiv.org/abs/2407.12718, section 4.2 (flow-guided distillation).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import euler_jump
from radiata_core.kernels import kernel_of
from radiata_core.objectives import Loss, LossFunction, SquaredError
from radiata_core.paths import Path
from radiata_core.types import Batch

__all__ = ["FlowGuidedDistillation"]


@dataclass(frozen=True)
class FlowGuidedDistillation:
    """The two-part loss of a one-step student: an objective for `train.train` whose items carry their "noise".

    Attributes:
        flow: The rectified flow, E[x_0 | x_t], on the student's path; not trained.
        weight: w of the second part, >= 0; 0 is plain distillation on the pairs.
        between: Range of t, the end of the first sub-step, within (0, 1).
        own_first_step: The first sub-step is the student's, not the flow's.
        loss: Distance of two samples.

    Raises:
        InputError: a negative weight, or a range that is not within (0, 1).

    References:
        Zhu et al., 2024, section 4.2; t in [0.2, 0.8] is the authors' program's.
    """

    flow: Denoiser
    weight: float = 1.0
    between: tuple[float, float] = (0.2, 0.8)
    own_first_step: bool = True
    loss: LossFunction = field(default_factory=SquaredError)
    companions: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        low, high = self.between
        if not (self.weight >= 0 and 0 < low <= high < 1):
            raise InputError(
                f"expected a weight >= 0 and 0 < low <= high < 1; got {self.weight} and {self.between}. "
                "Use 1 and (0.2, 0.8)."
            )

    @property
    def path(self) -> Path:
        return self.flow.path

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Batch,
        generators: Sequence[Generator],
        *,
        noise: Tensor | None = None,
        **conditions: Any,
    ) -> Loss:
        """Loss on a batch of pairs; row i draws its time and its fresh noise from generator i only.

        Args:
            denoiser: The student.
            x0: What the teacher made of the noise, (batch, *event).
            generators: One a row.
            noise: The noise it was made from, (batch, *event).
            conditions: Passed to student and flow.

        Returns:
            The sum of both parts; `t` is the end of the first sub-step.

        Raises:
            InputError: no noise or of another shape, a student on another path, not one generator a row.
        """
        if noise is None or noise.shape != x0.shape:
            raise InputError(
                f'expected items with the key "noise" of shape {tuple(x0.shape)}; got '
                f"{'none' if noise is None else tuple(noise.shape)}. Draw pairs first (radiata_imaging.pairs.draw_pairs)."
            )
        if denoiser.path != self.path or len(generators) != len(x0):
            raise InputError(
                f"expected a student on {self.path} and one generator a row, {len(x0)}; got one on {denoiser.path} and "
                f"{len(generators)} generators. Take the flow's path and generators_of(seeds)."
            )
        one = torch.ones(len(x0), dtype=torch.float64)
        sigma = float(self.path.coefficients(one[0]).sigma)  # on the CPU: an accelerator is not waited for
        one = one.to(x0.device)
        t = self._times(generators).to(x0.device)
        per_sample = self.loss(denoiser(sigma * noise.to(x0), one, **conditions), x0)
        if self.weight > 0:
            x = sigma * kernel_of(self.flow).noise(x0, generators)
            found = denoiser(x, one, **conditions)
            wanted = self._guided(found.detach(), x, one, t, conditions)
            per_sample = per_sample + self.weight * self.loss(found, wanted)
        return Loss(per_sample.mean(), per_sample, t)

    def _times(self, generators: Sequence[Generator]) -> Tensor:
        low, high = self.between
        draws = [torch.rand(1, generator=g, dtype=torch.float64, device=g.device).cpu() for g in generators]
        return low + (high - low) * torch.cat(draws)

    @torch.no_grad()
    def _guided(self, own: Tensor, x: Tensor, one: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        """Where two steps of the flow end: from 1 to t, then from t to the data."""
        first = own if self.own_first_step else self.flow(x, one, **conditions)
        between = euler_jump(x, first, one, t, self.path)
        return self.flow(between, t, **conditions)
