"""Rendered heads: covariates that do what they say, on a phantom and on real label maps."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, map_coordinates

from radiata_core.errors import InputError
from radiata_imaging import cohort
from radiata_imaging.cohort import COVARIATES, Anatomy, CohortSpec, region_volumes, render_head

SPEC = CohortSpec(
    rotation=0.0,
    translation=0.0,
    head_scale=(1.0, 1.0),
    brain_scale=(0.0, 0.0),
    ventricle_growth=(0.0, 0.0),
    cortical_thinning=(0.0, 0.0),
    warp_amplitude=0.0,
)


@pytest.fixture(scope="module")
def phantom() -> Anatomy:
    """Concentric ellipsoids: scalp, bone, fluid, cortex, white matter, two ventricles; 1 mm voxels."""
    axes = [np.arange(n) - (n - 1) / 2 for n in (192, 224, 192)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 70) ** 2 + (y / 85) ** 2 + (z / 65) ** 2)
    labels = np.zeros(radius.shape, np.int16)
    for edge, code in ((1.25, 511), (1.15, 515), (1.05, 24), (1.0, 3), (0.85, 2)):
        labels[radius < edge] = code
    for side, code in ((-12, 43), (12, 4)):
        labels[((x - side) / 8) ** 2 + (y / 25) ** 2 + (z / 10) ** 2 < 1] = code
    labels[(x > 0) & (labels == 2)] = 41
    return Anatomy(labels, 1.0, "phantom")


def test_identity_rendering_keeps_volumes(phantom: Anatomy) -> None:
    head = render_head(phantom, SPEC, np.random.default_rng(0))
    truth = region_volumes(phantom.labels, 1.0 / 1000)
    for region in ("brain", "ventricles", "cerebral cortex"):
        assert abs(head.volumes[region] / truth[region] - 1) < 0.02
    ellipsoids = 2 * 4 / 3 * np.pi * 8 * 25 * 10 / 1000
    assert abs(truth["ventricles"] / ellipsoids - 1) < 0.05
    assert head.image.min() == -1 and head.image.max() == 1 and head.smallest_jacobian > 0.99


@pytest.mark.parametrize(
    ("option", "low", "high", "region", "factor"),
    [
        ("head_scale", (0.93, 0.93), (1.07, 1.07), "brain", 1.4),
        ("brain_scale", (-0.04, -0.04), (0.04, 0.04), "brain", 1.08),
        ("ventricle_growth", (-1.5, -1.5), (5.0, 5.0), "ventricles", 1.5),
    ],
)
def test_covariates_move_what_they_name(
    phantom: Anatomy,
    option: str,
    low: tuple[float, float],
    high: tuple[float, float],
    region: str,
    factor: float,
) -> None:
    """The same head at both ends of a covariate: its region grows clearly."""
    ends = [
        render_head(phantom, replace(SPEC, **{option: end}), np.random.default_rng(1)) for end in (low, high)
    ]
    assert ends[1].volumes[region] > factor * ends[0].volumes[region]
    if option == "head_scale":
        assert ends[1].volumes["brain"] / ends[0].volumes["brain"] == pytest.approx(
            (1.07 / 0.93) ** 3, rel=0.03
        )
    else:
        assert abs(ends[1].volumes["skull"] / ends[0].volumes["skull"] - 1) < 0.15


def test_thinning_takes_cortex_and_widens_ventricles(phantom: Anatomy) -> None:
    """The cerebrum shrinks at both of its surfaces, as in atrophy; white matter between them keeps its volume.

    The phantom is sampled off its own grid: at half-voxels every displacement below a voxel would round alike.
    """
    shifted = Anatomy(phantom.labels, phantom.spacing, phantom.name)
    shifted.centre = shifted.centre + 0.3
    ends = [
        render_head(shifted, replace(SPEC, cortical_thinning=(mm, mm)), np.random.default_rng(2)).volumes
        for mm in (0.0, 0.6, 1.2)
    ]
    for less, more in itertools.pairwise(ends):
        assert more["cerebral cortex"] < 0.97 * less["cerebral cortex"]
        assert 1.02 < more["ventricles"] / less["ventricles"] < 1.25
        assert more["cerebral white matter"] == pytest.approx(less["cerebral white matter"], rel=0.01)


def test_a_head_depends_on_its_own_generator_only(phantom: Anatomy) -> None:
    spec = CohortSpec()
    first = render_head(phantom, spec, np.random.default_rng([1, 2]))
    render_head(phantom, spec, np.random.default_rng([1, 3]))
    again = render_head(phantom, spec, np.random.default_rng([1, 2]))
    assert np.array_equal(first.image, again.image)
    assert first.covariates == again.covariates and set(first.covariates) == set(COVARIATES)
    assert first.smallest_jacobian > 0


def test_an_image_is_not_a_label_map() -> None:
    with pytest.raises(InputError, match="expected FreeSurfer brain codes"):
        Anatomy(np.ones((20, 20, 20), np.int16), 1.0, "x")
    with pytest.raises(InputError, match="integer label map"):
        Anatomy(np.ones((20, 20, 20), np.float32), 1.0, "x")


# 1 mm ---------------------------------------------------------------------------------------------------------------

FINE = replace(
    SPEC,
    spacing=1.0,
    shape=(48, 56, 48),
    psf=0.6,
    bias=(0.0, 0.0),
    noise=(0.0, 0.0),
    percentiles=(0.0, 100.0),
)
"""No deformation, no scanner but its blur: a twentieth of a head at 1 mm."""


@pytest.fixture(scope="module")
def ball() -> Anatomy:
    """A brain of 15 mm around a ventricle, in skin, in a label map of 40 x 44 x 42 voxels of 1 mm."""
    axes = [np.arange(n) - (n - 1) / 2 for n in (40, 44, 42)]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    labels = np.zeros(radius.shape, np.int16)
    for edge, code in ((18, 511), (15, 3), (12, 2), (6, 4)):
        labels[radius < edge] = code
    return Anatomy(labels, 1.0, "ball")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Intensity of each code, without a texture."""
    table = np.zeros(512, np.float32)
    table[[3, 2, 4, 511]] = 120.0, 160.0, 40.0, 90.0
    monkeypatch.setattr(cohort, "intensities_of", lambda codes, rng: table[codes])
    return table


