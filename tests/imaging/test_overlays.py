"""Figures of results: what is drawn is the data, on the scales and at the places that are said."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.overlays import Panel, before_after, label_overlay
from radiata_imaging.plots import STAMP, Convention
from radiata_imaging.volume import Volume, centred_affine

SHAPE = (20, 24, 16)


def volume(array: np.ndarray, spacing: float | tuple[float, ...] = 1.0, axcodes: str = "LPS") -> Volume:
    return Volume(array, centred_affine(array.shape, spacing, axcodes))


def pictures(figure: object) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]  # type: ignore[attr-defined]


def test_grey_panels_share_a_scale_and_differences_are_symmetric(rng: np.random.Generator) -> None:
    before = rng.uniform(0, 100, SHAPE)
    after = before.copy()
    after[4:6, 20:22, 12:14] += 50
    difference = Panel("difference", volume(after - before), "difference")
    figure = before_after(
        [Panel("given", volume(before)), Panel("restored", volume(after)), difference],
        unit="a.u.",
        synthetic=True,
    )
    limits = figure.numbers["limits"]
    shown = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert shown.count(tuple(limits["grey"])) == 6 and shown.count(tuple(limits["difference"])) == 3
    assert limits["difference"][0] == -limits["difference"][1]
    centre = volume(after).affine @ [4.5, 20.5, 12.5, 1]
    found = [figure.numbers["at_mm"][letter] for letter in "RAS"]
    assert np.allclose(found, centre[:3], atol=0.51), "slices go through what has changed"
    texts = " ".join(text.get_text() for text in figure.texts) + figure.get_suptitle()
    assert STAMP in texts and "neurological" in texts
    letters = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"L", "R", "A", "P", "S", "I"} <= letters


def test_another_grid_is_shown_by_its_nearest_voxel(rng: np.random.Generator) -> None:
    """Slices of 4 mm stay slices of 4 mm: every value is one of the file's."""
    thick, fine = volume(rng.normal(size=(20, 24, 4)), (1.0, 1.0, 4.0)), volume(rng.normal(size=SHAPE))
    figure = before_after([Panel("given", thick), Panel("restored", fine)])
    coronal = pictures(figure)[2]
    assert set(np.unique(coronal)) <= set(np.unique(thick.array))


def test_a_single_slice_has_one_row(rng: np.random.Generator) -> None:
    one = volume(rng.normal(size=(20, 24, 1)))
    figure = before_after([Panel("given", one), Panel("restored", one), Panel("sd", one, "spread")])
    assert [picture.shape for picture in pictures(figure)] == [(24, 20)] * 3
    with pytest.raises(InputError, match="one of them grey"):
        before_after([Panel("sd", one, "spread")])


@pytest.mark.parametrize("convention", list(Convention))
def test_labels_lie_where_the_scan_is_bright(convention: Convention) -> None:
    """A block on the left of the body: label and image are drawn at the same pixels, on the side the convention says."""
    array = np.zeros(SHAPE)
    array[14:18, 4:20, 4:12] = 100.0  # LPS: high indices are on the left
    codes = (array > 0).astype(np.int16) * 17
    figure = label_overlay(
        volume(array), codes, {17: ("left hippocampus", (220, 216, 20))}, columns=3, convention=convention
    )
    drawn = [axes.images for axes in figure.axes if len(axes.images) == 2]
    assert drawn
    for grey, colour in drawn:
        picture, painted = np.asarray(grey.get_array()), np.asarray(colour.get_array())
        assert np.array_equal(picture > 50, painted[..., 3] > 0)
        assert np.allclose(painted[picture > 50][0, :3], np.array([220, 216, 20]) / 255)
    axial = np.asarray(drawn[0][1].get_array())[..., 3]
    left_half = axial[:, : axial.shape[1] // 2].any()
    assert left_half == (convention is Convention.NEUROLOGICAL)
    assert figure.numbers["volumes_ml"] == {"left hippocampus": pytest.approx(4 * 16 * 8 / 1000)}
    with pytest.raises(InputError, match="on the grid of the scan"):
        label_overlay(volume(array), codes[1:], {})
