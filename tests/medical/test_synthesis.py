"""Rendered scans: exact labels, known means, one generator."""

import dataclasses

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_medical.data.contrasts import GROUPS
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.structures import CODES, CONTRAST, FLIPPED, TISSUES, channels_of
from radiata_medical.data.synthesis import Head, ScanSpec, head_of, synthesise

from .small_head import SHAPE, small_head

STILL = ScanSpec(
    shape=SHAPE,
    rotation=0.0,
    scale=(1.0, 1.0),
    warp=0.0,
    contrasts=(("t1", 1.0),),
    texture=(0.0, 0.0),
    grain=(0.0, 0.0),
    blur=(1e-3, 1e-3),
    bias=(0.0, 0.0),
    level=(1.0, 1.0),
    flip=False,
)
"""Nothing moves and nothing varies but the means of the tissues."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still_head(codes: np.ndarray | None = None) -> Head:
    """The window of `STILL` is the map, because it is centred where the map is."""
    head = head_of(small_head() if codes is None else codes)
    head.centres = (torch.tensor(head.index.shape) - 1.0)[None] / 2
    return head


def still(**changes: object) -> ScanSpec:
    return dataclasses.replace(STILL, **{"inside": 1.0} | changes)  # type: ignore[arg-type]


def test_without_motion_labels_are_the_map_and_the_image_its_means() -> None:
    scan = synthesise(still_head(), still(), seeded(0))
    codes = small_head()
    assert np.array_equal(scan.labels.numpy(), channels_of(codes))
    for tissue, mean in zip(CONTRAST, scan.contrast.tolist(), strict=True):
        groups = [group for group in GROUPS.values() if set(group) & set(TISSUES[tissue])]
        assert groups
        inside = np.isin(codes, TISSUES[tissue])
        assert float(scan.image.numpy()[inside].mean(dtype=np.float64)) == pytest.approx(mean, rel=1e-5)


def test_labels_of_a_window_are_those_of_its_place() -> None:
    """A smaller window is the crop about its centre, padded with background where it leaves the map."""
    head, codes = still_head(), small_head()
    head.centres = torch.tensor([[10.0, 30.0, 24.0]]) - 0.5  # voxels 2 - 16 ... of a window of 16 along x
    scan = synthesise(head, still(shape=(32, 16, 8)), seeded(0))
    padded = np.pad(codes, ((16, 0), (0, 0), (0, 0)))
    expected = padded[10 - 16 + 16 : 10 + 16 + 16, 30 - 8 : 30 + 8, 24 - 4 : 24 + 4]
    assert np.array_equal(np.array(CODES)[scan.labels.numpy()], expected)


def test_labels_and_image_move_by_the_drawn_affine_together() -> None:
    """A turned and scaled rendering is still constant within each label: nothing of the image is off its labels."""
    spec = still(rotation=20.0, scale=(0.9, 1.1), warp=2.0)
    scan = synthesise(still_head(), spec, seeded(4))
    assert not np.array_equal(scan.labels.numpy(), channels_of(small_head()))
    for channel in scan.labels.unique().tolist():
        values = scan.image[scan.labels == channel]
        assert float(values.max() - values.min()) < 1e-5


def test_a_magnified_ball_keeps_its_known_volume() -> None:
    """Scales of 1.2 along every axis: 1.2^3 times the voxels, to the discretisation of the surface."""
    place = np.indices((64, 64, 64)) - 31.5
    codes = np.where((place**2).sum(0) < 15**2, 10, 0).astype(np.int16)
    scan = synthesise(
        still_head(codes), still(shape=(64, 64, 64), scale=(1.2, 1.2), rotation=30.0), seeded(0)
    )
    assert int((scan.labels > 0).sum()) == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.02)


def test_a_mirrored_scan_is_the_mirror_with_its_sides_swapped() -> None:
    """Seeds that flip and seeds that do not, about half of 40 each; a flip mirrors the first axis and changes the sides."""
    codes = small_head()[::2, ::2, ::2].copy()
    codes[15:17, 10:20, 5:10] = 17  # a structure on one side only
    head = still_head(codes)
    plain = channels_of(codes)
    mirrored = np.array(FLIPPED)[plain[::-1]]
    kinds = []
    for seed in range(40):
        labels = synthesise(head, still(flip=True, shape=codes.shape), seeded(seed)).labels.numpy()
        assert np.array_equal(labels, plain) or np.array_equal(labels, mirrored)
        kinds.append(np.array_equal(labels, mirrored))
    assert 8 <= sum(kinds) <= 32  # beyond it with probability < 2e-4
    left = np.isin(labels, [CODES.index(2)])
    assert np.argwhere(left)[:, 0].mean() > (len(labels) - 1) / 2  # left stays where the first index is large


def test_white_is_the_rule_on_the_whole_head() -> None:
    """A window of the brain is in units of the white that the whole head has."""
    head = still_head()
    for seed in range(4):
        # Control points so far apart that the window draws as many numbers as the head.
        spec = still(contrasts=(("random", 1.0),), warp_length=1e3)
        whole = synthesise(head, spec, seeded(seed))
        assert IntensityScale.of(whole.image.numpy()).white == pytest.approx(1.0, rel=1e-4)
        window = synthesise(head, dataclasses.replace(spec, shape=(16, 16, 16)), seeded(seed))
        assert torch.equal(window.contrast, whole.contrast)
        assert torch.allclose(window.image, whole.image[20:36, 24:40, 16:32])


def test_level_divides_white() -> None:
    one, two = (synthesise(still_head(), still(level=(v, v)), seeded(0)) for v in (1.0, 0.5))
    assert torch.allclose(two.image, 0.5 * one.image) and torch.allclose(two.contrast, 0.5 * one.contrast)


def test_texture_leaves_the_means_of_large_tissues() -> None:
    """Within 5 standard errors of an independent texture, and the grain's few effective voxels."""
    spec = still(texture=(0.05, 0.05), grain=(0.05, 0.05))
    scan = synthesise(still_head(), spec, seeded(1))
    for tissue, mean in zip(CONTRAST, scan.contrast.tolist(), strict=True):
        inside = torch.from_numpy(np.isin(small_head(), TISSUES[tissue]))
        values = scan.image[inside].double()
        assert abs(float(values.mean()) - mean) < 5 * 0.08 / np.sqrt(int(inside.sum()) / 27), tissue
        assert 0.001 < float(values.std()) < 0.15


