"""The colour wheel: full hues, direction as hue, speed as saturation."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.flow_colours import colour_wheel, flow_colours, wheel_picture


def colour(x: float, y: float, largest: float = 1.0) -> np.ndarray:
    return flow_colours(np.array([x, y]).reshape(2, 1, 1), largest)[0, 0]


def test_the_wheel_has_55_full_hues_that_go_round() -> None:
    wheel = colour_wheel()
    assert wheel.shape == (55, 3)
    np.testing.assert_allclose(wheel.max(1), 1)
    np.testing.assert_allclose(wheel.min(1), 0)
    assert (
        np.abs(np.diff(np.vstack([wheel, wheel[:1]]), axis=0)).max() <= 0.25 + 1e-12
    )  # a quarter, green to cyan
    np.testing.assert_array_equal(wheel[0], [1, 0, 0])


def test_directions_have_their_colours() -> None:
    np.testing.assert_allclose(colour(1, 0), [1, 0, 0], atol=1e-12)
    down, left, up = colour(0, 1), colour(-1, 0), colour(0, -1)
    assert down[0] > 0.8 and down[1] > 0.8 and down[2] == 0
    assert left[0] == 0 and left[2] == 1
    assert up[2] == 1 and 0 < up[0] < 1


def test_rest_is_white_and_speed_saturates_then_darkens() -> None:
    np.testing.assert_array_equal(colour(0, 0), [1, 1, 1])
    np.testing.assert_allclose(colour(0.5, 0), [1, 0.5, 0.5])
    np.testing.assert_allclose(colour(2, 0), [0.75, 0, 0])


def test_the_scale_is_the_largest_speed_unless_it_is_given(rng: np.random.Generator) -> None:
    flow = rng.normal(size=(3, 2, 4, 4))
    largest = np.hypot(flow[:, 0], flow[:, 1]).max()
    np.testing.assert_allclose(flow_colours(flow), flow_colours(flow, largest))
    np.testing.assert_allclose(flow_colours(3 * flow), flow_colours(flow))


def test_the_key_is_white_at_its_centre_and_outside() -> None:
    picture = wheel_picture(51)
    np.testing.assert_array_equal(picture[25, 25], [1, 1, 1])
    np.testing.assert_array_equal(picture[0, 0], [1, 1, 1])
    np.testing.assert_allclose(picture[25, 50], [1, 0, 0], atol=1e-9)


def test_what_is_no_flow() -> None:
    with pytest.raises(InputError, match="finite flow"):
        flow_colours(np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="largest speed"):
        flow_colours(np.zeros((2, 4, 4)), 0.0)
