"""Terms of a flow map's loss: who gets a gradient, what the game's optimum is, what the weight balances."""

import math

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.flowmap_objectives import ConsistencyTrajectory
from radiata_core.flowmap_terms import (
    AdaptiveWeight,
    Adversarial,
    AdversarialForm,
    FeatureDistance,
    Hinge,
    NonSaturating,
    Perceptual,
)
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.objectives import LossFunction, PseudoHuber, Regression, SquaredError
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import LinearGrid, UniformTime
from radiata_core.trainer import held_modules

ROWS = 5
TEACHER = GaussianDenoiser(torch.ones(2).double(), Diagonal(torch.ones(2).double()), LinearPath())


def module(*layers: nn.Module) -> nn.Sequential:
    made = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def fresh(*layers):
    with torch.random.fork_rng(devices=[]):
        return module(*[make() for make in layers])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = fresh(lambda: nn.Linear(4, 8), nn.Tanh, lambda: nn.Linear(8, 2))

    def forward(self, x, level, *, target_level):
        both = torch.stack([level.expand(len(x)), target_level.expand(len(x))], 1)
        return self.layers(torch.cat([x, both], 1))


def student() -> NetworkFlowMap:
    return NetworkFlowMap(Network(), LinearPath(), "sample")


def data(n: int = ROWS):
    return 1 + noise_of(generators_of(range(n), 9), (2,), torch.float64)


def objective(**options):
    return ConsistencyTrajectory(TEACHER, LinearGrid(), 6, 3, **options)


def jumps_of(flow_map):
    return objective().jumps(flow_map, data(), generators_of(range(ROWS)))


def discriminator():
    return fresh(lambda: nn.Linear(2, 8), nn.Tanh, lambda: nn.Linear(8, 1))


# The game ---------------------------------------------------------------------------------------------------------------


def test_the_best_discriminator():
    """On three atoms with exact shares p of data and q of fakes: log p/q for cross entropy, sign(p - q) for the hinge."""
    p, q = torch.tensor([0.5, 0.25, 0.25]).double(), torch.tensor([0.25, 0.25, 0.5]).double()
    real, fake = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 2, 2])
    best = (p / q).log().requires_grad_()
    value = NonSaturating().of_discriminator(best[real], best[fake])
    (gradient,) = torch.autograd.grad(value, best)
    torch.testing.assert_close(gradient, torch.zeros(3).double(), atol=1e-12, rtol=0)
    mixed = (p + q) / 2
    divergence = 0.5 * (p * (p / mixed).log() + q * (q / mixed).log()).sum()
    assert value.item() == pytest.approx(2 * math.log(2) - 2 * float(divergence), abs=1e-12)

    hinge = Hinge().of_discriminator
    sign = torch.tensor([1.0, 0.3, -1.0]).double()
    least = hinge(sign[real], sign[fake])
    assert float(least) == pytest.approx(2 * float(torch.minimum(p, q).sum()), abs=1e-12)
    for index in range(3):
        for move in (-0.5, 0.5):
            moved = sign.clone()
            moved[index] += move
            assert hinge(moved[real], moved[fake]) >= least - 1e-12


