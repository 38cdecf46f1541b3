r"""Volumes as a page shows them: three linked planes, an overlay, a second image behind a slider; `viewer.js` draws it.

A volume travels as bytes in RAS order, x fastest, each the difference to its neighbour along x, gzipped:

    v = round((L − 1) clip((intensity − low)/(high − low), 0, 1)),    sent = gzip((v_i − v_{i−1}) mod 256),    L ≤ 256.

Differences pack a head 10 % smaller than the values do, and cost the page one running sum. A head of 1 mm that is noisy
all over does not pack: grey levels are halved, to 128 and 64, until it fits `LARGEST` bytes. Labels keep their codes,
through a table. The page unpacks a volume when it is first looked at, in the browser's own DecompressionStream.

Why our own 20 kB and not NiiVue, whose bundle (ipyniivue 2.4.4, BSD-2) does far more: that bundle is 5.0 MB of script, in
each report, needs WebGL 2, and speaks to a notebook's kernel. Two-dimensional canvases need no GPU driver, and every
browser since 2023 opens the page from a disk.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.canonical import Canonical, canonical, pooled
from radiata_imaging.volume import Volume

__all__ = ["Colours", "Overlay", "Viewer", "embedded"]

Colours = Mapping[int, tuple[str, tuple[int, int, int]]]
"""Code of a label → name and colour (red, green, blue, 0-255)."""
LARGEST = 4_500_000  # bytes of a packed volume: 6 MB as base64
_LABELS = 255
_LABEL_VOXELS = 32_000_000


@dataclass(frozen=True, eq=False)
class Overlay:
    """What lies over an image, on any grid.

    Attributes:
        volume: Codes (labels), a standard deviation or another doubt (spread, from zero), or a difference (about zero).
        kind: Which of the three.
        colours: Of labels; codes without one are grey.
        unit: Of a spread or difference.
    """

    volume: Volume
    kind: Literal["labels", "spread", "difference"]
    colours: Colours = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Viewer:
    """Interactive three-plane view of one or more volumes.

    Attributes:
        volumes: By the name that stands in the chooser.
        synthetic: Stamp the view.
        limits: Intensities that become black and white; by default the 0.1 and 99.9 percentiles of each volume.
        overlays: By name; the first is shown.
        compare: Names of the images left and right of the slider at first; None: the first image alone.
        unit: Of the intensities.
        max_voxels: Volumes above are averaged over cubes for the page, which is then said in the view.
        page_voxels: The same for all volumes together.
    """

    volumes: Mapping[str, Volume]
    synthetic: bool = False
    limits: tuple[float, float] | None = None
    overlays: Mapping[str, Overlay] = field(default_factory=dict)
    compare: tuple[str, str] | None = None
    unit: str = ""
    max_voxels: int = 9_000_000
    page_voxels: int = 36_000_000

    def html(self) -> str:
        """The element that `viewer.js` fills.

        Raises:
            InputError: nothing to show, or names to compare that are not there.
        """
        from radiata_imaging.plots import STAMP

        names = list(self.volumes)
        if not names or not set(self.compare or ()) <= set(names):
            raise InputError(
                f"expected images, and names of two of them to compare; got {', '.join(names) or 'none'} and {self.compare}."
            )
        if self.compare:  # the left one is the first
            names = [self.compare[0], *(name for name in names if name != self.compare[0])]
        limit = min(self.max_voxels, self.page_voxels // len(names))
        images = [
            embedded(name, self.volumes[name], limits=self.limits, unit=self.unit, max_voxels=limit)
            for name in names
        ]
        overlays = [
            embedded(name, one.volume, one.kind, colours=one.colours, unit=one.unit, max_voxels=limit)
            for name, one in self.overlays.items()
        ]
        for item in [*images, *overlays]:
            item["data"] = base64.b64encode(item["data"]).decode()
        page = {
            "stamp": STAMP if self.synthetic else "Not for clinical use", "volumes": images, "overlays": overlays,
            "compare": names.index(self.compare[1]) if self.compare else None, "overlay": 0 if overlays else None,
        }  # fmt: skip
        # "<" cannot end the script element once it is written as a JSON escape.
        data = json.dumps(page).replace("<", "\\u003c")
        return f'<div class="viewer"><script type="application/json">{data}</script></div>'


def embedded(
    name: str,
    volume: Volume,
    kind: str = "image",
    *,
    limits: tuple[float, float] | None = None,
    colours: Colours | None = None,
    unit: str = "",
    max_voxels: int = 9_000_000,
) -> dict[str, Any]:
    """What `viewer.js` knows of a volume; `data` is the gzipped bytes, the rest is ready for JSON.

    Args:
        name: Stands in the chooser.
        volume: What is shown.
        kind: "image", "labels", "spread" or "difference".
        limits: Intensities of the first and the last grey level.
        colours: Of labels.
        unit: Of the intensities.
        max_voxels: More are averaged over cubes; of labels every second, third, … voxel is taken beyond 32 million.
    """
    turned = canonical(volume.array, volume.affine)
    labels: list[list[Any]] = []
    if kind == "labels":
        shown = _thinned(turned, _LABEL_VOXELS)
        values, labels = _coded(turned, shown, colours or {})
        low, high, levels, packed = 0.0, 255.0, 256, _packed(values)
    else:
        shown = pooled(turned, max_voxels)
        low, high = limits or _limits(shown.array, kind)
        scaled = np.clip((shown.array - low) / max(high - low, 1e-12), 0, 1)
        for levels in (256, 128, 64):
            packed = _packed(np.rint(scaled * (levels - 1)).astype(np.uint8))
            if len(packed) <= LARGEST:
                break
    return {
        "name": name, "kind": kind, "unit": unit, "shape": list(shown.array.shape), "affine": shown.affine.tolist(),
        "low": float(low), "high": float(high), "levels": levels, "labels": labels,
        "averaged": shown.array.shape != turned.array.shape, "data": packed,
    }  # fmt: skip


def _packed(values: np.ndarray) -> bytes:
    """gzip of the differences of neighbours; no time stamp, so that the same volume gives the same page."""
    line = values.reshape(-1, order="F")
    return gzip.compress(np.diff(line, prepend=np.uint8(0)).tobytes(), compresslevel=6, mtime=0)


def _limits(array: np.ndarray, kind: str) -> tuple[float, float]:
    if kind == "image":
        low, high = (float(value) for value in np.percentile(array, [0.1, 99.9]))
        return low, high if high > low else low + 1.0
    top = float(np.percentile(np.abs(array), 99.8)) or float(np.abs(array).max()) or 1.0
    return (0.0, top) if kind == "spread" else (-top, top)


def _thinned(volume: Canonical, limit: int) -> Canonical:
    """Every k-th voxel: labels cannot be averaged."""
    k = 1
    while np.prod([-(-n // k) for n in volume.array.shape]) > limit:
        k += 1
    scale = np.diag([k, k, k, 1.0])
    return Canonical(volume.array[::k, ::k, ::k], volume.affine @ scale, volume.oblique)


def _coded(whole: Canonical, shown: Canonical, colours: Colours) -> tuple[np.ndarray, list[list[Any]]]:
    """Codes as 1, 2, … in the order of their size, and the table: name, colour, millilitres. The smallest share the last
    number, if there are more than a byte can tell apart."""
    codes, counts = np.unique(np.rint(whole.array).astype(np.int64), return_counts=True)
    codes, counts = codes[codes != 0], counts[codes != 0]
    order = np.argsort(-counts, kind="stable")
    codes, counts = codes[order], counts[order]
    ml = float(np.prod(whole.spacing)) / 1000
    table: list[list[Any]] = []
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        name, colour = colours.get(code, (f"label {code}", (128, 128, 128)))
        table.append([name, "#" + bytes(int(c) for c in colour).hex(), round(count * ml, 3)])
    number = np.minimum(np.arange(1, len(codes) + 1), _LABELS).astype(np.uint8)
    if len(codes) > _LABELS:
        rest = sum(row[2] for row in table[_LABELS - 1 :])
        table = [
            *table[: _LABELS - 1],
            [f"{len(codes) - _LABELS + 1} smaller labels", "#808080", round(rest, 3)],
        ]
    by_code = np.argsort(codes)
    at = np.searchsorted(codes[by_code], np.rint(shown.array).astype(np.int64))
    known = np.append(number[by_code], np.uint8(0))
    values = np.where(np.rint(shown.array) != 0, known[np.minimum(at, len(codes))], np.uint8(0))
    return values.astype(np.uint8), table
