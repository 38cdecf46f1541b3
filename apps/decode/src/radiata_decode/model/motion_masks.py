r"""Which cells matter, from what a decoder may know: its own prediction, or the first frame.

A mask cut from the film that was seen tells where something moves before anything is decoded. So there are two masks
here only:

    predicted_mask   the cells that are predicted to move most
    frame_mask       the cells of the first frame with most contrast (where there are features of it)

Each keeps a share of the cells of every film, so that a mask says nothing about how much moved.
"""

import math

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.flow_grids import check_flow

__all__ = ["frame_mask", "masked_flow", "predicted_mask"]


def predicted_mask(predicted: Tensor, share: float = 0.5) -> Tensor:
    """The cells with the largest predicted speed, mean over steps, (n, y, x) bool.

    Args:
        predicted: Decoded flow (n, step, 2, y, x).
        share: Of the cells of each film, in (0, 1].

    Raises:
        InputError: not flow, or a share out of range.
    """
    check_flow(predicted, "decoded flow")
    return _largest(predicted.norm(dim=2).mean(1), share)


def frame_mask(features: Tensor, share: float = 0.5) -> Tensor:
    """The cells of the first frame with the largest norm of their features, (n, y, x) bool.

    Args:
        features: (n, c, y, x) of the first frame, e.g. Gabor amplitudes.
        share: Of the cells of each film, in (0, 1].

    Raises:
        InputError: not features, or a share out of range.
    """
    if features.ndim != 4 or not torch.isfinite(features).all():
        raise InputError(
            f"expected finite features (n, c, y, x) of first frames; got {tuple(features.shape)}."
        )
    return _largest(features.norm(dim=1), share)


def masked_flow(flow: Tensor, mask: Tensor) -> Tensor:
    """Flow with rest outside of the mask.

    Args:
        flow: (n, step, 2, y, x).
        mask: (n, y, x) bool.

    Raises:
        InputError: a mask of another grid.
    """
    if mask.shape != (len(flow), *flow.shape[3:]):
        raise InputError(f"expected a mask (n, y, x) of the flow's grid; got {tuple(mask.shape)}.")
    return flow * mask[:, None, None].to(flow)


def _largest(values: Tensor, share: float) -> Tensor:
    if not 0 < share <= 1:
        raise InputError(f"expected a share of the cells in (0, 1]; got {share}. 0.5 is usual.")
    flat = values.flatten(1)
    kept = max(1, math.ceil(share * flat.shape[1]))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask.scatter_(1, flat.topk(kept, dim=1).indices, True)
    return mask.reshape(values.shape)
