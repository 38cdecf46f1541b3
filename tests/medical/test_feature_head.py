"""Segmentation from few labels: it finds what the features hold, the same for the same seed, and says where it is unsure."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of, generators_of
from radiata_medical.model.feature_head import FeatureHeads, fit_head, predict_slices
from radiata_medical.model.few_shot_training import Augmentation, Budget, dice_entropy, padded_to
from radiata_medical.model.labelling import Labelling
from radiata_medical.model.prior import build_prior
from radiata_medical.model.scratch_unet import fit_scratch_unet, predict_scratch
from radiata_medical.model.slice_segmentation import segment_with_heads


@pytest.fixture(scope="module")
def prior() -> torch.nn.Module:
    """Untrained: random features, which still tell bright from dark and flat from striped."""
    made = build_prior(2, channels=(8, 12), seed=1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return made.eval()


def discs(count: int, size: int = 36, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices with a dim disc (class 1) and a bright one (class 2) in it, noise, and their labels."""
    generator = generator_of(seed, 77)
    places = torch.arange(size, dtype=torch.float32)
    images, labels = torch.zeros(count, 1, size, size), torch.zeros(count, size, size, dtype=torch.long)
    for row in range(count):
        cx, cy = (size / 2 + 3 * torch.randn(2, generator=generator)).tolist()
        distance = ((places[:, None] - cx).square() + (places[None] - cy).square()).sqrt()
        labels[row][distance < 12] = 1
        labels[row][distance < 5] = 2
        images[row, 0] = 0.5 * labels[row] + 0.05 * torch.randn((size, size), generator=generator)
    return images, labels


def dice(found: torch.Tensor, truth: torch.Tensor, code: int) -> float:
    a, b = found == code, truth == code
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.slow
def test_heads_separate_what_is_separable(prior: torch.nn.Module) -> None:
    images, labels = discs(4)
    heads = fit_head(images, labels, prior, steps=45, members=2, levels=(0.1, 0.5), hidden=12)
    unseen, truth = discs(3, seed=5)
    found = predict_slices(heads, prior, unseen, generators_of([0, 1, 2]))
    assert found.probabilities.shape == (3, 3, 36, 36)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(3, 36, 36))
    best = found.probabilities.argmax(1)
    assert dice(best, truth, 1) > 0.85 and dice(best, truth, 2) > 0.8
    edge = F.max_pool2d(truth[:, None].float(), 3, 1, 1) != -F.max_pool2d(-truth[:, None].float(), 3, 1, 1)
    assert found.divergence[edge[:, 0]].mean() > 1.4 * found.divergence[~edge[:, 0]].mean()


def test_the_same_seed_gives_the_same_heads(prior: torch.nn.Module) -> None:
    images, labels = discs(2)
    one, two, other = (
        fit_head(images, labels, prior, steps=3, members=2, levels=(0.3,), hidden=8, seed=seed)
        for seed in (4, 4, 5)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.heads[0].conv1.weight, other.heads[0].conv1.weight)
    assert not torch.equal(one.heads[0].conv1.weight, one.heads[1].conv1.weight)


def test_a_file_gives_the_same_heads_back(prior: torch.nn.Module, tmp_path: Path) -> None:
    images, labels = discs(2)
    heads = fit_head(images, labels, prior, steps=2, members=1, levels=(0.3,), hidden=8)
    save_model(tmp_path / "head.safetensors", heads, metadata={"prior": "x"})
    again = load_model(tmp_path / "head.safetensors").denoiser
    assert isinstance(again, FeatureHeads)
    one = predict_slices(heads, prior, images, generators_of([0, 1]))
    two = predict_slices(again, prior, images, generators_of([0, 1]))
    assert torch.equal(one.probabilities, two.probabilities)


def test_a_row_does_not_depend_on_the_batch(prior: torch.nn.Module) -> None:
    images, labels = discs(3)
    heads = fit_head(images, labels, prior, steps=2, members=1, levels=(0.3,), hidden=8)
    together = predict_slices(heads, prior, images, generators_of([7, 8, 9])).probabilities
    alone = predict_slices(heads, prior, images[1:2], generators_of([8])).probabilities
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_a_volume_is_its_slices(prior: torch.nn.Module) -> None:
    images, labels = discs(5)
    heads = fit_head(images, labels, prior, steps=20, members=2, levels=(0.3,), hidden=8)
    table = Labelling((0, 3, 9), ("background", "dim", "bright"), (0, 1, 2), ())
    volume = images[:, 0].movedim(0, -1)
    maps, divergence = segment_with_heads(heads, prior, volume, table, batch_size=2)
    other, _ = segment_with_heads(heads, prior, volume, table, batch_size=5)
    assert np.mean(maps.winner != other.winner) < 1e-3 and maps.winner.shape == (36, 36, 5)
    rows = [generator_of(0, 4) for _ in range(5)]
    direct = predict_slices(heads, prior, images, rows)
    assert np.mean(maps.winner != direct.probabilities.argmax(1).movedim(0, -1).numpy()) < 1e-3
    np.testing.assert_allclose(divergence, direct.divergence.movedim(0, -1).numpy(), atol=1e-4)
    assert maps.evaluations == 5
    with pytest.raises(InputError, match="heads of 2 classes"):
        segment_with_heads(heads, prior, volume, Labelling((0, 1), ("a", "b"), (0, 1)))


