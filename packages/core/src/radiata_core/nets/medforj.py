r"""The U-Net of MedForJ: the network whose released weights this house can read.

A head of 192 × 224 × 192 voxels goes down through five levels of residual blocks, is mixed by self-attention
where few voxels are left, and comes up again; every block hears the noise level. One residual block is

    h ← x' = silu(norm(x)),   h ← conv₁(h) + W silu(e(c)),   out = S x + conv₂(silu(norm(h))),

with group normalisation, S the identity or a 1×1 convolution, and e(c) = MLP(cos(ω c), sin(ω c)) the
embedding of the number that the network was trained with: MedForJ's step 0 … 999 (which may be a fraction),
*not* the time 0 … 1 of our paths. Translating is the duty of the denoiser around the network.

Attention is softmax(QKᵀ/√d)V over all voxels of a level, added to its input; it runs in PyTorch's fused
kernel, which needs the same weights and never stores the matrix of scores.

The tensors carry the names of `monai.networks.nets.DiffusionModelUNet` (MONAI 1.x, without cross-attention
and class labels), so a state dictionary moves between the two both ways; `tests/core/nets/test_medforj.py`
holds the two against each other. Our own are: any number of spatial axes (1, 2, 3); doubling and convolving
as one (`doubling`); large calls without gradients in slabs, within a limit of memory (`medforj_slabs`);
blocks computed again in the backward pass (`checkpointing`); an optional embedding of covariates.

Reading order: `MedForJUNet.forward`, then `Down` and `Up`, `Residual`, `Attention`, `sinusoid` in
`medforj_blocks.py`; then `medforj_steps`, `medforj_slabs` and `medforj_plan`.

References:
    Ronneberger, Fischer, Brox (2015). U-Net. https://arxiv.org/abs/1505.04597
    Ho, Jain, Abbeel (2020). Denoising diffusion probabilistic models, app. B. https://arxiv.org/abs/2006.11239
    Rombach et al. (2022). High-resolution image synthesis with latent diffusion models.
        https://arxiv.org/abs/2112.10752
    Pinaya et al. (2022). Brain imaging generation with latent diffusion models. https://arxiv.org/abs/2209.07162
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from radiata_core.errors import InputError
from radiata_core.nets.medforj_blocks import (
    Conv,
    Down,
    Downsample,
    Middle,
    Recipe,
    Residual,
    Signal,
    Up,
    Upsample,
    activated,
    is_plain,
    is_traced,
    sinusoid,
)
from radiata_core.nets.medforj_plan import Plan, plan_of
from radiata_core.nets.medforj_slabs import forward_in_slabs
from radiata_core.nets.medforj_storage import trial
from radiata_core.nets.medforj_times import TimeTable
from radiata_core.specs import buildable

__all__ = ["MEDFORJ", "MedForJUNet"]

MEDFORJ: Mapping[str, Any] = MappingProxyType(
    {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "channels": (16, 32, 64, 128, 256),
        "num_res_blocks": 2,
        "attention_levels": (False, False, False, False, True),
        "norm_num_groups": 8,
        "num_head_channels": 8,
        "norm_eps": 1e-6,
    }
)
"""Arguments of the released voxel-space networks: 41,245,217 parameters in 394 tensors."""

LARGE = 4 * 2**20
"""Bytes of the finest map from which a call without gradients goes in slabs on a processor; smaller ones gain nothing."""


@buildable("medforj-unet")
class MedForJUNet(nn.Module):
    """U-Net with residual blocks, self-attention and a sinusoidal noise level; the defaults are MedForJ's.

    Args:
        spatial_dims: Number of spatial axes: 1, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        channels: Channels of each level, finest first; multiples of `norm_num_groups`.
        num_res_blocks: Residual blocks of each level on the way down (one more on the way up), or one number.
        attention_levels: Whether the blocks of each level are followed by attention (the middle always is).
        norm_num_groups: Groups of the group normalisation.
        num_head_channels: Channels of one attention head, for each level or for all.
        norm_eps: Added to the variance by every normalisation: 1e-6 in MONAI, 1e-5 in the fork of 2026. The
            output changes by per cents where a group's standard deviation is about 0.01.
        resblock_updown: Change the resolution by residual blocks rather than by convolutions.
        include_fc: Whether attention ends in a linear layer.
        use_combined_linear: Whether queries, keys and values come from one linear layer.
        covariates: Number of covariates the network may be told (NaN: not known); 0 for MedForJ's networks.

    Attributes:
        max_memory: Bytes that a call without gradients may take besides the network; None for no limit. Larger calls go
            through the network in slabs (`medforj_slabs`), with the same result to rounding.
        spill: Folder for maps that a limit sends to disk; None for the system's temporary one.
        storage: Numbers of the maps of a call without gradients: None for the input's, or `torch.bfloat16`, which the device
            is tried with first (`medforj_storage`). For CUDA; a processor is many times slower with it.
        checkpointing: Whether residual blocks, and in them norms with their SiLU (`norm_silu`), are computed again in the
            backward pass: half the memory of training, on a processor a third where freed blocks go back (`allocation`).

    Raises:
        InputError: the arguments do not fit each other.
    """

    told_as = "step"

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = MEDFORJ["channels"],
        num_res_blocks: int | Sequence[int] = 2,
        attention_levels: Sequence[bool] = MEDFORJ["attention_levels"],
        norm_num_groups: int = 8,
        num_head_channels: int | Sequence[int] = 8,
        norm_eps: float = 1e-6,
        resblock_updown: bool = False,
        include_fc: bool = True,
        use_combined_linear: bool = False,
        covariates: int = 0,
    ) -> None:
        super().__init__()
        self.max_memory: int | None = None
        self.spill: Path | None = None
        self.storage: torch.dtype | None = None
        self._tried: dict[torch.device, bool] = {}
        self._times = TimeTable()
        levels = len(channels)
        blocks, heads = _one_a_level(num_res_blocks, levels), _one_a_level(num_head_channels, levels)
        self.options: dict[str, Any] = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": tuple(channels),
            "num_res_blocks": blocks,
            "attention_levels": tuple(attention_levels),
            "norm_num_groups": norm_num_groups,
            "num_head_channels": heads,
            "norm_eps": norm_eps,
            "resblock_updown": resblock_updown,
            "include_fc": include_fc,
            "use_combined_linear": use_combined_linear,
            "covariates": covariates,
        }
        _check(self.options)
        self.spatial_dims, self.covariates, self.channels = spatial_dims, covariates, tuple(channels)
        device = torch.get_default_device()
        with torch.device("meta"):  # so that building draws from no global random state
            self._build(
                Recipe(
                    spatial_dims, norm_num_groups, norm_eps, 4 * channels[0], include_fc, use_combined_linear
                ),
                resblock_updown,
                blocks,
                attention_levels,
                heads,
            )
        self.to_empty(device=device)
        if device.type != "meta":
            self.initialise(torch.Generator(device).manual_seed(0))

    def _build(
        self,
        recipe: "Recipe",
        resblock_updown: bool,
        blocks: Sequence[int],
        attention_levels: Sequence[bool],
        heads: Sequence[int],
    ) -> None:
        channels, last = self.channels, len(self.channels) - 1
        wide = recipe.embedding
        self.conv_in = Conv(self.spatial_dims, self.options["in_channels"], channels[0])
        self.time_embed = nn.Sequential(nn.Linear(channels[0], wide), nn.SiLU(), nn.Linear(wide, wide))
        if self.covariates:
            into = nn.Linear(2 * self.covariates, wide)
            self.covariate_embed = nn.Sequential(into, nn.SiLU(), nn.Linear(wide, wide))

        def change(level: int, up: bool) -> nn.Module:
            if resblock_updown:
                return Residual(recipe, channels[level], channels[level], resolution="up" if up else "down")
            return Upsample(recipe, channels[level]) if up else Downsample(recipe, channels[level])

        down: list[nn.Module] = []
        skips = [channels[0]]
        width = channels[0]
        for level, out in enumerate(channels):
            head = heads[level] if attention_levels[level] else None
            sizes = [(width if i == 0 else out, out) for i in range(blocks[level])]
            width = out
            smaller = change(level, up=False) if level < last else None
            skips += [out] * (blocks[level] + (level < last))
            down.append(Down(recipe, sizes, head, change=smaller))
        self.down_blocks = nn.ModuleList(down)
        self.middle_block = Middle(recipe, channels[-1], heads[-1])
        up: list[nn.Module] = []
        for level in reversed(range(len(channels))):
            out = channels[level]
            head = heads[level] if attention_levels[level] else None
            sizes = []
            for _ in range(blocks[level] + 1):
                sizes.append((width + skips.pop(), out))
                width = out
            up.append(Up(recipe, sizes, head, change=change(level, up=True) if level else None))
        self.up_blocks = nn.ModuleList(up)
        outputs = Conv(self.spatial_dims, channels[0], self.options["out_channels"])
        self.out = nn.Sequential(recipe.norm(channels[0]), nn.SiLU(), outputs)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights from `generator`: uniform in ±1/√fan-in, what ends a block or the net zero."""
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
        silent: list[nn.Module] = [module.conv2 for module in self.modules() if isinstance(module, Residual)]
        silent += [self.out[-1]] + ([self.covariate_embed[-1]] if self.covariates else [])
        for module in silent:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch channel *space"],
        noise_level: Float[Tensor, ""] | Float[Tensor, "batch"],
        covariates: Float[Tensor, "batch covariate"] | None = None,
    ) -> Float[Tensor, "batch out *space"]:
        """Raw output of the network, in the units of whatever it was trained to predict.

        Args:
            x: Noisy input; every spatial axis a multiple of 2^(levels − 1) voxels.
            noise_level: What the sinusoidal embedding is given, one a row: MedForJ's step, 0 … 999.
            covariates: One row a sample, NaN where a value is not given.

        Raises:
            InputError: the shape does not fit, or covariates are given to a network that takes none.
        """
        self._check_input(x, covariates)
        signal = self._signal(x, noise_level.expand(len(x)), covariates)
        plan = self._plan(x)
        if plan is not None:
            return forward_in_slabs(self, x, signal, plan, self.spill, self.maps_dtype(x))
        h = self.conv_in(x)
        if x.device.type == "cpu" and self.spatial_dims == 3:
            h = h.contiguous(memory_format=torch.channels_last_3d)  # oneDNN's fastest order of memory
        skips = [h]
        for level in self.down_blocks:
            h = level(h, signal, skips)
        h = self.middle_block(h, signal)
        for level in self.up_blocks:
            h = level(h, signal, skips)
        if self.checkpointing and is_plain(self.out):
            norm, _silu, last = self.out
            return last(activated(norm, h))
        return self.out(h)

    def prepare_times(self, noise_levels: Float[Tensor, "level"]) -> None:
        """Work out at once what all blocks are told at the levels of a schedule (`medforj_times`).

        Calls without gradients in evaluation mode then find it, until a weight changes; results stay the same. On a
        processor they remember every level by themselves.

        Args:
            noise_levels: As `forward` will be given them.
        """
        self._times.prepare(self, noise_levels)

    def train(self, mode: bool = True) -> "MedForJUNet":
        self._times.clear()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "MedForJUNet":
        self._times.clear()
        return super()._apply(fn, recurse)

    def _signal(self, x: Tensor, levels: Tensor, covariates: Tensor | None) -> Signal:
        """What the blocks are told: remembered where that is possible, else SiLU of the embedding."""
        told = covariates is not None and self.covariates > 0
        if not (told or self.training or _needs_modules(x)):
            shifts = self._times.shifts(self, levels)
            if shifts is not None:
                return shifts
        embedding = self.time_embed(sinusoid(levels, self.channels[0]).to(x.dtype))
        if covariates is not None and told:
            known = ~covariates.isnan()
            row = torch.cat([torch.where(known, covariates, 0.0), known.to(covariates.dtype)], dim=1)
            embedding = embedding + self.covariate_embed(row.to(x.dtype))
        return F.silu(embedding)  # every block asks for the same one

    @property
    def checkpointing(self) -> bool:
        """Whether residual blocks are computed again in the backward pass, for memory. Set it as you like."""
        return self.middle_block.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        for level in (*self.down_blocks, self.middle_block, *self.up_blocks):
            level.checkpointing = value
        for module in self.modules():
            if isinstance(module, Residual):
                module.frugal = value

    def _plan(self, x: Tensor) -> Plan | None:
        """How to go in slabs (`medforj_slabs`), where that is possible and of use."""
        size = math.prod(x.shape[2:]) * self.channels[0] * x.element_size()
        wanted = self.max_memory is not None or self.storage is not None
        wanted = wanted or (x.device.type == "cpu" and size >= LARGE)
        if not wanted or _needs_modules(x) or not is_plain(self):
            return None
        ends = (len(x) - 1) * x[0].numel() // x.shape[1] * (x.shape[1] + self.options["out_channels"])
        limit = None if self.max_memory is None else self.max_memory - ends * x.element_size()
        return plan_of(self, x.shape[2:], self.maps_dtype(x).itemsize, limit)

    def maps_dtype(self, x: Tensor) -> torch.dtype:
        """The numbers in which a call without gradients keeps the maps of an input like `x`.

        The first time that a device is to keep bfloat16 it is tried (`medforj_storage`), with a warning where it fails.

        Raises:
            InputError: `storage` is neither None nor bfloat16.
        """
        if self.storage is None:
            return x.dtype
        if self.storage != torch.bfloat16:
            raise InputError(
                f"expected storage None or torch.bfloat16; got {self.storage}. Set network.storage."
            )
        if x.device not in self._tried:
            fault = trial(x.device, self.spatial_dims)
            self._tried[x.device] = fault is None
            if fault is not None:
                warnings.warn(
                    f"float32 maps on {x.device}: in bfloat16 {fault}. Update PyTorch.", stacklevel=3
                )
        return self.storage if self._tried[x.device] else x.dtype

    def _check_input(self, x: Tensor, covariates: Tensor | None) -> None:
        multiple = 2 ** (len(self.channels) - 1)
        want = (self.options["in_channels"], *["n"] * self.spatial_dims)
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != want[0] or any(n % multiple for n in x.shape[2:]):
            raise InputError(
                f"expected rows {want} with every n a multiple of {multiple}; got {tuple(x.shape[1:])}. "
                "Crop or pad the volume, or use the network that was made for it."
            )
        if covariates is not None and covariates.shape[1] != self.covariates and self.covariates:
            raise InputError(
                f"expected {self.covariates} covariates a row; got {covariates.shape[1]}. NaN is unknown."
            )
        if covariates is not None and not self.covariates and not bool(covariates.isnan().all()):
            raise InputError(
                "expected no covariates; got some, but this network was trained without. Leave them away."
            )


