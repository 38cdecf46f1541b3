"""MedForJ's released weights, whatever names they were saved under, as a network of ours.

One network was published under three spellings of its tensors, in files that nest them differently:

    monai                 `.pt` of 2025, {"model": {...}}: the names of MONAI's DiffusionModelUNet, and ours
    medforj-fork          safetensors of 2026: out_norm.* for out.0.*, out_conv.* for out.2.*
    generative-models     MONAI's former repository: X.to_q for X.attn.to_q, X.proj_attn for X.attn.out_proj,
                          upsampler.conv for upsampler.postconv

The fork normalises with epsilon 1e-5 where MONAI has 1e-6; the weights do not say which they were trained with, so it is
taken from the spelling unless stated. The container (zip of tensors or safetensors) is told by its first bytes, the
spelling by the names: file names changed more often. What a name does tell is the prediction type, which is nowhere else.

Reading is strict. Nothing is unpickled but tensors, every name and shape must match, every value must be finite.

References:
    https://huggingface.co/piksl-research/medforj-brain-t1w-3d
    https://github.com/Project-MONAI/GenerativeModels (archived).
"""

import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.medforj import MEDFORJ, MedForJUNet
from radiata_core.paths import Path as NoisePath
from radiata_core.predictions import Prediction
from radiata_t1.model.predictions import PredictionType, path_and_prediction

__all__ = [
    "STRATEGIES",
    "ReleasedWeights",
    "Strategy",
    "medforj_denoiser",
    "read_released",
    "strategy_named_in",
]


@dataclass(frozen=True)
class Strategy:
    """What a released network predicts, and on which path."""

    name: str
    prediction: Prediction
    path: NoisePath
    flip: bool = False


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        kind.value: Strategy(kind.value, prediction, path, flip=kind is PredictionType.RFLOW)
        for kind, (path, prediction) in ((kind, path_and_prediction(kind)) for kind in PredictionType)
    }
)
"""By name. MedForJ's rflow points from noise to data, against our velocity: hence the flip."""

_WORDS = {"noise": "epsilon", "clean": "sample"} | {name: name for name in STRATEGIES}

_BRANCHES = (
    *("ema", "ema_model", "model_ema", "ema_state_dict", "params_ema", "shadow", "shadow_params"),
    *("model", "state_dict", "model_state_dict", "network", "unet", "unet_state_dict"),
)
_FIRST = "conv_in.conv.weight"
_FORK = ((re.compile(r"^out_norm\."), "out.0."), (re.compile(r"^out_conv\."), "out.2."))
_ATTENTION = r"((?:attentions\.\d+|middle_block\.attention)\.)"
_GENERATIVE = (
    (re.compile(_ATTENTION + r"(to_[qkv]\.)"), r"\1attn.\2"),
    (re.compile(_ATTENTION + r"proj_attn\."), r"\1attn.out_proj."),
    (re.compile(r"\.upsampler\.conv\."), ".upsampler.postconv."),
)


@dataclass(frozen=True)
class ReleasedWeights:
    """Tensors under our names, and what their file tells.

    Attributes:
        tensors: Name → float32 tensor.
        scheme: The spelling: "monai", "medforj-fork" or "generative-models".
        branch: Where in the file they stood, e.g. "model"; empty if at the top.
        norm_eps: Epsilon of the normalisations that goes with the spelling.
    """

    tensors: dict[str, Tensor]
    scheme: str
    branch: str
    norm_eps: float


def read_released(path: str | Path) -> ReleasedWeights:
    """The weights in a `.pt` or `.safetensors` file of MedForJ or of MONAI GenerativeModels, under our names.

    Raises:
        InputError: not such a file, truncated, holding anything but tensors, or holding another kind of network.
    """
    path = Path(path)
    content, branch = _branch(_content(path), "")
    tensors, prefix = _without_prefix(content, path)
    branch = ".".join(part for part in (branch, prefix.rstrip(".")) if part)
    names = {name: _renamed(name, _FORK) for name in tensors}
    fork = any(old != new for old, new in names.items())
    old = {name: _renamed(new, _GENERATIVE) for name, new in names.items()}
    scheme = "medforj-fork" if fork else "generative-models" if old != names else "monai"
    if len(set(old.values())) < len(old):
        raise InputError(
            f"expected each tensor once; got some of {path.name} under two spellings. Save one network alone."
        )
    ours = {new: tensors[name] for name, new in old.items()}
    return ReleasedWeights(_finite(ours, path), scheme, branch, 1e-5 if fork else 1e-6)


