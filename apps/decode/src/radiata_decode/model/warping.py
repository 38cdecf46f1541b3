r"""A film from its first frame and the flow: every pixel asks where in the first frame it comes from.

With flow $w_t$ from frame t to t+1 (on the grid of frame t), a point v of frame t+1 comes from $v - d_t(v)$, where
$d_t$ is the flow *seen from the later frame*. It is made by splatting: every pixel u of frame t drops its vector at
$u + w_t(u)$, shared among four neighbours, and where several land the faster is taken to be in front,

$$ d_t(v) = \frac{\sum_u k\big(v - u - w_t(u)\big)\, e^{\beta |w_t(u)|}\, w_t(u)}
               {\sum_u k\big(v - u - w_t(u)\big)\, e^{\beta |w_t(u)|}} , $$

k bilinear. Where nothing lands (Σ k < 1/2) the point was uncovered: it has no partner. Its displacement is the slowest
around the hole, and its colour is spread from what is seen around it. Origins are chained,
$B_{t+1}(v) = B_t(v - d_t(v))$, $B_0(v) = v$, so that a film of many frames is interpolated from the first frame once and
does not blur with time.

References:
    S. Niklaus, F. Liu (2020). Softmax splatting for video frame interpolation. https://arxiv.org/abs/2003.05534, section
    on softmax splatting.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d

from radiata_core.errors import InputError
from radiata_decode.model.flow_grids import check_flow, resampled_flow

__all__ = ["Film", "backward_warp", "forward_warp", "seen_from_later", "warped_film"]

FRONT = 4.0  # β: how much one pixel of speed counts for being in front
UNCOVERED = 0.5


@dataclass(frozen=True)
class Film:
    """A first frame, moved.

    Attributes:
        frames: (n, frame, 3, y, x) in the range of the first frame; the first is the first frame itself.
        visible: Which pixels show a point of the first frame, (n, frame, y, x) bool; the others were filled.
    """

    frames: Tensor
    visible: Tensor


def warped_film(first: Tensor, flow: Tensor, frames: int | None = None, *, fill: bool = True) -> Film:
    """The first frame moved by the flow.

    Args:
        first: (n, 3, y, x).
        flow: (n, step, 2, y', x'), cells of its own grid a frame step; it is brought to the picture's.
        frames: Of the film, >= 1; steps are grouped or repeated to frames - 1. None: steps + 1.
        fill: Spread colours into what was uncovered; otherwise the border or the hidden layer is repeated there.

    Raises:
        InputError: pictures and flow of different number, not flow, fewer than one frame.
    """
    check_flow(flow)
    if first.ndim != 4 or len(first) != len(flow):
        raise InputError(
            f"expected first frames (n, 3, y, x), one for each of {len(flow)} flows; got {tuple(first.shape)}."
        )
    if frames is not None and frames < 1:
        raise InputError(f"expected a film of at least one frame; got {frames}.")
    steps = flow.shape[1] if frames is None else frames - 1
    moved = resampled_flow(flow.to(first), (first.shape[2], first.shape[3]), max(1, steps))
    shown = torch.ones_like(first[:, :1])
    origin, film, visible = _places(first), [first], [shown[:, 0] > 0]
    for step in range(steps):
        later, covered = seen_from_later(moved[:, step])
        source = _places(first) - later
        inside = _inside(source, first.shape[2:])
        shown = (_sample(shown, source) > UNCOVERED).to(first) * covered * inside
        origin = _sample(origin, source)
        picture = _sample(first, origin)
        film.append(_filled(picture, shown) if fill else picture)
        visible.append(shown[:, 0] > 0)
    return Film(torch.stack(film, 1), torch.stack(visible, 1))


def seen_from_later(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Flow on the grid of the later frame, (n, 2, y, x), and where something lands, (n, 1, y, x) of 0 and 1.

    Args:
        flow: (n, 2, y, x), pixels, on the grid of the earlier frame.
    """
    speed = flow.norm(dim=1, keepdim=True)
    front = torch.exp(FRONT * (speed - speed.amax((2, 3), keepdim=True)).clamp(min=-20))
    landed, weight = forward_warp(torch.cat([flow * front, front], 1), flow)
    covered = (weight > UNCOVERED).to(flow)
    later = landed[:, :2] / landed[:, 2:].clamp(min=1e-12)
    return _slowest_around(torch.where(covered > 0, later, 0.0), covered), covered


