"""Codes, channels, sides and tissues."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_medical.data.structures import (
    CODES,
    CONTRAST,
    FLIPPED,
    STRUCTURES,
    TISSUES,
    channels_of,
    tissue_channels,
)

SYNTHSEG = [
    *(0, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28),
    *(41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60),
]


def test_the_brain_has_the_structures_of_synthseg_and_skull_and_head_are_around_it() -> None:
    assert sorted(CODES) == sorted([*SYNTHSEG, 165, 258])
    assert len(STRUCTURES) == 35 and STRUCTURES[0].code == 0
    assert len({s.name for s in STRUCTURES}) == len({s.colour for s in STRUCTURES}) == 35


def test_mirroring_twice_is_nothing_and_once_changes_the_side_and_only_that() -> None:
    flipped = np.array(FLIPPED)
    assert np.array_equal(flipped[flipped], np.arange(35))
    for channel, other in enumerate(FLIPPED):
        a, b = STRUCTURES[channel], STRUCTURES[other]
        assert {a.side, b.side} in ({"left", "right"}, {""})
        assert a.name.removeprefix(a.side) == b.name.removeprefix(b.side)


def test_tissues_divide_the_brain_and_are_symmetric() -> None:
    """Each code of the brain is in one tissue, and the mirror of a tissue is the tissue."""
    codes = [code for group in TISSUES.values() for code in group]
    assert sorted(codes) == sorted(set(CODES) - {0, 165, 258})
    tissue = tissue_channels()
    assert np.array_equal(tissue[list(FLIPPED)], tissue)
    assert tissue[0] == 0 and tissue[CODES.index(165)] == tissue[CODES.index(258)] == len(TISSUES) + 1
    assert set(CONTRAST) <= set(TISSUES)


def test_channels_of_a_finer_map() -> None:
    """Parcels, lesions, plexus, bone and marrow go to their structures; channels and codes are inverse."""
    codes = np.array([[0, 1001, 2035, 77], [31, 63, 515, 516], [85, 251, 507, 60]])
    expected = np.array([[0, 3, 42, 2], [4, 43, 165, 165], [24, 2, 258, 60]])
    assert np.array_equal(np.array(CODES)[channels_of(codes)], expected)
    assert np.array_equal(channels_of(np.array(CODES)), np.arange(35))


@pytest.mark.parametrize(
    "bad", [np.array([0, 999]), np.array([0, 3000]), np.array([-1, 2]), np.array([0.5, 2.0])]
)
def test_a_code_of_nothing_is_one_line(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected .*codes .*in sub-1; got ") as told:
        channels_of(bad, "sub-1")
    assert "\n" not in str(told.value)
