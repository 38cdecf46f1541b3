"""Tables of labels: which code, name and colour each channel of a segmenter has.

`structures` are the 34 structures of a head with FreeSurfer's codes. `tissues` are the seven tissues and the rest of the
head, numbered 1 to 8. A head of few labels keeps the codes of its training labels, in its model file (`table_of`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from radiata_core.errors import InputError
from radiata_medical.data.structures import CODES, FLIPPED, STRUCTURES, TISSUES
from radiata_medical.model.labelling import Labelling

__all__ = ["LabelTable", "of_codes", "structures", "table_of", "tissues"]

_ENOUGH = 5  # codes that must agree before they are taken for FreeSurfer's
_COLOURS = (
    (60, 60, 160), (205, 62, 78), (235, 235, 235), (0, 118, 14), (230, 148, 34), (220, 248, 164), (119, 159, 176),
    (90, 70, 60),
)  # fmt: skip
_OTHER = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230),
)  # fmt: skip


@dataclass(frozen=True)
class LabelTable:
    """What the channels mean, and what they look like.

    Attributes:
        labelling: Codes, names, mirror channels, brain.
        colours: Red, green, blue of each channel, 0-255.
    """

    labelling: Labelling
    colours: tuple[tuple[int, int, int], ...]

    @property
    def names(self) -> dict[int, tuple[str, tuple[int, int, int]]]:
        """Code -> name and colour, for `outputs.write_labels`."""
        rows = zip(self.labelling.codes, self.labelling.names, self.colours, strict=True)
        return {code: (name, colour) for code, name, colour in rows}

    def card(self) -> dict[str, Any]:
        """As plain values, for the metadata of a model; `table_of` reads them."""
        known = self.labelling
        return {
            "codes": list(known.codes),
            "names": list(known.names),
            "flipped": list(known.flipped),
            "brain": list(known.brain),
            "colours": [list(colour) for colour in self.colours],
        }


def structures() -> LabelTable:
    """The channels of `data.structures`."""
    inside = {code for codes in TISSUES.values() for code in codes}
    brain = tuple(channel for channel, code in enumerate(CODES) if code in inside)
    names = tuple(structure.name for structure in STRUCTURES)
    return LabelTable(Labelling(CODES, names, FLIPPED, brain), tuple(s.colour for s in STRUCTURES))


def tissues() -> LabelTable:
    """Background, the tissues of `data.structures` and other head: codes 0 to 8."""
    names = ("background", *TISSUES, "skull and other head")
    every = tuple(range(len(names)))
    return LabelTable(Labelling(every, names, every, every[1:-1]), ((0, 0, 0), *_COLOURS))


def of_codes(codes: Sequence[int]) -> LabelTable:
    """A table of any codes, 0 the background.

    Where all are FreeSurfer's and there are at least five, they get names, colours and mirror images from there; other codes
    are "label 1" and so on: two labels called 2 and 3 may be anything.
    """
    freesurfer = len(set(codes) - {0}) >= _ENOUGH and set(codes) <= set(CODES)
    known = {structure.code: structure for structure in STRUCTURES if freesurfer}
    opposite = {CODES[channel]: CODES[mirror] for channel, mirror in enumerate(FLIPPED)}
    ordered = (0, *sorted(set(codes) - {0}))
    names, colours, flipped = [], [], []
    for channel, code in enumerate(ordered):
        structure = STRUCTURES[0] if code == 0 else known.get(code)
        names.append(structure.name if structure else f"label {code}")
        colours.append(structure.colour if structure else _OTHER[channel % len(_OTHER)])
        mirror = opposite.get(code, code) if freesurfer else code
        flipped.append(ordered.index(mirror) if mirror in ordered else channel)
    inside = {code for group in TISSUES.values() for code in group} if freesurfer else set()
    brain = tuple(channel for channel, code in enumerate(ordered) if code in inside)
    return LabelTable(Labelling(ordered, tuple(names), tuple(flipped), brain), tuple(colours))


def table_of(metadata: Mapping[str, Any], source: str) -> LabelTable:
    """The table in a model's metadata.

    Raises:
        InputError: there is none, or it is not whole.
    """
    given = metadata.get("labels")
    try:
        assert isinstance(given, Mapping)
        whole = {key: tuple(int(x) for x in given[key]) for key in ("codes", "flipped", "brain")}
        names = tuple(str(name) for name in given["names"])
        colours = tuple((int(r), int(g), int(b)) for r, g, b in given["colours"])
        return LabelTable(Labelling(whole["codes"], names, whole["flipped"], whole["brain"]), colours)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise InputError(
            f"expected a model with a table of labels; got {source} without one. Train it with radiata-medical."
        ) from None