@pytest.mark.parametrize("form", [Hinge(), NonSaturating()])
def test_the_student_climbs_the_discriminator(form):
    """The gradient in the logits of its samples is negative: it makes them look more like data."""
    assert isinstance(form, AdversarialForm)
    logits = torch.tensor([-2.0, 0.0, 3.0]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(form.of_student(logits), logits)
    assert (gradient < 0).all()
    expected = torch.full((3,), -1 / 3).double() if isinstance(form, Hinge) else -(-logits).sigmoid() / 3
    torch.testing.assert_close(gradient, expected.detach())


def test_who_gets_which_gradient():
    """Student's term: only the student. Discriminator's loss: only the discriminator. Both as written by hand."""
    flow_map, judge = student(), discriminator()
    term = Adversarial(judge, NonSaturating(), weight=0.5)
    jumps = jumps_of(flow_map)
    value = term(jumps, torch.zeros(()).double())
    torch.testing.assert_close(value, 0.5 * nn.functional.softplus(-judge(jumps.found_at_data)).mean())
    value.backward()
    assert all(p.grad is None for p in judge.parameters())
    assert all(p.grad is not None for p in flow_map.parameters())
    flow_map.zero_grad(set_to_none=True)
    loss = term.discriminator_loss(jumps_of(flow_map))
    loss.backward()
    assert all(p.grad is not None and p.requires_grad for p in judge.parameters())
    assert all(p.grad is None for p in flow_map.parameters())
    with torch.no_grad():
        quiet = jumps_of(flow_map)
    torch.testing.assert_close(term.discriminator_loss(quiet), loss)


def test_conditions_reach_the_discriminator():
    class Judge(nn.Module):
        def forward(self, x, shift):
            return x.sum(1) - shift

    class Any(NetworkFlowMap):
        def predict(self, x, t, s=None, **conditions):
            return super().predict(x, t, s)

    flow_map = Any(Network(), LinearPath(), "sample")
    shift = torch.arange(float(ROWS)).double()
    jumps = objective().jumps(flow_map, data(), generators_of(range(ROWS)), shift=shift)
    value = Adversarial(Judge())(jumps, torch.zeros(()).double())
    torch.testing.assert_close(value, -(jumps.found_at_data.sum(1) - shift).mean())


def test_a_game_moves_the_student_to_the_data():
    """A constant student against a linear discriminator, alternating: its mean goes from 0 to the data's within 0.15."""
    n = 64
    rows = torch.tensor([1.0, -0.5]).double() + 0.1 * noise_of(
        generators_of(range(n), 2), (2,), torch.float64
    )

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, x, level, *, target_level):
            return self.place.expand(len(x), 2)

    flow_map, judge = NetworkFlowMap(Constant(), LinearPath(), "sample"), fresh(lambda: nn.Linear(2, 1))
    term = Adversarial(judge, NonSaturating())
    game = objective(to_data=1.0)
    ours = torch.optim.SGD(flow_map.parameters(), 0.3)
    theirs = torch.optim.SGD(judge.parameters(), 0.5, weight_decay=0.3)
    for step in range(60):
        generators = generators_of(range(n * step, n * step + n))
        jumps = game.jumps(flow_map, rows, generators)
        ours.zero_grad()
        term(jumps, torch.zeros(()).double()).backward()
        ours.step()
        theirs.zero_grad()
        term.discriminator_loss(jumps).backward()
        theirs.step()
    assert (flow_map.network.place.detach() - rows.mean(0)).abs().max() < 0.15


# Features ---------------------------------------------------------------------------------------------------------------


def test_distance_of_linear_features_is_a_quadratic_form():
    """Mean of (A e)^2; its gradient 2 A^T A e / 3; features get none, though they could."""
    features = fresh(lambda: nn.Linear(2, 3))
    matrix = features[0].weight.detach()
    one, two = data().requires_grad_(), data() + 0.3
    distance = FeatureDistance(features)
    assert isinstance(distance, LossFunction)
    found = distance(one, two)
    error = (one - two).detach()
    torch.testing.assert_close(found, (error @ matrix.T).square().mean(1))
    found.sum().backward()
    torch.testing.assert_close(one.grad, 2 / 3 * error @ matrix.T @ matrix)
    assert all(p.grad is None and p.requires_grad for p in features.parameters())


def test_layers_are_summed_and_normalised():
    """LPIPS's first step: channels of unit length; the distance then ignores contrast."""
    x = noise_of(generators_of(range(3)), (4, 5, 5))
    layers = FeatureDistance(lambda x: [x, 2 * x])
    torch.testing.assert_close(layers(x, 0 * x), 5 * SquaredError()(x, 0 * x))
    unit = FeatureDistance(lambda x: x, normalised=True)
    assert unit(x, 7 * x).max() < 1e-12
    torch.testing.assert_close(unit(x, -x), torch.ones(3))  # |2 u|^2 over 4 channels
    with pytest.raises(InputError, match="at least one layer"):
        FeatureDistance(lambda x: [])(x, x)


