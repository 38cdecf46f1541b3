"""Bundle metadata as MONAI reads and checks it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, verify_net_in_out

from radiata_core.errors import InputError
from radiata_core.nets.medforj import MEDFORJ, MedForJUNet
from radiata_t1.model.bundle import REQUIRED_KEYS, bundle_metadata

TENSOR_KEYS = {
    *("type", "format", "modality", "num_channels", "spatial_shape"),
    *("dtype", "value_range", "is_patch_data", "channel_def"),
}
SMALL = dict(MEDFORJ) | {"channels": (8, 16), "num_res_blocks": 1, "attention_levels": (False, True)}


def metadata(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "heads at 4 mm",
        "version": "0.1.0",
        "description": "Draws whole heads.",
        "shape": (8, 16, 8),
        "spacing": (4.0, 4.0, 4.0),
        "prediction": "velocity",
        "noise_level": (0.0, 999.0),
        "covariates": ("head size", "age"),
        "network": {"_target_": "radiata_core.nets.medforj.MedForJUNet", **SMALL},
    }
    return bundle_metadata(**(given | changes))


def written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "metadata.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_has_what_the_specification_demands() -> None:
    content = metadata()
    assert set(REQUIRED_KEYS) <= set(content)
    formats = content["network_data_format"]
    for tensor in (*formats["inputs"].values(), *formats["outputs"].values()):
        assert set(tensor) == TENSOR_KEYS
    assert formats["inputs"]["covariates"]["channel_def"] == {"0": "head size", "1": "age"}
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_says_voxel_size_range_and_use() -> None:
    content = metadata()
    assert content["generated_image"]["voxel_size_mm"] == [4.0, 4.0, 4.0]
    assert content["generated_image"]["value_range"] == [-1.0, 1.0]
    assert content["generated_image"]["synthetic"] is True
    assert "Not for clinical use" in content["intended_use"]


def test_monai_reads_it(tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_meta(written(tmp_path, metadata()))
    assert parser["_meta_#network_data_format#inputs#image#spatial_shape"] == [8, 16, 8]
    assert parser["_meta_#generated_image#voxel_size_mm"] == [4.0, 4.0, 4.0]


def test_monai_runs_the_network_it_describes(tmp_path: Path) -> None:
    """MONAI builds the network from the file alone and finds its input and output as promised."""
    content = metadata()
    (tmp_path / "network.json").write_text(json.dumps({"network_def": content["network_def"]}))
    with torch.random.fork_rng(devices=[]):  # MONAI draws its test image from the global state
        verify_net_in_out(
            net_id="network_def",
            meta_file=written(tmp_path, content),
            config_file=str(tmp_path / "network.json"),
            device="cpu",
            extra_forward_args={"noise_level": torch.tensor([500.0])},
        )
    parser = ConfigParser(content)
    assert isinstance(parser.get_parsed_content("network_def"), MedForJUNet)


@pytest.mark.parametrize(
    "changes",
    [{"shape": (8, 8)}, {"shape": (0, 8, 8)}, {"spacing": (1.0, 0.0, 1.0)}, {"value_range": (1.0, -1.0)}],
)
def test_refuses_nonsense(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        metadata(**changes)
