"""Windows follow the film by the lag and never hold what belongs to another scene or run."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.lag_windows import gather, lag_windows


def test_volume_of_a_stretch_is_the_lagged_one() -> None:
    found = lag_windows(10, 2.0, lag_s=4.0)
    assert found.stretches.tolist() == list(range(8)) and found.volumes[:, 0].tolist() == list(range(2, 10))
    assert found.left_out == 2


@pytest.mark.parametrize("lag", [0.0, 3.9, 6.0])
def test_no_window_answers_another_scene(lag: float) -> None:
    """Volumes, moved back by the lag, lie in the scene of their stretch; each stretch for which they can is kept."""
    cuts, offsets, shift = [7, 15, 16], (-2, -1, 0, 1, 2), round(lag / 1.5)
    found = lag_windows(30, 1.5, lag_s=lag, offsets=offsets, cuts=cuts)
    scene = np.array([sum(c <= t for c in cuts) for t in range(30)])
    possible = []
    for i in range(30):
        answered = [i + o for o in offsets]
        if (
            min(answered) >= 0
            and max(answered) + shift < 30
            and max(answered) < 30
            and len({scene[t] for t in answered}) == 1
        ):
            possible.append(i)
    assert found.stretches.tolist() == possible
    assert (found.volumes == found.stretches[:, None] + shift + np.array(offsets)).all()


def test_stacked_columns_are_offsets_then_voxels() -> None:
    series = np.arange(40.0).reshape(10, 4)
    windows = lag_windows(10, 2.0, lag_s=2.0, offsets=(0, 2))
    np.testing.assert_array_equal(gather(series, windows)[0], [*series[1], *series[3]])
    np.testing.assert_array_equal(gather(series, windows, "mean")[0], (series[1] + series[3]) / 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lag_s": -1}, "lag of 0 to 30"),
        ({"offsets": (0, 0)}, "different offsets"),
        ({"cuts": [10]}, "cuts within 10 volumes; got 10"),
        ({"offsets": (0, 9), "lag_s": 4}, "got none in 10 volumes"),
    ],
)
def test_bad_input(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        lag_windows(10, 2.0, **options)
