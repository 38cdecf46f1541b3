"""What the page unpacks is what the volume was: to half a grey level, in RAS order, labels exactly."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging import viewer
from radiata_imaging.viewer import Overlay, Viewer, embedded
from radiata_imaging.volume import Volume


def unpacked(item):
    """As `viewer.js` does it: gunzip, running sum modulo 256, x fastest."""
    data = item["data"] if isinstance(item["data"], bytes) else base64.b64decode(item["data"])
    differences = np.frombuffer(gzip.decompress(data), np.uint8)
    values = np.cumsum(differences, dtype=np.uint64).astype(np.uint8)
    return values.reshape(item["shape"], order="F")


def page_of(view):
    return json.loads(re.search(r"<script[^>]*>(.*)</script>", view.html(), re.S)[1])


def test_volume_arrives_in_ras_order():
    """x fastest, towards right, anterior, superior: unpacked bytes equal the volume turned by hand."""
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    item = embedded("v", Volume(array, np.diag([-1.0, -2.0, 1.0, 1.0])), limits=(0.0, 255.0))
    np.testing.assert_array_equal(unpacked(item), array[::-1, ::-1].astype(np.uint8))
    assert not item["averaged"]
    np.testing.assert_allclose(item["affine"], [[1, 0, 0, -2], [0, 2, 0, -6], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(("kind", "low"), [("image", None), ("spread", 0.0), ("difference", None)])
def test_intensities_come_back_to_half_a_level(kind, low, rng):
    array = rng.normal(size=(9, 8, 7)).astype(np.float32)
    array = np.abs(array) if kind == "spread" else array
    item = embedded("v", Volume(array, np.eye(4)), kind, limits=(float(array.min()), float(array.max())))
    step = (item["high"] - item["low"]) / (item["levels"] - 1)
    np.testing.assert_allclose(item["low"] + step * unpacked(item), array, atol=0.5001 * step)
    default = embedded("v", Volume(array, np.eye(4)), kind)
    if kind == "difference":
        assert default["low"] == -default["high"]
    if low is not None:
        assert default["low"] == low


def test_a_volume_that_does_not_pack_has_fewer_levels(rng, monkeypatch):
    """White noise does not compress: levels are halved until it fits, and the intensities stay right."""
    array = rng.uniform(0, 1, (24, 24, 24)).astype(np.float32)
    monkeypatch.setattr(viewer, "LARGEST", 13_500)
    item = embedded("v", Volume(array, np.eye(4)), limits=(0.0, 1.0))
    assert item["levels"] == 128 and len(item["data"]) <= 13_500
    np.testing.assert_allclose(unpacked(item) / 127, array, atol=0.51 / 127)


def test_labels_keep_their_codes_names_and_sizes():
    """Codes beyond a byte (FreeSurfer's 2035) go through the table, the largest first; 0 is nothing."""
    codes = np.zeros((6, 5, 4), np.float32)
    codes[:3], codes[4, 0], codes[5, 1, :2] = 2035, 17, 9999
    item = embedded("l", Volume(codes, np.diag([1, 1, 2, 1.0])), "labels", colours={17: ("a", (255, 0, 16))})
    assert item["labels"] == [
        ["label 2035", "#808080", 0.12], ["a", "#ff0010", 0.008], ["label 9999", "#808080", 0.004]
    ]  # fmt: skip
    back = np.array([0, 2035, 17, 9999])[unpacked(item)]
    np.testing.assert_array_equal(back, codes)


def test_more_labels_than_a_byte_tells_apart():
    codes = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    item = embedded("l", Volume(codes, np.eye(4)), "labels")
    assert len(item["labels"]) == 255 and item["labels"][-1][0] == "745 smaller labels"
    assert unpacked(item).max() == 255 and unpacked(item).ravel()[0] == 0


def test_large_volumes_are_averaged_labels_thinned_and_it_is_said(monkeypatch):
    volume = Volume(np.ones((20, 20, 20), np.float32), np.eye(4))
    assert embedded("v", volume, max_voxels=1000)["averaged"]
    both = page_of(Viewer({"a": volume, "b": volume}, page_voxels=2000))["volumes"]
    assert [item["shape"] for item in both] == [[10, 10, 10]] * 2
    monkeypatch.setattr(viewer, "_LABEL_VOXELS", 1000)
    codes = np.zeros((20, 20, 20), np.float32)
    codes[10:] = 3
    item = embedded("l", Volume(codes, np.eye(4)), "labels")
    np.testing.assert_array_equal(unpacked(item), (codes[::2, ::2, ::2] > 0).astype(np.uint8))
    np.testing.assert_allclose(np.diag(item["affine"]), [2, 2, 2, 1])
    assert item["labels"][0][2] == 4.0  # millilitres of the whole map


def test_page_names_what_is_compared_and_what_lies_over_it():
    volume = Volume(np.arange(64, dtype=np.float32).reshape(4, 4, 4), np.eye(4))
    view = Viewer({"a": volume, "b": volume}, overlays={"sd": Overlay(volume, "spread")}, compare=("b", "a"))
    page = page_of(view)
    assert [item["name"] for item in page["volumes"]] == ["b", "a"] and page["compare"] == 1
    assert page["overlay"] == 0 and page["overlays"][0]["kind"] == "spread"
    assert page_of(Viewer({"a": volume}))["compare"] is None
    with pytest.raises(InputError, match="names of two of them to compare"):
        Viewer({"a": volume}, compare=("a", "c")).html()
    with pytest.raises(InputError, match="got none"):
        Viewer({}).html()
