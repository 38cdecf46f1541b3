"""Alignment in training: nothing changes at weight 0, the projector stays out of the model, runs resume to the bit."""

import pytest
import torch
from backbones import backbone
from torch import nn

from radiata_core.aligned_objective import aligned, default_layer
from radiata_core.alignment import Alignment
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.feature_targets import tapped_features
from radiata_core.nets.mmdit import MMDiT
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of
from radiata_core.self_alignment import MovingTeacher, self_aligned
from radiata_core.times import UniformTime
from radiata_core.train import TrainOptions, train

PATH = LinearPath()
REGRESSION = Regression(PATH, UniformTime())


def network():
    with torch.random.fork_rng():
        made = MMDiT(dims=2, patch=2, depth=3, heads=2, head=8, context=0)
    for index, p in enumerate(made.parameters()):
        p.data = 0.1 * torch.randn(p.shape, generator=generator_of(3, index))
    return NetworkDenoiser(made, PATH, "velocity")


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(1, 6, 2, 2), nn.Tanh())
    return tapped_features(net, "1", images(1))


def images(n):
    return torch.randn(n, 1, 8, 8, generator=generator_of(2))


def gradients(denoiser, objective):
    loss = objective(denoiser, images(4), generators_of(range(4)))
    loss.value.backward()
    return loss, [None if p.grad is None else p.grad.clone() for p in denoiser.parameters()]


@pytest.mark.parametrize(("weight", "until"), [(0.0, None), (0.5, 0)])
def test_without_weight_or_after_its_end_it_is_the_objective_to_the_bit(weight, until):
    plain, denoiser = network(), network()
    objective = aligned(REGRESSION, denoiser, images(1), encoder(), weight=weight, until=until)
    loss, found = gradients(denoiser, objective)
    expected, wanted = gradients(plain, REGRESSION)
    assert torch.equal(loss.value, expected.value) and torch.equal(loss.per_sample, expected.per_sample)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_value_is_the_sum_and_the_encoder_gets_no_gradient():
    denoiser, frozen = network(), encoder()
    objective = aligned(REGRESSION, denoiser, images(1), frozen, weight=0.5)
    keys = list(denoiser.state_dict())
    loss, found = gradients(denoiser, objective)
    expected, wanted = gradients(network(), REGRESSION)
    torch.testing.assert_close(loss.value, expected.value + loss.alignment)
    assert all(p.grad is None for p in frozen.module.parameters())
    assert all(p.grad is not None for p in objective.alignment.parameters())
    assert any(a is not None and not torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert list(denoiser.state_dict()) == keys
    from_items = aligned(REGRESSION, denoiser, images(1), None, target_channels=6)
    given = from_items(denoiser, images(4), generators_of(range(4)), features=frozen(images(4)))
    assert torch.equal(given.value, loss.value) and from_items.companions == ("features",)
    with pytest.raises(InputError, match="entry 'features'"):
        from_items(denoiser, images(4), generators_of(range(4)))


@pytest.mark.parametrize(
    ("name", "layer"),
    [("mmdit", "blocks.0"), ("medforj", "up_blocks.0"), ("monai", "up_blocks.0"), ("unet", "up.2")],
)
def test_default_layer(name, layer):
    assert default_layer(backbone(name)) == layer


class Pictures:
    def __len__(self):
        return 6

    def __getitem__(self, item):
        return {"image": images(6)[item]}


def run(folder, steps, kind, resume=False):
    denoiser = network()
    if kind == "plain":
        objective = REGRESSION
    elif kind == "self":
        objective = self_aligned(
            REGRESSION, denoiser, images(1), early="network.blocks.0", late="network.blocks.1"
        )
    else:
        objective = aligned(REGRESSION, denoiser, images(1), encoder(), weight=0.0 if kind == "zero" else 0.5)
    options = TrainOptions(
        steps=steps, batch_size=4, ema=(), checkpoint_every=2, log_every=10, tensorboard=False, resume=resume,
        condition_dropout=0.0, workers=0,
    )  # fmt: skip
    train(denoiser, objective, Pictures(), folder, options)
    return denoiser, objective


@pytest.mark.parametrize("kind", ["aligned", "self"])
def test_training_moves_the_projector_and_resumes_to_the_bit(tmp_path, kind):
    whole, objective = run(tmp_path / "whole", 4, kind)
    run(tmp_path / "parts", 2, kind)
    parts, resumed = run(tmp_path / "parts", 4, kind, resume=True)
    for one, other in ((whole, parts), (objective.beside, resumed.beside)):
        assert all(
            torch.equal(a, b)
            for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    fresh = Alignment(16, objective.alignment.target_channels, 2)
    assert not torch.equal(objective.alignment.projector.weight, fresh.projector.weight)


def test_weight_zero_trains_the_same_network(tmp_path):
    zero, plain = run(tmp_path / "zero", 3, "zero")[0], run(tmp_path / "plain", 3, "plain")[0]
    assert all(torch.equal(a, b) for a, b in zip(zero.parameters(), plain.parameters(), strict=True))


def test_teacher_follows_once_a_step():
    """With a half-life of one step and the start corrected: weights 1/3 and 2/3 of two states."""
    first, second = (torch.nn.utils.skip_init(nn.Linear, 1, 1, bias=False) for _ in range(2))
    for net, value in ((first, 0.0), (second, 3.0)):
        nn.init.constant_(net.weight, value)
    teacher = MovingTeacher(first, length=1.0)
    teacher.follow(first, 0)
    teacher.follow(second, 1)
    teacher.follow(second, 1)
    torch.testing.assert_close(teacher.network.weight, torch.full((1, 1), 2.0))


def test_self_alignment_reads_the_teacher_at_less_noise_and_draws_nothing_more():
    denoiser = network()
    objective = self_aligned(
        REGRESSION, denoiser, images(1), early="network.blocks.0", late="network.blocks.1", gap=0.3
    )
    told = []
    hook = objective.teacher.network.register_forward_pre_hook(lambda _, args: told.append(args[1]))
    loss = objective(denoiser, images(4), generators_of(range(4)))
    hook.remove()
    expected = REGRESSION(network(), images(4), generators_of(range(4)))
    assert torch.equal(loss.per_sample, expected.per_sample)
    torch.testing.assert_close(told[0], (loss.t - 0.3).clamp(min=0))
    assert all(p.grad is None for p in objective.teacher.parameters())
