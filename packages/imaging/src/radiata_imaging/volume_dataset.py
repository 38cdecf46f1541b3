"""Volumes of one grid as one labelled `xarray.Dataset`, and its netCDF file: what a notebook opens with one line.

    restored, sd, …   (x, y, z)         float32, one variable a map
    draws             (draw, x, y, z)   where there are draws
    x, y, z           mm                world coordinates (RAS) of the voxels, where the grid is parallel to the axes;
                                        else mm along each axis of the grid, from its first voxel

The attributes have the affine (voxel index to world, row by row) and where everything came from. Axes are RAS: a grid with
other axes is turned first, which leaves every voxel in its place.

References:
    CF conventions, https://cfconventions.org (units, axes, long_name).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_imaging.hdf5 import unfailing
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume

__all__ = ["volume_dataset", "write_netcdf"]

_PARALLEL = 1e-4  # of a voxel edge: what an axis may deviate and still count as parallel to the world's
_SAME = 1e-3  # mm


def volume_dataset(
    maps: Mapping[str, Volume], draws: Sequence[Volume] = (), *, units: str = "1", **about: Any
) -> xr.Dataset:
    """The data set of some volumes on one grid.

    Args:
        maps: Name of a variable to its volume.
        draws: Of the posterior; may be none.
        units: Of all values.
        about: Attributes: title, source, sha256, …; plain values.

    Raises:
        InputError: no volume at all, or another grid than the first one's.
    """
    everything = [
        *maps.items(),
        *((f"draw {number}", volume) for number, volume in enumerate(draws, start=1)),
    ]
    if not everything:
        raise InputError("expected one volume or more; got none. Give the file of a result.")
    turned = {name: reorient(volume, "RAS") for name, volume in everything}
    first_name, first = next(iter(turned.items()))
    for name, volume in turned.items():
        if volume.shape != first.shape or np.abs(volume.affine - first.affine).max() > _SAME:
            raise InputError(
                f"expected volumes on one grid; got {name} on another than {first_name}. Give those of one scan."
            )
    data: dict[str, Any] = {name: (("x", "y", "z"), turned[name].array, {"units": units}) for name in maps}
    if draws:
        stack = np.stack([turned[f"draw {number}"].array for number in range(1, len(draws) + 1)])
        data["draws"] = (("draw", "x", "y", "z"), stack, {"units": units})
    attributes = {
        "Conventions": "CF-1.11",
        "affine": first.affine.ravel().tolist(),
        "axes": "RAS",
        "comment": "not for clinical use",
        **about,
    }
    coordinates = _coordinates(first)
    if draws:
        coordinates["draw"] = ("draw", np.arange(1, len(draws) + 1))
    return xr.Dataset(data, coordinates, attributes)


def _coordinates(volume: Volume) -> dict[str, Any]:
    linear = volume.affine[:3, :3]
    spacing = np.asarray(volume.spacing)
    parallel = bool((np.abs(linear - np.diag(np.diag(linear))) <= _PARALLEL * spacing.min()).all())
    found: dict[str, Any] = {}
    for axis, (name, towards) in enumerate(zip("xyz", ("right", "anterior", "superior"), strict=True)):
        origin = volume.affine[axis, 3] if parallel else 0.0
        values = origin + spacing[axis] * np.arange(volume.shape[axis])
        words = (
            f"world, towards {towards}" if parallel else f"along grid axis {axis}, roughly towards {towards}"
        )
        found[name] = (name, values, {"units": "mm", "long_name": words})
    return found


def write_netcdf(dataset: xr.Dataset, path: Path, card: tuple[Path, Any] | None = None) -> Path:
    """Write a data set as netCDF-4, atomically; its path.

    Args:
        dataset: What to write.
        path: Ends in .nc.
        card: Of the file, as `radiata_core.files.atomic_path` takes it.

    Raises:
        InputError: another suffix.
    """
    if path.suffix != ".nc":
        raise InputError(f"expected a name ending in .nc; got {path}. Rename the output.")
    packed = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars}
    with atomic_path(path, card) as part, unfailing(part) as stream:
        dataset.to_netcdf(stream, engine="h5netcdf", encoding=packed)
    return path
