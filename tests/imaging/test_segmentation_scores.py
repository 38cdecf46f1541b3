"""Agreement of label maps: boxes and planes of which everything is known, MONAI's own functions beside."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_imaging.segmentation_scores import score_labels, score_masks

SPACING = (1.0, 0.5, 3.0)


def box(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 3, 10])
def test_dice_of_shifted_boxes(shift: int) -> None:
    """A box of 10 × 6 × 5 shifted along its long edge shares (10 - k)/10 of itself."""
    one, other = (
        box((30, 10, 9), (5, 2, 2), (15, 8, 7)),
        box((30, 10, 9), (5 + shift, 2, 2), (15 + shift, 8, 7)),
    )
    found = score_masks(other, one, SPACING)
    assert found.dice == pytest.approx((10 - shift) / 10)
    assert found.volume_ml == found.reference_ml == pytest.approx(300 * 1.5 / 1000)
    assert found.volume_error_ml == 0


@pytest.mark.parametrize(("axis", "edge"), list(enumerate(SPACING)))
def test_parallel_planes_at_known_millimetres(axis: int, edge: float) -> None:
    """Two sheets of one voxel, k voxels apart: every surface distance is k edges of that axis."""
    one, other = np.zeros((2, 20, 20, 20), bool)
    np.moveaxis(one, axis, 0)[5] = True
    np.moveaxis(other, axis, 0)[8] = True
    found = score_masks(one, other, SPACING, tolerance=3 * edge)
    assert found.hd95_mm == pytest.approx(3 * edge) and found.assd_mm == pytest.approx(3 * edge)
    assert found.surface_dice == 1.0
    assert score_masks(one, other, SPACING, tolerance=3 * edge - 0.01).surface_dice == 0.0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns of itself
def test_figures_are_monais(rng: np.random.Generator) -> None:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )
    from scipy.ndimage import gaussian_filter

    one, other = gaussian_filter(rng.normal(size=(2, 24, 22, 20)), (0, 2, 2, 2)) > 0.02
    p, r = (torch.from_numpy(mask)[None, None] for mask in (one, other))
    options = {"include_background": True, "spacing": list(SPACING)}
    found = score_masks(one, other, SPACING, 1.5)
    assert found.hd95_mm == pytest.approx(float(compute_hausdorff_distance(p, r, percentile=95, **options)))
    assert found.surface_dice == pytest.approx(float(compute_surface_dice(p, r, [1.5], **options)), abs=1e-5)
    there, back = (float(compute_average_surface_distance(*pair, **options)) for pair in ((p, r), (r, p)))
    assert min(there, back) - 1e-6 <= found.assd_mm <= max(there, back) + 1e-6
    symmetric = compute_average_surface_distance(p, r, symmetric=True, **options)
    assert found.assd_mm == pytest.approx(float(symmetric), rel=1e-5)


def test_absent_structures() -> None:
    """In neither map: no score. In one: nothing agrees, and no distance is large enough."""
    codes = np.zeros((8, 8, 8), np.int16)
    other = codes.copy()
    other[2:4, 2:4, 2:4] = 10
    found = score_labels(codes, other, (1, 1, 1), {"neither": [99], "missed": [10]})
    assert np.isnan([found["neither"].dice, found["neither"].hd95_mm, found["neither"].surface_dice]).all()
    assert found["neither"].volume_ml == 0
    assert found["missed"].dice == 0 and found["missed"].surface_dice == 0
    assert np.isinf([found["missed"].hd95_mm, found["missed"].assd_mm]).all()
    assert found["missed"].volume_error_ml == pytest.approx(-0.008)


def test_groups_join_their_codes() -> None:
    """Left and right exchanged: each side is wrong, the pair is right. Order and mirror of the maps do not matter."""
    truth, swapped = np.zeros((2, 12, 8, 8), np.int16)
    truth[1:5, 2:6, 2:6], truth[7:11, 2:6, 2:6] = 2, 41
    swapped[1:5, 2:6, 2:6], swapped[7:11, 2:6, 2:6] = 41, 2
    found = score_labels(swapped, truth, SPACING, {"left": [2], "right": [41], "both": [2, 41]})
    assert found["left"].dice == found["right"].dice == 0 and found["both"].dice == 1
    turned = score_labels(truth[::-1], swapped[::-1], SPACING, {"both": [2, 41], "left": [2]})
    assert turned["left"].hd95_mm == pytest.approx(found["left"].hd95_mm)


def test_images_of_two_axes() -> None:
    one, other = box((12, 12), (2, 2), (8, 8)), box((12, 12), (4, 2), (10, 8))
    found = score_masks(one, other, (2.0, 1.0))
    assert found.dice == pytest.approx(2 / 3) and found.hd95_mm == pytest.approx(4.0)


def test_bad_input() -> None:
    mask = np.ones((4, 4), bool)
    with pytest.raises(InputError, match="one shape"):
        score_masks(mask, mask[:2], (1, 1))
    with pytest.raises(InputError, match="a spacing for each axis"):
        score_masks(mask, mask, (1, 1, 1))
    with pytest.raises(InputError, match="tolerance >= 0"):
        score_masks(mask, mask, (1, 1), -1)
    with pytest.raises(InputError, match="whole codes in the reference"):
        score_labels(mask.astype(int), mask.astype(float), (1, 1), {"a": [1]})