def test_perceptual_term_and_loss_are_one_distance():
    """As a term at weight 2 it is twice what it is as the loss, compared at the data."""
    distance = FeatureDistance(fresh(lambda: nn.Linear(2, 3), nn.Tanh), PseudoHuber(0.1))
    flow_map = student()
    term = Perceptual(distance, weight=2.0)(jumps_of(flow_map), torch.zeros(()).double())
    loss = objective(loss=distance, compare_at_data=True)(flow_map, data(), generators_of(range(ROWS)))
    torch.testing.assert_close(term, 2 * loss.value)


# The weight -------------------------------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        self.other = nn.Parameter(torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("parameter", ["last", lambda owner: owner.last])
def test_weight_is_the_ratio_of_gradients(parameter):
    """For a . last and b . last it is |a| / |b|, clipped; nothing is left on the parameter, the graph stays."""
    owner = Named()
    a, b = torch.tensor([3.0, 4.0]).double(), torch.tensor([0.0, 2.0]).double()
    main, other = (a * owner.last).sum(), (b * owner.last).sum()
    weight = AdaptiveWeight(parameter)
    assert float(weight(main, other, owner)) == pytest.approx(2.5)
    assert not weight(main, other, owner).requires_grad and owner.last.grad is None
    assert float(AdaptiveWeight(parameter, factor=2.0)(main, other, owner)) == pytest.approx(5.0)
    assert float(weight(1e4 * main, other, owner)) == 10.0
    assert float(weight(main, 1e4 * other, owner)) == 0.01
    (main + other).backward()
    torch.testing.assert_close(owner.last.grad, a + b)


def test_weight_where_there_is_no_gradient():
    """A term that does not depend on the parameter gets the most, a consistency that does not the least; no graph, 1."""
    owner = Named()
    main, aside = owner.last.sum(), owner.other.sum()
    weight = AdaptiveWeight("last")
    assert float(weight(main, aside, owner)) == 10.0
    assert float(weight(aside, main, owner)) == 0.01
    assert float(weight(aside, aside, owner)) == 0.01
    with torch.no_grad():
        assert float(weight(owner.last.sum(), owner.last.sum(), owner)) == 1.0
    with pytest.raises(InputError, match=r"got 'lost'. Its last are last, other"):
        AdaptiveWeight("lost")(main, main, owner)
    with pytest.raises(InputError, match="0 <= least <= most"):
        AdaptiveWeight("last", least=2.0, most=1.0)


def test_weights_balance_every_term_of_the_objective():
    """At the named layer each weighted term's gradient is as large as the consistency's (while inside the clip)."""
    name = "network.layers.2.weight"
    flow_map, judge = student(), discriminator()
    balance = AdaptiveWeight(name, 1e-6, 1e6)
    regression = Regression(LinearPath(), UniformTime())
    pieces = [
        {"denoising": regression, "denoising_weight": balance},
        {"terms": [Adversarial(judge, Hinge(), balance)]},
        {"terms": [Perceptual(FeatureDistance(fresh(lambda: nn.Linear(2, 3))), balance)]},
    ]
    last = flow_map.network.layers[2].weight
    plain = objective()(flow_map, data(), generators_of(range(ROWS))).value
    (main,) = torch.autograd.grad(plain, last, retain_graph=True)
    for piece in pieces:
        whole = objective(**piece)(flow_map, data(), generators_of(range(ROWS))).value
        (both,) = torch.autograd.grad(whole, last)
        assert float((both - main).norm() / main.norm()) == pytest.approx(1, rel=1e-6)


def test_the_trainer_finds_the_modules_of_terms():
    """What has to be moved to the student's device, however deep."""
    judge, features = discriminator(), fresh(lambda: nn.Linear(2, 3))
    held = objective(terms=[Adversarial(judge), Perceptual(FeatureDistance(features))])
    assert {id(m) for m in held_modules(held)} == {id(judge), id(features)}
