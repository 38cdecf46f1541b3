"""Noise-aware guides in a world where they are known: two Gaussians, whose class given a noisy state is a logistic."""

import pytest
import torch
from torch import Tensor, nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.noise_experts import (
    ClassifierGuided,
    ExpertLogProbability,
    KnowledgeTransfer,
    NoiseExperts,
    SkippedGradient,
)
from radiata_core.paths import LinearPath, add_noise
from radiata_core.posterior_spread import UnitSpread
from radiata_core.seeds import generator_of, generators_of

PATH = LinearPath()
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 0.0]], dtype=torch.float64)
VARIANCE = 0.3


def world() -> MixtureDenoiser:
    covariance = Diagonal(torch.full((2,), VARIANCE, dtype=torch.float64))
    return MixtureDenoiser(torch.ones(2, dtype=torch.float64), MEANS, [covariance, covariance], PATH)


def exact_guide() -> nn.Module:
    """log p(y | x_0) up to a constant: linear, since the two covariances are one."""
    guide = torch.nn.utils.skip_init(nn.Linear, 2, 2)
    with torch.no_grad():
        guide.weight.copy_(MEANS / VARIANCE)
        guide.bias.copy_(-MEANS.square().sum(1) / (2 * VARIANCE))
    return guide


def drawn(count: int, seed: int) -> Tensor:
    generator = generator_of(seed)
    labels = torch.randint(2, (count,), generator=generator)
    return (MEANS[labels] + VARIANCE**0.5 * torch.randn(count, 2, generator=generator)).float()


def experts(edges=(0.25, 0.5, 0.75)) -> NoiseExperts:
    return NoiseExperts(exact_guide(), PATH, edges, rank=2)


def test_guided_by_the_exact_class_probability_the_mean_is_that_of_the_class() -> None:
    """D + (sigma^2/alpha) grad log p(k | x_t) = E[x_0 | x_t, k], the denoiser of component k; rows at their own times."""
    mixture = world()
    t = torch.tensor([0.05, 0.4, 0.8, 1.0], dtype=torch.float64)
    x = torch.randn(4, 2, generator=generator_of(1), dtype=torch.float64)
    for k in (0, 1):
        guided = ClassifierGuided(
            mixture, lambda state, time, k=k: mixture.responsibilities(state, time)[:, k].log()
        )
        component = GaussianDenoiser(MEANS[k], mixture.covariances[k], PATH)
        torch.testing.assert_close(guided(x[:3], t[:3]), component(x[:3], t[:3]))
    torch.testing.assert_close(guided(x[3:], t[3:]), mixture(x[3:], t[3:]))  # alpha = 0: the prior's mean


def test_skipped_gradient_is_exact_for_a_linear_log_probability() -> None:
    """exp(a x_0) times a Gaussian posterior N(D, r^2) has the mean D + r^2 a."""
    prior = GaussianDenoiser(torch.zeros(3).double(), Diagonal(torch.full((3,), 0.7).double()), PATH)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    guided = SkippedGradient(prior, lambda x0: x0 @ slope, UnitSpread(0.7))
    x, t = torch.randn(2, 3, generator=generator_of(2)).double(), torch.tensor([0.3, 0.6]).double()
    alpha, sigma = 1 - t[:, None], t[:, None]
    tilted = prior(x + sigma**2 / alpha * slope, t)  # completing the square moves the state
    torch.testing.assert_close(guided(x, t), tilted)
    held = SkippedGradient(prior, lambda x0: x0 @ slope, UnitSpread(0.7), largest=0.1)
    moved = (held(x, t) - prior(x, t)).square().mean(1).sqrt()
    spread = [UnitSpread(0.7).variance(float(s / a)) ** 0.5 for a, s in zip(alpha, sigma, strict=True)]
    torch.testing.assert_close(moved, 0.1 * torch.tensor(spread, dtype=torch.float64))


def test_times_belong_to_exactly_one_range() -> None:
    model = experts((0.25, 0.5))
    t = torch.tensor([0.0, 0.2499, 0.25, 0.4999, 0.5, 1.0])
    assert model.expert_of(t).tolist() == [0, 0, 1, 1, 2, 2]


