"""The control of few-label segmentation: MONAI's U-Net from scratch, under the budget and the augmentation the heads get.

A claim that frozen features help is worth what it is compared with. This network sees the same slices, the same loss, the
same crops and moves, and the same seconds of the processor; it has no prior.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from radiata_core.seeds import generator_of, seed_of
from radiata_medical.model.few_shot_training import (
    Augmentation,
    Budget,
    check_slices,
    dice_entropy,
    fit,
    padded_to,
)
from radiata_medical.model.segmenter_network import SegmenterNetwork

__all__ = ["fit_scratch_unet", "predict_scratch"]

_CROP, _ROWS, _ORDER = 64, 4, 3


def fit_scratch_unet(
    images: Tensor,
    labels: Tensor,
    *,
    classes: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    channels: tuple[int, ...] = (16, 32, 64, 128),
    learning_rate: float = 2e-3,
    augmentation: Augmentation | None = None,
    report: Callable[[float, float], object] | None = None,
) -> SegmenterNetwork:
    """A 2-D U-Net trained on labelled slices alone; the arguments are those of `feature_head.fit_head`.

    Raises:
        InputError: slices and labels that do not fit, or no budget.
    """
    count = int(labels.max()) + 1 if classes is None else classes
    check_slices(images, labels, count)
    budget = Budget(steps, seconds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        network = SegmenterNetwork(count, channels, dims=2)
    network.to(images.device)
    images = padded_to(images, network.multiple)
    labels = padded_to(labels.long(), network.multiple, -1)
    moves = augmentation or Augmentation()
    fit(
        network,
        _batches(network, images, labels, moves, seed),
        budget,
        learning_rate=learning_rate,
        report=report,
    )
    return network


def _batches(
    network: SegmenterNetwork, images: Tensor, labels: Tensor, moves: Augmentation, seed: int
) -> Iterator[Callable[[], Tensor]]:
    generator = generator_of(seed, _ORDER)
    multiple = network.multiple
    size = [min(n, _CROP // multiple * multiple) for n in images.shape[2:]]

    def loss() -> Tensor:
        rows = torch.randint(len(images), (_ROWS,), generator=generator)
        moved, wanted = moves(images[rows], labels[rows], generator)
        x, y = (
            int(torch.randint(n - s + 1, (), generator=generator))
            for n, s in zip(images.shape[2:], size, strict=True)
        )
        crop = (..., slice(x, x + size[0]), slice(y, y + size[1]))
        return dice_entropy(network(moved[crop]), wanted[crop])

    while True:
        yield loss


@torch.no_grad()
def predict_scratch(network: nn.Module, images: Tensor) -> Tensor:
    """Probabilities (batch, classes, x, y) of slices (batch, 1, x, y)."""
    x, y = images.shape[2:]
    padded = padded_to(images, int(getattr(network, "multiple", 1)))
    return torch.softmax(network(padded)[..., :x, :y], 1)
