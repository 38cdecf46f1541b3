"""Probes against second implementations: the normal equations, scikit-learn, a 1x1 convolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge

from radiata_core.errors import InputError
from radiata_core.probes import (
    AttentionProbe,
    LinearProbe,
    logistic_probe,
    ridge_probe,
    train_probe,
    voxel_rows,
)
from radiata_core.seeds import generator_of


def rows(count: int, features: int, seed: int = 1) -> torch.Tensor:
    """Features of different units, one of them constant."""
    z = torch.randn(count, features, generator=generator_of(seed), dtype=torch.float64)
    z = z * torch.logspace(-2, 3, features, dtype=torch.float64) + 5.0
    z[:, 0] = 7.0
    return z


@pytest.mark.parametrize(("count", "features"), [(40, 6), (12, 50)], ids=["tall", "wide"])
def test_ridge_is_scikit_learns_on_standardised_features(count: int, features: int) -> None:
    z = rows(count, features)
    y = torch.randn(count, 2, generator=generator_of(2), dtype=torch.float64) * 30 + 100
    scale = z.std(0, correction=0).numpy()
    scale[0] = 1.0
    standard = (z - z.mean(0)).numpy() / scale
    standard[:, 0] = 0.0
    other = Ridge(alpha=count * 0.3).fit(standard, y.numpy())
    np.testing.assert_allclose(ridge_probe(z, y, 0.3)(z).numpy(), other.predict(standard), rtol=1e-8)
    torch.testing.assert_close(ridge_probe(z, y[:, 0], 0.3)(z), ridge_probe(z, y, 0.3)(z)[:, :1])


@pytest.mark.parametrize(("count", "features"), [(60, 5), (15, 40)], ids=["tall", "wide"])
def test_logistic_is_scikit_learns_on_standardised_features(count: int, features: int) -> None:
    z = rows(count, features)
    labels = torch.randint(3, (count,), generator=generator_of(3))
    standard = (z - z.mean(0)) / z.std(0, correction=0).clamp_min(1e-9)
    standard[:, 0] = 0.0
    other = LogisticRegression(C=1 / (count * 0.05), tol=1e-10, max_iter=5000).fit(
        standard.numpy(), labels.numpy()
    )
    found = logistic_probe(z, labels, 0.05)(z).softmax(1)
    np.testing.assert_allclose(found.numpy(), other.predict_proba(standard.numpy()), atol=2e-4)


@pytest.mark.parametrize("fit", [ridge_probe, logistic_probe], ids=["ridge", "logistic"])
def test_units_of_features_do_not_matter(fit) -> None:
    z = rows(20, 4)
    y = torch.arange(20) % 2 if fit is logistic_probe else z[:, 1] - z[:, 2]
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        fit(z, y, 0.1)(z), fit(z * scale - 8, y, 0.1)(z * scale - 8), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("grid", [(5,), (4, 3), (2, 3, 2)], ids=["1d", "2d", "3d"])
def test_voxels_are_read_by_a_pointwise_convolution(grid: tuple[int, ...]) -> None:
    generator = generator_of(4)
    probe = LinearProbe(torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator))
    maps = torch.randn(2, 6, *grid, generator=generator)
    convolution = (F.conv1d, F.conv2d, F.conv3d)[len(grid) - 1]
    expected = convolution(maps, probe.weight.reshape(3, 6, *[1] * len(grid)), probe.bias)
    torch.testing.assert_close(probe.voxels(maps), expected)
    labels = torch.full((2, *grid), -1)
    labels[1].view(-1)[2] = 5
    features, found = voxel_rows(maps, labels)
    assert found.tolist() == [5]
    torch.testing.assert_close(features[0], maps[1].flatten(1)[:, 2])


def test_attention_probe_finds_what_a_mean_cannot() -> None:
    """The class is whether the first channel's spot lies left of the second's: the mean over the grid is the same."""
    generator = generator_of(5)
    labels = torch.arange(128) % 2
    maps = 0.1 * torch.randn(128, 4, 4, generator=generator)
    for row, label in enumerate(labels.tolist()):
        start = int(torch.randint(3, (), generator=generator))
        maps[row, label, start] += 2
        maps[row, 1 - label, start + 1] += 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = AttentionProbe(4, 2, (4,), width=16, depth=1, heads=2)
    train_probe(probe, maps[:96], labels[:96], 150, learning_rate=1e-2)
    assert float((probe(maps[96:]).argmax(1) == labels[96:]).float().mean()) > 0.9
    mean = logistic_probe(maps[:96].mean(2), labels[:96])
    assert float((mean(maps[96:].mean(2)).argmax(1) == labels[96:]).float().mean()) < 0.75


def test_training_is_a_function_of_its_seed_and_rows_do_not_mix() -> None:
    def trained(seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            probe = AttentionProbe(3, 1, (2, 3), width=8, depth=1, heads=2)
        x = torch.randn(6, 3, 4, 6, generator=generator_of(6))
        train_probe(probe, x, x.mean((1, 2, 3))[:, None], 3, seed=seed)
        together = probe(x).detach()
        torch.testing.assert_close(together[2:3], probe(x[2:3]).detach())
        return together

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_bad_input_is_named() -> None:
    z = torch.randn(4, 2, generator=generator_of(7))
    with pytest.raises(InputError, match="a target each; got 4 rows and 3"):
        ridge_probe(z, torch.zeros(3))
    with pytest.raises(InputError, match="penalty > 0"):
        ridge_probe(z, torch.zeros(4), 0.0)
    with pytest.raises(InputError, match=r"labels 0 … 1; got 0 … 2"):
        logistic_probe(z, torch.tensor([0, 1, 2, 0]), classes=2)
    with pytest.raises(InputError, match="labelled voxel"):
        voxel_rows(z[:, :, None], torch.full((4, 1), -1))
    with pytest.raises(InputError, match="Resample"):
        voxel_rows(z[:, :, None], torch.zeros(4, 2, dtype=torch.long))
    with pytest.raises(InputError, match="divides by the heads"):
        AttentionProbe(2, 2, (4,), width=10, heads=4)
