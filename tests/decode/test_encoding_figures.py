"""Figures of encoding: voxels where they lie, bars that are means, everything said."""

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.experiment.encoding_figures import flat_map_figure, region_figure


@pytest.fixture
def voxels() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "voxel": range(4),
            "hemisphere": ["left", "left", "right", "right"],
            "flat_x": [10.0, 20.0, -10.0, -20.0],
            "flat_y": [1.0, 2.0, 3.0, 4.0],
        }
    )


def test_voxels_lie_on_the_map_of_their_hemisphere(voxels: pd.DataFrame) -> None:
    values = np.array([0.1, 0.4, np.nan, 0.2])
    figure = flat_map_figure(values, voxels, synthetic=True, limits=(0, 0.5))
    left, right = (axes.collections[1] for axes in figure.axes[:2])
    np.testing.assert_allclose(left.get_offsets(), [[10, 1], [20, 2]])
    np.testing.assert_allclose(left.get_array(), [0.1, 0.4])
    np.testing.assert_allclose(right.get_offsets(), [[-20, 4]])
    assert figure.axes[0].get_title() == "left hemisphere (L)"
    assert figure.numbers["left_out"] == 1
    assert "simulated" in figure.get_suptitle()
    with pytest.raises(InputError, match="each of 4 voxels"):
        flat_map_figure(values[:3], voxels)
    with pytest.raises(InputError, match="a value and a place"):
        flat_map_figure(np.full(4, np.nan), voxels)


def test_bars_are_means_of_their_region(rng: np.random.Generator) -> None:
    regions = {
        "V1": np.array([1, 1, 0, 0], bool),
        "MT": np.array([0, 0, 1, 1], bool),
        "no": np.zeros(4, bool),
    }
    parts = {"gabor": np.array([0.2, 0.4, 0.0, 0.1]), "motion": np.array([0.1, 0.1, 0.5, 0.7])}
    figure = region_figure(parts, regions, rng, ceiling=np.full(4, 0.8))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [0.3, 0.05, 0.1, 0.6])
    assert figure.numbers["columns"]["region"] == ["V1", "MT", "V1", "MT"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["V1\nn=2", "MT\nn=2"]
    with pytest.raises(InputError, match="region with voxels"):
        region_figure(parts, {"no": regions["no"]}, rng)
