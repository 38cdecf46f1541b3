r"""MeshNet, an independent segmenter of whole T1 heads, with the weights the user has (brainchop's).

Every layer is a dilated 3 x 3 x 3 convolution on the full grid; the dilations 1, 2, 4, ..., 16, ..., 1 widen the
view without pooling, so a head of 256 mm is labelled in one pass by some 10^5 numbers:

$$ h_{l+1}(p) = \phi\Big( \sum_{q \in \{-1,0,1\}^3} W_l(q)\, h_l(p + d_l q) + b_l \Big), \qquad
   \hat y(p) = \arg\max_c\, (W h_L(p) + b)_c , $$

zero outside the grid. Batch normalisation is folded into W and b by the exporter; layers named `..._gn` (mindgrab)
z-score each channel over the whole grid before phi.

Memory: one activation of 20 channels at 256^3 is 1.3 GB. A layer is computed slab by slab into its own input (the few
slices that later slabs still need are kept aside), so one activation is held and not two; the last layer is reduced to
labels slab by slab. Both are exact, not approximations of the whole-volume pass.

What the weights expect, as brainchop's own code does it:

* grid: 256^3, 1 mm, axes towards L, I, A (FreeSurfer's conformed grid), the middle of the field of view kept; the first
  axis of the tensor is the file's fastest. Heads so turned are found; other orders were not tried.
* intensity: to 0 ... 255, clipped above the 99.9 % quantile of non-zero voxels (FreeSurfer's conform).
* scale: 5 % and 95 % quantiles of the grid to 0 and 1 where `model.json` says so, else minimum and maximum.
* clean-up: only the largest connected piece of everything that is not background.

Not followed: linear interpolation (cubic here), the crop to the head (`margin` does it, by a threshold of its own) and
the network that its 50- and 104-class entries run first to crop the brain. Volumes were compared with known tissue for
the 3-class model only; the others are read and run, not validated.

Noise that is white from voxel to voxel is foreign to these weights: on a head rendered at 1 mm without averaging (white
matter sd 6 % of its mean) the 3-class model finds a twentieth of the white matter, Dice 0.05; smoothed by a Gaussian of
0.7 mm, Dice 0.87 (white) and 0.86 (grey matter). Look at the labels before trusting the volumes of noisy heads.

References:
    A. Fedorov et al. (2017). End-to-end learning of brain tissue segmentation from imperfect labeling. IJCNN, fig. 1.
    M. Masoud et al. (2023). Brainchop: in-browser MRI volumetric segmentation and rendering. JOSS 8(83), 5098.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.tfjs import LayersModel, read_layers_model
from radiata_imaging.volume import Volume, centred_affine

__all__ = ["Convolution", "MeshNet", "conform", "meshnet_volumes", "on_grid_of", "read_meshnet", "segment"]

_SIDE = 256
_SLAB = 8  # slices computed at once
_EPSILON = 1e-5
_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu_,
    "elu": functional.elu_,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid_,
    "tanh": torch.tanh_,
}


@dataclass(frozen=True, eq=False)
class Convolution:
    """One layer: dilated convolution with `same` zero padding, z-score of channels if any, activation.

    Attributes:
        kernel: `(out, in, k, k, k)` float32, k odd; PyTorch's order.
        bias: `(out,)` or None.
        dilation: Distance of the taps in voxels.
        normalised: Whether each channel is z-scored over the grid.
        activation: By its Keras name.
    """

    kernel: torch.Tensor
    bias: torch.Tensor | None
    dilation: int
    normalised: bool
    activation: str

    @property
    def reach(self) -> int:
        """Voxels that an output looks to each side."""
        return self.dilation * (self.kernel.shape[-1] // 2)

    def slab(self, window: torch.Tensor) -> torch.Tensor:
        """Output `(n, y, z, out)` of a window `(n + 2 reach, y, z, in)`, before z-score and activation."""
        padding = (0, self.reach, self.reach)
        x = window.movedim(-1, 0)[None]  # channels stay last in memory, which is four times faster on CPU
        return functional.conv3d(x, self.kernel, self.bias, 1, padding, self.dilation)[0].movedim(0, -1)

    def finish(self, values: torch.Tensor) -> torch.Tensor:
        """Activation of `values`, which may be overwritten."""
        return _ACTIVATIONS[self.activation](values)


@dataclass(frozen=True, eq=False)
class MeshNet:
    """A stack of convolutions and the names of its classes.

    Attributes:
        layers: In order; the last has one output a class.
        classes: Name of each class; 0 is background.
        quantiles: Intensities that become 0 and 1; None for minimum and maximum.
        name: Of the folder it came from.
    """

    layers: tuple[Convolution, ...]
    classes: tuple[str, ...]
    quantiles: tuple[float, float] | None
    name: str = "meshnet"

    @property
    def reach(self) -> int:
        """Radius of the receptive field, voxels."""
        return sum(layer.reach for layer in self.layers)

    def scale(self, array: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
        """Intensities as the network wants them, about 0 ... 1."""
        if self.quantiles is None:
            low, high = float(array.min()), float(array.max())
        else:
            n = array.size
            ranks = [int(n * self.quantiles[0]), int(np.ceil(n * self.quantiles[1])) - 1]
            ordered = np.partition(array.ravel(), ranks)
            low, high = float(ordered[ranks[0]]), float(ordered[ranks[1]])
        if not high > low:
            raise InputError(
                f"expected a head with contrast; its {'quantiles' if self.quantiles else 'extremes'} are both {low:g}. "
                "Check the volume."
            )
        return ((array - low) / (high - low)).astype(np.float32)

    def labels(
        self, image: Float[np.ndarray, "x y z"], report: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Most likely class of each voxel, int16, of an image already scaled; see `segment`.

        Args:
            image: As `scale` returns it, any size.
            report: Called with the number of each finished layer.
        """
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[..., None]
            for number, layer in enumerate(self.layers[:-1], start=1):
                x = _convolve(x, layer)
                if report:
                    report(number)
            last, depth = self.layers[-1], len(x)
            out = torch.empty(x.shape[:3], dtype=torch.int16)
            for start in range(0, depth, _SLAB):
                stop = min(start + _SLAB, depth)
                low, high = max(start - last.reach, 0), min(stop + last.reach, depth)
                window = _padded(x[low:high], low - start + last.reach, stop + last.reach - high)
                out[start:stop] = last.slab(window).argmax(-1)
            if report:
                report(len(self.layers))
        return out.numpy()


