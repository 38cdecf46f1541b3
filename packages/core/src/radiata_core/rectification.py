r"""Rectification: retrain on pairs that a teacher made, and its trajectories become first-order.

A deterministic solver sends noise $\varepsilon$ to one sample $\hat x_0(\varepsilon)$. Training on these pairs instead of
independent ones, with nothing else changed,

$$x_t = \alpha_t \hat x_0 + \sigma_t \varepsilon, \qquad
  \mathcal L = \mathbb E\; w(t)\,\ell\big(\hat p(x_t, t),\; a_t \hat x_0 + b_t \varepsilon\big),$$

gives a flow whose own pairs are straighter (reflow, on the linear path) or, on any path, closer to the first-order ODE
along which $\varepsilon$ and $\hat x_0$ do not change (Rectified Diffusion). If they do not change at all, one step of DDIM
is exact, and so are N steps, whatever the path: straightness belongs to $x/(\alpha+\sigma)$, not to x.

Variations, all of them choices of the pair:

- *annealing* (SlimFlow): the noise of a pair is mixed with fresh noise, $\varepsilon_\beta = \sqrt{1-\beta^2}\,\varepsilon
  + \beta\varepsilon'$, and $\beta$ falls from 1 (plain flow matching on the teacher's samples) to 0 (reflow) during the run;
  the noise stays $\mathcal N(0, I)$ at every $\beta$;
- *phases*: the teacher is solved over one of M segments of time only, and the student is first-order within each
  (`phases.PhasedRectification`); M steps of DDIM then sample it;
- *flips*: mirrored data with mirrored noise is a pair too, if the teacher commutes with the mirror (`pairings.Flip`).

The loss is taken in x0 or velocity. A loss of the noise says nothing about x0 where $\alpha \approx 0$, just where one-step
sampling starts, and is refused.

References:
    Liu, Gong & Liu, "Flow straight and fast", 2023, https://arxiv.org/abs/2209.03003, eqs. 1, 4 and algorithm 1.
    Wang et al., "Rectified diffusion", 2024, https://arxiv.org/abs/2410.07303, sections 3.1-3.3.
    Zhu et al., "SlimFlow", 2024, https://arxiv.org/abs/2407.12718, section 4.1 (annealing reflow).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from radiata_core.couplings import Pair
from radiata_core.errors import InputError
from radiata_core.objectives import (
    Constant,
    Loss,
    LossFunction,
    PseudoHuber,
    Regression,
    SquaredError,
    Weight,
)
from radiata_core.pairings import Annealing, AnnealingShape, Flip, PairedNoise
from radiata_core.paths import LinearPath, Path
from radiata_core.predictions import Prediction
from radiata_core.times import TimeLaw, UniformTime
from radiata_core.types import Batch

__all__ = [
    "Rectification",
    "annealed_reflow",
    "rectified_diffusion",
    "reflow",
]


def _seen(pair: Pair, path: Path) -> Pair:
    """The pair whose state at t = 1 is sigma_1 noise, where a sampler starts, also on paths with alpha_1 > 0."""
    c = path.coefficients(torch.ones((), dtype=torch.float64))
    leak = float(c.alpha / c.sigma)
    return pair if leak == 0 else Pair(pair.x0, pair.noise - leak * pair.x0)


@dataclass(frozen=True)
class Rectification:
    r"""Regression on pairs: an objective for `train.train` whose items carry their "noise".

    An item is {"image": x0, "noise": its noise, and conditions}, as `radiata_imaging.pairs.PairDataset` gives them. The
    noise is a companion of the image: dropout of conditions never touches it.

    On paths with $\alpha_1 > 0$ the pair's noise becomes $\varepsilon - (\alpha_1/\sigma_1)\hat x_0$: the state at t = 1 is
    then $\sigma_1\varepsilon$ exactly, what a sampler starts from, instead of one that shows a trace of the answer.

    Attributes:
        path: The path, of teacher and student.
        time_law: Law of the times.
        target: In which units the loss is taken: X0, VELOCITY, V or FLOW.
        weight: Weight of a time.
        loss: Distance of prediction and target.
        annealing: beta as a function of the step, e.g. `Annealing(10_000)`; None for 0.
        flip: A declared symmetry of the teacher, or None.
        starts_from_noise: Make the state at t = 1 show no data; False keeps $\alpha_1 \hat x_0 + \sigma_1\varepsilon$.
        step: The step of the training; `at` sets it.

    Raises:
        InputError: a target that says nothing of x0 at the end of the path.
    """

    path: Path = field(default_factory=LinearPath)
    time_law: TimeLaw = field(default_factory=UniformTime)
    target: Prediction = Prediction.VELOCITY
    weight: Weight = field(default_factory=Constant)
    loss: LossFunction = field(default_factory=SquaredError)
    annealing: Callable[[int], float] | None = None
    flip: Flip | None = None
    starts_from_noise: bool = True
    step: int = 0
    companions: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        if self.target in (Prediction.EPSILON, Prediction.SCORE):
            raise InputError(
                f"expected a loss in x0 or velocity; got {self.target.value}, which says nothing of x0 where alpha is 0. "
                "Use Prediction.X0: the network may predict what it likes."
            )

    def at(self, step: int) -> "Rectification":
        """The objective of a training step."""
        return replace(self, step=step)

    @property
    def fresh(self) -> float:
        """beta of this step."""
        return 0.0 if self.annealing is None else self.annealing(self.step)

    def __call__(
        self,
        denoiser: Any,
        x0: Batch,
        generators: Sequence[Generator],
        *,
        noise: Tensor | None = None,
        **conditions: Any,
    ) -> Loss:
        """Loss on a batch of pairs; row i draws its time, then fresh noise and its flip, from generator i only.

        Args:
            denoiser: The student, as for `objectives.Regression`.
            x0: What the teacher made of the noise, (batch, *event).
            generators: One a row.
            noise: The noise it was made from, (batch, *event).
            conditions: Passed to the denoiser; the teacher's.

        Raises:
            InputError: no noise, noise of another shape, a denoiser of another path, not one generator a row.
        """
        if noise is None:
            raise InputError(
                'expected items with the key "noise", the noise each sample was made from; got none. Draw pairs first '
                "(radiata_imaging.pairs.draw_pairs)."
            )
        return self.regression(noise)(denoiser, x0, generators, **conditions)

    def regression(self, noise: Tensor) -> Regression:
        """The regression whose coupling is that of a batch with this noise, at this step."""
        paired = PairedNoise(noise, self.fresh, self.flip)
        if not self.starts_from_noise:
            return Regression(self.path, self.time_law, paired, self.target, self.weight, self.loss)

        def seen(x0: Tensor, generators: Generator | Sequence[Generator], **conditions: Any) -> Pair:
            return _seen(paired(x0, generators), self.path)

        return Regression(self.path, self.time_law, seen, self.target, self.weight, self.loss)


def reflow(time_law: TimeLaw | None = None) -> Rectification:
    """2-rectified flow: the linear path, the squared error of the velocity.

    References:
        Liu et al., 2023, eq. 1 and algorithm 1.
    """
    return Rectification(LinearPath(), time_law or UniformTime())


def annealed_reflow(
    steps: int,
    shape: AnnealingShape = AnnealingShape.LINEAR,
    *,
    time_law: TimeLaw | None = None,
    path: Path | None = None,
) -> Rectification:
    """SlimFlow's annealing reflow: fresh noise at step 0, the teacher's pairs alone from `steps` on.

    References:
        Zhu et al., 2024, section 4.1.
    """
    return Rectification(path or LinearPath(), time_law or UniformTime(), annealing=Annealing(steps, shape))


def rectified_diffusion(path: Path, time_law: TimeLaw | None = None, c: float = 1e-3) -> Rectification:
    """Rectified Diffusion: any path, any prediction of the network, the pseudo-Huber error of x0.

    References:
        Wang et al., 2024, section 3.2 and appendix (c = 1e-3).
    """
    return Rectification(path, time_law or UniformTime(), Prediction.X0, loss=PseudoHuber(c))
