"""Rendered heads: covariates that do what they say, on a phantom and on real label maps."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
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
