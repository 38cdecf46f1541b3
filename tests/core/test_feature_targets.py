"""Encoders by protocol, and features from the disk: the right cells of the right volume."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radiata_core.errors import InputError
from radiata_core.feature_cache import FeatureStore, cropped, fingerprint_of
from radiata_core.feature_targets import Features, Slicewise, TappedFeatures, tapped_features
from radiata_core.seeds import generator_of


def normal(*shape):
    return torch.randn(shape, generator=generator_of(len(shape)))


def averages(dims, stride=2):
    """Means over cells: an encoder that is exactly local and mirror-symmetric."""
    pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[dims](stride)
    return tapped_features(nn.Sequential(pool), "", normal(1, 1, *[8] * dims))


def test_tap_finds_channels_and_stride_and_leaves_the_mode():
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Conv3d(1, 5, 3, 2, 1), nn.Dropout(0.5), nn.ReLU()).train()
    encoder = tapped_features(net, "2", normal(1, 1, 8, 8, 8))
    assert isinstance(encoder, Features) and encoder.channels == 5 and encoder.stride == (2, 2, 2)
    x = normal(2, 1, 8, 8, 8)
    torch.testing.assert_close(encoder(x), F.relu(net[0](x)).detach())
    assert net.training and not encoder(x.requires_grad_()).requires_grad


def test_tokens_after_a_class_token_are_folded():
    class Tokens(nn.Module):
        def forward(self, x):
            tokens = F.avg_pool2d(x, 4).flatten(2).movedim(1, 2)
            return torch.cat([99 + tokens[:, :1], tokens], 1)

    x = normal(2, 3, 8, 12)
    encoder = tapped_features(Tokens(), "", x[:1], stride=(4, 4))
    torch.testing.assert_close(encoder(x), F.avg_pool2d(x, 4))
    with pytest.raises(InputError, match="Give stride="):
        tapped_features(Tokens(), "", x[:1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_stacked_where_they_were(axis):
    """Means of slices, then over slices, are means over cubes."""
    x = normal(2, 1, 4, 6, 8)
    volumes = Slicewise(averages(2), axis, pool=2, chunk=3)
    assert volumes.stride == (2, 2, 2)
    torch.testing.assert_close(volumes(x), F.avg_pool3d(x, 2))


def test_store_asks_once_and_knows_encoders_apart(tmp_path):
    class Counting(nn.Module):
        calls = 0

        def __init__(self, bias):
            super().__init__()
            self.register_buffer("bias", torch.tensor(bias))

        def forward(self, x):
            Counting.calls += 1
            return x + self.bias

    def made(bias):
        return TappedFeatures(Counting(bias), "", 1, (1, 1))

    volume = normal(1, 4, 4)
    for _ in range(2):
        found = FeatureStore(tmp_path, made(1.0))("sub-01", volume)
    torch.testing.assert_close(found, (volume + 1).half())
    assert Counting.calls == 1
    assert fingerprint_of(made(1.0)) == fingerprint_of(made(1.0)) != fingerprint_of(made(2.0))
    with pytest.raises(InputError, match="Give volume="):
        FeatureStore(tmp_path, made(2.0))("sub-01")
    with pytest.raises(InputError, match="name a file"):
        FeatureStore(tmp_path, made(2.0))("../sub-01", volume)
    with pytest.raises(InputError, match="float16"):
        FeatureStore(tmp_path, made(1e6))("sub-01", volume)


def test_cropped_and_flipped_features_are_those_of_the_crop():
    volume, encoder = normal(1, 8, 12, 16), averages(3)
    features = encoder(volume[None])[0]
    crop = volume[:, 2:6, 4:12, 0:8].flip([1, 3])
    found = cropped(features, encoder.stride, (2, 4, 0), (4, 8, 8), flips=(0, 2))
    torch.testing.assert_close(found, encoder(crop[None])[0])
    for start in ((1, 4, 0), (6, 4, 0)):
        with pytest.raises(InputError, match="whole cells"):
            cropped(features, encoder.stride, start, (4, 8, 8))
