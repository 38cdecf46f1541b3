"""The segmenter around a network whose answer is known: a threshold, a slope, a table of probabilities."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from radiata_core.errors import InputError
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.model.segmenter import Labelling, SegmenterOptions, segment_volume

BALLS = Labelling((0, 7, 9), ("background", "dim", "bright"), (0, 1, 2), (1, 2))
SIDES = Labelling((0, 4, 5), ("background", "left", "right"), (0, 2, 1))
SMALL = SegmenterOptions(window=32, halo=4)


class Threshold(nn.Module):
    """Background below 0.25, class 1 to 0.75, class 2 above: pointwise, so that tiles cannot matter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 40.0 * torch.cat([0.25 - x, 0.25 - (x - 0.5).abs(), x - 0.75], 1)


class Slope(nn.Module):
    """Inside the head, class 1 where the image grows along x, class 2 where it falls."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rise = torch.zeros_like(x)
        rise[:, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2]
        return torch.cat([20 * (0.1 - x), 50 * rise, -50 * rise], 1)


def ball(affine: np.ndarray, shape: tuple[int, int, int], centre, radius: float) -> np.ndarray:
    """Signed distance (mm, > 0 inside) of the voxels from a sphere in the world."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return radius - np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - np.asarray(centre), axis=-1)


def scan_of(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[Volume, np.ndarray]:
    """A dim ball of 20 mm with a bright one of 8 mm beside its middle, and the signed distance from either surface."""
    outer, inner = ball(affine, shape, (0, 0, 0), 20.0), ball(affine, shape, (6, -4, 3), 8.0)
    image = np.where(inner > 0, 1.0, np.where(outer > 0, 0.5, 0.0))
    return Volume(image, affine), np.minimum(np.abs(outer), np.abs(inner))


def turned(degrees: float, spacing, shape) -> np.ndarray:
    """An oblique affine with its middle near the origin."""
    affine = centred_affine(shape, spacing, "RAS")
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    full = np.eye(4)
    full[:3, :3] = turn
    return full @ affine


def codes_of(image: np.ndarray) -> np.ndarray:
    return np.where(image > 0.75, 9, np.where(image > 0.25, 7, 0))


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR", "SLA"])
def test_labels_of_a_1_mm_scan_are_exact_on_any_axes(axcodes: str) -> None:
    volume, _ = scan_of(centred_affine((52, 56, 60), 1.0, axcodes), (52, 56, 60))
    found = segment_volume(Threshold(), volume, BALLS, SMALL)
    assert np.array_equal(found.codes, codes_of(volume.array))
    assert found.codes.dtype == np.int16 and found.window == 32


@pytest.mark.parametrize(
    ("degrees", "spacing", "shape"),
    [(12.0, (1.3, 0.9, 2.4), (40, 58, 24)), (-25.0, (0.8, 2.0, 0.8), (64, 28, 66)), (0.0, (2.0, 2.0, 2.0), (30, 28, 30))],
)  # fmt: skip
def test_labels_coincide_with_the_object_on_an_oblique_grid(degrees, spacing, shape) -> None:
    """Wrong voxels lie within one voxel of a surface, are not on one side, and volumes agree to a twentieth."""
    affine = turned(degrees, spacing, shape)
    volume, near = scan_of(affine, shape)
    found = segment_volume(Threshold(), volume, BALLS, SMALL)
    wrong = found.codes != codes_of(volume.array)
    assert near[wrong].max(initial=0.0) < max(spacing), f"{near[wrong].max():.2f} mm from a surface"
    centre = lambda mask: affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]  # noqa: E731
    for code, name, radius, inside in ((9, "bright", 8.0, 0.0), (7, "dim", 20.0, 8.0)):
        true = 4 / 3 * np.pi * (radius**3 - inside**3) / 1000
        assert found.volumes_ml[name] == pytest.approx(true, rel=0.06)
        assert found.expected_ml[name] == pytest.approx(true, rel=0.08)
        assert np.linalg.norm(centre(found.codes == code) - centre(codes_of(volume.array) == code)) < 0.15
    assert found.intracranial_ml == pytest.approx(sum(found.volumes_ml.values()))