def test_every_row_is_read_by_the_expert_of_its_own_time() -> None:
    """A batch of mixed times is the rows alone (the authors' program takes the first row's expert for all)."""
    model = experts()
    for index, value in enumerate(p for p in model.parameters() if p.requires_grad):
        with torch.no_grad():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator_of(9, index)))
    x, t = drawn(6, 3), torch.tensor([0.9, 0.1, 0.6, 0.1, 0.3, 0.25], dtype=torch.float64)
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(model(x, t), alone)
    assert not torch.allclose(model(x, t), model(x, t[:1].expand(6)))


def test_experts_start_as_the_guide() -> None:
    model, x = experts(), drawn(5, 4)
    torch.testing.assert_close(model(x, torch.zeros(5).double()), exact_guide()(x))
    torch.testing.assert_close(model.clean(x), exact_guide()(x), rtol=0, atol=0)


def test_transfer_without_labels_finds_the_class_probability_of_noisy_states() -> None:
    """In narrow ranges p(y | x_t) is nearly one logistic: the learnt one is within .04 of it, the guide itself .08 off."""
    model, objective, mixture = experts((0.58, 0.62, 0.66)), KnowledgeTransfer(PATH), world()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    generators = generators_of(range(192))
    for step in range(80):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 80)
        loss = objective(model, drawn(192, step), generators)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    for middle in (0.6, 0.64):
        t = torch.full((4000,), middle, dtype=torch.float64)
        noise = torch.randn(4000, 2, generator=generator_of(77))
        x = add_noise(PATH, drawn(4000, 1000), noise, t)
        exact = mixture.responsibilities(x, t)[:, 0]
        with torch.no_grad():
            found = model(x, t).softmax(1)[:, 0]
            untaught = model.clean(x).softmax(1)[:, 0]
        assert float((found - exact).abs().mean()) < 0.04
        assert float((untaught - exact).abs().mean()) > 0.08


def test_loss_is_least_at_the_exact_probability_for_the_teachers_own_law_only() -> None:
    """Teacher p(y | x_0), student the exact p(y | x_t), a bolder or a shyer one: a softened teacher wants the shyer."""
    x0, t = drawn(20000, 5), 0.4
    noise = torch.randn(20000, 2, generator=generator_of(6))
    x = add_noise(PATH, x0, noise, torch.tensor(t))
    exact = world().responsibilities(x, torch.tensor(t)).float().log()

    def loss(temperature: float, boldness: float) -> float:
        teacher = (exact_guide()(x0).detach() / temperature).log_softmax(1)
        student = (boldness * exact).log_softmax(1)
        return float((teacher.exp() * (teacher - student)).sum(1).mean())

    assert loss(1.0, 1.0) < min(loss(1.0, 1.3), loss(1.0, 0.8))
    assert loss(4.0, 0.8) < loss(4.0, 1.0)


def test_target_maps_are_summed_and_negative_classes_do_not_count() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.utils.skip_init(nn.Conv1d, 1, 3, 1)
            nn.init.constant_(self.layer.weight, 0.0)
            with torch.no_grad():
                self.layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = NoiseExperts(Fixed(), PATH)
    value = ExpertLogProbability(model, torch.tensor([[2, 0, -1, 2]]))(
        torch.zeros(2, 1, 4), torch.tensor(0.1)
    )
    logs = torch.tensor([0.0, 1.0, 2.0]).log_softmax(0)
    torch.testing.assert_close(value, (2 * logs[2] + logs[0]).expand(2))


def test_bad_ranges_and_paths_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="rise within"):
        experts((0.5, 0.5))
    with pytest.raises(InputError, match="rise within"):
        experts((0.5, 1.0))
    with pytest.raises(InputError, match="temperature > 0"):
        KnowledgeTransfer(PATH, temperature=0.0)
    with pytest.raises(InputError, match="one generator a row"):
        KnowledgeTransfer(PATH)(experts(), drawn(3, 1), generators_of([1]))
    with pytest.raises(InputError, match="Sum over the event"):
        ClassifierGuided(world(), lambda x, t: x)(drawn(2, 1), torch.tensor(0.4))
