"""One linear scale: what is white, and that everything scales with it."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_medical.data.intensity_scale import IntensityScale


def head(rng: np.random.Generator) -> np.ndarray:
    """Air of 0 and a head of 500 to 1000, evenly."""
    array = np.zeros((40, 40, 40), np.float32)
    array[8:32, 8:32, 8:32] = rng.uniform(500, 1000, (24, 24, 24))
    return array


def test_white_is_the_99th_percentile_of_the_head(rng: np.random.Generator) -> None:
    """Evenly from 500 to 1000, all of it brighter than the mean: 995."""
    assert IntensityScale.of(head(rng)).white == pytest.approx(995, abs=1)


def test_white_follows_the_unit_and_not_the_air(rng: np.random.Generator) -> None:
    array = head(rng)
    white = IntensityScale.of(array).white
    assert IntensityScale.of(7 * array).white == pytest.approx(7 * white, rel=1e-6)
    assert IntensityScale.of(np.pad(array, 30)).white == pytest.approx(white, rel=1e-6)


def test_there_and_back_and_no_offset(rng: np.random.Generator) -> None:
    scale = IntensityScale.of(head(rng))
    assert scale.to_prior(np.zeros(3)).tolist() == [0, 0, 0]
    values = rng.normal(size=100).astype(np.float32)
    np.testing.assert_allclose(scale.to_prior(scale.to_file(values)), values, rtol=1e-6)
    assert scale.to_prior(values).dtype == np.float32


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.full((4, 4), 3.0), -np.eye(4) - 1])
def test_what_has_no_white_is_refused_in_one_line(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected") as error:
        IntensityScale.of(array)
    assert "\n" not in str(error.value)