def test_windows_leave_no_trace(generator: torch.Generator) -> None:
    volume, _ = scan_of(centred_affine((52, 56, 60), 1.0), (52, 56, 60))
    noisy = Volume(volume.array + 0.1 * torch.randn(volume.shape, generator=generator).numpy(), volume.affine)
    one = segment_volume(Threshold(), noisy, BALLS, SegmenterOptions(window=64, keep_largest=False))
    many = segment_volume(Threshold(), noisy, BALLS, SegmenterOptions(window=32, halo=4, keep_largest=False))
    again = segment_volume(Threshold(), noisy, BALLS, SegmenterOptions(window=32, halo=4, keep_largest=False))
    assert many.evaluations > one.evaluations == 1
    assert np.mean(one.codes != many.codes) < 1e-4  # ties to rounding
    np.testing.assert_allclose(one.entropy, many.entropy, atol=1e-5)
    assert np.array_equal(many.codes, again.codes) and np.array_equal(many.entropy, again.entropy)
    assert many.quality == again.quality


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "ASR"])
def test_the_mirrored_pass_exchanges_left_and_right(axcodes: str) -> None:
    """A slope changes its class in the mirror; with the exchange of channels the passes agree, without it they cancel."""
    affine = centred_affine((48, 48, 48), 1.0, axcodes)
    inside = ball(affine, (48, 48, 48), (0, 0, 0), 18.0)
    index = np.stack(np.meshgrid(*map(np.arange, (48, 48, 48)), indexing="ij"), -1)
    x = (index @ affine[:3, :3].T + affine[:3, 3])[..., 0]
    volume = Volume(
        np.where(inside > 0, 0.6 + 0.015 * -np.abs(x), 0.0), affine
    )  # brightest in the middle plane
    core = inside > 3
    left, right = core & (x < -1), core & (x > 1)
    once = segment_volume(Slope(), volume, SIDES, SMALL)
    twice = segment_volume(Slope(), volume, SIDES, SegmenterOptions(window=32, halo=4, passes=2))
    assert once.evaluations * 2 == twice.evaluations
    for found in (once, twice):
        assert set(np.unique(found.codes[left]).tolist()) == {5}
        assert set(np.unique(found.codes[right]).tolist()) == {4}
    np.testing.assert_allclose(once.entropy[core], twice.entropy[core], atol=1e-4)
    unmirrored = Labelling((0, 4, 5), ("background", "left", "right"), (0, 1, 2))
    wrong = segment_volume(Slope(), volume, unmirrored, SegmenterOptions(window=32, halo=4, passes=2))
    assert wrong.entropy[left].mean() > 0.69 > 0.3 > twice.entropy[left].mean()


def test_a_stray_piece_of_brain_is_given_to_what_lies_outside() -> None:
    shape = (64, 48, 48)
    affine = centred_affine(shape, 1.0)
    image = np.where(ball(affine, shape, (8, 0, 0), 16.0) > 0, 1.0, 0.0)
    image[ball(affine, shape, (-16, 0, 0), 5.0) > 0] = 1.0
    volume = Volume(image, affine)
    kept = segment_volume(Threshold(), volume, BALLS, SMALL)
    free = segment_volume(Threshold(), volume, BALLS, SegmenterOptions(window=32, halo=4, keep_largest=False))
    stray = ball(affine, shape, (-16, 0, 0), 5.0) > 0
    assert (free.codes[stray] == 9).all() and (kept.codes[stray] == 0).all()
    assert np.array_equal(free.codes[~stray], kept.codes[~stray])


class Probabilities(nn.Module):
    """log p as logits: the image itself is the probability of class 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = x.clamp(1e-6, 1 - 1e-6)
        return torch.cat([(1 - p).log(), p.log()], 1)


def test_quality_is_the_mean_dice_of_truths_drawn_from_the_probabilities(rng: np.random.Generator) -> None:
    """20 truths: the mean of their Dice lies within 4 standard errors (one false alarm in 16 000) of the forecast."""
    shape = (48, 48, 48)
    p = np.clip(0.5 + ball(centred_affine(shape, 1.0), shape, (0, 0, 0), 16.0) / 8, 0, 1).astype(np.float32)
    one = Labelling((0, 1), ("background", "thing"), (0, 1))
    found = segment_volume(Probabilities(), Volume(p, centred_affine(shape, 1.0)), one, SMALL)
    marked = found.codes == 1
    scores = []
    for _ in range(20):
        truth = rng.random(shape) < p
        scores.append(2 * (truth & marked).sum() / (truth.sum() + marked.sum()))
    error = np.std(scores) / np.sqrt(20) + 1e-4  # the ratio of means is not the mean of ratios
    assert abs(found.quality - np.mean(scores)) < 4 * error
    assert found.dice == {"thing": found.quality}
    entropy = -(p * np.log(np.clip(p, 1e-9, 1)) + (1 - p) * np.log(np.clip(1 - p, 1e-9, 1)))
    np.testing.assert_allclose(found.entropy, entropy, atol=2e-3)


def test_posteriors_are_kept_when_asked() -> None:
    shape = (48, 48, 48)
    affine = centred_affine(shape, 1.0, "RAS")
    p = np.clip(0.5 + ball(affine, shape, (0, 3, 0), 16.0) / 8, 0, 1).astype(np.float32)
    one = Labelling((0, 6), ("background", "thing"), (0, 1))
    options = SegmenterOptions(window=32, halo=4, posteriors=True)
    found = segment_volume(Probabilities(), Volume(p, affine), one, options)
    assert found.probability is not None
    np.testing.assert_allclose(found.probability(6), p, atol=0.5 / 255 + 1e-3)
    np.testing.assert_allclose(found.probability(6) + found.probability(0), 1, atol=1 / 255 + 1e-6)
    assert segment_volume(Probabilities(), Volume(p, affine), one, SMALL).probability is None


class Largest(TorchDispatchMode):
    """The most numbers in one tensor."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // 4)
        return out


