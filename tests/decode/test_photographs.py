"""Crops of photographs: where they are from, and that the two parts share no pixel."""

import numpy as np
import pytest
from skimage.data import astronaut
from sklearn.datasets import load_sample_image

from radiata_core.errors import InputError
from radiata_decode.data.photographs import (
    LEAST_CONTRAST,
    PHOTOGRAPHS,
    columns_of,
    photograph,
    photograph_crops,
)


def test_photographs_are_those_that_the_packages_themselves_load():
    assert np.array_equal(photograph("astronaut"), astronaut())
    assert np.array_equal(photograph("china"), load_sample_image("china.jpg"))
    grey = photograph("camera")
    assert (grey == grey[..., :1]).all()


def test_a_crop_is_the_mean_of_its_box(rng):
    crops = photograph_crops(60, "train", 16, rng)
    assert set(crops.photograph) <= set(PHOTOGRAPHS)
    checked = 0
    for picture, name, (top, left, side) in zip(crops.pictures, crops.photograph, crops.boxes, strict=True):
        part = photograph(name)[top : top + side, left : left + side].astype(np.float64)
        assert np.allclose(picture.mean((0, 1)), part.mean((0, 1)), atol=1.0)
        assert picture.std((0, 1)).mean() >= 255 * LEAST_CONTRAST
        if side % 16 == 0:  # whole blocks have a closed form
            k = side // 16
            assert np.abs(picture - part.reshape(16, k, 16, k, 3).mean((1, 3))).max() <= 0.51
            checked += 1
    assert checked


def test_training_and_test_crops_share_no_pixel_and_have_one_range_of_scales(rng):
    sides = {}
    for split in ("train", "test"):
        crops = photograph_crops(400, split, 16, rng)
        for name, (top, left, side) in zip(crops.photograph, crops.boxes, strict=True):
            first, end = columns_of(photograph(name).shape[1], split)
            assert first <= left and left + side <= end and top >= 0
            assert top + side <= photograph(name).shape[0]
        sides[split] = crops.boxes[:, 2]
    assert columns_of(100, "train")[1] == columns_of(100, "test")[0]
    assert abs(np.log(sides["train"]).mean() - np.log(sides["test"]).mean()) < 0.2  # standard error .05


def test_the_same_seed_gives_the_same_crops_and_fewer_are_the_first_of_more():
    many = photograph_crops(30, "test", 32, np.random.default_rng(3))
    few = photograph_crops(7, "test", 32, np.random.default_rng(3))
    assert np.array_equal(many.pictures[:7], few.pictures)
    assert many.photograph[:7] == few.photograph
    assert not np.array_equal(
        few.pictures, photograph_crops(7, "test", 32, np.random.default_rng(4)).pictures
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "expected a split of train, test, all"),
        ({"size": 300}, "the narrowest test part"),
        ({"count": 0}, "at least one picture"),
        ({"photographs": ("horse",)}, "expected a photograph of"),
    ],
)
def test_what_does_not_go_is_said(options, message, rng):
    usual = {"count": 2, "split": "train", "size": 16} | options
    with pytest.raises(InputError, match=message):
        photograph_crops(**usual, rng=rng)
