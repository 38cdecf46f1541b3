"""Encoders are isometries, also while they are trained; heads read; a builder is a function of its seed."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.modality_laws import ClassLaw, RealLaw
from radiata_core.shared_modalities import FieldEncoder, FieldHead, PooledHead, VectorEncoder, modalities_of

CLOSE = {"rtol": 0.0, "atol": 1e-5}
"""Isometries are made in double and kept in float32."""


@pytest.mark.parametrize("grid", [(6,), (4, 6), (2, 4, 4)], ids=len)
def test_encoders_keep_inner_products(grid, generator):
    """<E x, E y> is <x, y> times places over numbers: unit mean square stays unit mean square, nothing is lost."""
    x, y = torch.randn(2, 3, *grid, generator=generator)[:, None].double()
    field = FieldEncoder(3, 5).double()
    torch.testing.assert_close((field(x, grid) * field(y, grid)).sum(), (x * y).sum() * 5 / 3, **CLOSE)
    a, b = torch.randn(2, 4, generator=generator)[:, None].double()
    vector = VectorEncoder(4, 5, len(grid), cells=2).double()
    places = 5 * torch.tensor(grid).prod()
    torch.testing.assert_close((vector(a, grid) * vector(b, grid)).sum(), (a * b).sum() * places / 4, **CLOSE)


def test_learned_isometries_stay_so_after_any_step(generator):
    """Whatever the gradient did to the numbers behind it; and a small step is a small change."""
    encoder = FieldEncoder(2, 4, learned=True).double()
    before = encoder.isometry.matrix().detach()
    with torch.no_grad():
        encoder.isometry.source += 1e-6
    torch.testing.assert_close(encoder.isometry.matrix(), before, rtol=0, atol=1e-5)
    with torch.no_grad():
        encoder.isometry.source += torch.randn(4, 2, generator=generator)
    matrix = encoder.isometry.matrix()
    torch.testing.assert_close(matrix.T @ matrix, 2 * torch.eye(2, dtype=torch.float64))
    assert not torch.allclose(matrix, before, atol=0.1)
    assert encoder.isometry.source.grad is None and matrix.requires_grad


def test_more_classes_than_channels_stay_apart():
    """Ten classes in three channels: an injection of the classes, though no isometry."""
    codes = FieldEncoder(10, 3)(ClassLaw(10).numbers(torch.arange(10)[:, None]), (1,))[:, :, 0]
    apart = torch.cdist(codes, codes) + torch.eye(10) * 9
    assert float(apart.min()) > 0.2


def test_orthogonal_ranges_make_aggregation_a_concatenation(generator):
    """Encoders into different channels: the aggregate is the rotated stack of both, and either is read off exactly."""
    first, second = FieldEncoder(2, 4).double(), FieldEncoder(2, 4, seed=1).double()
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    first.isometry.source, second.isometry.source = basis[:, :2], basis[:, 2:]
    a, b = torch.randn(2, 3, 2, 5, generator=generator, dtype=torch.float64)
    both = first(a, (5,)) + second(b, (5,))
    stack = torch.einsum("ol,bl...->bo...", basis.T, both) / 2**0.5
    torch.testing.assert_close(stack, torch.cat([a, b], 1))


def test_heads_read_their_own_voxel_or_the_whole(generator):
    latent, features = (
        torch.randn(2, 3, 4, 4, generator=generator),
        torch.randn(2, 5, 4, 4, generator=generator),
    )
    with torch.random.fork_rng(devices=[]):
        field, pooled = FieldHead(3, 5, 2), PooledHead(3, 5, 7, dims=2)
    moved = latent.clone()
    moved[:, :, 0, 0] += 1
    change = (field(moved, features) - field(latent, features)).detach().abs().sum(1)
    assert bool((change[:, 0, 0] > 0).all()) and float(change.flatten(1)[:, 1:].max()) == 0
    assert pooled(latent, features).shape == (2, 7)
    swapped = latent.clone()
    swapped[:, :, 0, 0], swapped[:, :, 0, 1] = latent[:, :, 0, 1], latent[:, :, 0, 0]  # within one cell
    torch.testing.assert_close(pooled(swapped, features), pooled(latent, features))


def test_the_builder_is_a_function_of_its_seed_and_gives_each_its_own_code():
    laws = {"image": RealLaw(1), "mask": RealLaw(1), "labels": ClassLaw(3)}

    def made(seed):
        return modalities_of(laws, dims=2, latent=4, features=2, vectors=("labels",), seed=seed)

    one, again, other = made(0), made(0), made(1)
    for name in laws:
        for key, value in one[name].state_dict().items():
            assert torch.equal(value, again[name].state_dict()[key])
            assert "bias" in key or "outer" in key or not torch.equal(value, other[name].state_dict()[key])
    image, mask = (one[name].encoder.isometry.matrix() for name in ("image", "mask"))
    assert abs(float((image * mask).sum())) < 0.95 * float(image.norm() * mask.norm())
    assert sum(part.weight**2 for part in one.values()) == pytest.approx(1.0)


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="names out of image; got 'labels'"):
        modalities_of({"image": RealLaw(1)}, dims=2, latent=4, features=2, vectors=("labels",))
    with pytest.raises(InputError, match="got zeros alone"):
        modalities_of({"image": RealLaw(1)}, dims=2, latent=4, features=2, weights={"image": 0.0})
    with pytest.raises(InputError, match="a grid of 2 axes"):
        VectorEncoder(3, 4, 2)(torch.zeros(1, 3), (4, 4, 4))
