"""The regions of the HCP's parcellation that see, and how a person brings the parcellation along.

The atlas has 180 regions a hemisphere. It is not shipped here: name its annotation of fsaverage5 (`lh.HCPMMP1.annot`, or a
`.label.gii`) and the columns follow. In the files the regions are called `L_V1_ROI` or `V1`; here `V1`.

References:
    M. Glasser et al. (2016). A multi-modal parcellation of human cerebral cortex. Nature 536.
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (which regions its pictures of the cortex show).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError

__all__ = ["VISUAL_REGIONS", "annotated_regions", "in_regions", "region_name"]

# fmt: off
VISUAL_REGIONS = (
    "V1", "V2", "V3", "V3A", "V3B", "V3CD", "V4", "LO1", "LO2", "LO3", "PIT", "V4t",
    "V6", "V6A", "V7", "V8", "PH", "FFC", "IP0", "MT", "MST", "FST", "VVC", "VMV1",
    "VMV2", "VMV3", "PHA1", "PHA2", "PHA3", "TE2p", "IPS1",
)
# fmt: on


def region_name(label: str) -> str:
    """`L_V1_ROI` → `V1`."""
    name = label.removesuffix("_ROI")
    return name[2:] if name[:2] in ("L_", "R_") else name


def annotated_regions(path: Path) -> dict[str, np.ndarray]:
    """Region → which vertices are in it, (vertex,) bool.

    Args:
        path: `.annot` of FreeSurfer, or `.label.gii`.

    Raises:
        InputError: no such file, or one that cannot be read.
    """
    import nibabel

    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected an annotation (.annot or .label.gii); got {path}, which does not exist.")
    try:
        if path.suffix == ".annot":
            labels, _, names = nibabel.freesurfer.read_annot(path)
            table = {index: name.decode() for index, name in enumerate(names)}
        else:
            image = nibabel.load(path)
            labels = np.asarray(image.agg_data()).reshape(-1)
            table = {int(label.key): str(label.label) for label in image.labeltable.labels}
    except Exception as error:  # each format of nibabel has its own
        raise InputError(
            f"expected an annotation in {path}; it cannot be read ({' '.join(str(error).split())[:120]}). Copy it again."
        ) from None
    return {region_name(name): labels == key for key, name in table.items() if (labels == key).any()}


def in_regions(
    voxels: pd.DataFrame,
    regions: Mapping[str, Mapping[str, np.ndarray]],
    names: tuple[str, ...] = VISUAL_REGIONS,
) -> np.ndarray:
    """Which voxels of a table (columns hemisphere, vertex) lie in one of the named regions, (voxel,) bool.

    Args:
        voxels: On the surface of the annotations.
        regions: Hemisphere → what `annotated_regions` gave.
        names: Regions that count.

    Raises:
        InputError: a table without vertices, vertices beyond the annotation, or none of the regions in it.
    """
    if not {"hemisphere", "vertex"} <= set(voxels.columns):
        raise InputError(
            "expected the columns hemisphere and vertex; got a table without. Use a surface subject."
        )
    inside = np.zeros(len(voxels), bool)
    for side, known in regions.items():
        chosen = [known[name] for name in names if name in known]
        if not chosen:
            raise InputError(
                f"expected regions such as {', '.join(names[:3])} in the annotation of {side}; got "
                f"{', '.join(list(known)[:3]) or 'none'}. Is it of the HCP's parcellation?"
            )
        here = (voxels["hemisphere"] == side).to_numpy()
        vertex = voxels["vertex"].to_numpy()[here].astype(np.int64)
        union = np.logical_or.reduce(chosen)
        if len(vertex) and vertex.max() >= len(union):
            raise InputError(
                f"expected vertices below {len(union)}, as the annotation of {side} has; got {vertex.max()}."
            )
        inside[here] = union[vertex]
    return inside
