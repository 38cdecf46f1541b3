r"""Denoising task routing: every noise level works on its own channels, at no parameter and no operation.

Denoising at one noise level and at another are different tasks that share a network and disturb each other. Routing gives
each level $l \in [0, 1]$ a window of the channels of every residual block, the same in all blocks,

$$y = x + f(m_l \odot x), \qquad m_l[i:i+w] = 1, \quad w = \lfloor \beta C \rfloor, \quad
  i = \mathrm{round}\big(l^\alpha\,(C - w)\big),$$

so that neighbouring levels share most of their channels and distant ones few. Only what f *reads* is masked: the shortcut
carries every channel past, and f writes to all. The authors' program masks, adds the complement afterwards, and is this
to rounding. With $\alpha = 4$ the window moves where there is much noise and hardly elsewhere.

A window of 64 channels at $\beta$ = 0.8 has 14 places, so routing wants wide layers: $C(1 - \beta) \ge 16$.

`routed` is a handle on any network (`handles`); `Routed` is a network that is always routed, which a checkpoint remembers: a
network must be sampled as it was trained. `random_channels` is the control: as many channels, none of the order.

References:
    Park et al., "Denoising task routing for diffusion models", 2024, https://arxiv.org/abs/2310.07138, section on task
        routing (the mask; the defaults beta = 0.8, alpha = 4 are those of the authors' configurations).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.handles import Call, Handle, attached, first_of
from radiata_core.seeds import generator_of
from radiata_core.sites import Site, chosen_sites
from radiata_core.specs import buildable

__all__ = ["Routed", "channel_window", "random_channels", "routed"]

Level = Float[Tensor, "batch"]
Masks = Callable[[Tensor, int], Tensor]


def channel_window(
    level: Level, channels: int, *, shared: float = 0.8, power: float = 4.0, group: int = 1
) -> Float[Tensor, "batch channels"]:
    """Masks m of zeros and ones, `(batch, channels)`.

    Args:
        level: Noise level of each row in [0, 1], 0 = data.
        channels: C >= 1.
        shared: beta in (0, 1], the part of the channels that a level has; 1 for all, without any routing.
        power: alpha > 0; above 1 the window moves mostly at high noise.
        group: Windows begin and end at multiples of it: the channels of a group norm's group.

    Raises:
        InputError: a number out of range, or a group that does not divide the channels.
    """
    if not 0 < shared <= 1 or not power > 0 or channels < 1 or group < 1 or channels % group:
        raise InputError(
            f"expected shared in (0, 1], power > 0 and groups that divide {channels} channels; got {shared}, {power} and "
            f"groups of {group}. 0.8, 4 and 1 are usual."
        )
    count = channels // group
    width = max(int(shared * count), 1)
    start = (level.double().clamp(0, 1) ** power * (count - width)).round()
    place = torch.arange(count, device=level.device)
    inside = (place >= start[:, None]) & (place < start[:, None] + width)
    return inside.repeat_interleave(group, 1).to(torch.get_default_dtype())


def random_channels(shared: float = 0.8, seed: int = 0, bins: int = 1000) -> Masks:
    """The control of routing: as many channels a level as `channel_window`, drawn once for each of `bins` levels.

    Args:
        shared: beta in (0, 1].
        seed: Of the draws.
        bins: Levels that have draws of their own; neighbours share nothing but chance.
    """

    def masks(level: Tensor, channels: int) -> Tensor:
        order = torch.rand(bins, channels, generator=generator_of(seed, channels)).argsort(1)
        table = (order < max(int(shared * channels), 1)).to(torch.get_default_dtype())
        row = (level.double().clamp(0, 1) * (bins - 1)).round().long()
        return table.to(level.device)[row]

    return masks


def routed(
    network: nn.Module,
    *,
    shared: float = 0.8,
    power: float = 4.0,
    sites: Sequence[str | Site] | None = None,
    masks: Masks | None = None,
    level: Callable[[Tensor], Tensor] | None = None,
    told: str | None = None,
) -> Handle:
    """Handle on a network whose residual blocks read the channels of their noise level only.

    Args:
        network: Any network with residual sites, or a module around it.
        shared: beta in (0, 1]; 1 changes nothing, to the bit.
        power: alpha > 0.
        sites: Names or sites of residual blocks; None for all.
        masks: Function (level, channels) → masks in place of `channel_window`.
        level: Noise level in [0, 1] from what the network is told; None for what the parameter's name says.
        told: Name of that parameter of `forward`; None for those that are known (`handles`).

    Raises:
        InputError: no residual sites, or a number out of range.
    """
    chosen = chosen_sites(network, "residual", sites)
    for site in chosen:
        channel_window(torch.zeros(1), site.channels, shared=shared, power=power)
    if masks is None and shared == 1:
        return Handle(lambda: None)
    drawn = masks or (lambda at, channels: channel_window(at, channels, shared=shared, power=power))
    return attached(network, {site.name: _hooks(site, drawn) for site in chosen}, level, told)


def _hooks(site: Site, masks: Masks) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def before(call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
        x, *rest = args
        width = ("routing", site.channels)
        if width not in call.notes:  # blocks of one width share their mask
            call.notes[width] = masks(call.level, site.channels).to(x)
        shape = (len(x), -1, *[1] * (x.ndim - 2)) if site.axis == 1 else (len(x), 1, -1)
        mask = call.notes[width].reshape(shape)
        call.notes[site] = (1 - mask) * x
        return (x * mask, *rest), kwargs

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        passed = call.notes.pop(site)
        added = first_of(output) + (passed if site.skip is None else site.skip(module, passed))
        return added if isinstance(output, Tensor) else (added, *output[1:])

    return before, after


@buildable("routed")
class Routed(nn.Module):
    """A network that is always routed, with the call of the network itself.

    Args:
        network: A network with residual sites.
        shared: beta in (0, 1].
        power: alpha > 0.

    Raises:
        InputError: as `routed`.
    """

    def __init__(self, network: nn.Module, shared: float = 0.8, power: float = 4.0) -> None:
        super().__init__()
        self.options = {"network": network, "shared": shared, "power": power}
        self.network = network
        routed(network, shared=shared, power=power)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)
