r"""Stable Video Diffusion that is told how things move: flow beside the noisy latents, and the loss that teaches it.

    h_0 = conv(z, first frame) + W_flow * (flow_x, flow_y, known)          W_flow = 0 at the start

The first layer gets three more input channels at the latents' resolution: the flow that leads to each frame, in latent
cells a frame step, and whether it is known (0 at the first frame, and everywhere where it is dropped). Their weights
start at zero and their sum is added apart, so a widened network answers bit for bit what it answered before, whatever
the flow: fine-tuning starts from the model of images to films. Nothing of the kind ships with diffusers: fine-tune with
`FlowConditionedVideo` on (first frame, flow, film) from any videos, flow by `data.optical_flow`; no brain is needed.
Then decoded flow takes the place of measured flow.

    D(z; σ) = z / (1 + σ²) − σ / √(1 + σ²) · F(z / √(1 + σ²), log(σ) / 4)      loss: (1 + 1/σ²) |D − z_0|²,  log σ ~ N(m, s²)

This is the core's `EDMDenoiser` with unit data variance around −F, and its `Regression`. The network of diffusers with
the Euler scheduler gives the same D (tested).

Run here on tiny networks with random weights on a CPU only: whether and how soon fine-tuning a real one follows flow was
never measured. The law of σ is a default, to be tuned.

References:
    A. Blattmann et al. (2023). Stable Video Diffusion. https://arxiv.org/abs/2311.15127.
    T. Karras et al. (2022). https://arxiv.org/abs/2206.00364, table 1.
    L. Zhang, A. Rao, M. Agrawala (2023). https://arxiv.org/abs/2302.05543 (zero convolutions).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.objectives import EDM, Loss, Regression
from radiata_core.paths import VEPath
from radiata_core.times import LogNormalSNR, TimeLaw
from radiata_decode.model.flow_grids import resampled_flow

__all__ = [
    "FLOW_CHANNELS",
    "FlowConditionedVideo",
    "WidenedConv",
    "flow_beside",
    "flow_channels",
    "flow_maps",
    "pictures_of",
    "widened",
]

FLOW_CHANNELS = 3
"""Flow to the right, flow downward, known."""


class WidenedConv(nn.Conv2d):
    """A convolution whose last input channels are summed apart; weights as those of an ordinary one of all channels.

    Args:
        old: The convolution, of all channels where `extra` are its last, or of those before.
        extra: Number of further channels.
        wide: `old` has them already.
    """

    def __init__(self, old: nn.Conv2d, extra: int, *, wide: bool = False) -> None:
        first = old.in_channels - extra if wide else old.in_channels
        kernel: Any = old.kernel_size
        spacing: dict[str, Any] = {"stride": old.stride, "padding": old.padding}
        with torch.random.fork_rng(devices=[]):  # drawn, then overwritten
            super().__init__(first + extra, old.out_channels, kernel, **spacing, bias=old.bias is not None)
        self.first = first
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, : old.in_channels] = old.weight
            if old.bias is not None and self.bias is not None:
                self.bias.copy_(old.bias)
        self.to(old.weight)

    def forward(self, input: Tensor) -> Tensor:
        """The sum of both parts: where the further weights are 0, the first part exactly."""
        before, after = input[:, : self.first], input[:, self.first :]
        told = nn.functional.conv2d(
            before, self.weight[:, : self.first], self.bias, self.stride, self.padding
        )
        return told + nn.functional.conv2d(
            after, self.weight[:, self.first :], None, self.stride, self.padding
        )


def flow_channels(unet: Any) -> int:
    """Input channels beyond noisy latents and first frame: 0, or `FLOW_CHANNELS` where the network was widened."""
    return int(unet.config.in_channels) - 2 * int(unet.config.out_channels)


def widened(unet: Any) -> Any:
    """The network itself, its first layer widened by the channels of flow; one that has them keeps its weights.

    Args:
        unet: A `UNetSpatioTemporalConditionModel`; changed in place, saved and loaded by diffusers as it is.

    Raises:
        InputError: neither the channels of image to film, nor those with flow.
    """
    extra = flow_channels(unet)
    if extra not in (0, FLOW_CHANNELS):
        raise InputError(
            f"expected a network of {2 * unet.config.out_channels} input channels, or {FLOW_CHANNELS} more; got "
            f"{unet.config.in_channels}. Use one of StableVideoDiffusionPipeline."
        )
    if not isinstance(unet.conv_in, WidenedConv):
        unet.conv_in = WidenedConv(unet.conv_in, FLOW_CHANNELS, wide=extra > 0)
        unet.register_to_config(in_channels=unet.conv_in.in_channels)
    return unet


def flow_maps(flow: Tensor, frames: int, grid: tuple[int, int]) -> Tensor:
    """The three channels of each frame, (n, frame, 3, y, x): frame 0 knows nothing, frame f the step that leads to it.

    Args:
        flow: (n, step, 2, y, x), cells of its own grid a frame step.
        frames: Of the film, >= 2.
        grid: Of the latents, (y, x).

    Raises:
        InputError: not flow, or fewer than two frames.
    """
    if frames < 2:
        raise InputError(f"expected a film of two frames or more; got {frames}. Flow needs a step.")
    moved = resampled_flow(flow.float(), grid, frames - 1)
    maps = torch.cat([moved, torch.ones_like(moved[:, :, :1])], 2)
    return torch.cat([torch.zeros_like(maps[:, :1]), maps], 1)


@contextlib.contextmanager
def flow_beside(unet: Any, maps: Tensor) -> Iterator[None]:
    """Within it, the network gets these channels after its own input, in each branch of the guidance.

    Args:
        unet: Widened.
        maps: (n, frame, 3, y, x).
    """

    def added(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        sample = args[0]
        branches = sample.shape[0] // maps.shape[0]
        more = maps.to(sample).repeat(branches, 1, 1, 1, 1)
        return (torch.cat([sample, more], 2), *args[1:]), options

    hook = unet.register_forward_pre_hook(added, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class _Film(nn.Module):
    """−F of the module's equation, in the form that the core's denoisers call."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        x: Tensor,
        level: Tensor,
        *,
        beside: Tensor,
        frame_embeds: Tensor,
        time_ids: Tensor,
    ) -> Tensor:
        sample = torch.cat([x, beside.to(x)], 2)
        return -self.unet(
            sample, level.to(x), encoder_hidden_states=frame_embeds, added_time_ids=time_ids
        ).sample


