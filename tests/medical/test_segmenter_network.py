"""The segmenter's network and its loss."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_medical.model.segmenter_network import SegmenterNetwork
from radiata_medical.model.segmenter_objective import SegmenterRegression


def network(**options: object) -> SegmenterNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = SegmenterNetwork(**({"classes": 4, "channels": (4, 8, 8), "dims": 2} | options))  # type: ignore[arg-type]
    return made.eval()


@pytest.mark.parametrize(("dims", "multiple"), [(2, 4), (3, 4)])
def test_a_logit_a_class_and_voxel(dims: int, multiple: int) -> None:
    made = network(dims=dims)
    assert made.multiple == multiple
    image = torch.rand((2, 1, *(8, 12, 16)[:dims]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = made(image)
        assert logits.shape == (2, 4, *(8, 12, 16)[:dims])
        alone = torch.cat([made(row[None]) for row in image])
    assert torch.allclose(logits, alone, atol=1e-5), "a head is segmented as it is alone"


def test_the_default_is_a_channel_a_structure() -> None:
    from radiata_medical.data.structures import STRUCTURES

    made = SegmenterNetwork.__init__.__defaults__
    assert made is not None and made[0] == len(STRUCTURES)


def test_what_is_far_above_white_is_cut() -> None:
    made = network()
    image = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    brighter = image.clone()
    image[0, 0, 2, 3], brighter[0, 0, 2, 3] = 2.0, 50.0
    with torch.no_grad():
        assert torch.equal(made(image), made(brighter))


@pytest.mark.parametrize("shape", [(1, 1, 8, 10), (1, 2, 8, 8), (1, 1, 8, 8, 8), (1, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(batch, 1, 2 axes that divide by 4\)"):
        network()(torch.zeros(shape))


def test_a_file_gives_the_same_network(tmp_path: Path) -> None:
    made = network(dims=3)
    save_model(tmp_path / "s.safetensors", made, metadata={})
    again = load_model(tmp_path / "s.safetensors").denoiser
    image = torch.rand((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(again(image), made(image))  # type: ignore[operator]


class Logits(torch.nn.Module):
    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(values)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.values


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_the_loss_is_cross_entropy_and_dice(weight: float) -> None:
    """Against both written out: sums over the batch, mean over classes."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((2, 3, 5, 6)))
    labels = torch.from_numpy(rng.integers(0, 3, (2, 5, 6)))
    p = torch.softmax(logits, 1).numpy()
    y = np.moveaxis(np.eye(3)[labels.numpy()], -1, 1)
    entropy = -(y * np.log(p)).sum(1).mean((1, 2))
    dice = 1 - np.mean([2 * (p[:, c] * y[:, c]).sum() / (p[:, c] + y[:, c]).sum() for c in range(3)])
    loss = SegmenterRegression(weight)(Logits(logits), torch.zeros(2, 1, 5, 6), [], labels=labels)
    assert loss.per_sample.detach().numpy() == pytest.approx(entropy + weight * dice, rel=1e-5)
    assert float(loss.value.detach()) == pytest.approx(float(np.mean(entropy + weight * dice)), rel=1e-5)


def test_the_loss_falls_towards_the_labels() -> None:
    labels = torch.arange(4).repeat(2, 4, 2)[:, :, :8]
    net = Logits(torch.zeros(2, 4, 4, 8))
    objective = SegmenterRegression()
    first = objective(net, torch.zeros(2, 1, 4, 8), [], labels=labels).value
    first.backward()
    assert net.values.grad is not None
    with torch.no_grad():
        net.values -= 200.0 * net.values.grad
        second = objective(net, torch.zeros(2, 1, 4, 8), [], labels=labels).value
        assert float(second) < 0.5 * float(first)
        wanted = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) * 40.0 - 20.0
        assert float(objective(Logits(wanted), torch.zeros(2, 1, 4, 8), [], labels=labels).value) < 1e-4