def forward_warp(values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of what lands on each pixel, (n, c, y, x), and of the weights, (n, 1, y, x); bilinear splatting.

    It is the adjoint of reading: ⟨splat(a), b⟩ = ⟨a, b sampled at u + w(u)⟩ away from the border.

    Args:
        values: (n, c, y, x), at the pixels they start from.
        flow: (n, 2, y, x), pixels; what leaves the picture is lost.
    """
    count, _, height, width = values.shape
    target = _places(values) + flow
    low = target.floor()
    ones = torch.ones_like(values[:, :1])
    carried = torch.cat([values, ones], 1).flatten(2)
    result = torch.zeros_like(carried)
    for down in (0, 1):
        for right in (0, 1):
            x, y = low[:, 0] + right, low[:, 1] + down
            share = (1 - (target[:, 0] - x).abs()) * (1 - (target[:, 1] - y).abs())
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long().flatten(1)
            part = carried * (share * inside).flatten(1)[:, None]
            result.scatter_add_(2, place[:, None].expand_as(part), part)
    result = result.reshape(count, -1, height, width)
    return result[:, :-1], result[:, -1:]


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """The picture read at u + w(u), bilinear, borders repeated, (n, c, y, x).

    With w the flow from frame t to t+1, reading frame t+1 gives frame t, wherever points stay visible.

    Args:
        image: (n, c, y, x).
        flow: (n, 2, y, x), pixels.
    """
    return _sample(image, _places(image) + flow)


def _places(like: Tensor) -> Tensor:
    """x and y of each pixel, (n, 2, y, x)."""
    y, x = torch.meshgrid(
        *(torch.arange(size, dtype=like.dtype, device=like.device) for size in like.shape[2:]), indexing="ij"
    )
    return torch.stack([x, y]).expand(len(like), 2, *like.shape[2:])


def _sample(image: Tensor, places: Tensor) -> Tensor:
    size = torch.tensor([image.shape[3], image.shape[2]], dtype=image.dtype, device=image.device)
    unit = (places.movedim(1, -1) + 0.5) * 2 / size - 1
    return grid_sample(image, unit, mode="bilinear", padding_mode="border", align_corners=False)


def _inside(places: Tensor, size: torch.Size) -> Tensor:
    limits = places.new_tensor([size[1] - 1, size[0] - 1])[:, None, None]
    return ((places >= -0.5) & (places <= limits + 0.5)).all(1, keepdim=True).to(places)


def _slowest_around(flow: Tensor, covered: Tensor) -> Tensor:
    """Vectors where something landed; in a hole, the slowest of those around it: what was in front has moved away."""
    hole, known, result = covered == 0, covered, flow
    for _ in range(max(flow.shape[2:])):
        slowness = torch.where(known > 0, -result.norm(dim=1, keepdim=True), -torch.inf)
        best, place = max_pool2d(slowness, 3, 1, 1, return_indices=True)
        changed = hole & (best > slowness)
        if not bool(changed.any()):
            break
        around = result.flatten(2).gather(2, place.flatten(2).expand(-1, 2, -1)).reshape(result.shape)
        result, known = torch.where(changed, around, result), torch.where(changed, 1.0, known)
    return result


def _filled(picture: Tensor, shown: Tensor) -> Tensor:
    """Colours of what is shown, spread outward into what is not."""
    known, result = shown.clone(), picture
    for _ in range(max(picture.shape[2:])):
        if bool(known.all()) or not bool(known.any()):
            break
        weight = avg_pool2d(known, 3, 1, 1)
        around = avg_pool2d(result * known, 3, 1, 1) / weight.clamp(min=1e-12)
        new = (weight > 0) & (known == 0)
        result = torch.where(new, around, result)
        known = torch.where(new, 1.0, known)
    return result
