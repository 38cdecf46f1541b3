"""A volume is checked where it is made."""

import nibabel as nib
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume, centred_affine


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "LIA", "PSR", "AIL"])
@pytest.mark.parametrize("shape", [(192, 224, 192), (5, 6, 7)])
def test_the_centred_affine_has_its_origin_in_the_middle(axcodes: str, shape: tuple[int, int, int]) -> None:
    affine = centred_affine(shape, (1.0, 2.0, 3.0), axcodes)
    middle = affine @ [*((np.array(shape) - 1) / 2), 1]
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-12)
    assert "".join(nib.aff2axcodes(affine)) == axcodes
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [1, 2, 3])


def test_a_volume_knows_its_grid() -> None:
    volume = Volume(np.ones((4, 5, 6), np.int16), centred_affine((4, 5, 6), 2.0, "LPS"))
    assert volume.array.dtype == np.float32
    assert (volume.shape, volume.spacing, volume.axcodes) == ((4, 5, 6), (2.0, 2.0, 2.0), "LPS")


def with_entry(value: float, row: int = 0, column: int = 0) -> np.ndarray:
    affine = np.eye(4)
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((4, 4)), np.eye(4), "one 3-D volume; got an array of shape 4×4"),
        (np.zeros((4, 4, 4, 2)), np.eye(4), "one 3-D volume"),
        (np.full((4, 4, 4), np.nan), np.eye(4), "got 64 NaN and 0 infinite"),
        (np.full((4, 4, 4), 1e39), np.eye(4), "got 0 NaN and 64 infinite"),
        (np.zeros((4, 4, 4)), np.eye(3), "4×4 affine"),
        (np.zeros((4, 4, 4)), with_entry(0.0), "singular"),
        (np.zeros((4, 4, 4)), np.diag([1, 1, 1, 2.0]), "last affine row"),
        (np.zeros((4, 4, 4)), with_entry(np.nan), "finite affine"),
        (np.zeros((4, 4, 4)), with_entry(1e4), "voxels of"),
        (
            np.zeros((4, 4, 4)),
            np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
            "singular",
        ),
    ],
)
def test_what_is_no_volume_is_refused_in_one_line(
    array: np.ndarray, affine: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Volume(array, affine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axcodes", ["LP", "LLS", "LRS", "XYZ", ""])
def test_axis_codes_name_each_axis_once(axcodes: str) -> None:
    with pytest.raises(InputError, match="three anatomical axes"):
        centred_affine((4, 4, 4), 1.0, axcodes)
