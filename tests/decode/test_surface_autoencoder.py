"""The bottleneck: what the loss counts, and that low-rank maps are learned better than their mean."""

import pytest
import torch

from radiata_core.train import TrainOptions, train
from radiata_decode.model.surface_autoencoder import Autoencoding, SurfaceAutoencoder, masked_squared_error
from radiata_decode.model.surface_encoder import SurfaceEncoder


@pytest.fixture
def autoencoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SurfaceAutoencoder(SurfaceEncoder((32, 32), 16, 32, 1, 4), 16, 32, 1, 4)


def maps(count, seed):
    """Maps of rank three: smooth patterns with random weights, zero outside of a mask."""
    source = torch.Generator().manual_seed(7)
    basis = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 4, generator=source), 32, mode="bicubic")[0]
    mask = torch.zeros(1, 32, 32)
    mask[:, 4:, :28] = 1
    weights = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("nk,kyx->nyx", weights, basis)[:, None] * mask, mask


def test_loss_counts_the_mask_alone(generator):
    target, mask = maps(4, 0)
    wrong = target + 5 * (1 - mask) + 0.5 * mask
    torch.testing.assert_close(
        masked_squared_error(wrong, target, mask.expand_as(target)), torch.full((4,), 0.25)
    )


def test_only_cls_reaches_the_decoder(autoencoder, generator):
    """Two pictures with the same bottleneck are reconstructed alike."""
    pictures = torch.randn(2, 1, 32, 32, generator=generator)
    autoencoder.narrow.weight.data.zero_()
    first, second = autoencoder(pictures)
    assert torch.equal(first, second)
    assert autoencoder.codes(pictures).shape == (2, 16)


def test_noise_belongs_to_the_sample():
    objective = Autoencoding(noise=1.0)
    target, mask = maps(3, 1)
    seen = []

    def echo(x):
        seen.append(x)
        return x

    sources = lambda: [torch.Generator().manual_seed(i) for i in (4, 5, 6)]  # noqa: E731
    loss = objective(echo, target, sources(), mask=mask.expand_as(target))
    objective(echo, target[1:2], sources()[1:2], mask=mask[None])
    assert torch.equal(seen[0][1:2], seen[1])
    assert torch.equal(seen[0] * (1 - mask), torch.zeros_like(target))
    assert 0.8 < float(loss.value) < 1.2  # the noise's variance


def test_low_rank_maps_are_learned_better_than_their_mean(autoencoder, tmp_path):
    """Held-out maps after 150 small steps: less than a third of the mean map's error."""
    target, mask = maps(256, 2)
    items = [{"image": picture, "mask": mask} for picture in target]
    options = TrainOptions(
        steps=150, batch_size=32, learning_rate=5e-3, warmup=10, cosine=True, ema=(0.1,), tensorboard=False
    )
    train(autoencoder, Autoencoding(), items, tmp_path / "run", options)
    held, _ = maps(64, 3)
    with torch.no_grad():
        found = autoencoder.eval()(held)
    whole = mask.expand_as(held)
    error = masked_squared_error(found, held, whole).mean()
    mean = masked_squared_error(target.mean(0, keepdim=True).expand_as(held), held, whole).mean()
    assert float(error) < float(mean) / 3
