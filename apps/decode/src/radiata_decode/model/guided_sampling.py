r"""One loop for latent diffusion models of diffusers, with everything that a brain can tell them.

    z_init = encode(init image)          z_s = α_s z_init + σ_s ε        s = the step at `strength`
    ε̂(z, t) = ε(z, t, ∅) + g · (ε(z, t, c) − ε(z, t, ∅))                  g = `guidance`
    z_{t-1} = scheduler.step(ε̂, t, z_t)                                   until z_0, then decode

The pipelines of diffusers are this loop too, each with a part of the inputs; here residuals of a control (computed from
a picture, from cortex, or given) go together with text, adapters and dual attention, and the first guess with all of
them. It gives what `StableDiffusionImg2ImgPipeline`, its IP-Adapter, `StableDiffusionControlNetImg2ImgPipeline` and
`StableUnCLIPImg2ImgPipeline` give, to rounding (tested); latents stay in float32 whatever the network's precision.

References:
    C. Meng et al. (2022). SDEdit. https://arxiv.org/abs/2108.01073, section 3 (start from a noised guess).
    J. Ho, T. Salimans (2022). Classifier-free diffusion guidance. https://arxiv.org/abs/2207.12598, eq. 6.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_decode.model.conditions import Condition

__all__ = ["Control", "Step", "after_step", "beside", "guided", "in_batches", "resized", "sampled_latents"]

Step = Callable[[float], None]
"""Called after each evaluation with the fraction of the work that is done, in (0, 1]."""
Control = Callable[[Tensor, Tensor, Tensor], tuple[Sequence[Tensor], Tensor]]
"""Residuals of (latents, timestep, context): of the blocks on the way down, finest first, and of the middle one."""


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (n, 3, y, x) in [0, 1] on another grid: bicubic, smoothed where they shrink, cut to [0, 1]."""
    if tuple(pictures.shape[-2:]) == tuple(size):
        return pictures.float()
    found = torch.nn.functional.interpolate(
        pictures.float(), size, mode="bicubic", antialias=True, align_corners=False
    )
    return found.clamp(0, 1)


def beside(negative: Tensor, positive: Tensor, guidance: float) -> Tensor:
    """Both branches in one batch, the unconditional first; only the conditional one where guidance is 1."""
    return positive if guidance == 1 else torch.cat([negative.expand_as(positive), positive])


def guided(
    network: Any,
    inputs: Mapping[str, Any],
    guidance: float,
    control: Control | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided prediction as a function of latents and timestep.

    Args:
        network: A diffusers `UNet2DConditionModel`.
        inputs: Its keyword arguments, both branches in one batch (see `beside`), `encoder_hidden_states` among them.
        guidance: g; at 1 there is one branch.
        control: Its residuals, in both branches.
    """
    dtype = next(network.parameters()).dtype

    def predicted(latents: Tensor, time: Tensor) -> Tensor:
        both = (latents if guidance == 1 else torch.cat([latents, latents])).to(dtype)
        more: dict[str, Any] = {}
        if control is not None:
            down, middle = control(both, time, inputs["encoder_hidden_states"])
            more["down_block_additional_residuals"] = tuple(part.to(both) for part in down)
            more["mid_block_additional_residual"] = middle.to(both)
        found = network(both, time, **inputs, **more).sample.float()
        if guidance == 1:
            return found
        without, told = found.chunk(2)
        return without + guidance * (told - without)

    return predicted


def sampled_latents(
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    generators: Sequence[torch.Generator],
    *,
    init: Tensor | None = None,
    strength: float = 1.0,
    steps: int = 50,
    step: Step | None = None,
) -> Tensor:
    """Latents (n, channel, y, x) at the end of the scheduler's steps.

    Args:
        scheduler: Of diffusers.
        predict: What the scheduler expects of a network, at (scaled) latents and timestep.
        noise: Standard normal, (n, channel, y, x).
        generators: One a row, for schedulers that draw noise at each step.
        init: Latents of the first guess; None: start from noise.
        strength: Of the noise on it, in [0, 1]: the last int(steps · strength) steps are made. Without one it is returned.
        steps: Of the whole way, >= 1.
        step: See `Step`.

    Raises:
        InputError: strength outside [0, 1] or no steps.
    """
    if not 0 <= strength <= 1 or steps < 1:
        raise InputError(
            f"expected strength in [0, 1] and at least one step; got {strength} and {steps}. "
            "Set --strength and --steps."
        )
    kept = steps if init is None else min(int(steps * strength), steps)
    if init is not None and kept == 0:
        return init
    scheduler.set_timesteps(steps, device=noise.device)
    start = (steps - kept) * scheduler.order
    times = scheduler.timesteps[start:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    state = (
        noise * scheduler.init_noise_sigma if init is None else scheduler.add_noise(init, noise, times[:1])
    )
    known = inspect.signature(scheduler.step).parameters
    more: dict[str, Any] = {"generator": list(generators)} if "generator" in known else {}
    for index, time in enumerate(times):
        raw = predict(scheduler.scale_model_input(state, time), time)
        state = scheduler.step(raw, time, state, **more).prev_sample
        if step is not None:
            step((index + 1) / len(times))
    return state


def after_step(step: Step, total: int) -> Any:
    """A callback for the pipelines of diffusers that tells the fraction done.

    Args:
        step: Is told.
        total: Number of steps.
    """

    def after(pipeline: Any, index: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        step(min(1.0, (index + 1) / total))
        return state

    return after


def in_batches(
    condition: Condition,
    seeds: Sequence[int],
    batch: int,
    draw: Callable[[Condition, list[torch.Generator], Step], Tensor],
    progress: Step | None = None,
) -> Tensor:
    """Pictures of all rows, `batch` at a time; row i sees its own generator only.

    Args:
        condition: Of all rows.
        seeds: One a row.
        batch: Rows at a time, >= 1.
        draw: Pictures of some rows from their generators.
        progress: Fraction of all that is done.

    Raises:
        InputError: a batch below 1.
    """
    if batch < 1:
        raise InputError(f"expected a batch of at least 1; got {batch}. Set --batch-size.")
    parts: list[Tensor] = []
    for start in range(0, len(seeds), batch):
        part = condition.rows(slice(start, start + batch))

        def step(fraction: float, start: int = start, count: int = part.count) -> None:
            if progress is not None:
                progress((start + fraction * count) / len(seeds))

        parts.append(draw(part, generators_of(seeds[start : start + batch]), step).float().cpu())
    return torch.cat(parts)
