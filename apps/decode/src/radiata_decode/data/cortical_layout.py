r"""Where simulated voxels lie on the cortex, and where in the picture each of them looks.

Positions are vertices of the flat map of fsaverage5. On it a template draws the visual areas as strips, a little
schematically: the fovea at the occipital pole, eccentricity growing logarithmically towards the front; V1 in the middle with
the lower half of the visual field above and the upper half below (the folded calcarine), flanked by the quarter fields of
V2 and V3, whose polar angle runs the other way at every border; V4 with the whole half field below; and MT in front:

        polar angle    lower    V3d  horizontal → vertical … each border is a mirror
             ↑                  V2d
        ─ fovea ── log e ──→    V1                       MT
             ↓                  V2v
                       upper    V3v
                                V4

Left hemisphere, right half of the field, and mirrored. A voxel's receptive field is a Gaussian about the point that
its vertex maps to, of standard deviation a + b·eccentricity, larger from area to area. So neighbours on the map are
neighbours in the field, which methods that work on the map rely on. The area of cortex that a ring of the field gets is
the logarithm of its radii: cortical magnification.

Another person has the same areas with other voxels: his own sample of vertices, a shifted and stretched template, a
scatter of his own.

References:
    M. Schira, C. Tyler, B. Spehar, M. Breakspear (2010). Modeling magnification and anisotropy in the primate foveal
    confluence. PLoS Computational Biology 6 (log-polar areas V1 to V3 side by side).
    S. Dumoulin, B. Wandell (2008). Population receptive field estimates in human visual cortex. NeuroImage 39.
    B. Fischl, M. Sereno, A. Dale (1999). Cortical surface-based analysis II. NeuroImage 9 (fsaverage, flattening).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from radiata_core.errors import InputError

__all__ = ["AREAS", "IMAGE_AREAS", "Area", "flat_vertices", "voxel_table"]

FOVEA_MM, PERIPHERY_MM = 150.0, 75.0  # |x| on the flat map of the nearest and farthest eccentricity
NEAREST, FARTHEST = 0.05, 0.6  # eccentricity, widths of the picture: 0.4 and 5 degrees of NSD's 8.4
SCATTER = 0.15  # of a receptive field's position, in its own standard deviations
SHIFT_MM, STRETCH = 3.0, 0.1  # how people differ


@dataclass(frozen=True)
class Area:
    """One strip of the template.

    Attributes:
        name: Of the area.
        bottom, top: On the flat map's y, mm.
        angle_bottom, angle_top: Polar angle there, degrees: 90 up, 0 horizontal, −90 down.
        size, slope: Of the receptive field's standard deviation, a + b·eccentricity, widths of the picture.
        fovea, periphery: On the flat map's |x|, mm.
    """

    name: str
    bottom: float
    top: float
    angle_bottom: float
    angle_top: float
    size: float
    slope: float
    fovea: float = FOVEA_MM
    periphery: float = PERIPHERY_MM


TEMPLATE = (
    Area("V1", -25, 15, 90, -90, 0.02, 0.08),
    Area("V2", 15, 29, -90, 0, 0.03, 0.12),
    Area("V2", -39, -25, 0, 90, 0.03, 0.12),
    Area("V3", 29, 40, 0, -90, 0.045, 0.18),
    Area("V3", -50, -39, 90, 0, 0.045, 0.18),
    Area("V4", -74, -50, -90, 90, 0.07, 0.30),
    Area("MT", -50, 30, 90, -90, 0.07, 0.30, 72.0, 35.0),
)
IMAGE_AREAS = ("V1", "V2", "V3", "V4")
AREAS = (*IMAGE_AREAS, "MT")


@cache
def flat_vertices() -> pd.DataFrame:
    """Vertices of fsaverage5 that lie on its flat maps: hemisphere, vertex, x and y on the map, mm.

    fsaverage5 comes with nilearn.
    """
    from nilearn.datasets import load_fsaverage

    flat = load_fsaverage("fsaverage5")["flat"].parts
    rows = []
    for hemisphere in ("left", "right"):
        used = np.unique(flat[hemisphere].faces)
        places = flat[hemisphere].coordinates[used]
        rows.append(
            pd.DataFrame({"hemisphere": hemisphere, "vertex": used, "x": places[:, 0], "y": places[:, 1]})
        )
    return pd.concat(rows, ignore_index=True)


def voxel_table(count: int, areas: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    """A person's voxels: where they are, which area, and their receptive field.

    Areas get voxels in proportion to their cortex. Vertices are drawn without replacement; when an area has fewer of them
    than voxels, its vertices are used again (as at several depths of the cortex).

    Args:
        count: Voxels, at least one an area.
        areas: Of `AREAS`.
        rng: Who the person is.

    Returns:
        hemisphere, vertex, flat_x, flat_y (mm), area, eccentricity, polar_angle (degrees), prf_x, prf_y (widths of the
        picture from its top left corner), prf_size (standard deviation, widths), and roi_<AREA>.

    Raises:
        InputError: fewer voxels than areas, or an area that is not known.
    """
    unknown = [name for name in areas if name not in AREAS]
    if unknown or not areas or count < len(areas):
        raise InputError(
            f"expected areas of {', '.join(AREAS)} and a voxel for each; got {count} for "
            f"{', '.join(areas) or 'none'}."
        )
    template = _person(rng)
    members = {name: [_inside(strip) for strip in template if strip.name == name] for name in areas}
    shares = np.array([sum(len(rows) for rows in members[name]) for name in areas], np.float64)
    counts = np.maximum(1, np.floor(count * shares / shares.sum()).astype(int))
    counts[int(np.argmax(counts))] += count - counts.sum()
    tables = [
        _sampled([strip for strip in template if strip.name == name], members[name], number, rng)
        for name, number in zip(areas, counts.tolist(), strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    for name in areas:
        table[f"roi_{name}"] = (table["area"] == name).astype(np.int64)
    return table


def _person(rng: np.random.Generator) -> tuple[Area, ...]:
    """The template moved as a whole and stretched along eccentricity."""
    shift, forward = rng.normal(0, SHIFT_MM, 2)
    stretch = 1 + rng.uniform(-STRETCH, STRETCH)
    return tuple(
        Area(
            strip.name,
            strip.bottom + shift,
            strip.top + shift,
            strip.angle_bottom,
            strip.angle_top,
            strip.size,
            strip.slope,
            strip.fovea + forward,
            strip.fovea + forward + stretch * (strip.periphery - strip.fovea),
        )
        for strip in TEMPLATE
    )


def _inside(strip: Area) -> np.ndarray:
    """Rows of `flat_vertices` within a strip, both hemispheres."""
    places = flat_vertices()
    depth, height = places["x"].abs().to_numpy(), places["y"].to_numpy()
    behind = np.where(places["hemisphere"] == "left", places["x"] > 0, places["x"] < 0)
    inside = behind & (depth >= strip.periphery) & (depth < strip.fovea)
    return np.flatnonzero(inside & (height >= strip.bottom) & (height < strip.top))


def _sampled(
    strips: list[Area], members: list[np.ndarray], count: int, rng: np.random.Generator
) -> pd.DataFrame:
    """`count` voxels of one area."""
    rows = np.concatenate(members)
    strip_of = np.repeat(np.arange(len(strips)), [len(m) for m in members])
    rounds = -(-count // len(rows))
    chosen = np.sort(np.concatenate([rng.permutation(len(rows)) for _ in range(rounds)])[:count])
    tables = [_fields(strips[k], rows[chosen[strip_of[chosen] == k]], rng) for k in range(len(strips))]
    return pd.concat(tables, ignore_index=True)


def _fields(strip: Area, rows: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Receptive fields of vertices of a strip."""
    places = flat_vertices().iloc[rows]
    x, y = places["x"].to_numpy(), places["y"].to_numpy()
    along = (strip.fovea - np.abs(x)) / (strip.fovea - strip.periphery)
    across = (y - strip.bottom) / (strip.top - strip.bottom)
    eccentricity = NEAREST * (FARTHEST / NEAREST) ** along
    angle = strip.angle_bottom + across * (strip.angle_top - strip.angle_bottom)
    side = np.where(
        places["hemisphere"] == "left", 1.0, -1.0
    )  # the left hemisphere sees what is on the right
    size = strip.size + strip.slope * eccentricity
    scatter = SCATTER * size[:, None] * rng.normal(size=(len(rows), 2))
    return pd.DataFrame(
        {
            "hemisphere": places["hemisphere"].to_numpy(),
            "vertex": places["vertex"].to_numpy(),
            "flat_x": x,
            "flat_y": y,
            "area": strip.name,
            "eccentricity": eccentricity,
            "polar_angle": angle,
            "prf_x": 0.5 + side * eccentricity * np.cos(np.radians(angle)) + scatter[:, 0],
            "prf_y": 0.5 - eccentricity * np.sin(np.radians(angle)) + scatter[:, 1],
            "prf_size": size,
        }
    )
