"""Noise ceilings against known signal and noise, and against what the best model really reaches."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.noise_ceiling import (
    correlation_ceiling,
    ncsnr,
    noise_ceiling,
    spearman_brown,
    split_half,
)

TRUE = np.array([0.0, 0.3, 0.6, 1.2])


def measured(
    rng: np.random.Generator, repeats: np.ndarray, copies: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signals (stimulus, voxel), responses (trial, voxel) of unit noise, stimulus of each trial."""
    ratio = np.tile(TRUE, copies)
    signal = rng.normal(size=(len(repeats), len(ratio))) * ratio
    stimuli = np.repeat(np.arange(len(repeats)), repeats)
    return signal, signal[stimuli] + rng.normal(size=(len(stimuli), len(ratio))), stimuli


@pytest.mark.parametrize("repeats", [[3] * 400, [3] * 200 + [2] * 150 + [1] * 300])
def test_finds_the_true_ratio(rng: np.random.Generator, repeats: list[int]) -> None:
    """Means over 50 voxels of each kind: standard error of ncsnr about .01 (tested at 4 of them)."""
    _, responses, stimuli = measured(rng, np.array(repeats), copies=50)
    found = ncsnr(responses, stimuli).reshape(50, 4).mean(0)
    np.testing.assert_allclose(found[1:], TRUE[1:], atol=0.04)
    assert found[0] < 0.15  # a ratio of 0 is estimated from one side


def test_the_signal_variance_is_unbiased_for_few_uneven_repeats(rng: np.random.Generator) -> None:
    """Five stimuli, shown 1 to 5 times: the plain difference of variances is off by a fifth; this one is not.

    4000 voxels with signal = 4 noise variances: standard error of the mean 1 %.
    """
    repeats = np.array([1, 2, 3, 4, 5])
    stimuli = np.repeat(np.arange(5), repeats)
    signal = 2.0 * rng.normal(size=(5, 4000))
    responses = signal[stimuli] + rng.normal(size=(15, 4000))
    ratio = ncsnr(responses, stimuli)
    noise = np.zeros(4000)
    for name in range(5):
        noise += ((responses[stimuli == name] - responses[stimuli == name].mean(0)) ** 2).sum(0)
    estimated = ratio.astype(float) ** 2 * noise / 10
    assert abs(estimated.mean() / 4 - 1) < 0.05


def test_as_the_manual_for_equal_repeats(rng: np.random.Generator) -> None:
    """NSD: betas of unit variance, noise = mean variance over three repeats, signal = root of 1 - noise."""
    _, responses, stimuli = measured(rng, np.full(2000, 3))
    z = (responses - responses.mean(0)) / responses.std(0, ddof=1)
    noise = np.sqrt(z.reshape(2000, 3, 4).var(1, ddof=1).mean(0))
    manual = np.sqrt(np.maximum(0, 1 - noise**2)) / noise
    np.testing.assert_allclose(ncsnr(z, stimuli)[1:], manual[1:], rtol=2e-3)
    np.testing.assert_allclose(ncsnr(responses * 7 - 3, stimuli), ncsnr(z, stimuli), rtol=1e-4, atol=1e-4)


def test_the_manuals_table_of_uneven_repeats() -> None:
    """A stimuli shown three times, B twice, C once: (A/3 + B/2 + C)/(A + B + C) in place of 1/n."""
    counts = [3] * 5 + [2] * 3 + [1] * 2
    inverse = (5 / 3 + 3 / 2 + 2) / 10
    np.testing.assert_allclose(noise_ceiling(TRUE, counts), TRUE**2 / (TRUE**2 + inverse))
    np.testing.assert_allclose(noise_ceiling(np.array([0, np.inf]), 3), [0, 1])


def test_the_ceiling_is_what_the_true_signal_reaches(rng: np.random.Generator) -> None:
    """The signal itself, correlated with averages of three trials: standard error 1/√4000 ≈ .016."""
    signal, responses, _ = measured(rng, np.full(4000, 3))
    averages = responses.reshape(4000, 3, 4).mean(1)
    reached = [np.corrcoef(signal[:, v], averages[:, v])[0, 1] for v in (1, 2, 3)]
    np.testing.assert_allclose(correlation_ceiling(TRUE, 3)[1:], reached, atol=0.05)


def test_halves_stepped_up_give_the_same_ceiling(rng: np.random.Generator) -> None:
    """Reliability of averages of four trials = NC(4)."""
    _, responses, stimuli = measured(rng, np.full(3000, 4))
    halves = split_half(responses, stimuli, rng, draws=3)
    np.testing.assert_allclose(halves, noise_ceiling(TRUE, 4), atol=0.05)
    np.testing.assert_allclose(spearman_brown(0.5), 2 / 3)
    np.testing.assert_allclose(spearman_brown(0.5, 4), 0.8)


def test_order_of_trials_and_names_do_not_matter(rng: np.random.Generator) -> None:
    _, responses, stimuli = measured(rng, np.array([3, 2, 1, 4] * 10))
    order = rng.permutation(len(stimuli))
    names = [f"name {40 - s}" for s in stimuli[order]]
    np.testing.assert_allclose(ncsnr(responses[order], names), ncsnr(responses, stimuli), rtol=1e-5)


def test_voxels_without_noise_or_without_anything() -> None:
    stimuli = [0, 0, 1, 1, 2, 2]
    responses = np.stack([np.ones(6), np.array(stimuli, float)], 1)
    with np.errstate(all="raise"):
        found = ncsnr(responses, stimuli)
    assert np.isnan(found[0]) and np.isinf(found[1])


def test_refuses(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="cannot be told from signal"):
        ncsnr(np.zeros((3, 2)), [0, 1, 2])
    with pytest.raises(InputError, match=r"got \(3, 2\) and 2"):
        ncsnr(np.zeros((3, 2)), [0, 1])
    with pytest.raises(InputError, match="at least one repeat"):
        noise_ceiling(1.0, [3, 0])
    with pytest.raises(InputError, match="three repeated stimuli"):
        split_half(np.zeros((4, 2)), [0, 0, 1, 1], rng)