def _padded(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Zero slices before and after along the first axis of `(x, y, z, channels)`."""
    return functional.pad(x, (0, 0, 0, 0, 0, 0, before, after)) if before or after else x


def _convolve(x: torch.Tensor, layer: Convolution) -> torch.Tensor:
    """One layer `(x, y, z, in) -> (x, y, z, out)`; overwrites `x` where it can hold the output."""
    outputs, (depth, rows, columns, inputs), reach = layer.kernel.shape[0], x.shape, layer.reach
    out = x if outputs == inputs else x.new_empty((depth, rows, columns, outputs))
    behind = x[:0].clone()  # the last `reach` input slices before `start`, which `out` may have overwritten
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        high = min(stop + reach, depth)
        window = torch.cat([behind, x[start:high]])
        behind = window[max(len(behind) + stop - start - reach, 0) : len(behind) + stop - start].clone()
        before = 2 * reach + stop - start - len(window) - (stop + reach - high)
        values = layer.slab(_padded(window, before, stop + reach - high))
        out[start:stop] = values if layer.normalised else layer.finish(values)
    if layer.normalised:
        mean, square = (
            out.new_zeros(outputs, dtype=torch.float64),
            out.new_zeros(outputs, dtype=torch.float64),
        )
        for slab in out.split(_SLAB):  # float64: 256³ float32 terms lose digits
            mean += slab.double().sum((0, 1, 2))
        mean /= depth * rows * columns
        for slab in out.split(_SLAB):
            square += ((slab.double() - mean) ** 2).sum((0, 1, 2))
        factor = (square / (depth * rows * columns) + _EPSILON).rsqrt()
        for slab in out.split(_SLAB):
            slab.copy_(layer.finish((slab - mean.float()) * factor.float()))
    return out


def read_meshnet(folder: Path) -> MeshNet:
    """The MeshNet in a brainchop model folder: `model.json`, its weights, and `colormap*.json` for names.

    Raises:
        InputError: not such a folder, files cut short, or layers that are no plain stack of 3-D convolutions.
    """
    model = read_layers_model(folder)
    with foreign(
        f"expected a plain stack of 3-D convolutions in {folder}; got something else", "Fetch it again."
    ):
        layers = _stack(model, folder)
    classes = _class_names(folder, layers[-1].kernel.shape[0])
    quantiles = (0.05, 0.95) if "quantile" in model.comment.lower() else None
    return MeshNet(layers, classes, quantiles, folder.resolve().name)


def _stack(model: LayersModel, folder: Path) -> tuple[Convolution, ...]:
    layers: list[Convolution] = []
    previous = ""
    for (kind, config), inputs in zip(model.layers, model.inputs, strict=True):
        name = str(config.get("name"))
        if inputs != (() if kind == "InputLayer" else (previous,)):
            raise _not_meshnet(folder, f"layer {name} takes {', '.join(inputs) or 'nothing'}")
        previous = name
        if kind == "InputLayer":
            continue
        if kind == "Activation" and layers and layers[-1].activation == "linear":
            activation = str(config.get("activation"))
            if activation not in _ACTIVATIONS:
                raise _not_meshnet(folder, f"activation {activation} of layer {name}")
            last = layers.pop()
            layers.append(Convolution(last.kernel, last.bias, last.dilation, last.normalised, activation))
        elif kind == "Conv3D":
            layers.append(_convolution(name, config, model.weights, folder))
        else:
            raise _not_meshnet(folder, f"layer {name} of class {kind}")
    if not layers:
        raise _not_meshnet(folder, "no convolution")
    channels = [1, *(layer.kernel.shape[0] for layer in layers)]
    if [layer.kernel.shape[1] for layer in layers] != channels[:-1]:
        raise _not_meshnet(folder, f"channels {channels} that do not join")
    if layers[-1].normalised or layers[-1].activation not in ("linear", "sigmoid"):
        raise _not_meshnet(folder, f"a last layer with activation {layers[-1].activation}")
    return tuple(layers)


def _convolution(
    name: str, config: Mapping[str, object], weights: Mapping[str, np.ndarray], folder: Path
) -> Convolution:
    expected = {"padding": "same", "data_format": "channels_last", "strides": [1, 1, 1]}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise _not_meshnet(folder, f"{key} {config[key]} of layer {name}")
    dilation = config.get("dilation_rate", [1, 1, 1])
    kernel, bias = weights.get(f"{name}/kernel"), weights.get(f"{name}/bias")
    activation = str(config.get("activation", "linear"))
    if (
        not isinstance(dilation, list)
        or len(set(dilation)) != 1
        or activation not in _ACTIVATIONS
        or config.get("groups", 1) != 1
    ):
        raise _not_meshnet(folder, f"dilation {dilation}, activation {activation} or groups of layer {name}")
    if kernel is None or kernel.ndim != 5 or len(set(kernel.shape[:3])) != 1 or kernel.shape[0] % 2 == 0:
        raise _not_meshnet(
            folder, f"{'no kernel' if kernel is None else f'kernel {kernel.shape}'} of layer {name}"
        )
    if (bias is None) == bool(config.get("use_bias", True)) or (
        bias is not None and bias.shape != kernel.shape[-1:]
    ):
        raise _not_meshnet(folder, f"a bias that does not fit layer {name}")
    # Keras: (x, y, z, in, out), correlated, not flipped, as in PyTorch: (out, in, x, y, z).
    turned = torch.from_numpy(np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2)))
    return Convolution(
        turned,
        None if bias is None else torch.from_numpy(bias.copy()),
        int(dilation[0]),
        name.endswith("_gn"),
        activation,
    )


def _not_meshnet(folder: Path, what: str) -> InputError:
    return InputError(
        f"expected a plain stack of 3-D convolutions (MeshNet) in {folder / 'model.json'}; got {what}. "
        "Give one of brainchop's MeshNet folders."
    )


def _class_names(folder: Path, number: int) -> tuple[str, ...]:
    """From the colour map that names that many classes; numbers where there is none."""
    for path in sorted(folder.glob("colormap*.json")):
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["labels"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(names, list) and len(names) == number and len({str(n) for n in names}) == number:
            return tuple(str(name) for name in names)
    return ("background", *(f"class {i}" for i in range(1, number)))


def conform(volume: Volume) -> Volume:
    """The head on brainchop's grid, 256³ at 1 mm, axes towards L, I, A, intensities 0 … 255.

    The middle of the field of view is kept. The lowest intensity becomes 0 (and fills what lies outside); 255 is the
    quantile above which lie 0.1 % of the voxels that are not lowest. Cubic interpolation; FreeSurfer's is linear.
    """
    low = float(volume.array.min())
    above = volume.array[volume.array > low]
    if not above.size:
        raise InputError("expected a head with contrast; got a constant volume. Check the file.")
    high = float(np.quantile(above, 0.999))
    centre = volume.affine @ np.array([*((np.asarray(volume.shape) - 1) / 2), 1.0])
    affine = centred_affine((_SIDE,) * 3, 1.0, "LIA")
    affine[:3, 3] += centre[:3]
    moved = resample(volume, Grid((_SIDE,) * 3, affine), outside=low)
    return Volume(np.rint(np.clip((moved.array - low) * (255 / (high - low)), 0, 255)), affine)


def segment(
    volume: Volume,
    model: MeshNet,
    *,
    margin: int | None = None,
    largest_piece: bool = True,
    report: Callable[[int], object] | None = None,
) -> Volume:
    """Labels of a head on the conformed grid (256³, 1 mm, LIA), whole numbers; `on_grid_of` takes them back.

    Args:
        volume: A whole T1 head, any grid, any intensities. Voxels coarser than 2 mm are not what the weights were
            trained on: the labels then say little.
        model: From `read_meshnet`.
        margin: Work on the box of voxels above a fifth of the scale, grown by this many voxels, which is faster. Labels
            further than `model.reach` from the box's faces are unchanged. None takes the whole grid. Ignored where
            channels are z-scored, since that looks at the whole grid.
        largest_piece: Keep only the largest connected piece of the foreground.
        report: Called with the number of each finished layer.

    Raises:
        InputError: a constant volume.
    """
    conformed = conform(volume)
    image = model.scale(conformed.array)
    box = (slice(None),) * 3
    if margin is not None and not any(layer.normalised for layer in model.layers):
        box = _box(image > 0.2, margin)
    labels = np.zeros(image.shape, np.int16)
    labels[box] = model.labels(image[box], report)
    if largest_piece:
        _keep_largest(labels)
    return Volume(labels, conformed.affine)


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    sides = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        sides.append(slice(max(int(inside[0]) - margin, 0), int(inside[-1]) + margin + 1))
    return sides[0], sides[1], sides[2]


def _keep_largest(labels: np.ndarray) -> None:
    from scipy.ndimage import generate_binary_structure, label

    pieces, number = label(labels > 0, generate_binary_structure(3, 3))
    if number > 1:
        sizes = np.bincount(pieces.ravel())
        labels[pieces != 1 + int(sizes[1:].argmax())] = 0


def on_grid_of(labels: Volume, volume: Volume) -> Volume:
    """Labels on the grid of `volume`, nearest voxel."""
    return resample(labels, Grid(volume.shape, volume.affine), interpolation=Interpolation.NEAREST)


def meshnet_volumes(labels: Volume, model: MeshNet) -> dict[str, float]:
    """Millilitres of each class but the background."""
    millilitres = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    counts = np.bincount(labels.array.astype(np.int64).ravel(), minlength=len(model.classes))
    return {
        name: float(count * millilitres) for name, count in zip(model.classes[1:], counts[1:], strict=True)
    }
