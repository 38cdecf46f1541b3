"""Ranges of noise: the same log SNRs on every path, each seen equally often."""

import itertools

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.noise_ranges import EvenRanges, even_edges
from radiata_core.paths import LinearPath, TrigonometricPath, VPPath
from radiata_core.seeds import generator_of


@pytest.mark.parametrize(
    "path", [LinearPath(), TrigonometricPath(), VPPath()], ids=lambda p: type(p).__name__
)
def test_edges_lie_at_the_same_log_snr_on_every_path(path) -> None:
    edges = torch.tensor(even_edges(path, 5), dtype=torch.float64)
    torch.testing.assert_close(path.log_snr(edges), torch.tensor([1.8, 0.6, -0.6, -1.8], dtype=torch.float64))
    assert (edges.diff() > 0).all()


def test_edges_of_the_linear_path_in_closed_form() -> None:
    """kappa = t/(1 - t) = 1/e there: t = 1/(1 + e^lambda)."""
    expected = [1 / (1 + torch.tensor(v).exp().item()) for v in (1.0, -1.0)]
    assert even_edges(LinearPath(), 3) == pytest.approx(expected, rel=1e-6)
    assert even_edges(LinearPath(), 1) == ()


def test_each_range_is_seen_equally_often_and_evenly_within() -> None:
    """40 000 draws in 5 ranges: chi-square with 4 degrees of freedom, below its 99.99 % quantile 23.5; 20 cells, 19, 54."""
    law = EvenRanges(even_edges(LinearPath(), 5))
    t = law.sample(40_000, generator_of(1))
    limits = torch.tensor([0.0, *law.edges, 1.0], dtype=torch.float64)
    cells = torch.cat([torch.linspace(a, b, 5)[:-1] for a, b in itertools.pairwise(limits.tolist())])
    for edges, bound in ((limits[1:-1], 23.5), (cells[1:].double(), 54.0)):
        counts = torch.bincount(torch.bucketize(t, edges), minlength=len(edges) + 1).double()
        expected = len(t) / len(counts)
        assert float((counts - expected).square().sum() / expected) < bound


def test_density_is_the_derivative_of_the_quantile_function_and_integrates_to_one() -> None:
    law = EvenRanges((0.1, 0.15, 0.7))
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    rise = (law.quantile(u + 1e-7) - law.quantile(u - 1e-7)) / 2e-7
    torch.testing.assert_close(1 / rise, law.density(law.quantile(u)))
    assert float(law.density(u).mean()) == pytest.approx(1.0, abs=1e-4)
    assert law.quantile(torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.0, 0.1, 1.0]
    assert EvenRanges().quantile(u[:3]).tolist() == u[:3].tolist()


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="ranges >= 1"):
        even_edges(LinearPath(), 0)
    with pytest.raises(InputError, match="limit > 0"):
        even_edges(LinearPath(), 3, -1.0)
    with pytest.raises(InputError, match="rise within"):
        EvenRanges((0.5, 0.4))
