"""The multi-task bound: its minimiser is the exact posterior, its corners have their probabilities, rows stand alone."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.joint_denoisers import ClassField, JointDenoiser, JointPosterior, RealField
from radiata_core.multitask_elbo import Corners, MultitaskELBO, cross_entropy, soft_dice_loss
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Constant
from radiata_core.paths import LinearPath, VPPath
from radiata_core.seeds import generators_of
from radiata_core.train import TrainOptions, train

_spec = importlib.util.spec_from_file_location("joint_world", Path(__file__).with_name("joint_world.py"))
assert _spec is not None and _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules["joint_world"] = world
_spec.loader.exec_module(world)

CHAIN = world.Chain(3, (-0.5, 0.5), 0.6, 0.9, (0.0, 0.4))
EVERYWHERE = Corners(0.0, 0.0, 0.0, 0.0)
AT_ONCE = Corners(0.0, 1.0, 0.0, 0.0)


class Changed(torch.nn.Module):
    """The exact joint denoiser with its answers bent: images scaled, logits scaled and shifted."""

    def __init__(self, scale: float = 1.0, sharp: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.exact = world.exact_joint(CHAIN)
        self.path, self.image, self.labels = self.exact.path, self.exact.image, self.exact.labels
        self.scale, self.sharp, self.shift = scale, sharp, shift

    def forward(self, *states: torch.Tensor) -> JointPosterior:
        found = self.exact(*states)
        assert found.log_probabilities is not None
        bent = found.log_probabilities * self.sharp + self.shift * torch.tensor([0.0, 1.0]).reshape(1, 2, 1)
        log_p = bent.log_softmax(1)
        return JointPosterior(found.image * self.scale, 2 * log_p.exp() - 1, log_p)


@pytest.fixture(scope="module")
def rows():
    return CHAIN.draw(900, torch.Generator().manual_seed(3))


def losses(rows, objective, **bends):
    x0, labels = rows
    with torch.no_grad():
        return objective(Changed(**bends), x0, generators_of(range(len(x0))), labels=labels)


def test_the_exact_posterior_is_the_minimiser(rows):
    """Any bend of either answer costs; the same rows and noise, so the comparison is paired (z > 3)."""
    objective = MultitaskELBO(image_weight=Constant())
    best = losses(rows, objective)
    for bend in (
        {"scale": 1.15},
        {"scale": 0.85},
        {"sharp": 1.6},
        {"sharp": 0.6},
        {"shift": 0.8},
        {"shift": -0.8},
    ):
        worse = losses(rows, objective, **bend).per_sample - best.per_sample
        assert float(worse.mean() / worse.std() * len(worse) ** 0.5) > 3, bend


def test_the_cross_entropy_of_clean_images_is_the_conditional_entropy(rows):
    """At (0, 1) the exact network's loss is H(l | x) a voxel: the mean entropy of p(l | x), within four standard errors."""
    x0, _ = rows
    loss = losses(rows, MultitaskELBO(corners=AT_ONCE))
    n = len(x0)
    _, p = CHAIN.answers(x0[:, 0], torch.zeros(n), torch.zeros(n, 2, 3), torch.full((n,), torch.inf))
    entropy = -(p * p.log()).sum(1).mean(1)
    gap = loss.labels.double() - entropy
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / n**0.5
    assert not loss.image.any() and not loss.t.any() and bool((loss.t_labels == 1).all())


def test_labels_count_at_every_time_but_the_clean_one(rows):
    loss = losses(rows, MultitaskELBO(corners=Corners(0.5, 0.0, 0.0, 0.5)))
    little = (loss.t_labels > 0) & (loss.t_labels < 0.6)
    assert int(little.sum()) > 50 and float(loss.labels[little].mean()) > 0.01
    assert not loss.labels[loss.t_labels == 0].any() and float(loss.image[loss.t_labels == 0].mean()) > 0


def test_the_squared_error_is_the_posterior_variance(rows):
    """With labels as pure noise and W = 1 the image's loss is E Var[x | x_t], within four standard errors."""
    objective = MultitaskELBO(corners=Corners(0.0, 0.0, 1.0, 0.0), image_weight=Constant())
    loss = losses(rows, objective)
    exact, bent = float(loss.image.mean()), float(losses(rows, objective, scale=1.3).image.mean())
    assert exact < bent
    noise = (loss.t / (1 - loss.t)).reshape(-1, 1)
    given_label = (
        0.36 * noise**2 / (0.36 + noise**2)
    )  # within a class; classes add at most their own variance
    assert bool(
        (loss.image.mean() > 0.5 * given_label.mean()) & (loss.image.mean() < given_label.mean() + 0.25)
    )


