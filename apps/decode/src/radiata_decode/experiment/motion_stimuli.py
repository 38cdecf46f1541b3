"""What motion decoders are trained with, from a subject's stimuli: flow on a grid, and features of first frames.

Flow is that of the stimulus file where it is known; else it is estimated from the films (`data.optical_flow`). The features
are of the first frame alone: nothing of what moves afterwards is in them, and no mask of objects is ever taken from a film
that is to be decoded.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import picture_maps
from radiata_decode.data.optical_flow import DisFlow, NetworkFlow, optical_flow
from radiata_decode.data.stimuli import Stimuli
from radiata_decode.model.flow_grids import resampled_flow

__all__ = ["first_frames", "frame_features", "stimulus_flow"]

GABORS = 12
GABOR_SCALE, COLOUR_SCALE = (
    10.0,
    2.0,
)  # amplitudes of photographs near 1; constants, so that nothing is fitted


def stimulus_flow(
    stimuli: Stimuli, ids: Sequence[str], grid: int, steps: int, network: Path | None = None
) -> Tensor:
    """Flow of stimuli, (n, steps, 2, grid, grid), cells a frame step.

    Args:
        stimuli: With flow, or with films.
        ids: Which.
        grid: Cells a side.
        steps: Predicted steps; frame steps are averaged in groups.
        network: An exported flow network (.pt2), for films without flow; None: DIS.

    Raises:
        InputError: neither flow nor films, or films that are too small.
    """
    if "flow" in stimuli.shapes:
        flow = stimuli.flow(ids)
    elif "movies" in stimuli.shapes:
        estimator = DisFlow() if network is None else NetworkFlow.from_file(network)
        flow = optical_flow(stimuli.movies(ids), estimator=estimator)
    else:
        raise InputError(
            f"expected flow or movies in {stimuli.folder / 'stimuli.h5'}; got {', '.join(stimuli.shapes)}. Motion is "
            "decoded from subjects who saw films."
        )
    return resampled_flow(torch.from_numpy(np.ascontiguousarray(flow)), (grid, grid), steps)


def first_frames(stimuli: Stimuli, ids: Sequence[str]) -> Tensor:
    """First frames of films (or the pictures, where there are no films), (n, 3, y, x) in [0, 1].

    Raises:
        InputError: no films and no pictures.
    """
    found = stimuli.movies(ids)[:, 0] if "movies" in stimuli.shapes else stimuli.images(ids)
    return torch.from_numpy(np.ascontiguousarray(found)).permute(0, 3, 1, 2).float() / 255


def frame_features(frames: Tensor, grid: int) -> Tensor:
    """Local features of first frames, (n, 18, grid, grid): Gabor amplitudes, luminance and colours of each cell.

    Args:
        frames: (n, 3, y, x) square, in [0, 1]; true or decoded.
        grid: Cells a side.
    """
    maps = picture_maps(frames)
    amplitude = GABOR_SCALE * maps[:, :GABORS].clamp(min=0).sqrt()
    return adaptive_avg_pool2d(torch.cat([amplitude, COLOUR_SCALE * maps[:, GABORS:]], 1), (grid, grid))
