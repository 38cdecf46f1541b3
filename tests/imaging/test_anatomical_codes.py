"""Every public code is the one of pydicom's dictionary, with the meaning that stands beside it there."""

import pytest
from pydicom.sr._concepts_dict import concepts

from radiata_imaging.anatomical_codes import LEFT, PRIVATE, RIGHT, STRUCTURE_CODES, meaning_of


@pytest.mark.parametrize("name", STRUCTURE_CODES)
def test_codes_are_those_of_the_dictionary(name):
    for code in (meaning_of(name, 7).kind, LEFT, RIGHT):
        known = [found[code.value][0] for found in concepts[code.scheme].values() if code.value in found]
        assert any(text.casefold().startswith(code.meaning.casefold()) for text in known), (code, known)


def test_sides_categories_and_names_without_a_code():
    left = meaning_of("left cerebral_cortex", 3)
    assert (left.side, left.kind.value, left.category.value) == (LEFT, "40146001", "123037004")
    assert meaning_of("Right-Thalamus", 49).side == RIGHT
    assert meaning_of("cerebrospinal fluid", 24).category.meaning == "Body Substance"
    assert meaning_of("lesion", 1).category.meaning == "Morphologically Abnormal Structure"
    own = meaning_of("left hemisphere of nobody", 99)
    assert (own.kind.scheme, own.kind.value, own.kind.meaning) == (PRIVATE, "99", "left hemisphere of nobody")
    assert own.side is None
