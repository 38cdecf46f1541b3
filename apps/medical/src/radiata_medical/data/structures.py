"""The structures a head is segmented into: FreeSurfer's codes, their names, colours and sides, and the tissues they make up.

Channel i of every segmenter here is `STRUCTURES[i]`; channel 0 is the background. The brain has the 32 structures of
SynthSeg; what is around it is skull or other head, so that a label map covers the whole head and can be turned into an image
again (`synthesis`).

References:
    Fischl et al., "Whole brain segmentation", Neuron 2002 (the codes).
    Billot et al., "SynthSeg", Med. Image Anal. 2023, https://doi.org/10.1016/j.media.2023.102789 (the list).
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = [
    "CODES",
    "CONTRAST",
    "FLIPPED",
    "STRUCTURES",
    "TISSUES",
    "Structure",
    "channels_of",
    "tissue_channels",
]


@dataclass(frozen=True)
class Structure:
    """One structure.

    Attributes:
        code: FreeSurfer's number.
        name: As in its tables, in words.
        colour: Red, green, blue, 0-255.
        side: "left", "right" or "" for the middle.
    """

    code: int
    name: str
    colour: tuple[int, int, int]
    side: str = ""


_PAIRS = (
    (2, 41, "cerebral white matter", (245, 245, 245), (230, 230, 240)),
    (3, 42, "cerebral cortex", (205, 62, 78), (190, 80, 95)),
    (4, 43, "lateral ventricle", (120, 18, 134), (135, 40, 150)),
    (5, 44, "inferior lateral ventricle", (196, 58, 250), (205, 90, 250)),
    (7, 46, "cerebellar white matter", (220, 248, 164), (205, 235, 150)),
    (8, 47, "cerebellar cortex", (230, 148, 34), (215, 135, 50)),
    (10, 49, "thalamus", (0, 118, 14), (30, 135, 40)),
    (11, 50, "caudate", (122, 186, 220), (105, 170, 205)),
    (12, 51, "putamen", (236, 13, 176), (220, 40, 165)),
    (13, 52, "pallidum", (12, 48, 255), (45, 75, 240)),
    (17, 53, "hippocampus", (220, 216, 20), (205, 200, 45)),
    (18, 54, "amygdala", (103, 255, 255), (85, 235, 235)),
    (26, 58, "accumbens", (255, 165, 0), (235, 150, 20)),
    (28, 60, "ventral diencephalon", (165, 42, 42), (150, 60, 60)),
)
_MIDDLE = (
    (14, "third ventricle", (204, 182, 142)),
    (15, "fourth ventricle", (42, 204, 164)),
    (16, "brain stem", (119, 159, 176)),
    (24, "cerebrospinal fluid", (60, 60, 160)),
    (165, "skull", (120, 120, 120)),
    (258, "other head", (90, 70, 60)),
)

STRUCTURES: tuple[Structure, ...] = (
    Structure(0, "background", (0, 0, 0)),
    *(Structure(left, f"left {name}", colour, "left") for left, _, name, colour, _ in _PAIRS),
    *(Structure(right, f"right {name}", colour, "right") for _, right, name, _, colour in _PAIRS),
    *(Structure(code, name, colour) for code, name, colour in _MIDDLE),
)
"""Background, 14 structures of the left, the same 14 of the right, 4 of the middle, skull and other head: 35."""

CODES: tuple[int, ...] = tuple(structure.code for structure in STRUCTURES)

_SIDES = len(_PAIRS)
FLIPPED: tuple[int, ...] = (
    0,
    *range(1 + _SIDES, 1 + 2 * _SIDES),
    *range(1, 1 + _SIDES),
    *range(1 + 2 * _SIDES, len(STRUCTURES)),
)
"""Channels of a head mirrored left to right: channel i of the mirrored head is channel FLIPPED[i] of the head."""

TISSUES: dict[str, tuple[int, ...]] = {
    "csf": (4, 5, 14, 15, 24, 43, 44),
    "cortex": (3, 42),
    "white matter": (2, 41),
    "deep grey": (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58),
    "cerebellar cortex": (8, 47),
    "cerebellar white matter": (7, 46),
    "brain stem": (16, 28, 60),
}
"""Tissue classes and the codes that make them up."""

CONTRAST: tuple[str, ...] = ("csf", "cortex", "white matter", "deep grey")
"""Tissues whose mean intensities, in units of the prior, describe the contrast of a scan, in this order."""

_ALIASES = {
    **{25: 2, 57: 41, 30: 2, 62: 41, 77: 2, 78: 2, 79: 41, 80: 2, 72: 14, 85: 24, 31: 4, 63: 43},
    **{136: 4, 137: 5, 163: 43, 164: 44, 515: 165, 516: 165, 251: 2, 252: 2, 253: 2, 254: 2, 255: 2},
    **{502: 258, 506: 258, 507: 258, 508: 258, 509: 258, 511: 258, 512: 258, 514: 258, 530: 258},
}
"""Codes of finer maps and the structure each belongs to: lesions and vessels to the white matter around them, plexus to its
ventricle, the chiasm to the fluid around it, bone and marrow to the skull."""


def channels_of(codes: np.ndarray, source: str = "the label map") -> np.ndarray:
    """Channels, uint8, of FreeSurfer or SynthSeg codes; of parcellated cortex (1000-2999) too.

    Raises:
        InputError: a code that stands for no structure here.
    """
    present = np.unique(codes)
    if present.size and (present.min() < 0 or not np.issubdtype(codes.dtype, np.integer)):
        raise InputError(
            f"expected whole codes >= 0 in {source}; got {present[0]} ({codes.dtype}). Give a segmentation."
        )
    table = np.zeros(int(present.max(initial=0)) + 1, np.uint8)
    for code in present.tolist():
        known = _ALIASES.get(code, 3 if 1000 <= code < 2000 else 42 if 2000 <= code < 3000 else code)
        if known not in CODES:
            raise InputError(
                f"expected FreeSurfer or SynthSeg codes in {source}; got {code}, which is none of them. "
                "Relabel it, or set it to 0."
            )
        table[code] = CODES.index(known)
    return table[codes]


def tissue_channels() -> np.ndarray:
    """Tissue of each channel: 0 background, 1-7 in the order of `TISSUES`, 8 skull and other head; (35,), uint8."""
    table = np.full(len(STRUCTURES), len(TISSUES) + 1, np.uint8)
    table[0] = 0
    for number, codes in enumerate(TISSUES.values(), start=1):
        for code in codes:
            table[CODES.index(code)] = number
    return table
