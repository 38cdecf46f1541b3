"""A stack of latents as one vector, on a stack whose inverse is known."""

import pytest
import torch
from torch import nn

from radiata_core.errors import InputError
from radiata_decode.model.hierarchical_latents import HierarchicalCodec, VdvaeStack


class Pyramid:
    """Means at 1 × 1, then details at 2 × 2 and 4 × 4; what is not given is drawn."""

    def encode(self, images):
        pool = nn.functional.avg_pool2d
        coarse, middle = pool(images, 4), pool(images, 2)
        return [coarse, middle - coarse, images - middle.repeat_interleave(2, 2).repeat_interleave(2, 3)]

    def decode(self, latents, generator):
        shapes = [(3, 1, 1), (3, 2, 2), (3, 4, 4)]
        count = len(latents[0])
        drawn = [0.1 * torch.randn(count, *shape, generator=generator) for shape in shapes[len(latents) :]]
        coarse, middle, fine = [*latents, *drawn]
        return (coarse + middle).repeat_interleave(2, 2).repeat_interleave(2, 3) + fine


def test_all_layers_bring_the_picture_back(generator):
    images = torch.rand(6, 3, 4, 4, generator=generator)
    codec = HierarchicalCodec(Pyramid(), (3, 4, 4), layers=3, batch=4)
    vectors = codec.encode(images)
    assert vectors.shape == (6, 3 + 12 + 48)
    assert torch.allclose(codec.decode(vectors), images, atol=1e-6)
    assert codec.groups.bincount().tolist() == [3, 12, 48]


def test_what_is_drawn_does_not_depend_on_the_batch(generator):
    images = torch.rand(5, 3, 4, 4, generator=generator)
    codec = HierarchicalCodec(Pyramid(), (3, 4, 4), layers=2)
    vectors = codec.encode(images)
    whole = codec.decode(vectors)
    assert torch.equal(codec.decode(vectors[3:4]), whole[3:4])
    assert (whole - images).abs().max() > 0.01
    other = HierarchicalCodec(Pyramid(), (3, 4, 4), layers=2, seed=1)
    assert not torch.equal(other.decode(vectors), whole)


def test_layers_out_of_range_are_refused():
    for layers in (0, 4):
        with pytest.raises(InputError, match="1 to 3 layers"):
            HierarchicalCodec(Pyramid(), (3, 4, 4), layers=layers)
    with pytest.raises(InputError, match="their own codec"):
        HierarchicalCodec(Pyramid(), (3, 4, 4), layers=1).decode(torch.zeros(1, 4))


class FakeVdvae(nn.Module):
    """The calls of VDVAE on 8-bit values: one latent, the picture itself, and one that is drawn globally."""

    encoder = decoder = out_net = property(lambda self: self)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x, get_latents=False):
        return (None, [{"z": x.permute(0, 3, 1, 2)}, {"z": torch.randn(len(x), 1)}]) if get_latents else x

    def forward_manual_latents(self, n, latents, t=None):
        return latents[0] + (0 * torch.randn(n, 1, 1, 1) if len(latents) > 1 else torch.randn(n, 1, 1, 1))

    def sample(self, values):
        return (values.permute(0, 2, 3, 1) * 69.37404 + 115.92961967).round().clamp(0, 255).byte().numpy()


@torch.no_grad()
def test_a_vdvae_is_called_in_its_own_units(generator):
    """Values are shifted and scaled 8-bit ones, axes (n, y, x, 3), and the global random state is left alone."""
    images = (torch.rand(3, 3, 4, 4, generator=generator) * 255).round() / 255
    codec = HierarchicalCodec(VdvaeStack(FakeVdvae()), (3, 4, 4), layers=2)
    vectors = codec.encode(images)
    assert torch.allclose(codec.decode(vectors), images, atol=1e-6)
    first = HierarchicalCodec(VdvaeStack(FakeVdvae()), (3, 4, 4), layers=1)
    assert torch.equal(first.decode(vectors[:, :48]), first.decode(vectors[:, :48]))