def strategy_named_in(name: str) -> Strategy:
    """The strategy that a file name speaks of: noise, clean, velocity, flow or rflow (or sample, epsilon).

    Raises:
        InputError: it speaks of none, of several, or of latent diffusion.
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    if "ldm" in words:
        raise InputError(_latent(name))
    found = {_WORDS[word] for word in words if word in _WORDS}
    if len(found) != 1:
        raise InputError(
            f"expected one of noise, clean, velocity, flow, rflow in the file name; got {name!r}. "
            "State it: --prediction epsilon, sample, velocity, flow or rflow."
        )
    return STRATEGIES[found.pop()]


def medforj_denoiser(
    weights: ReleasedWeights,
    strategy: Strategy,
    norm_eps: float | None = None,
    architecture: Mapping[str, Any] = MEDFORJ,
) -> NetworkDenoiser:
    """E[x0 | x_t] of a released network.

    Args:
        weights: From `read_released`.
        strategy: What the network predicts.
        norm_eps: Epsilon of the normalisations; None takes the one of the spelling.
        architecture: Arguments of `MedForJUNet`.

    Raises:
        InputError: the tensors are not those of this architecture, by name or by shape.
    """
    options = dict(architecture) | {"norm_eps": weights.norm_eps if norm_eps is None else norm_eps}
    try:
        with torch.device("meta"):
            network = MedForJUNet(**options)
    except TypeError as error:
        raise InputError(
            f"expected arguments of MedForJ's network; got some it cannot use ({error}). Correct the architecture."
        ) from None
    _check_architecture(weights.tensors, {name: tuple(t.shape) for name, t in network.state_dict().items()})
    network.load_state_dict(weights.tensors, strict=True, assign=True)
    network.requires_grad_(True)
    return NetworkDenoiser(
        network.eval(), strategy.path, strategy.prediction, scaling=MedForJInput(flip=strategy.flip)
    )


def _content(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"expected a weights file; got {path}, which is no file. Check the path.")
    with path.open("rb") as stream:
        head = stream.read(9)
    damaged = f"expected whole weights in {path.name}; got a truncated or damaged file. Download it again."
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except (SafetensorError, ValueError):
            raise InputError(damaged) from None
    if head[:2] not in (b"PK", b"\x80\x02"):
        raise InputError(
            f"expected a .safetensors or .pt file; got {path.name}, which is neither by its content. "
            "Download it again (not the page about it)."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"expected tensors alone in {path.name}; got a pickle that asks for other code, which was not run. "
                "Use the .safetensors release, or save the state dictionary alone."
            ) from None
        raise InputError(damaged) from None
    except (SafetensorError, struct.error):  # torch goes by the name; its unpickler by lengths
        raise InputError(damaged) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OSError):
        raise InputError(damaged) from None


def _branch(content: Any, where: str) -> tuple[Mapping[str, Any], str]:
    """The mapping that holds tensors, averaged ones first, and the dotted way to it."""
    if not isinstance(content, Mapping):
        raise InputError(
            f"expected a state dictionary; got {type(content).__name__}. Save network.state_dict() alone."
        )
    if not any(isinstance(name, str) and name.endswith(_FIRST) for name in content):
        for name in _BRANCHES:
            if isinstance(content.get(name), Mapping):
                return _branch(content[name], f"{where}.{name}".lstrip("."))
    return content, where


def _without_prefix(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of one network without what stands before each of their names, averaged ones first."""
    prefixes = [
        name.removesuffix(_FIRST) for name in content if isinstance(name, str) and name.endswith(_FIRST)
    ]
    if not prefixes:
        raise InputError(
            f"expected the network of MedForJ; got {path.name} with {len(content)} entries and no {_FIRST}. "
            "Use weights of a DiffusionModelUNet."
        )
    averaged = [prefix for prefix in prefixes if "ema" in prefix]
    chosen = prefixes if len(prefixes) == 1 else averaged
    if len(chosen) != 1:
        raise InputError(
            f"expected one network; got {len(prefixes)} in {path.name}: {', '.join(map(repr, prefixes))}. "
            "Save one of them alone."
        )
    prefix = chosen[0]
    others = tuple(other for other in prefixes if other != prefix)
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        mine = isinstance(name, str) and name.startswith(prefix)
        if mine and isinstance(value, Tensor):
            tensors[name.removeprefix(prefix)] = value
        elif not (
            prefix and (str(name).startswith(others) or not isinstance(value, Tensor) or value.ndim == 0)
        ):
            raise InputError(
                f"expected only tensors of the network in {path.name}; got {name!r} as well. "
                "Save the state dictionary of the network alone."
            )
    return tensors, prefix


def _renamed(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _finite(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    fine = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    broken = [name for name, tensor in fine.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(
            f"expected finite weights; got NaN or infinity in {len(broken)} tensors of {path.name}, first {broken[0]}. "
            "Download it again."
        )
    return fine


def _check_architecture(got: Mapping[str, Tensor], want: Mapping[str, tuple[int, ...]]) -> None:
    first, last = got.get(_FIRST), got.get("out.2.conv.weight")
    if (
        first is not None
        and first.ndim > 1
        and last is not None
        and first.shape[1] == last.shape[0] == 4 != want[_FIRST][1]
    ):
        raise InputError(_latent("a network of 4 channels"))
    missing = [name for name in want if name not in got]
    unexpected = [name for name in got if name not in want]
    shapes = [name for name in want if name in got and tuple(got[name].shape) != want[name]]
    if missing or unexpected or shapes:
        example = (
            f"{shapes[0]} is {tuple(got[shapes[0]].shape)}, not {want[shapes[0]]}"
            if shapes
            else f"no {missing[0]}"
            if missing
            else f"{unexpected[0]} is not part of it"
        )
        raise InputError(
            f"expected the {len(want)} tensors of the network; got {len(missing)} missing, {len(unexpected)} unknown, "
            f"{len(shapes)} of another shape ({example}). Use weights of this architecture, or state theirs."
        )


def _latent(what: str) -> str:
    return (
        f"expected a network on voxels; got {what}: ldm_rflow works on latents of another program's autoencoder. "
        "Use the noise, clean, velocity, flow or rflow weights."
    )
