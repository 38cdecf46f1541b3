"""Pairs of data and noise."""

import numpy as np
import torch

from radiata_core.couplings import IndependentCoupling
from radiata_core.kernels import GaussianKernel
from radiata_core.specs import describe, rebuild


def test_independent_noise_knows_nothing_of_the_data(
    rng: np.random.Generator, generator: torch.Generator
) -> None:
    """Correlations of data and noise, and of their squares, within 4 standard errors (1 seed in 8000 would fail)."""
    x0 = torch.tensor(rng.gamma(1.0, size=(50_000, 1)))
    pair = IndependentCoupling()(x0, generator)
    assert pair.x0 is x0
    for power in (1, 2):
        both = torch.cat([x0**power, pair.noise**power], 1).T
        assert abs(torch.corrcoef(both)[0, 1].item()) < 4 * len(x0) ** -0.5


def test_rows_are_paired_by_their_generators() -> None:
    x0 = torch.zeros(3, 2, 4)
    seeds = (4, 5, 6)
    batch = IndependentCoupling()(x0, [torch.Generator().manual_seed(s) for s in seeds]).noise
    for i, seed in enumerate(seeds):
        alone = IndependentCoupling()(x0[:1], [torch.Generator().manual_seed(seed)])
        assert torch.equal(alone.noise[0], batch[i])


def test_noise_is_the_kernels(generator: torch.Generator) -> None:
    x0 = torch.zeros(5, 3)
    expected = GaussianKernel().noise(x0, torch.Generator().manual_seed(1))
    assert torch.equal(IndependentCoupling()(x0, torch.Generator().manual_seed(1)).noise, expected)


def test_coupling_survives_json() -> None:
    assert rebuild(describe(IndependentCoupling())) == IndependentCoupling()


def test_conditions_change_nothing_where_noise_is_independent() -> None:
    """The form allows them; bit by bit the same noise."""
    x0, label = torch.zeros(4, 2), torch.arange(4)
    plain = IndependentCoupling()(x0, torch.Generator().manual_seed(1)).noise
    told = IndependentCoupling()(x0, torch.Generator().manual_seed(1), label=label, age=None).noise
    assert torch.equal(told, plain)