def test_divergence_is_between_zero_and_the_logarithm_of_the_number_of_heads(prior: torch.nn.Module) -> None:
    """Two heads that are sure of different classes reach log 2, two that agree 0."""
    images, labels = discs(1)
    heads = fit_head(images, labels, prior, steps=1, members=2, levels=(0.3,), hidden=8)
    with torch.no_grad():
        for head, bias in zip(heads.heads, ([50.0, 0.0, 0.0], [0.0, 50.0, 0.0]), strict=True):
            head.out.weight.zero_()
            head.out.bias.copy_(torch.tensor(bias))
    found = predict_slices(heads, prior, images, generators_of([0])).divergence
    torch.testing.assert_close(found, torch.full_like(found, 0.6931472))
    with torch.no_grad():
        heads.heads[1].out.bias.copy_(heads.heads[0].out.bias)
    assert float(predict_slices(heads, prior, images, generators_of([0])).divergence.abs().max()) < 1e-6


def test_voxels_without_a_label_teach_nothing() -> None:
    """The gradient at voxels of class -1 is zero."""
    logits = torch.zeros((1, 3, 4, 4), requires_grad=True)
    labels = torch.ones((1, 4, 4), dtype=torch.long)
    labels[:, 2:] = -1
    dice_entropy(logits, labels).backward()
    assert logits.grad is not None
    assert logits.grad[:, :, 2:].abs().max() == 0 and logits.grad[:, :, :2].abs().min() > 0
    assert float(dice_entropy(logits, torch.full_like(labels, -1)).detach()) == 0.0


def test_loss_of_a_sure_and_right_answer_is_near_zero() -> None:
    labels = torch.randint(3, (2, 8, 8), generator=generator_of(0))
    right = 40.0 * F.one_hot(labels, 3).movedim(-1, 1).float()
    assert float(dice_entropy(right, labels)) < 1e-4
    assert float(dice_entropy(-right, labels)) > 10


def test_labels_move_with_their_slices() -> None:
    """An image that is its own label map stays it, to interpolation at the edges."""
    _, labels = discs(6, size=48)
    images = labels[:, None].float()
    move = Augmentation(power=0.0, gain=0.0, noise=0.0, degrees=20.0)
    moved, marked = move(images, labels, generator_of(3))
    assert float((moved[:, 0].round().long() == marked).float().mean()) > 0.99
    assert float((moved - images).abs().mean()) > 0.02


def test_a_budget_of_seconds_is_kept(prior: torch.nn.Module) -> None:
    images, labels = discs(2)
    budget = Budget(seconds=0.4)
    fit_head(images, labels, prior, seconds=0.4, members=1, levels=(0.3,), hidden=8)
    assert 0.35 < budget.spent < 1.5  # and the last step
    assert Budget(steps=4).used(2) == 0.5


def test_the_control_learns_too() -> None:
    images, labels = discs(4)
    network = fit_scratch_unet(images, labels, steps=35, channels=(8, 16), seed=1)
    unseen, truth = discs(3, seed=5)
    p = predict_scratch(network, unseen)
    assert p.shape == (3, 3, 36, 36)
    assert dice(p.argmax(1), truth, 1) > 0.8
    again = fit_scratch_unet(images, labels, steps=2, channels=(8, 16), seed=1)
    once = fit_scratch_unet(images, labels, steps=2, channels=(8, 16), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), once.parameters(), strict=True))


def test_bad_input_is_named(prior: torch.nn.Module) -> None:
    images, labels = discs(2)
    with pytest.raises(InputError, match="Are they on one grid"):
        fit_head(images, labels[:, 1:], prior, steps=1)
    with pytest.raises(InputError, match="classes 0 to 1"):
        fit_head(images, labels, prior, steps=1, classes=2)
    with pytest.raises(InputError, match="background alone"):
        fit_head(images, torch.zeros_like(labels), prior, steps=1, classes=2)
    with pytest.raises(InputError, match="budget of steps or seconds"):
        fit_head(images, labels, prior)
    with pytest.raises(InputError, match="at least one labelled slice"):
        fit_head(images[:0], labels[:0], prior, steps=1, classes=3)
    heads = fit_head(images, labels, prior, steps=1, members=1, levels=(0.3,), hidden=8)
    with pytest.raises(InputError, match="another prior"):
        heads([images], (36, 36))
    assert padded_to(torch.zeros(1, 5, 8), 8).shape == (1, 8, 8)
