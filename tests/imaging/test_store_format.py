"""Stored levels and values: each is the other's inverse."""

import numpy as np
import pytest

from radiata_imaging.store_format import decode, encode


def test_every_stored_level_survives_a_round_trip() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(encode(decode(levels)), levels)
    assert decode(levels).min() == -1
    assert decode(levels).max() == pytest.approx(1, abs=1e-7)