def test_undeformed_head_is_the_blurred_drawing(ball: Anatomy, plain: np.ndarray) -> None:
    """Where no voxel moves, the image is the drawing filtered by scipy, and the labels are the map in background."""
    head = render_head(ball, FINE, np.random.default_rng(0))
    labels = np.pad(ball.labels, [(4, 4), (6, 6), (3, 3)])
    assert np.array_equal(head.labels, labels)
    drawing = plain[labels].astype(np.float64)
    for axis in range(3):  # variance 2 w = psf^2
        drawing = correlate1d(drawing, [0.18, 0.64, 0.18], axis, mode="constant")
    assert np.abs(head.image - (2 * drawing / drawing.max() - 1)).max() < 1e-5
    assert head.volumes == region_volumes(ball.labels, 1.0 / 1000)


def test_outside_the_label_map_is_air(ball: Anatomy) -> None:
    """Also where the label map ends in a head, and where nothing of it is seen."""
    full = Anatomy(np.where(ball.labels == 0, 511, ball.labels).astype(np.int16), 1.0, "full")
    labels = render_head(full, FINE, np.random.default_rng(0)).labels
    assert np.array_equal(labels, np.pad(full.labels, [(4, 4), (6, 6), (3, 3)]))
    beside = Anatomy(ball.labels, 1.0, "beside")
    beside.centre = beside.centre + 1000.0
    head = render_head(beside, replace(FINE, noise=(0.01, 0.01)), np.random.default_rng(0))
    assert not head.labels.any() and head.image.std() > 0


def test_fine_volumes_grow_with_the_cube_of_the_scale(ball: Anatomy) -> None:
    off = Anatomy(ball.labels, 1.0, "off its own grid, where borders do not all round alike")
    off.centre = off.centre + np.array([0.2, 0.3, 0.17])
    volumes = [
        render_head(off, replace(FINE, head_scale=(s, s)), np.random.default_rng(1)).volumes
        for s in (0.93, 1.07)
    ]
    for region in ("brain", "cerebral white matter", "ventricles"):
        assert volumes[1][region] / volumes[0][region] == pytest.approx((1.07 / 0.93) ** 3, rel=0.03)


