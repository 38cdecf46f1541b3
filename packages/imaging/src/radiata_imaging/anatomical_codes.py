"""Structures of a head as coded concepts, so that a segmentation means the same to every program: SNOMED CT, by name.

A name may begin with its side ("left thalamus"), which becomes a modifier. A structure that is not in the table keeps its
own name under the private scheme 99RADIATA: nothing is given a code that means something else.

References:
    DICOM PS3.16, CID 7150 (categories), CID 7151 (types), CID 244 (laterality); the codes are those of pydicom's dictionary,
    which a test compares.
"""

from dataclasses import dataclass

__all__ = ["LEFT", "PRIVATE", "RIGHT", "STRUCTURE_CODES", "Code", "Meaning", "meaning_of"]

PRIVATE = "99RADIATA"
"""The coding scheme of what has no public code here."""


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes:
        value: Of the code.
        meaning: In words, at most 64 characters.
        scheme: SCT, DCM or the private one.
    """

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Meaning:
    """What a segment is.

    Attributes:
        category: Structure, substance, or something abnormal.
        kind: Which one.
        side: Left or right; None of what has none.
    """

    category: Code
    kind: Code
    side: Code | None = None


LEFT, RIGHT = Code("7771000", "Left"), Code("24028007", "Right")
_STRUCTURE = Code("123037004", "Anatomical Structure")
_SUBSTANCE = Code("91720002", "Body Substance")
_ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")

STRUCTURE_CODES: dict[str, Code] = {
    "brain": Code("12738006", "Brain"),
    "cerebral white matter": Code("68523003", "Cerebral White Matter"),
    "cerebral cortex": Code("40146001", "Cerebral cortex"),
    "lateral ventricle": Code("66720007", "Lateral Ventricle"),
    "inferior lateral ventricle": Code("53118009", "Structure of inferior horn of lateral ventricle"),
    "cerebellum": Code("113305005", "Cerebellum"),
    "cerebellar white matter": Code("33060004", "Cerebellar White Matter"),
    "cerebellar cortex": Code("25991003", "Cerebellar Cortex"),
    "thalamus": Code("42695009", "Thalamus"),
    "caudate": Code("11000004", "Caudate Nucleus"),
    "putamen": Code("89278009", "Putamen"),
    "pallidum": Code("14738005", "Globus Pallidus"),
    "hippocampus": Code("5366008", "Hippocampus"),
    "amygdala": Code("4958002", "Amygdala"),
    "accumbens": Code("427667007", "Nucleus Accumbens"),
    "ventral diencephalon": Code("110700", "Ventral Diencephalon", "DCM"),
    "third ventricle": Code("49841001", "Third ventricle"),
    "fourth ventricle": Code("35918002", "Fourth Ventricle"),
    "brain stem": Code("119238007", "Brain Stem"),
    "cerebrospinal fluid": Code("65216001", "Cerebrospinal Fluid"),
    "skull": Code("89546000", "Skull"),
    "lesion": Code("52988006", "Lesion"),
}
"""Name without its side -> what it is."""

_CATEGORIES = {"cerebrospinal fluid": _SUBSTANCE, "lesion": _ABNORMAL}


def meaning_of(name: str, number: int) -> Meaning:
    """What a structure's name means.

    Args:
        name: Such as "left cerebral cortex".
        number: Its code in the label map; the value of a private code.
    """
    words = " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
    side = {"left": LEFT, "right": RIGHT}.get(words.partition(" ")[0])
    bare = words.partition(" ")[2] if side else words
    if bare in STRUCTURE_CODES:
        return Meaning(_CATEGORIES.get(bare, _STRUCTURE), STRUCTURE_CODES[bare], side)
    return Meaning(_STRUCTURE, Code(str(number), name[:64], PRIVATE))