def test_corners_have_their_probabilities():
    """Evenly spaced numbers land in each corner in proportion; times elsewhere are as drawn."""
    corners = Corners(0.3, 0.1, 0.2, 0.15)
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = torch.full((1000,), 0.4, dtype=torch.float64), torch.full((1000,), 0.6, dtype=torch.float64)
    t_image, t_labels = corners(u, *drawn)
    found = [tuple(row) for row in torch.stack([t_image, t_labels], 1).tolist()]
    places = {(0.0, 0.6): 300, (0.0, 1.0): 100, (0.4, 1.0): 200, (0.4, 0.0): 150, (0.4, 0.6): 250}
    assert {place: found.count(place) for place in places} == places


def test_rows_know_nothing_of_each_other(rows):
    x0, labels = rows
    model, objective = Changed(), MultitaskELBO(corners=EVERYWHERE)
    whole = objective(model, x0[:6], generators_of(range(6)), labels=labels[:6])
    single = objective(model, x0[4:5], generators_of([4]), labels=labels[4:5])
    torch.testing.assert_close(whole.per_sample[4:5], single.per_sample)


def test_rows_without_labels_train_the_image_alone(rows):
    x0, labels = rows
    unknown = labels[:8].clone()
    unknown[3] = -1
    loss = MultitaskELBO(corners=EVERYWHERE)(Changed(), x0[:8], generators_of(range(8)), labels=unknown)
    assert loss.labels[3] == 0 and loss.t_labels[3] == 1 and loss.image[3] > 0
    assert float(loss.labels[torch.arange(8) != 3].mean()) > 0.05


def test_cross_entropy_and_dice_by_hand():
    p = torch.tensor([[[0.7, 0.2, 0.5], [0.3, 0.8, 0.5]]])
    said = cross_entropy(p.log(), torch.tensor([[0, 1, -1]]))
    torch.testing.assert_close(said, torch.tensor([-((0.7 * 0.8) ** 0.5)]).abs().log().neg())
    field = ClassField(2).encode(torch.tensor([[0, 1, -1]]))
    dice = (2 * 0.7 / (0.9 + 1) + 2 * 0.8 / (1.1 + 1)) / 2
    torch.testing.assert_close(soft_dice_loss(p, field), torch.tensor([1 - dice]))
    one_class = ClassField(2).encode(torch.tensor([[0, 0, 0]]))
    torch.testing.assert_close(soft_dice_loss((one_class + 1) / 2, one_class), torch.zeros(1))


class Shapes:
    """Bright squares on dark ground, and where they are."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        labels = torch.zeros(8, 8, dtype=torch.uint8)
        labels[item % 4 : item % 4 + 4, item // 4 : item // 4 + 4] = 1
        return {"image": labels[None].float() * 0.9, "labels": labels}


def test_the_trainer_runs_it(tmp_path):
    """Items with uint8 labels, dropout of conditions, validation (where the trainer hands on floats), models."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(
            dims=2, in_channels=3, out_channels=3, channels=(8, 8), down_blocks=(0, 1), up_blocks=(1, 1),
            attention=(False, False), destination=True, norm="channel", embedding=16, frequencies=8,
        )  # fmt: skip
    joint = JointDenoiser(net, LinearPath(), RealField(1, 0.45), ClassField(2))
    options = TrainOptions(
        steps=8, batch_size=2, tensorboard=False, validate_every=8, validation_draws=1, log_every=1,
        ema=(0.2,), condition_dropout=1.0, warmup=1, learning_rate=1e-2,
    )  # fmt: skip
    trained = train(joint, MultitaskELBO(), Shapes(), tmp_path, options, validation=Shapes())
    assert trained.finished and isinstance(load_model(trained.models[0]).denoiser, JointDenoiser)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < losses[0]
    assert any(0 < record.get("validation_loss", 0) < 3 for record in records)


def test_bad_input(rows):
    x0, labels = rows
    some = generators_of(range(len(x0)))
    with pytest.raises(InputError, match="key 'labels'"):
        MultitaskELBO()(Changed(), x0, some)
    with pytest.raises(InputError, match="one generator a sample"):
        MultitaskELBO()(Changed(), x0, some[:3], labels=labels)
    with pytest.raises(InputError, match="image's grid"):
        MultitaskELBO()(Changed(), x0, some, labels=labels[:, :2])
    with pytest.raises(InputError, match="on its own path"):
        MultitaskELBO(path=VPPath())(Changed(), x0, some, labels=labels)
    with pytest.raises(InputError, match="at most 1 together"):
        Corners(0.5, 0.5, 0.5, 0.0)
    with pytest.raises(InputError, match="not both 0"):
        MultitaskELBO(w_image=0.0, w_labels=0.0)