def test_a_turn_and_a_shift_land_where_they_should(ball: Anatomy, plain: np.ndarray) -> None:
    """Output position p shows the label map at A p + b: by scipy's linear interpolation of the blurred drawing."""
    rng = np.random.default_rng(5)
    matrix, shift = cohort._affine(rng, CohortSpec(), 0.95)
    still = torch.zeros(3, *FINE.of_warp.shape)
    image, labels = cohort._blurred(ball, FINE, still, matrix, shift, rng)
    drawing = np.pad(plain[ball.labels], 12).astype(np.float64)
    for axis in range(3):
        drawing = correlate1d(drawing, [0.18, 0.64, 0.18], axis)
    place = np.einsum("ij,jxyz->ixyz", matrix, cohort._positions(FINE.shape, 1.0).astype(np.float64))
    place += (shift + ball.centre + 12.0).reshape(3, 1, 1, 1)
    assert np.abs(image - map_coordinates(drawing, place, order=1)).max() < 0.02
    nearest = map_coordinates(np.pad(ball.labels, 12), place, order=0)
    assert (labels != nearest).mean() < 1e-4  # positions between two voxels


def test_one_seed_is_one_anatomy_at_every_spacing(ball: Anatomy) -> None:
    """The warp's grid has 4 mm whatever the voxels, so covariates and the warp are the same numbers, volumes nearly so."""
    for spacing in (1.0, 2.0, 4.0):
        assert CohortSpec.of_spacing(spacing).of_warp.shape == (48, 56, 48)
        assert CohortSpec.of_spacing(spacing).of_warp.spacing == 4.0
    fine = CohortSpec(spacing=1.0, shape=(48, 56, 48), psf=0.6)
    coarse = CohortSpec(spacing=2.0, shape=(24, 28, 24))
    one, two = (render_head(ball, spec, np.random.default_rng(7)) for spec in (fine, coarse))
    assert one.smallest_jacobian == two.smallest_jacobian
    for name in COVARIATES[:4]:
        assert one.covariates[name] == two.covariates[name]
    for region in ("brain", "cerebral white matter", "ventricles"):
        assert one.volumes[region] == pytest.approx(two.volumes[region], rel=0.01)
    again = render_head(ball, fine, np.random.default_rng(7))
    assert np.array_equal(one.image, again.image) and np.array_equal(one.labels, again.labels)


def test_labels_of_sub_voxels_are_those_of_the_plain_formula(ball: Anatomy) -> None:
    """Plane by plane equals the whole at once, voxel for voxel: seeds keep their heads."""
    spec = CohortSpec(spacing=2.0, shape=(24, 28, 24))
    rng = np.random.default_rng(3)
    displacement = torch.from_numpy(rng.normal(0, 1.5, (3, *spec.of_warp.shape)).astype(np.float32))
    matrix, shift = cohort._affine(rng, spec, 1.02)
    image, labels = cohort._averaged(ball, spec, displacement, matrix, shift, np.random.default_rng(4))
    dense = torch.nn.functional.interpolate(displacement[None], size=labels.shape, mode="trilinear")[
        0
    ].numpy()
    warped = (cohort._positions(labels.shape, 1.0) + dense).reshape(3, -1)
    source = matrix.astype(np.float32) @ warped + shift.astype(np.float32)[:, None]
    index = np.rint(source + ball.centre.astype(np.float32)[:, None]).astype(int) + 50
    expected = np.pad(ball.labels, 50)[*index].reshape(labels.shape)
    assert np.array_equal(labels, expected)
    fine = cohort.intensities_of(expected, np.random.default_rng(4))
    blocks = fine.reshape(24, 2, 28, 2, 24, 2).mean((1, 3, 5), dtype=np.float32)
    assert np.array_equal(image, blocks)


@pytest.mark.needs_shared
def test_real_label_maps_give_plausible_brains(shared_data: Path) -> None:
    """A real anatomy at the middle of all ranges: adult volumes, and grey / white contrast of a T1."""
    from radiata_imaging.nifti import read_volume
    from radiata_imaging.orientation import reorient

    volume = reorient(read_volume(shared_data / "labels" / "training_seg_01.nii.gz"), "LPS")
    anatomy = Anatomy(np.rint(volume.array).astype(np.int16), 1.0, "01")
    head = render_head(anatomy, CohortSpec(), np.random.default_rng(0))
    assert 800 < head.volumes["brain"] < 1700
    assert 5 < head.volumes["ventricles"] < 150
    blocks = head.labels.reshape(48, 2, 56, 2, 48, 2).transpose(0, 2, 4, 1, 3, 5).reshape(48, 56, 48, 8)
    pure = blocks.min(-1) == blocks.max(-1)
    code = blocks[..., 0]
    white, grey, csf = (
        head.image[pure & np.isin(code, codes)].mean() for codes in ((2, 41), (3, 42), (4, 43, 24))
    )
    assert csf < grey < white
    assert 0.6 < (grey + 1) / (white + 1) < 0.9
