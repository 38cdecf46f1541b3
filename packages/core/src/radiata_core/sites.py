r"""Sites: the named places of a denoising network where something can be read or changed.

A *site* is a residual block $y = s(x) + f(x)$ with its shortcut s, or an attention layer. Networks of this library, of MONAI
and of diffusers are known by the attributes of their blocks (neither is imported); for a network of your own, make one
`Site` a block and pass them by `sites=`, or add a recogniser once:

    @recognise
    def my_blocks(name, module):
        return Site(name, "residual", module.width) if isinstance(module, MyBlock) else None

What is done with sites: `handles` (how), `routing`, `attention_windows`, `alignment`, `denoiser_features` (what for).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from radiata_core.errors import InputError

__all__ = ["Site", "chosen_sites", "recognise", "sites_of"]


@dataclass(frozen=True, eq=False)
class Site:
    """A place in a network.

    Attributes:
        name: Its module's name inside the network, as `named_modules` spells it.
        kind: "residual" for $y = (s(x) + f(x))/c$, or "attention".
        channels: Channels C of its input.
        axis: Axis of the channels: 1 for maps `(batch, C, *grid)`, -1 for tokens `(batch, tokens, C)`.
        skip: The shortcut s of a residual site as a *linear* function of its module and input, on the output's grid, with
            c divided out; None for the identity.
        joint: Whether words follow the tokens of the grid inside the attention.
    """

    name: str
    kind: str
    channels: int
    axis: int = 1
    skip: Callable[[nn.Module, Tensor], Tensor] | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("residual", "attention") or self.channels < 1 or self.axis not in (1, -1):
            raise InputError(
                f"expected a residual or attention site of channels >= 1 on axis 1 or -1; got {self.kind!r}, "
                f"{self.channels} and {self.axis}. See the attributes of Site."
            )


_RECOGNISERS: list[Callable[[str, nn.Module], Site | None]] = []


def recognise(known: Callable[[str, nn.Module], Site | None]) -> Callable[[str, nn.Module], Site | None]:
    """Decorator: a function that makes a `Site` of the modules it knows, and None of the others."""
    _RECOGNISERS.append(known)
    return known


def sites_of(network: nn.Module, kind: str | None = None) -> dict[str, Site]:
    """Name → site, in the order of the modules; of one kind, or of all.

    Raises:
        InputError: there is no such site.
    """
    found: dict[str, Site] = {}
    for name, module in network.named_modules():
        for known in _RECOGNISERS:
            site = known(name, module)
            if site is not None and kind in (None, site.kind):
                found.setdefault(f"{name}:{site.kind}" if name in found else name, site)
    if not found:
        raise InputError(
            f"expected a network with {kind or 'residual or attention'} blocks known here; got {type(network).__name__}. "
            "Describe its blocks by radiata_core.sites.Site."
        )
    return found


def chosen_sites(network: nn.Module, kind: str, sites: Sequence[str | Site] | None) -> tuple[Site, ...]:
    """The sites of a kind by name, as they are given, or all (None).

    Raises:
        InputError: a name that is no such site, or a site whose module is not in the network.
    """
    if sites is None:
        return tuple(sites_of(network, kind).values())
    known = sites_of(network, kind) if any(isinstance(site, str) for site in sites) else {}
    modules = dict(network.named_modules())
    chosen = []
    for site in sites:
        if isinstance(site, str) and site not in known:
            raise InputError(f"expected {kind} sites of the network; got {site!r}. It has {some_of(known)}.")
        taken = known[site] if isinstance(site, str) else site
        if taken.name not in modules or taken.kind != kind:
            raise InputError(
                f"expected {kind} sites on modules of the network; got a {taken.kind} site {taken.name!r}. "
                f"It has {some_of(modules)}."
            )
        chosen.append(taken)
    return tuple(chosen)


def some_of(names: Mapping[str, object]) -> str:
    """The first few names, for a message."""
    shown = [name for name in names if name]
    return ", ".join(shown[:6]) + (", …" if len(shown) > 6 else "")


def _has(module: Any, *names: str) -> bool:
    return all(hasattr(module, name) for name in names)


def _weightless(layer: Any) -> bool:
    return layer is None or isinstance(layer, nn.Identity)


def _without_bias(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolutional shortcut without its bias, which belongs to the block once, not to every part of its input."""
    bias = next((p for name, p in layer.named_parameters() if name.endswith("bias")), None)
    made: Tensor = layer(x)
    return made if bias is None else made - bias.view(-1, *[1] * (made.ndim - 2))


@recognise
def _own_unet(name: str, module: Any) -> Site | None:
    if _has(module, "conv1", "modulation", "conv2", "norm2"):
        return Site(name, "residual", module.conv1.in_channels)
    if _has(module, "norm", "qkv", "out", "heads"):
        return Site(name, "attention", module.qkv.in_features)
    return None


@recognise
def _monai_unet(name: str, module: Any) -> Site | None:
    """MedForJ's network here and MONAI's `DiffusionModelUNet`, whose blocks have the same names."""
    if _has(module, "conv1", "time_emb_proj", "skip_connection"):
        channels = next(iter(module.conv1.parameters())).shape[1]

        def skip(block: Any, x: Tensor) -> Tensor:
            x = block.resize(x) if hasattr(block, "resize") else _resized(block, x)
            return x if _weightless(block.skip_connection) else _without_bias(block.skip_connection, x)

        return Site(name, "residual", channels, skip=skip)
    if _has(module, "norm", "attn") and _has(module.attn, "out_proj"):
        return Site(name, "attention", module.norm.num_channels)
    return None


@recognise
def _diffusers_unet(name: str, module: Any) -> Site | None:
    if _has(module, "conv1", "time_emb_proj", "conv_shortcut", "output_scale_factor"):

        def skip(block: Any, x: Tensor) -> Tensor:
            x = _resized(block, x)
            made = x if block.conv_shortcut is None else _without_bias(block.conv_shortcut, x)
            return made / block.output_scale_factor

        return Site(name, "residual", module.conv1.in_channels, skip=skip)
    if _has(module, "to_q", "to_k", "processor", "group_norm") and module.group_norm is not None:
        return Site(name, "attention", module.to_q.in_features)
    return None


@recognise
def _joint_blocks(name: str, module: Any) -> Site | None:
    if _has(module, "image", "context", "logit_bound"):
        return Site(name, "residual", module.image.qkv.in_features, axis=-1)
    return None


@recognise
def _joint_attention(name: str, module: Any) -> Site | None:
    if _has(module, "image", "context", "logit_bound"):
        return Site(name, "attention", module.image.qkv.in_features, axis=-1, joint=True)
    return None


def _resized(block: Any, x: Tensor) -> Tensor:
    change = getattr(block, "upsample", None) or getattr(block, "downsample", None)
    return x if change is None else change(x)
