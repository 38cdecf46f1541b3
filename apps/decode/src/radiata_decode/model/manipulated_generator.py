r"""A frozen generator under the control of a cortex, and pictures drawn from it.

`Manipulated` is a denoiser like any other, E[x_0 | x_t, cortex], so the core's solvers and objectives take it as it is. With
guidance the control stays in both branches and only the context is emptied,

$$ D_w = D(x_t; \varnothing, \text{control}) + w\,[D(x_t; c, \text{control}) - D(x_t; \varnothing, \text{control})]. $$

The mean of several draws is the best single picture by squared error; one draw is the most plausible one.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (the control scale at inference).
    J. Ho, T. Salimans (2022). Classifier-free diffusion guidance. https://arxiv.org/abs/2207.12598, eq. 6.
    C. Meng et al. (2022). SDEdit. https://arxiv.org/abs/2108.01073 (a start from a first picture).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel
from radiata_core.paths import Path, add_noise
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import dpmpp_2m, integrate
from radiata_core.times import LinearGrid
from radiata_decode.model.conditions import Condition, check_requirements
from radiata_decode.model.manipulation_network import ManipulationNetwork, residuals_added, the_unet
from radiata_decode.model.surface_decoder import SurfaceDecoder, SurfacePrediction, joined

__all__ = ["ControlledGenerator", "FrozenGenerator", "Manipulated", "controlled_pictures", "drawn_pictures"]


@dataclass(frozen=True)
class FrozenGenerator:
    """A denoiser of pictures that is never trained here, and in which units its state is.

    Attributes:
        denoiser: With a U-Net of the core inside.
        shape: Of a picture, (3, y, x).
        centre: The state is (picture − centre) / spread.
        spread: See `centre`, > 0.
        told: Conditions of the denoiser that follow from what the cortex says (a guess it was taught to believe, say); None
            for a denoiser without any.
    """

    denoiser: NetworkDenoiser
    shape: tuple[int, int, int]
    centre: float = 0.5
    spread: float = 0.5
    told: Callable[[SurfacePrediction], dict[str, Tensor]] | None = None

    def state(self, images: Tensor) -> Tensor:
        """State of pictures in [0, 1]."""
        return (images - self.centre) / self.spread

    def images(self, state: Tensor) -> Tensor:
        """Pictures in [0, 1]; what lies outside is cut."""
        return (state * self.spread + self.centre).clamp(0, 1)


@dataclass(frozen=True)
class Manipulated:
    """E[x_0 | x_t, cortex]: a frozen denoiser under control.

    Attributes:
        generator: Frozen.
        network: The manipulation; None leaves the generator as it is.
        said: Prediction of the decoder, one row a row of the state.
        scale: Control scale, one or one a level; 0 is the generator alone, to the bit.
        guidance: Weight of the context against an empty one; 1 is none and costs one evaluation, not two.
    """

    generator: FrozenGenerator
    network: ManipulationNetwork | None
    said: SurfacePrediction
    scale: float | Sequence[float] = 1.0
    guidance: float = 1.0

    @property
    def path(self) -> Path:
        return self.generator.denoiser.path

    @property
    def prediction(self) -> Prediction:
        return self.generator.denoiser.prediction

    @property
    def kernel(self) -> Kernel:
        return self.generator.denoiser.kernel

    def predict(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """In units of `prediction`."""
        if self.generator.told is not None:
            conditions = self.generator.told(self.said) | conditions
        if self.network is None:
            return self.generator.denoiser.predict(x, t, **conditions)
        given = self._under(self.network, self.said.context, x, t, conditions)
        if self.guidance == 1.0:
            return given
        free = self._under(self.network, torch.zeros_like(self.said.context), x, t, conditions)
        return torch.lerp(free, given, self.guidance)

    def _under(
        self, network: ManipulationNetwork, context: Tensor, x: Tensor, t: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        # The hint is what the guess says; what it costs to be wrong is the guess's own loss.
        hint = None if self.said.first is None else self.generator.state(self.said.first.detach())
        unet = the_unet(self.generator.denoiser)
        with residuals_added(unet, network, self.said.tokens, self.scale, context, hint):
            return self.generator.denoiser.predict(x, t, **conditions)

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """E[x_0 | x_t, cortex], (n, 3, y, x)."""
        return convert(self.predict(x, t, **conditions), x, t, self.path, self.prediction, Prediction.X0)


@torch.no_grad()
def controlled_pictures(
    generator: FrozenGenerator,
    network: ManipulationNetwork | None,
    said: SurfacePrediction,
    *,
    seeds: Sequence[int],
    draws: int = 1,
    steps: int = 12,
    scale: float | Sequence[float] = 1.0,
    guidance: float = 1.0,
    strength: float = 1.0,
    batch: int = 256,
    **conditions: Tensor,
) -> Tensor:
    """Pictures that the generator draws under control, (n, draw, 3, y, x) in [0, 1].

    Picture i depends on what its own cortex says and on its seed only, whatever else is in the batch.

    Args:
        generator: Frozen.
        network: The manipulation that was trained with it; None: the generator alone.
        said: One row a picture.
        seeds: One a picture.
        draws: Samples of each.
        steps: Of the solver (DPM-Solver++ of order 2), >= 1.
        scale: Control scale.
        guidance: Weight of the context.
        strength: Time at which the solver starts, from the first picture with its noise; in (0, 1], 1 from noise alone.
        batch: Rows at a time: memory, not results.
        conditions: Of the generator, (n, ...) each.

    Raises:
        InputError: not one seed a picture, no draws, or a strength below 1 without a first picture.
    """
    count = len(said.tokens)
    if len(seeds) != count or draws < 1:
        raise InputError(
            f"expected a seed for each of {count} pictures and a draw; got {len(seeds)}, {draws}."
        )
    if strength < 1 and said.first is None:
        raise InputError(f"expected a decoder with a guess to start from; got strength {strength}. Use 1.")
    path = generator.denoiser.path
    table = dpmpp_2m(LinearGrid(t_max=strength)(steps, path), path)
    sources = [source for seed in seeds for source in generators_of(range(draws), seed)]
    rows = torch.arange(count).repeat_interleave(draws)
    found = []
    for part in torch.arange(len(rows)).split(batch):
        inside = rows[part]
        here = said.rows(inside)
        start = noise_of([sources[int(i)] for i in part], generator.shape).to(said.tokens.device)
        if strength < 1 and here.first is not None:
            time = torch.tensor(strength, dtype=torch.float64)
            start = add_noise(path, generator.state(here.first), start, time)
        denoiser = Manipulated(generator, network, here, scale, guidance)
        given: dict[str, Any] = {name: value[inside] for name, value in conditions.items()}
        found.append(generator.images(integrate(denoiser, start, table, **given)))
    return torch.cat(found).unflatten(0, (count, draws))


@torch.no_grad()
def drawn_pictures(
    generator: FrozenGenerator, decoder: SurfaceDecoder, cortex: Tensor, *, batch: int = 256, **options: Any
) -> Tensor:
    """The same from pictures of the cortex, (n, 1, y, x); `options` are those of `controlled_pictures`."""
    parts = [decoder(part) for part in cortex.split(batch)]
    return controlled_pictures(generator, decoder.manipulation, joined(parts), batch=batch, **options)


@dataclass(frozen=True, eq=False)
class ControlledGenerator:
    """The frozen generator as a `conditions.Generator`: its control is the tokens of `SurfaceDecoder.condition`.

    Attributes:
        generator: Frozen.
        network: The manipulation that was trained with it.
    """

    generator: FrozenGenerator
    network: ManipulationNetwork
    requires = frozenset({"control"})
    optional = frozenset({"prompt_embeds", "init_image"})
    provides = "image"

    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 1.0,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Pictures (n, 3, y, x) in [0, 1]; without `init_image` they start from noise. `mix` has nothing to mix here."""
        check_requirements(self, condition, seeds)
        control = condition.control
        if control is None or isinstance(control, Tensor) or len(control) != 1 or control[0].ndim != 3:
            raise InputError(
                "expected the tokens of the cortex as control, (n, token, width); got another one."
            )
        context, first = condition.prompt_embeds, condition.init_image
        if context is None:
            context = torch.zeros(len(control[0]), 1, int(self.network.options["dim"] or 1))
        drawn = controlled_pictures(
            self.generator,
            self.network,
            SurfacePrediction(control[0], context, None, first),
            seeds=seeds,
            strength=1.0 if first is None else strength,
            guidance=1.0 if guidance is None else guidance,
            scale=control_scale,
            steps=steps or 12,
        )
        return drawn[:, 0]
