"""The posterior of a path: its KL and how much trials explain of it."""

import pytest
import torch

from radiata_latents.model.latent_path import LatentPath, Posterior


def test_kl_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_sd = torch.randn(2, 3, 2, 5, generator=generator).unbind(0)
    noise, noise_sd = torch.randn(2, 3, 11, 2, 5, generator=generator).unbind(0)
    normal = torch.distributions.Normal
    expected = sum(
        torch.distributions.kl_divergence(normal(m, s.exp()), normal(0.0, 1.0)).flatten(1).sum(1)
        for m, s in ((mean, log_sd), (noise, noise_sd))
    )
    torch.testing.assert_close(Posterior(mean, log_sd, noise, noise_sd).kl(), expected)


def test_informed_is_a_share_of_variance() -> None:
    mean = torch.tensor([-2.0, 2.0])[:, None, None].expand(2, 2, 3)
    noise = torch.zeros(2, 4, 2, 3)
    start, later = Posterior(mean, torch.zeros(2, 2, 3), noise, noise).informed()
    assert start == pytest.approx(4 / 5)
    assert later == 0


def test_along_a_path_the_mean_is_the_paths() -> None:
    """Feedback in observed bins changes the KL by half the difference of squares; forward bins do not count."""
    zero = torch.zeros(2, 4, 2, 3)
    posterior = Posterior(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), zero, zero)
    state = torch.zeros(2, 7, 3)
    path = LatentPath(state, state, torch.ones(2, 6, 2, 3))
    torch.testing.assert_close(posterior.kl(path), torch.full((2,), 0.5 * 4 * 2 * 3))
    torch.testing.assert_close(posterior.kl(LatentPath(state, state)), torch.zeros(2))
    assert path.features.shape == (2, 7, 6)
