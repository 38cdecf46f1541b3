"""How bright each tissue is in a scan: T1, T2, FLAIR, proton density, or any contrast at all.

A contrast gives every group of codes a mean and a spread of that mean, in arbitrary units; a rendering draws the means once.
The T1 table is that of `radiata_imaging.contrast` (recalibrated on two real heads). The others are relative signals of
common spin-echo and inversion-recovery protocols at 1.5-3 T, rounded: the order of the tissues is what they teach, and the
spread is wide on purpose. `random` draws every group uniformly, as SynthSeg does, which is what makes a segmenter
indifferent to contrast.

References:
    Billot et al., "SynthSeg", Med. Image Anal. 2023, https://doi.org/10.1016/j.media.2023.102789, section 3.2.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from radiata_imaging.contrast import T1_CLASSES

__all__ = ["CONTRASTS", "GROUPS", "group_of", "means_of"]

GROUPS: dict[str, tuple[int, ...]] = {name: tissue.labels for name, tissue in T1_CLASSES.items()} | {
    "white matter lesion": (25, 57, 77, 78, 79),
    "spinal cord": (512,),
}
"""Groups of codes that share a mean. Codes of no group take soft tissue's."""

_T1 = {name: tissue.mean / 160.0 for name, tissue in T1_CLASSES.items()} | {
    "white matter lesion": 0.72,
    "spinal cord": 0.85,
}
_T2 = {
    "background": 0.02, "cerebrospinal fluid": 1.00, "cerebral white matter": 0.38, "cerebral cortex": 0.55,
    "cerebellar white matter": 0.40, "cerebellar cortex": 0.55, "thalamus": 0.46, "caudate and putamen": 0.48,
    "pallidum": 0.33, "brain stem": 0.42, "vessels and plexus": 0.60, "eye, lens and nerve": 0.45, "vitreous": 1.00,
    "soft tissue": 0.35, "eye muscle": 0.35, "fat and skin": 0.70, "dura and sinus": 0.25, "compact bone": 0.06,
    "marrow": 0.50, "white matter lesion": 0.75, "spinal cord": 0.42,
}  # fmt: skip
_FLAIR = _T2 | {
    "cerebrospinal fluid": 0.12, "cerebral white matter": 0.52, "cerebral cortex": 0.68, "cerebellar white matter": 0.53,
    "cerebellar cortex": 0.66, "thalamus": 0.58, "caudate and putamen": 0.60, "pallidum": 0.50, "brain stem": 0.55,
    "vessels and plexus": 0.45, "vitreous": 0.12, "white matter lesion": 1.00, "spinal cord": 0.55,
}  # fmt: skip
_PD = _T2 | {
    "cerebrospinal fluid": 0.95, "cerebral white matter": 0.68, "cerebral cortex": 0.82, "cerebellar white matter": 0.70,
    "cerebellar cortex": 0.82, "thalamus": 0.75, "caudate and putamen": 0.78, "pallidum": 0.66, "brain stem": 0.70,
    "vitreous": 0.95, "soft tissue": 0.60, "eye muscle": 0.60, "fat and skin": 0.85, "marrow": 0.60, "spinal cord": 0.70,
}  # fmt: skip

CONTRASTS: dict[str, Mapping[str, float] | None] = {
    "t1": _T1,
    "t2": _T2,
    "flair": _FLAIR,
    "pd": _PD,
    "random": None,
}
"""Mean of each group relative to the brightest common tissue; None draws them."""

_SPREAD = 0.07  # sd of a group's mean between scans, as a part of full scale


def group_of(codes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Number of the group of each code in the order of `GROUPS`; (codes,), int64."""
    names = list(GROUPS)
    lookup = {code: number for number, labels in enumerate(GROUPS.values()) for code in labels}
    for number, labels in enumerate(GROUPS.values()):
        if names[number] in ("white matter lesion", "spinal cord"):
            lookup.update(dict.fromkeys(labels, number))
    fallback = names.index("soft tissue")
    return np.array([lookup.get(int(code), fallback) for code in codes], dtype=np.int64)


def means_of(name: str, generator: torch.Generator, spread: float = _SPREAD) -> Tensor:
    """Means of all groups in one rendering, (groups,), >= 0, arbitrary units.

    Args:
        name: One of `CONTRASTS`.
        generator: Of the draw.
        spread: Sd of a mean between scans.
    """
    table = CONTRASTS[name]
    if table is None:
        means = torch.rand(len(GROUPS), generator=generator)
        if float(torch.rand((), generator=generator)) < 0.8:
            means[0] = 0.0  # air is dark in nearly every scan
        return means
    base = torch.tensor([table.get(group, table["soft tissue"]) for group in GROUPS])
    drawn = base + spread * torch.randn(len(GROUPS), generator=generator)
    drawn[0] = base[0]
    return drawn.clamp_min(0.0)