class Many(nn.Module):
    """Twenty classes of bands of intensity."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -((x - torch.linspace(0, 1, 20).reshape(1, -1, 1, 1, 1)) * 20).square()


def test_no_tensor_of_all_classes_and_all_voxels_is_made() -> None:
    shape = (80, 32, 32)
    volume = Volume(
        np.clip(ball(centred_affine(shape, 1.0), shape, (0, 0, 0), 40.0) / 40, 0, 1),
        centred_affine(shape, 1.0),
    )
    many = Labelling(tuple(range(20)), tuple(map(str, range(20))), tuple(range(20)), tuple(range(1, 20)))
    watch = Largest()
    with watch:
        found = segment_volume(Many(), volume, many, SMALL)
    assert np.unique(found.codes).size > 10
    assert watch.numbers == 20 * 32 * 32 * 32  # one slab; the whole has 2.5 times as many


class Hungry(Threshold):
    """Takes no window above 48 voxels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] > 48:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate a lot"
            )
        return super().forward(x)


def test_smaller_windows_where_memory_runs_out() -> None:
    volume, _ = scan_of(centred_affine((80, 80, 80), 1.0), (80, 80, 80))
    said: list[str] = []
    found = segment_volume(Hungry(), volume, BALLS, SegmenterOptions(window=64), warn=said.append)
    assert (
        found.window == 48
        and len(said) == 1
        and "64 voxels do not fit into memory; going on with 48" in said[0]
    )
    assert np.array_equal(found.codes, codes_of(volume.array))
    with pytest.raises(RuntimeError, match="another trouble"):
        segment_volume(Troubled(), volume, BALLS)


class Troubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("another trouble")


def test_an_ensemble_is_the_mean_of_its_probabilities() -> None:
    shape = (48, 48, 48)
    affine = centred_affine(shape, 1.0)
    p = np.clip(0.5 + ball(affine, shape, (0, 0, 0), 16.0) / 8, 0, 1).astype(np.float32)

    class Shy(Probabilities):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(0.5 * x)

    one = Labelling((0, 1), ("background", "thing"), (0, 1))
    options = SegmenterOptions(window=32, halo=4, posteriors=True)
    found = segment_volume([Probabilities(), Shy()], Volume(p, affine), one, options)
    assert found.probability is not None
    np.testing.assert_allclose(found.probability(1), 0.75 * p, atol=0.5 / 255 + 1e-3)


def test_report_counts_the_windows() -> None:
    volume, _ = scan_of(centred_affine((52, 56, 60), 1.0), (52, 56, 60))
    seen: list[tuple[int, int]] = []
    segment_volume(
        Threshold(), reorient(volume, "RAS"), BALLS, SMALL, report=lambda *counts: seen.append(counts)
    )
    assert [number for number, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_bad_input_is_named() -> None:
    volume, _ = scan_of(centred_affine((48, 48, 48), 1.0), (48, 48, 48))
    with pytest.raises(InputError, match="network of 3 classes"):
        segment_volume(Probabilities(), volume, BALLS, SMALL)
    with pytest.raises(InputError, match="one intensity everywhere"):
        segment_volume(Threshold(), Volume(np.zeros((32, 32, 32)), np.eye(4)), BALLS, SMALL)
    with pytest.raises(InputError, match="divides by 16"):
        SegmenterOptions(window=40)
    with pytest.raises(InputError, match="1 to 6 passes"):
        SegmenterOptions(passes=7)
    with pytest.raises(InputError, match="temperature > 0"):
        SegmenterOptions(temperature=0.0)
    with pytest.raises(InputError, match="mirror channel"):
        Labelling((0, 1, 2), ("a", "b", "c"), (1, 2, 0))