@dataclass(frozen=True)
class FlowConditionedVideo:
    """The loss of a widened network on films with their first frames and flow.

    Attributes:
        pipeline: A `StableVideoDiffusionPipeline`; its network is widened, its other parts stay as they are.
        law: Of the noise level, log-normal.
        frame_dropout: Probability that a film's first frame is withheld, for guidance, in [0, 1].
        flow_dropout: Probability that its flow is withheld, in [0, 1].
        noise_aug: Noise on the first frame, in units of its range [-1, 1].
        fps: Frames a second that the network is told.
        motion_bucket: Amount of motion that it is told, 0 to 255; fixed, since flow says it better.
    """

    pipeline: Any
    law: TimeLaw = field(default_factory=lambda: LogNormalSNR(0.7, 1.6))
    frame_dropout: float = 0.1
    flow_dropout: float = 0.1
    noise_aug: float = 0.02
    fps: int = 7
    motion_bucket: int = 127

    def __post_init__(self) -> None:
        if not (0 <= self.frame_dropout <= 1 and 0 <= self.flow_dropout <= 1):
            raise InputError(
                f"expected dropout in [0, 1]; got {self.frame_dropout} and {self.flow_dropout}. 0.1 is usual."
            )
        widened(self.pipeline.unet)

    @property
    def denoiser(self) -> EDMDenoiser:
        """E[z_0 | z_t] of the network, for the core's objectives and solvers."""
        return EDMDenoiser(_Film(self.pipeline.unet), VEPath(0.002, 700.0), sigma_data=1.0)

    @property
    def objective(self) -> Regression:
        """Of latents (n, frame, channel, y, x)."""
        return Regression(VEPath(0.002, 700.0), self.law, weight=EDM(1.0))

    @torch.no_grad()
    def conditions(
        self, first_frame: Tensor, flow: Tensor, frames: int, generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """What the network is told of each film; row i draws its dropouts and its noise from generator i.

        Args:
            first_frame: (n, 3, y, x) in [0, 1].
            flow: (n, step, 2, y', x').
            frames: Of the films.
            generators: One a row.
        """
        pipe = self.pipeline
        first = next(pipe.unet.parameters())
        draws = torch.stack([torch.rand(2, generator=g) for g in generators]).to(first.device)
        keep_frame, keep_flow = (draws >= draws.new_tensor([self.frame_dropout, self.flow_dropout])).unbind(1)
        noise = torch.stack([torch.randn(first_frame.shape[1:], generator=g) for g in generators])
        noisy = 2 * first_frame.cpu() - 1 + self.noise_aug * noise
        latents = pipe.vae.encode(noisy.to(first)).latent_dist.mode() * keep_frame[:, None, None, None]
        embeds = pipe._encode_image(pictures_of(first_frame), first.device, 1, False)
        maps = flow_maps(flow, frames, (latents.shape[-2], latents.shape[-1])).to(first)
        beside = torch.cat(
            [
                latents.unsqueeze(1).expand(-1, frames, -1, -1, -1),
                maps * keep_flow[:, None, None, None, None],
            ],
            2,
        )
        ids = torch.tensor([self.fps - 1, self.motion_bucket, self.noise_aug], dtype=first.dtype)
        return {
            "beside": beside,
            "frame_embeds": embeds * keep_frame[:, None, None],
            "time_ids": ids.to(first.device).repeat(len(beside), 1),
        }

    def __call__(
        self,
        first_frame: Tensor,
        flow: Tensor,
        clip: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Loss:
        """The loss of some films; each depends on its own generator only.

        Args:
            first_frame: (n, 3, y, x) in [0, 1].
            flow: (n, step, 2, y', x').
            clip: (n, frame, 3, y, x) in [0, 1], its first frame among them.
            generators: One a row.

        Raises:
            InputError: not films, or another number of rows.
        """
        if clip.ndim != 5 or len({len(first_frame), len(flow), len(clip), len(generators)}) != 1:
            raise InputError(
                f"expected a first frame, flow, film (n, frame, 3, y, x) and generator a row; got {len(first_frame)}, "
                f"{len(flow)}, {tuple(clip.shape)} and {len(generators)}."
            )
        vae = self.pipeline.vae
        told = self.conditions(first_frame, flow, clip.shape[1], generators)
        with torch.no_grad():
            pictures = (2 * clip.flatten(0, 1) - 1).to(next(vae.parameters()))
            latents = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
        return self.objective(self.denoiser, latents.unflatten(0, clip.shape[:2]), generators, **told)


def pictures_of(frames: Tensor) -> list[Any]:
    """Frames (n, 3, y, x) in [0, 1] as 8-bit pictures of PIL: the pipeline resizes those for its encoder, and no tensors."""
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor.numpy_to_pil(frames.clamp(0, 1).movedim(1, -1).float().cpu().numpy())
