import csv
import json

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.plots import (
    STAMP,
    Convention,
    grid,
    histogram,
    losses,
    mosaic,
    png,
    save,
    spectrum,
    validation_by_log_snr,
)
from radiata_imaging.volume import Volume

ROTATION = np.eye(4)
ROTATION[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
AFFINES = {
    "RAS": np.diag([2.0, 2.0, 2.0, 1.0]),
    "LPS": np.diag([-2.0, -2.0, 2.0, 1.0]),
    "SAL (permuted)": np.array([[0, 0, -2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]),
    "oblique LPS": ROTATION @ np.diag([-2.0, -2.0, 2.0, 1.0]),
    "oblique permuted": ROTATION @ np.array([[0, 0, -2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]),
}


def marked(affine, direction):
    """A head of zeros with a bright block far along one world direction, put there through the affine."""
    shape = (21, 21, 21)
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 10.0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return Volume(
        (np.linalg.norm(world - 14.0 * np.array(direction), axis=-1) < 5).astype(np.float32), affine
    )


def bright_side(axes):
    """Where the block stands in the drawn pixels, and the letters around it, as a viewer sees them."""
    image = axes.get_images()[0]
    data = np.asarray(image.get_array())
    if data.max() == 0:
        return None
    rows, columns = np.nonzero(data)
    assert image.origin == "lower"
    u, v = columns.mean() / (data.shape[1] - 1) - 0.5, rows.mean() / (data.shape[0] - 1) - 0.5
    letters = {text.get_gid(): text.get_text() for text in axes.texts if text.get_gid()}
    if abs(u) < 0.2 and abs(v) < 0.2:
        return None
    return letters[("right" if u > 0 else "left") if abs(u) > abs(v) else ("top" if v > 0 else "bottom")]


@pytest.mark.parametrize("convention", list(Convention))
@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize(
    ("letter", "direction"),
    [
        ("L", (-1, 0, 0)),
        ("R", (1, 0, 0)),
        ("P", (0, -1, 0)),
        ("A", (0, 1, 0)),
        ("I", (0, 0, -1)),
        ("S", (0, 0, 1)),
    ],
)
def test_a_marker_stands_where_its_letter_stands(name, letter, direction, convention):
    figure = mosaic(marked(AFFINES[name], direction), convention=convention, columns=3)
    seen = {bright_side(axes) for axes in figure.axes if axes.get_images()} - {None}
    assert seen == {letter}


@pytest.mark.parametrize(
    ("convention", "side"), [(Convention.NEUROLOGICAL, "left"), (Convention.RADIOLOGICAL, "right")]
)
def test_convention_decides_the_side_and_is_written(convention, side):
    figure = mosaic(marked(AFFINES["LPS"], (-1, 0, 0)), convention=convention, columns=3)
    axial = figure.axes[1]
    data = np.asarray(axial.get_images()[0].get_array())
    column = np.nonzero(data)[1].mean()
    assert (column < 10) == (side == "left")
    assert f"{convention.value} (patient's left is on the {side})" in figure.get_suptitle()


def test_synthetic_heads_are_stamped_and_mm_are_right(tmp_path):
    figure = mosaic(marked(AFFINES["RAS"], (0, 0, 1)), synthetic=True, columns=3, title="sub-syn0001")
    assert STAMP in figure.get_suptitle() and "not for clinical use" in figure.get_suptitle()
    assert figure.numbers["slices_mm"]["S"] == pytest.approx([-14.0, 0.0, 14.0])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "z = +14 mm" in texts
    save(figure, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "m.json").read_text())["synthetic"] is True


def test_figures_write_the_numbers_they_show(tmp_path, rng):
    rows = rng.random((5, 12))
    for figure in (
        histogram(np.linspace(-1, 1, 12), {"synthetic": rows, "real": rows + 1}),
        spectrum(np.linspace(0.01, 0.2, 12), {"synthetic": rows, "real": rows + 1}),
    ):
        save(figure, tmp_path / "f.png")
        with (tmp_path / "f.csv").open() as file:
            table = list(csv.DictReader(file))
        np.testing.assert_allclose([float(r["real"]) for r in table], rows.mean(0) + 1)
        line = figure.axes[0].get_lines()[1]
        np.testing.assert_allclose(line.get_ydata(), rows.mean(0) + 1)
        assert "n = 5" in figure.axes[0].get_legend().get_texts()[0].get_text()


def test_losses_leave_gaps_out():
    records = [{"step": i, "loss": 1 / (i + 1)} for i in range(60)] + [
        {"step": 60, "loss": None},
        {"note": "x"},
    ]
    figure = losses(records, keys=("loss", "absent"))
    assert len(figure.numbers["curves"]["loss"]["loss"]) == 60 and "absent" not in figure.numbers["curves"]
    assert png(losses([{"step": 1}]))


def test_validation_by_log_snr_marks_bin_centres():
    figure = validation_by_log_snr(
        [-4.0, -2.0, 0.0, 2.0], {"model": [0.3, 0.2, 0.1], "linear": [0.3, 0.25, 0.2]}
    )
    assert figure.numbers["columns"]["log_snr"] == [-3, -1, 1]


def test_grid_wants_a_label_for_each(rng):
    volume = Volume(rng.random((4, 4, 4)).astype(np.float32), np.eye(4))
    assert png(grid([volume, volume], ["a", "b"], synthetic=True))
    with pytest.raises(InputError, match="label"):
        grid([volume], [])
