"""Networks from the user's own files: the right layers, normalised once, and one line where the file is another."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.extractor_networks import (
    AlexNetFeatures,
    ExportedFeatures,
    TransformerFeatures,
    _alexnet,
    normalised,
)
from radiata_decode.model.extractors import extracted


def test_alexnet_from_torchvisions_names(tmp_path: Path, generator: torch.Generator) -> None:
    """Layers 2 and 5 are torchvision's features[:5] and features[:12]."""
    with torch.random.fork_rng():
        network = _alexnet().eval()
    stored = {f"features.{name}": value for name, value in network.state_dict().items()}
    torch.save(stored | {"classifier.1.weight": torch.zeros(1)}, tmp_path / "alexnet.pth")
    image = torch.rand(1, 3, 90, 90, generator=generator)
    x = normalised(image, 96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        for layer, modules in ((2, 5), (5, 12)):
            found = AlexNetFeatures.from_file(tmp_path / "alexnet.pth", layer, side=96)
            np.testing.assert_allclose(found(image), network[:modules](x).flatten(1), rtol=1e-5, atol=1e-6)
            assert found.name == f"alexnet({layer})"
    with pytest.raises(InputError, match=r"alexnet-owt-7be5be79\.pth"):
        AlexNetFeatures.from_file(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="of another network"):
        AlexNetFeatures.from_file(tmp_path / "other.pth")


def test_clip_from_a_local_folder(tmp_path: Path, generator: torch.Generator) -> None:
    """A tiny CLIP: the same embedding as the model given CLIP's own normalisation, once."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config={**size, "image_size": 32, "patch_size": 16},
                text_config={**size, "vocab_size": 50000},
                projection_dim=12,
            )
        ).eval()
    model.save_pretrained(tmp_path / "clip")
    images = torch.rand(2, 3, 32, 32, generator=generator)
    found = TransformerFeatures.from_folder(tmp_path / "clip")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    sd = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=(images - mean) / sd)
    expected = getattr(expected, "pooler_output", expected)
    np.testing.assert_allclose(extracted(found, images), expected, rtol=1e-4, atol=1e-5)
    assert (found.name, found.side) == ("clip", 32)
    with pytest.raises(InputError, match=r"a folder with config\.json"):
        TransformerFeatures.from_folder(tmp_path / "none")
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="a model in safetensors") as caught:
        TransformerFeatures.from_folder(tmp_path / "clip")
    assert "\n" not in str(caught.value)


def test_an_exported_program_is_an_extractor(tmp_path: Path, generator: torch.Generator) -> None:
    with torch.random.fork_rng():
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU()).eval()
    batch = torch.export.Dim("n")
    program = torch.export.export(network, (torch.zeros(2, 3, 12, 12),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    found = ExportedFeatures.from_file(tmp_path / "net.pt2", "net", side=12)
    images = torch.rand(5, 3, 12, 12, generator=generator)
    x = normalised(images, 12, found.mean, found.sd)
    with torch.no_grad():
        np.testing.assert_allclose(extracted(found, images), network(x).flatten(1), rtol=1e-5, atol=1e-6)
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    for name in ("bad.pt2", "none.pt2"):
        with pytest.raises(InputError, match="expected an exported program"):
            ExportedFeatures.from_file(tmp_path / name, "net", side=12)
