"""Pictures of the cortex: weights that add up, smooth maps that survive the way there and back, two people who agree."""

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.cortical_layout import flat_vertices, voxel_table
from radiata_decode.data.cortical_positions import flat_positions
from radiata_decode.data.flat_map import Canvas, common_canvas, cortex_image


@pytest.fixture(scope="module")
def whole():
    """All vertices of the flat maps on a canvas of 128 pixels."""
    positions = flat_positions(flat_vertices()[["hemisphere", "vertex"]])
    return positions, cortex_image(positions, common_canvas([positions], 128))


def table_of(points, hemisphere="left"):
    places = np.asarray(points, float)
    return pd.DataFrame({"hemisphere": hemisphere, "flat_x": places[:, 0], "flat_y": places[:, 1]})


def test_weights_are_a_partition_of_unity(whole):
    _, image = whole
    sums = np.asarray(image.weights.sum(1)).reshape(image.canvas.size)
    assert image.weights.data.min() >= 0
    np.testing.assert_allclose(sums[image.mask], 1, atol=1e-5)
    assert (sums[~image.mask] == 0).all()
    assert 0.6 < image.mask.mean() < 0.9  # the rest of the two squares is not cortex
    np.testing.assert_allclose(np.asarray(image.sampling.sum(1)).reshape(-1), 1, atol=1e-5)


def test_smooth_function_of_the_sphere_comes_back(whole):
    """A harmonic of the sphere, rastered and sampled: the root mean square error is below 3 % of its spread."""
    from nilearn.datasets import load_fsaverage

    _, image = whole
    table, parts = flat_vertices(), load_fsaverage("fsaverage5")["sphere"].parts
    sphere = np.concatenate(
        [
            parts[side].coordinates[table["vertex"][table["hemisphere"] == side].to_numpy()]
            for side in ("left", "right")
        ]
    )
    unit = sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
    values = (unit[:, 0] * unit[:, 1] + 0.5 * unit[:, 2] ** 2)[None].astype(np.float32)
    back = image.sampled(image.images(values))
    error = np.sqrt(np.mean((back - values) ** 2)) / values.std()
    assert error < 0.03


def test_pixel_is_the_reliable_mean_of_its_place():
    """Two voxels at one place count by reliability; a voxel without any is not there."""
    positions = flat_positions(table_of([[0, 0], [0, 0], [1, 0]]))
    canvas = Canvas({"left": (-4, 4, -4, 4)}, (8, 8))
    image = cortex_image(positions, canvas, reliability=np.array([3.0, 1.0, 0.0]), reach_mm=20)
    np.testing.assert_allclose(image.images(np.array([[1.0, 5.0, 100.0]])), 2.0, rtol=1e-5)


def test_left_is_left_and_up_is_up():
    """The first hemisphere takes the left half, y grows downward in the picture and upward on the map."""
    left = table_of([[-3, 3], [3, -3]])
    right = table_of([[-3, 3], [3, -3]], "right")
    positions = flat_positions(pd.concat([left, right], ignore_index=True))
    canvas = common_canvas([positions], (16, 32), margin_mm=1)
    image = cortex_image(positions, canvas, neighbours=1, reach_mm=1.5)
    picture = image.images(np.array([[1.0, 2.0, 3.0, 4.0]]))[0, 0]
    assert (picture[2, 2], picture[13, 13], picture[2, 18], picture[13, 29]) == (1, 2, 3, 4)
    np.testing.assert_allclose(image.sampled(picture[None, None]), [[1, 2, 3, 4]], rtol=1e-6)


def test_one_picture_is_the_same_alone_and_in_a_batch(whole, rng):
    _, image = whole
    responses = rng.normal(size=(3, image.weights.shape[1])).astype(np.float32)
    assert np.array_equal(image.images(responses)[1:2], image.images(responses[1:2]))


def test_two_people_who_see_the_same_look_alike():
    """Voxels of another number at other places: the pictures agree over the mask, and do not for different stimuli."""
    people = [
        voxel_table(count, ("V1", "V2", "V3", "V4"), rng_of(0, who)) for who, count in ((0, 900), (1, 1400))
    ]
    places = [flat_positions(table) for table in people]
    canvas = common_canvas(places, 64)
    images = [cortex_image(place, canvas) for place in places]
    scenes = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0))
    scenes = torch.nn.functional.interpolate(scenes[:, None], 32, mode="bicubic")[:, 0].numpy()
    seen = []
    for table, image in zip(people, images, strict=True):
        column = (table["prf_x"].to_numpy() * 32).clip(0, 31).astype(int)
        row = (table["prf_y"].to_numpy() * 32).clip(0, 31).astype(int)
        seen.append(image.images(scenes[:, row, column])[:, 0])
    mask = images[0].mask & images[1].mask
    first, second = (part[:, mask] - part[:, mask].mean(0) for part in seen)
    same = np.corrcoef(first, second)[:6, 6:]
    assert np.diag(same).min() > 0.5
    assert np.diag(same).min() > same[~np.eye(6, dtype=bool)].max() + 0.3


def test_card_of_a_canvas_is_the_canvas(whole):
    canvas = whole[1].canvas
    assert Canvas.from_card(canvas.card()) == canvas
    with pytest.raises(InputError, match="card"):
        Canvas.from_card({"size": 3})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p, i: i.images(np.zeros((2, 3))), "voxels"),
        (lambda p, i: i.images(np.full((1, i.weights.shape[1]), np.nan)), "finite"),
        (lambda p, i: i.sampled(np.zeros((1, 1, 4, 4))), "pictures"),
        (lambda p, i: cortex_image(p, i.canvas, reliability=np.zeros(3)), "weight"),
        (lambda p, i: cortex_image(p, Canvas({"left": (900, 950, 0, 50)}, (8, 8))), "within the canvas"),
        (lambda p, i: Canvas({"left": (0, 1, 0, 1), "right": (0, 1, 0, 1)}, (8, 9)), "even number"),
        (lambda p, i: common_canvas([]), "got none"),
    ],
)
def test_what_does_not_fit_is_refused(whole, break_it, message):
    with pytest.raises(InputError, match=message):
        break_it(*whole)
