"""What a decoder must beat before its numbers mean anything: predictions that know less than it does.

    mean image      the average training picture, whatever the brain did: blurred, and hard to beat in SSIM
    permuted brain  the decoder's own outputs, each given to another stimulus of the same run: its style without its brain
    retrieval       the training picture whose response is most like this one: no generation at all
    zero flow       nothing moves
    mean flow       the average training motion
    image only      what the first frame alone tells of the motion (a decoder trained on it: `motion_decoder`)

Each control is scored by the same functions as the decoder, and stands in the same table.

References:
    K. Shirakawa et al. (2024). Spurious reconstruction from brain activity. https://arxiv.org/abs/2405.10078 (why retrieval
    and permuted controls are needed).
"""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.permutation import permuted_rows

__all__ = ["mean_flow", "mean_image", "permuted_brain", "retrieved", "retrieved_rows", "zero_flow"]


def mean_image(training: Tensor, count: int) -> Tensor:
    """The average training picture, once for each stimulus, (count, 3, y, x).

    Args:
        training: (n, 3, y, x) in [0, 1].
        count: Stimuli to "decode".

    Raises:
        InputError: no training pictures.
    """
    if training.ndim != 4 or not len(training):
        raise InputError(f"expected training pictures (n, 3, y, x); got {tuple(training.shape)}.")
    mean = training.double().mean(0).to(training.dtype)
    return mean.expand(count, *mean.shape).clone()


def permuted_brain(
    decoded: Tensor, rng: np.random.Generator, runs: Sequence[Hashable] | np.ndarray | None = None
) -> Tensor:
    """Decoded pictures (or films, or flow), each given to another stimulus of its run.

    Nobody keeps its own output where a run has at least two stimuli: the permutation is a random cycle.

    Args:
        decoded: (n, ...).
        rng: Of the pairing.
        runs: Run of each stimulus; None: all in one.

    Raises:
        InputError: fewer than two stimuli, another number of runs.
    """
    if len(decoded) < 2:
        raise InputError(
            f"expected at least two stimuli to exchange; got {len(decoded)}. A permuted control needs a test set."
        )
    labels = [0] * len(decoded) if runs is None else list(runs)
    order = permuted_rows(len(decoded), labels, rng)
    source = np.arange(len(decoded))
    for label in dict.fromkeys(labels):
        members = order[np.array([name == label for name in labels])]
        source[members] = np.roll(members, 1)
    return decoded[torch.from_numpy(source)]


def retrieved_rows(training: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Row of the training response most correlated with each response, (n,).

    Args:
        training: (m, voxel), standardised.
        responses: (n, voxel), standardised the same way.

    Raises:
        InputError: another number of voxels, no training responses.
    """
    a, b = np.asarray(training, np.float32), np.asarray(responses, np.float32)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a):
        raise InputError(f"expected training responses of the same voxels; got {a.shape} and {b.shape}.")
    a, b = (part - part.mean(1, keepdims=True) for part in (a, b))
    norms = np.maximum(np.linalg.norm(a, axis=1), 1e-12)
    # The norm of b does not change which row is best.
    return np.argmax((b @ a.T) / norms, axis=1)


def retrieved(pictures: Tensor, training: np.ndarray, responses: np.ndarray) -> Tensor:
    """The training picture whose response is most like each response, (n, 3, y, x); see `retrieved_rows`.

    Args:
        pictures: (m, 3, y, x), in the order of `training`.
        training: (m, voxel).
        responses: (n, voxel).
    """
    if len(pictures) != len(training):
        raise InputError(
            f"expected a picture for each training response; got {len(pictures)} and {len(training)}."
        )
    return pictures[torch.from_numpy(retrieved_rows(training, responses))]


def zero_flow(like: Tensor) -> Tensor:
    """No motion, in the shape of `like`."""
    return torch.zeros_like(like)


def mean_flow(training: Tensor, count: int) -> Tensor:
    """The average training motion, once for each stimulus, (count, step, 2, y, x), pixels a frame step.

    Raises:
        InputError: no training flow.
    """
    if training.ndim != 5 or not len(training):
        raise InputError(f"expected training flow (n, step, 2, y, x); got {tuple(training.shape)}.")
    mean = training.double().mean(0).to(training.dtype)
    return mean.expand(count, *mean.shape).clone()
