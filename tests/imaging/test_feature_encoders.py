"""Encoders of files: the same numbers as the network they came from, and no file that runs code unasked."""

import pytest
import torch
from torch import nn

from radiata_core.errors import InputError
from radiata_imaging.feature_encoders import MeshNetFeatures, program_features, transformers_features
from radiata_imaging.meshnet import Convolution, MeshNet


def small_meshnet(generator):
    """Three layers of random weights, the last one of 4 classes."""
    layers = []
    for index, (before, after) in enumerate(((1, 5), (5, 5), (5, 4))):
        kernel = torch.randn(after, before, 3, 3, 3, generator=generator) / (27 * before) ** 0.5
        bias = 0.1 * torch.randn(after, generator=generator)
        layers.append(Convolution(kernel, bias, 1 + index % 2, index < 2, "elu" if index < 2 else "linear"))
    return MeshNet(tuple(layers), ("a", "b", "c", "d"), None)


def test_features_of_all_layers_name_the_classes_of_the_segmenter(generator):
    """The same stack by another implementation: slabs, channels last, in `MeshNet.labels`."""
    model = small_meshnet(generator)
    image = torch.rand(24, 20, 28, generator=generator)
    encoder = MeshNetFeatures(model, layers=len(model.layers), stride=1, window=(0.0, 1.0))
    found = encoder(image[None, None])[0]
    assert found.shape == (len(model.classes), 24, 20, 28)
    same = found.argmax(0).numpy() == model.labels(image.numpy())
    assert same.mean() > 0.999  # ties of float32 sums in another order


def test_cells_are_means_of_voxels(generator):
    model = small_meshnet(generator)
    image = torch.rand(1, 1, 16, 12, 20, generator=generator)
    fine, coarse = (MeshNetFeatures(model, layers=2, stride=s, window=(0.0, 1.0))(image) for s in (1, 4))
    assert coarse.shape[2:] == (4, 3, 5)
    torch.testing.assert_close(coarse, nn.functional.avg_pool3d(fine, 4))


def test_a_program_runs_only_if_it_is_trusted(tmp_path, generator):
    with torch.random.fork_rng():
        network = nn.Sequential(nn.Conv2d(1, 6, 4, stride=4), nn.GELU())
    example = torch.randn(1, 1, 16, 16, generator=generator)
    path = tmp_path / "encoder.pt2"
    torch.export.save(torch.export.export(network, (example,)), path)
    with pytest.raises(InputError, match="trusted=True"):
        program_features(path, example)
    encoder = program_features(path, example, trusted=True)
    assert (encoder.channels, tuple(encoder.stride)) == (6, (4, 4))
    with torch.no_grad():
        torch.testing.assert_close(encoder(example), network(example))
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(path.read_bytes()[:500])
    for wrong, message in ((broken, "cannot be read"), (tmp_path / "none.pt2", "nothing there")):
        with pytest.raises(InputError, match=message) as caught:
            program_features(wrong, example, trusted=True)
        assert "\n" not in str(caught.value)


def test_a_model_of_transformers_is_read_from_safetensors_only(tmp_path, generator):
    """Tokens of the picture without the class token, on their grid, of intensities as the model wants them."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2
    )
    with torch.random.fork_rng():
        model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "model")
    encoder = transformers_features(tmp_path / "model")
    assert (encoder.channels, encoder.stride) == (16, (8, 8))
    picture = 2 * torch.rand(2, 3, 32, 32, generator=generator) - 1
    with torch.no_grad():
        wanted = model(pixel_values=((picture + 1) / 2 - 0.5) / 0.5).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(picture), wanted.transpose(1, 2).unflatten(2, (4, 4)))
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    for folder in (tmp_path / "model", tmp_path / "none"):
        with pytest.raises(InputError, match="safetensors"):
            transformers_features(folder)
