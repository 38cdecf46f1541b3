"""Responses simulated by an encoding model, and the directions of them that tell pictures apart."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.response_model import fit_response_model, response_coordinates


@pytest.fixture
def toy() -> dict[str, np.ndarray]:
    """Linear voxels, noise with a shared part: 400 training rows of 12 features and 30 voxels."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((12, 30)).astype(np.float32)
    features = rng.standard_normal((400, 12)).astype(np.float32)
    mixing = 2 * np.eye(30) + rng.standard_normal((30, 2)) @ rng.standard_normal((2, 30))
    noise = (rng.standard_normal((400, 30)) @ mixing).astype(np.float32)
    return {
        "weights": weights,
        "features": features,
        "responses": features @ weights + noise,
        "mixing": mixing,
    }


def test_signal_and_noise_are_found_again(toy: dict[str, np.ndarray]) -> None:
    """Predicted responses of new features near the truth; covariance of the residuals near that of the noise."""
    model = fit_response_model(toy["features"], toy["responses"])
    new = np.random.default_rng(1).standard_normal((200, 12)).astype(np.float32)
    error = model.signal(new).numpy() - new @ toy["weights"]
    noise = toy["mixing"].T @ toy["mixing"]
    assert (error**2).mean() < 1.2 * np.trace(noise) / 30 * 12 / 400  # variance of least squares
    found = np.cov(model.residuals.numpy().T)
    assert (
        np.linalg.norm(found - noise) / np.linalg.norm(noise) < 0.25
    )  # 400 rows; leaving out adds 2 · 12/400


def test_coordinates_lose_nothing_that_is_linear(toy: dict[str, np.ndarray]) -> None:
    """The best linear estimate from 12 coordinates is that from all 30 voxels: the signal has 12 dimensions."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((3000, 12))
    signal = torch.from_numpy((features @ toy["weights"]).astype(np.float32))
    noise = torch.from_numpy((rng.standard_normal((3000, 30)) @ toy["mixing"]).astype(np.float32))
    kept = response_coordinates(signal, noise, count=12, shrinkage=1e-4)
    inside, rest = kept.of(signal + noise), kept.of(noise + kept.mean)
    white = np.corrcoef(rest.numpy().T)
    assert np.abs(white - np.eye(12)).max() < 0.1  # not 0: correlations of 1e-4 of a voxel are shrunk
    assert torch.allclose(rest.std(0), kept.noise, rtol=1e-3)

    def explained(seen: np.ndarray) -> float:
        centred = seen - seen.mean(0)
        found = centred @ np.linalg.lstsq(centred, features, rcond=None)[0]
        return float(1 - ((features - found) ** 2).sum() / (features**2).sum())

    assert explained(inside.double().numpy()) == pytest.approx(
        explained((signal + noise).double().numpy()), abs=0.004
    )


def test_what_does_not_fit_is_refused(toy: dict[str, np.ndarray]) -> None:
    signal = torch.from_numpy(toy["responses"])
    with pytest.raises(InputError, match="same voxels"):
        response_coordinates(signal, signal[:, :5])
    with pytest.raises(InputError, match="shrinkage in"):
        response_coordinates(signal, signal, shrinkage=0.0)
    with pytest.raises(InputError, match=r"responses \(n, 30\)"):
        response_coordinates(signal, signal, count=3).of(signal[:, :4])