def _needs_modules(x: Tensor) -> bool:
    """Whether gradients, a compiler, autocast or a functional transform want the modules called as they are written."""
    return torch.is_grad_enabled() or is_traced(x)


def _one_a_level(value: int | Sequence[int], levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def _check(options: Mapping[str, Any]) -> None:
    channels, groups = options["channels"], options["norm_num_groups"]
    if options["spatial_dims"] not in (1, 2, 3):
        raise InputError(f"expected 1, 2 or 3 spatial axes; got {options['spatial_dims']}. Set spatial_dims.")
    lengths = {
        name: len(options[name]) for name in ("attention_levels", "num_res_blocks", "num_head_channels")
    }
    if not channels or any(length != len(channels) for length in lengths.values()):
        raise InputError(f"expected one entry a level ({len(channels)}); got {lengths}. Give one for each.")
    if any(width % groups for width in channels):
        raise InputError(
            f"expected channels in multiples of {groups} groups; got {channels}. Set norm_num_groups."
        )
    attended = [
        *options["attention_levels"][:-1],
        True,
    ]  # the middle always attends, with the last level's heads
    for width, head, used in zip(channels, options["num_head_channels"], attended, strict=True):
        if used and width % head:
            raise InputError(
                f"expected channels in multiples of {head} a head; got {width}. Set num_head_channels."
            )
