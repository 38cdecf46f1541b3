"""Sampled segmentation with an exact network: the law of drawn label maps against the enumerated posterior."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import ddpm, integrate
from radiata_medical.model.diffusion_segmenter import build_joint, label_times, segment_slices
from radiata_medical.model.draw_statistics import entropy_of, surface_sd

_file = Path(__file__).parents[1] / "core" / "joint_world.py"
_spec = importlib.util.spec_from_file_location("joint_world", _file)
assert _spec is not None and _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules["joint_world"] = world
_spec.loader.exec_module(world)

CHAIN = world.Chain(6, (-0.5, 0.5), 1.0, 2.0, (0.0, 0.15))
IMAGE = 0.1
DRAWS = 3000


def volume(slices: int = 1) -> np.ndarray:
    """The chain along x, one voxel in y: every slice is the same ambiguous image."""
    return np.full((6, 1, slices), IMAGE, np.float32)


def exact(noise: float = 0.0) -> torch.Tensor:
    """p(map | image), (64,)."""
    return CHAIN.posterior(
        torch.full((1, 6), IMAGE), torch.tensor([noise]), torch.zeros(1, 2, 6), torch.tensor([torch.inf])
    )[0]


def law_of(maps: np.ndarray) -> np.ndarray:
    """Frequencies of the 64 maps among (draw, 6)."""
    return np.bincount(maps @ (2 ** np.arange(5, -1, -1)), minlength=64) / len(maps)


@pytest.fixture(scope="module")
def sampled():
    return segment_slices(world.exact_joint(CHAIN), volume(), draws=DRAWS, steps=4, batch_size=DRAWS)


def test_one_step_is_the_exact_segmenter():
    """p(l | x) of every voxel, with noise in the image too, and no disagreement."""
    for noise in (0.0, 0.8):
        found = segment_slices(world.exact_joint(CHAIN), volume(), steps=1, noise_sd=noise)
        p = torch.einsum("m,mkn->kn", exact(noise), (CHAIN.fields + 1) / 2)
        np.testing.assert_allclose(found.probabilities[:, :, 0, 0], p, atol=1e-3)
        assert found.evaluations == 1 and not found.mutual_information.any()


def test_draws_follow_the_posterior_of_whole_maps(sampled):
    """Total variation below .09 (chance of 3000 draws: .03), where voxels drawn one by one are at .5 and more.

    Means of the probabilities are within .035 of p(l | x). The same four steps with posterior means instead of drawn classes
    are worse: the draws run to the likelier side.
    """
    truth = exact().numpy()
    maps = sampled.draws[:, :, 0, 0]
    distance = 0.5 * np.abs(law_of(maps) - truth).sum()
    assert distance < 0.09
    p = torch.einsum("m,mkn->kn", exact(), (CHAIN.fields + 1) / 2).numpy()
    mean_error = np.abs(sampled.probabilities[:, :, 0, 0] - p).max()
    assert mean_error < 0.035
    alone = np.random.default_rng(0).random((DRAWS, 6)) < p[1]
    assert 0.5 * np.abs(law_of(alone.astype(int)) - truth).sum() > 0.4
    view = world.exact_joint(CHAIN).labels_given_image(torch.full((1, 1, 6), IMAGE))
    generators = generators_of(range(DRAWS))
    table = ddpm(label_times(4, view.path), view.path)
    with_means = integrate(view, noise_of(generators, (2, 6)), table, generators=generators)
    assert 0.5 * np.abs(law_of(with_means.argmax(1).numpy()) - truth).sum() > 1.3 * distance


def test_entropy_is_what_draws_share_and_what_they_disagree_on(sampled):
    p = sampled.probabilities.astype(np.float64)
    np.testing.assert_allclose(sampled.entropy, entropy_of(p), atol=2e-3)
    assert (sampled.mutual_information > 0).all() and (sampled.mutual_information < sampled.entropy).all()


def test_a_noisy_image_is_restored_along_with_its_labels():
    """The mean over draws of E[x | x_t, l_u] is E[x | x_t]: within .03 of the enumerated mean."""
    noise = 0.8
    found = segment_slices(world.exact_joint(CHAIN), volume(), draws=800, batch_size=800, noise_sd=noise)
    mean, _ = CHAIN.answers(
        torch.full((1, 6), IMAGE), torch.tensor([noise]), torch.zeros(1, 2, 6), torch.tensor([torch.inf])
    )
    np.testing.assert_allclose(found.restored[:, 0, 0], mean[0], atol=0.03)


@pytest.fixture(scope="module")
def untrained():
    joint = build_joint(2, 4, (8, 8, 8), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in joint.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return joint


@pytest.fixture(scope="module")
def scan():
    return np.random.default_rng(3).random((11, 14, 5), np.float32)


def test_nothing_depends_on_the_batch_or_the_number_of_draws(untrained, scan):
    a = segment_slices(untrained, scan, draws=3, batch_size=2)
    b = segment_slices(untrained, scan, draws=3, batch_size=5)
    c = segment_slices(untrained, scan, draws=2, batch_size=5)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=2e-3)
    assert (a.draws == b.draws).mean() > 0.999 and np.array_equal(b.draws[:2], c.draws)
    other = segment_slices(untrained, scan, draws=3, batch_size=5, seed=1)
    assert not np.array_equal(b.draws, other.draws)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_and_any_size_keep_the_grid(untrained, scan, axis):
    """Slices across an axis are the volume with axes turned, slice by slice."""
    found = segment_slices(untrained, scan, draws=2, steps=2, axis=axis)
    turned = segment_slices(untrained, np.moveaxis(scan, axis, 2), draws=2, steps=2)
    assert np.array_equal(np.moveaxis(found.classes, axis, 2), turned.classes)
    assert np.array_equal(np.moveaxis(found.draws, axis + 1, 3), turned.draws)
    assert found.classes.shape == scan.shape and found.probabilities.shape == (4, *scan.shape)
    assert np.array_equal(found.restored, scan)


def test_equal_slices_get_equal_draws(untrained):
    """One noise a draw: a volume of equal slices is segmented alike in all of them."""
    same = np.repeat(np.random.default_rng(0).random((8, 8, 1), np.float32), 4, 2)
    draws = segment_slices(untrained, same, draws=2).draws
    assert (draws == draws[..., :1]).all()


def test_fused_by_staple_and_spread_of_surfaces(untrained, scan):
    fused = segment_slices(untrained, scan, draws=3, fusion="staple")
    assert fused.classes.shape == scan.shape and fused.surface_sd is None
    joint = build_joint(2, 3, (8, 8, 8), distances=True)
    found = segment_slices(joint, scan, draws=3)
    assert found.surface_sd is not None and np.isfinite(found.surface_sd).all()


def test_the_spread_of_a_surface_that_moves_is_known():
    """A plane at 3.5, 4.5 and 5.5 voxels of 2 mm: sd 2 mm on its mean surface, nothing away from it."""
    draws = np.zeros((3, 10, 4, 4), np.uint8)
    for draw, edge in enumerate((4, 5, 6)):
        draws[draw, :edge] = 1
    spread = surface_sd(draws, (1,), (2.0, 2.0, 2.0))
    np.testing.assert_allclose(spread[4:6], 2.0, atol=1e-5)
    assert np.isnan(spread[:3]).all() and np.isnan(spread[7:]).all()


def test_times_go_down_through_the_levels_that_settle_classes():
    path = LinearPath()
    assert label_times(1, path).tolist() == [1.0, 0.0]
    times = label_times(5, path)
    kappa = times[1:-1] / (1 - times[1:-1])
    torch.testing.assert_close(kappa[[0, -1]], torch.tensor([4.0, 2**0.5], dtype=torch.float64))
    torch.testing.assert_close(kappa[1:] / kappa[:-1], (kappa[1] / kappa[0]).expand(3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draws": 0}, "draws and batch size"),
        ({"steps": 0}, "at least 1 step"),
        ({"axis": 3}, "axis 0, 1 or 2"),
        ({"noise_sd": -0.1}, "noise >= 0"),
        ({"fusion": "vote"}, "mean or staple"),
        ({"volume": np.zeros((4, 4, 4, 2))}, "one finite 3-D volume"),
        ({"volume": np.full((4, 4, 4), np.nan)}, "one finite 3-D volume"),
    ],
)
def test_bad_input_in_one_line(untrained, scan, options, said):
    with pytest.raises(InputError, match=said) as caught:
        segment_slices(untrained, options.pop("volume", scan), **options)
    assert "\n" not in str(caught.value)


def test_bad_models():
    with pytest.raises(InputError, match="of 2 or 3 dimensions"):
        build_joint(1)
    with pytest.raises(InputError, match="at least 2 draws"):
        surface_sd(np.zeros((1, 3, 3), np.uint8), (1,), (1.0, 1.0))
