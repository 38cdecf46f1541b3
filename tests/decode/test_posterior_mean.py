"""The posterior mean from simulated responses: closed forms, a toy that no linear map solves, files, rows by themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.posterior_mean import PosteriorMean, fit_posterior_mean
from radiata_decode.model.response_model import ResponseCoordinates


def plain(count: int, noise: float) -> ResponseCoordinates:
    """Voxels themselves as coordinates."""
    return ResponseCoordinates(torch.zeros(count), torch.eye(count), torch.full((count,), noise))


def test_without_training_it_is_the_linear_posterior_mean(generator: torch.Generator) -> None:
    """z ~ N(m, S), r = z B + N(0, s² I): E[z | r] = m + S B (Bᵀ S B + s² I)⁻¹ (r - m B), computed here in float64."""
    root = torch.randn(3, 3, generator=generator)
    latents = torch.randn(50_000, 3, generator=generator) @ root + torch.tensor([1.0, -2.0, 0.5])
    mixing = torch.randn(3, 6, generator=generator)
    made = fit_posterior_mean(plain(6, 0.7), latents @ mixing, latents, steps=0)
    covariance, mean = (root.T @ root).double(), torch.tensor([1.0, -2.0, 0.5]).double()
    b = mixing.double()
    gain = covariance @ b @ torch.linalg.inv(b.T @ covariance @ b + 0.49 * torch.eye(6).double())
    responses = latents[:20] @ mixing + 0.7 * torch.randn(20, 6, generator=generator)
    expected = mean + (responses.double() - mean @ b) @ gain.T
    assert torch.allclose(made.predict(responses).double(), expected, atol=0.05)


def test_a_square_is_learnt_and_a_straight_line_does_not_do_it(generator: torch.Generator) -> None:
    """Responses say z, the latent is z² - 1: the best linear map explains nothing; E[z² | z + e] is known."""
    z = torch.randn(2000, 1, generator=generator)
    made = fit_posterior_mean(plain(1, 0.3), z, z.square() - 1, steps=250, hidden=32, batch_size=128)
    linear = fit_posterior_mean(plain(1, 0.3), z, z.square() - 1, steps=0)
    seen = torch.linspace(-2, 2, 41)[:, None]
    shrink = 1 / 1.09
    exact = (shrink * seen).square() + 1 - shrink - 1  # second moment of the posterior, less 1
    assert float((made.predict(seen) - exact).square().mean()) < 0.1 * float(
        (linear.predict(seen) - exact).square().mean()
    )


def test_a_response_decodes_alone_as_in_a_batch_and_from_a_file(
    tmp_path: Path, generator: torch.Generator
) -> None:
    z = torch.randn(300, 4, generator=generator)
    made = fit_posterior_mean(plain(4, 0.5), z, z.abs(), steps=5, hidden=8, batch_size=32)
    found = made.predict(z[:6])
    assert torch.allclose(found[2:3], made.predict(z[2:3]), atol=1e-6)
    assert torch.allclose(found, made.predict(z[:6].numpy()))
    made.save(tmp_path / "posterior.safetensors")
    again = PosteriorMean.load(tmp_path / "posterior.safetensors")
    assert torch.equal(again.predict(z[:6]), found)
    np.testing.assert_array_equal(again.coordinates.noise, made.coordinates.noise)
    (tmp_path / "posterior.json").write_text('{"format": "other"}')
    with pytest.raises(InputError, match="posterior mean"):
        PosteriorMean.load(tmp_path / "posterior.safetensors")


def test_the_same_seed_trains_the_same_network(generator: torch.Generator) -> None:
    z = torch.randn(100, 3, generator=generator)
    one, other = (fit_posterior_mean(plain(3, 0.5), z, z.square(), steps=4, hidden=8) for _ in range(2))
    assert torch.equal(one.predict(z), other.predict(z))


def test_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="as many pictures as responses"):
        fit_posterior_mean(plain(2, 1.0), torch.zeros(5, 2), torch.zeros(4, 3))
