r"""What the decoder of the cortex is trained on, with the generator frozen.

$$ L = \lVert u_\theta(x_t, t, \text{cortex}) - u \rVert^2 + w_s \lVert \bar c - e \rVert^2 + w_g \lVert g - z \rVert^2 $$

The first term is the generator's own regression under control, the second pulls the context to an embedding e of the text or
the picture (0.1 in refining, 0 in cross-subject pre-training), the third the guess to the picture's components z. In a
share of the rows (5 %) the context is emptied, so that guidance has something to extrapolate from; the control stays.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (losses and stages).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from radiata_core.objectives import Loss, Regression
from radiata_core.predictions import Prediction
from radiata_core.times import UniformTime
from radiata_decode.model.manipulated_generator import FrozenGenerator, Manipulated
from radiata_decode.model.semantic_tokens import SEMANTIC_WEIGHT, semantic_error

__all__ = ["SurfaceObjective"]


@dataclass(frozen=True)
class SurfaceObjective:
    """The objective of stages two and three, for `radiata_core.train.train`.

    Items are {"image": picture in [0, 1], "cortex": (1, y, x)}, "embedding" where there is a semantic loss, and what `given`
    names, the conditions of the generator.

    Attributes:
        generator: Frozen.
        semantic: w_s, >= 0.
        guess: w_g, >= 0.
        dropout: Share of rows whose context is emptied, in [0, 1].
        given: Conditions of the generator.
    """

    generator: FrozenGenerator
    semantic: float = SEMANTIC_WEIGHT
    guess: float = 1.0
    dropout: float = 0.05
    given: tuple[str, ...] = ()

    @property
    def companions(self) -> tuple[str, ...]:
        """Everything: nothing is hidden by the training loop, only the context, here."""
        return ("cortex", "embedding", *self.given)

    @property
    def path(self) -> Any:
        """Losses of validation are reported by its log-SNR."""
        return self.generator.denoiser.path

    def __call__(
        self, denoiser: Any, x0: Tensor, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Loss:
        """Loss of a batch; row i draws whether its context is there, then time and noise, from generator i alone.

        Args:
            denoiser: The `SurfaceDecoder`.
            x0: Pictures that were seen, (n, 3, y, x) in [0, 1].
            generators: One a picture.
            conditions: `cortex` (n, 1, y, x), `embedding` (n, T, D) or (n, D) where there is one, and those of `given`.
        """
        given = dict(conditions)
        cortex, embedding = given.pop("cortex"), given.pop("embedding", None)
        said = denoiser(cortex)
        kept = torch.stack([torch.rand((), generator=g) >= self.dropout for g in generators])
        shown = said.context * kept.to(said.context).reshape(-1, 1, 1)
        under = Manipulated(self.generator, denoiser.manipulation, replace(said, context=shown))
        regression = Regression(self.path, UniformTime(), target=Prediction.VELOCITY)
        flow = regression(under, self.generator.state(x0), generators, **given)
        rows = flow.per_sample
        if self.semantic > 0 and embedding is not None:
            rows = rows + self.semantic * semantic_error(said.context, embedding)
        if self.guess > 0 and said.guess is not None:
            rows = rows + self.guess * (said.guess - denoiser.components_of(x0)).square().mean(1)
        return Loss(rows.mean(), rows, flow.t)
