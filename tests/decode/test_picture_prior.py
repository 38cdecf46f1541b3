"""The law of ridge predictions, and a network that is told one."""

import numpy as np
import pytest
import torch
from scipy import stats

from radiata_core.errors import InputError
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of
from radiata_decode.model.picture_prior import (
    BANDS,
    GuessLaw,
    GuessRegression,
    banded,
    build_picture_prior,
    guessed,
)

SMALL = {"channels": (8, 16), "down_blocks": (1, 1), "up_blocks": (1, 1), "attention": (False, False)}


def test_predictions_are_calibrated_and_as_reliable_as_they_say(generator: torch.Generator) -> None:
    """cov(x̂, x) = var(x̂) = r s², so regression of truth on prediction has slope 1 and explains r; normal residuals."""
    sd, r2 = torch.tensor([3.0, 1.0, 0.2]), torch.tensor([0.9, 0.4, 0.05])
    x = sd * torch.randn(20_000, 3, generator=generator)
    found = guessed(x, r2.expand_as(x), sd, torch.randn(20_000, 3, generator=generator))
    slope = (found * x).mean(0) / found.square().mean(0)
    assert torch.allclose(slope, torch.ones(3), atol=0.05)
    assert torch.allclose(found.var(0) / sd**2, r2, rtol=0.05)
    rest = ((x - found) / (sd * (1 - r2).sqrt())).numpy()
    assert min(stats.kstest(rest[:, k], "norm").pvalue for k in range(3)) > 1e-3  # error rate 0.3 %


def test_nothing_known_is_a_guess_of_zero_and_a_profile_of_zero(generator: torch.Generator) -> None:
    components = torch.linalg.qr(torch.randn(48, 20, generator=generator))[0].T
    law = GuessLaw(torch.full((48,), 0.3), components, torch.linspace(2, 0.1, 20), drop=1.0)
    guess, profile = law.guess(torch.randn(4, 3, 4, 4, generator=generator), generator)
    assert not guess.any() and not profile.any()
    assert law.profiles(5, generator).shape == (5, 20)


def test_profiles_fall_and_stay_in_range(generator: torch.Generator) -> None:
    law = GuessLaw(torch.zeros(48), torch.eye(48)[:40], torch.ones(40), drop=0.0)
    r2 = law.profiles(500, generator)
    assert float(r2.min()) >= 0 and float(r2.max()) < 1
    mean = r2.mean(0)
    assert bool((mean[:-15] > mean[15:]).all())


@pytest.mark.parametrize("count", [16, 17, 40, 300])
def test_bands_cover_all_components_in_order(count: int) -> None:
    values = banded(torch.arange(float(count)))
    assert values.shape == (BANDS,) and bool((values.diff() > 0).all())
    assert float(values[0]) == 0.0
    assert torch.allclose(banded(torch.full((2, count), 0.4)), torch.full((2, BANDS), 0.4))


def test_too_few_components_are_refused() -> None:
    with pytest.raises(InputError, match="at least 16 components"):
        banded(torch.ones(5))


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    """Loss of row i is a function of generator i, also through guess, time and noise."""
    denoiser = build_picture_prior(0, **SMALL)
    law = GuessLaw(torch.zeros(192), torch.eye(192)[:20], torch.ones(20))
    objective = GuessRegression(law)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    together = objective(denoiser, x, generators_of(range(4))).per_sample.detach()
    alone = torch.cat(
        [objective(denoiser, x[i : i + 1], generators_of([i])).per_sample for i in range(4)]
    ).detach()
    assert torch.allclose(together, alone, rtol=1e-4)


def test_the_loss_of_the_exact_answer_is_the_posterior_variance() -> None:
    """White data without a guess: E[(u - E u)²] of the exact denoiser is what the objective reports, at t = 1 var(x) = 1."""
    law = GuessLaw(torch.zeros(48), torch.eye(48)[:16], torch.ones(16), drop=1.0)
    objective = GuessRegression(law, ends=1.0)

    class Exact:
        path = LinearPath()

        def __call__(self, x: torch.Tensor, t: torch.Tensor, **told: torch.Tensor) -> torch.Tensor:
            alpha, sigma = 1 - t, t
            gain = (alpha / (alpha**2 + sigma**2)).reshape(-1, 1, 1, 1)
            return (gain * x).float()

    x = torch.from_numpy(np.random.default_rng(0).standard_normal((400, 3, 4, 4)).astype(np.float32))
    found = objective(Exact(), x, generators_of(range(400)))
    assert bool((found.t == 1).all())
    assert float(found.value) == pytest.approx(1.0, abs=0.03)
