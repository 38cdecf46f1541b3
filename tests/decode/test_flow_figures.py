"""Figures of motion show what they are given, say what they are, and never the best alone."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from radiata_core.errors import InputError
from radiata_decode.experiment.flow_figures import draw_arrows, flow_gallery, ranked


def test_best_median_worst_and_random_films_are_chosen(rng: np.random.Generator) -> None:
    rows = ranked(np.array([0.1, np.nan, 0.9, 0.5, -0.2, 0.4]), rng)
    assert (rows["best"], rows["worst"]) == (2, 4)
    assert rows["median"] == 5
    assert 1 not in rows.values()
    assert len(rows) == 5
    with pytest.raises(InputError, match="score"):
        ranked(np.array([np.nan]), rng)


def test_arrows_point_where_the_flow_points(rng: np.random.Generator) -> None:
    """Blocks of 4 by 4 cells with one mean vector each; y grows downward on the axes as in the flow."""
    axes = Figure().subplots()
    flow = np.zeros((2, 16, 16))
    flow[0, :8], flow[1, 8:] = 2.0, -1.0
    draw_arrows(axes, flow, 2.0, arrows=4)
    quiver = next(one for one in axes.collections if isinstance(one, Quiver))
    np.testing.assert_allclose(np.reshape(quiver.U, (4, 4))[:2], 2.0)
    np.testing.assert_allclose(np.reshape(quiver.V, (4, 4))[2:], -1.0)
    np.testing.assert_allclose(np.unique(quiver.X), [1.5, 5.5, 9.5, 13.5])
    assert axes.yaxis_inverted()


def test_the_gallery_has_one_scale_and_says_what_it_shows(rng: np.random.Generator) -> None:
    seen = rng.normal(size=(4, 1, 2, 8, 8))
    frames = rng.random((4, 3, 8, 8))
    figure = flow_gallery(
        {"seen": seen, "decoded": seen / 2, "zero flow": 0 * seen},
        {"best": 1, "random 1": 3},
        frames=frames,
        values=np.array([0.1, 0.9, 0.2, 0.3]),
        synthetic=True,
    )
    assert figure.numbers["columns"]["flow correlation"] == [0.9, 0.3]
    speed = np.linalg.norm(seen[[1, 3], 0], axis=1)
    assert figure.numbers["largest_speed_cells"] == pytest.approx(np.quantile(speed, 0.99))
    assert "simulated" in figure.get_suptitle()
    assert "not recordings of thoughts" in figure.get_suptitle()
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[:4] == ["first frame", "seen", "decoded", "zero flow"]
    assert figure.axes[3].images[0].get_array().min() == 1  # rest is white


def test_flows_that_do_not_belong_together(rng: np.random.Generator) -> None:
    flow = rng.normal(size=(2, 1, 2, 4, 4))
    with pytest.raises(InputError, match="one shape"):
        flow_gallery({"a": flow, "b": flow[:1]}, {"best": 0})