def test_a_tissue_that_is_not_there_has_no_contrast() -> None:
    codes = small_head()
    codes[np.isin(codes, TISSUES["deep grey"])] = 0
    scan = synthesise(head_of(codes), STILL, seeded(0))
    assert torch.isnan(scan.contrast).tolist() == [name == "deep grey" for name in CONTRAST]


def test_noise_has_its_sd_and_bias_is_smooth() -> None:
    clean = synthesise(still_head(), still(), seeded(0))
    noisy = synthesise(still_head(), still(noise=(0.05, 0.05)), seeded(0))
    bright = clean.image > 0.4  # where the magnitude is that of the sum
    assert float((noisy.image - clean.image)[bright].std()) == pytest.approx(0.05, rel=0.02)
    assert float(noisy.image.min()) >= 0.0
    biased = synthesise(still_head(), still(bias=(0.2, 0.2)), seeded(0))
    field = torch.log(biased.image / clean.image)[4:-4, 4:-4, 4:-4]
    assert 0.02 < float(field.std()) < 0.6
    assert float(field.diff(dim=0).abs().max()) < 0.2 * 1.3 * 8 / (
        SHAPE[0] / 3
    )  # linear between four knots an axis


def test_thick_slices_blur_one_axis_only_and_any() -> None:
    """Edges across one axis become smaller; those across the two others are what they were along its middle."""
    codes = np.zeros((32, 32, 32), np.int16)
    codes[8:24, 8:24, 8:24] = 2
    head, axes = still_head(codes), set()
    for seed in range(8):  # the same axis eight times: probability 3^-7
        spec = still(shape=(32, 32, 32))
        sharp = synthesise(head, spec, seeded(seed)).image
        thick = synthesise(head, dataclasses.replace(spec, thickness=(5.0, 5.0)), seeded(seed)).image
        steepest = [float(thick.diff(dim=a).abs().max() / sharp.diff(dim=a).abs().max()) for a in range(3)]
        assert sorted(round(s, 2) for s in steepest)[1:] == [1.0, 1.0] and min(steepest) < 0.4
        axes.add(int(np.argmin(steepest)))
    assert axes == {0, 1, 2}


