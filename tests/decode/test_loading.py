"""Pictures as models see them: which way up, and from 0 to 1."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.loading import unit_images


def test_pictures_keep_orientation_and_range(rng: np.random.Generator) -> None:
    pictures = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    images = unit_images(pictures)
    assert images.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(images[1, 2, 4, 6], pictures[1, 4, 6, 2] / 255, rtol=1e-6)
    large = unit_images(pictures, 20)
    assert large.min() >= 0 and large.max() <= 1


def test_floats_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        unit_images(np.zeros((1, 3, 4, 4), np.float32))
