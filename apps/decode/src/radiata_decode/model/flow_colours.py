r"""Flow as colour: hue is direction, saturation is speed, as in the Middlebury benchmark.

The wheel has 55 hues, unevenly spaced so that steps look even: red to yellow in 15, yellow to green in 6, green to cyan
in 4, cyan to blue in 11, blue to magenta in 13, magenta to red in 6. Rest is white; at the speed `largest` a colour is
full; beyond, it is darkened. Rightwards is red; from there clockwise on the screen, downwards is yellow, leftwards
cyan, upwards violet.

References:
    S. Baker, D. Scharstein, J. Lewis, S. Roth, M. Black, R. Szeliski (2011). A database and evaluation methodology for
    optical flow. IJCV 92 (the colour coding).
"""

import numpy as np

from radiata_core.errors import InputError

__all__ = ["colour_wheel", "flow_colours", "wheel_picture"]

# From colour, which channel changes, which way, in how many steps: RY, YG, GC, CB, BM, MR.
ARCS = (
    ((1, 0, 0), 1, 1, 15), ((1, 1, 0), 0, -1, 6), ((0, 1, 0), 2, 1, 4),
    ((0, 1, 1), 1, -1, 11), ((0, 0, 1), 0, 1, 13), ((1, 0, 1), 2, -1, 6),
)  # fmt: skip
DARKENED = 0.75


def colour_wheel() -> np.ndarray:
    """The 55 full colours, (hue, 3) in [0, 1], from red over yellow."""
    rows = []
    for start, channel, way, steps in ARCS:
        arc = np.tile(np.array(start, float), (steps, 1))
        arc[:, channel] += way * np.arange(steps) / steps
        rows.append(arc)
    return np.concatenate(rows)


def flow_colours(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Picture of flow, (..., y, x, 3) float in [0, 1].

    Args:
        flow: (..., 2, y, x), x to the right and y downward.
        largest: Speed of a full colour, in units of the flow; give one number for pictures that are to be compared.
            None: the largest there is.

    Raises:
        InputError: not flow, NaN, or a largest speed that is not positive.
    """
    values = np.asarray(flow, np.float64)
    if values.ndim < 3 or values.shape[-3] != 2 or not np.isfinite(values).all():
        raise InputError(f"expected finite flow (..., 2, y, x); got {values.shape} or NaN.")
    if largest is not None and not largest > 0:
        raise InputError(f"expected a largest speed > 0; got {largest}.")
    x, y = np.moveaxis(values, -3, 0)
    speed = np.hypot(x, y)
    full = largest if largest is not None else max(float(speed.max()), 1e-12)
    wheel = colour_wheel()
    place = (np.arctan2(y, x) / (2 * np.pi) % 1.0) * len(wheel)
    low = np.floor(place).astype(int) % len(wheel)
    share = (place - np.floor(place))[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    radius = (speed / full)[..., None]
    return np.where(radius <= 1, 1 - np.minimum(radius, 1) * (1 - hue), DARKENED * hue)


def wheel_picture(size: int = 101) -> np.ndarray:
    """The key: motion from the centre outward in all directions, (size, size, 3), white outside of the circle."""
    axis = np.linspace(-1, 1, size)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    picture = flow_colours(np.stack([x, y]), 1.0)
    picture[np.hypot(x, y) > 1] = 1.0
    return picture