def test_blur_is_gaussian_and_keeps_the_sum() -> None:
    codes = np.zeros((32, 32, 32), np.int16)
    codes[16, 16, 16] = 2
    codes[0, 0, 0] = 24
    sharp = synthesise(still_head(codes), still(shape=(32, 32, 32)), seeded(0)).image
    soft = synthesise(still_head(codes), still(shape=(32, 32, 32), blur=(1.5, 1.5)), seeded(0)).image
    block = soft[8:25, 8:25, 8:25] - float(soft[8, 8, 8])
    x = torch.arange(-8.0, 9.0)
    marginal = block.sum((1, 2))
    assert float((x**2 * marginal).sum() / marginal.sum()) == pytest.approx(1.5**2, rel=0.05)
    assert float(marginal.sum()) == pytest.approx(float(sharp[16, 16, 16] - sharp[8, 8, 8]), rel=0.01)


def test_a_scan_is_a_function_of_its_generator() -> None:
    """Of everything that is random; the global generator has no part in it (a fixture checks)."""
    spec = ScanSpec(
        shape=(24, 32, 16), noise=(0.0, 0.1), thickness=(1.0, 4.0), gamma=0.2, turn=True, bias=(0.0, 0.3)
    )
    head = head_of(small_head())
    one, two, other = (synthesise(head, spec, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one.image, two.image) and torch.equal(one.labels, two.labels)
    assert not torch.equal(one.image, other.image) and not torch.equal(one.labels, other.labels)
    assert one.image.dtype == torch.float32 and one.labels.dtype == torch.uint8
    assert bool(torch.isfinite(one.image).all()) and float(one.image.min()) >= 0


def test_slices_of_every_direction() -> None:
    """With `turn`, the window of one voxel's depth lies across each of the axes, for some seeds."""
    codes = np.zeros((24, 24, 24), np.int16)
    codes[:8] = 2
    codes[:, :8][codes[:, :8] == 0] = 3
    codes[:, :, :8][codes[:, :, :8] == 0] = 10
    codes[codes == 0] = 24
    kinds = set()
    for seed in range(20):
        scan = synthesise(still_head(codes), still(shape=(24, 24, 1), turn=True), seeded(seed))
        assert scan.image.shape == (24, 24, 1)
        kinds.add(tuple(np.unique(np.array(CODES)[scan.labels.numpy()]).tolist()))
    assert kinds == {(2, 3, 24), (2, 10, 24), (3, 10, 24)}


def test_a_stored_scan_is_bent_with_its_labels() -> None:
    """Its brightness tells the label of each voxel inside, whatever the affine; its contrast is not known."""
    codes = small_head()
    image = channels_of(codes).astype(np.float16) / 35
    head = head_of(codes, image=image)
    head.centres = (torch.tensor(SHAPE) - 1.0)[None] / 2
    scan = synthesise(head, still(rendered=False), seeded(0))
    assert torch.allclose(scan.image, torch.from_numpy(image.astype(np.float32)), atol=1e-5)
    assert torch.isnan(scan.contrast).all()
    turned = synthesise(head, still(rendered=False, rotation=15.0, warp=1.0), seeded(0))
    deep = turned.labels == CODES.index(
        165
    )  # the middle of a shell: interpolation sees neighbours at its rims only
    assert float((turned.image[deep] * 35).median()) == pytest.approx(CODES.index(165), abs=0.1)
    with pytest.raises(InputError, match="a scan with every label map"):
        synthesise(head_of(codes), still(rendered=False), seeded(0))


def test_many_codes_are_rendered() -> None:
    codes = np.zeros((20, 20, 4), np.int16)
    codes.flat[:700] = np.r_[1000:1350, 2000:2350]
    scan = synthesise(still_head(codes), still(shape=(20, 20, 4)), seeded(0))
    assert np.array_equal(scan.labels.numpy(), channels_of(codes))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_geometry_and_contrast_do_not_depend_on_the_device() -> None:
    spec = ScanSpec(shape=(32, 32, 32))
    here, there = (synthesise(head_of(small_head(), d), spec, seeded(0)) for d in ("cpu", "cuda"))
    assert float((here.labels != there.labels.cpu()).float().mean()) < 1e-3
    assert torch.allclose(here.contrast, there.contrast.cpu())
