"""A description cannot ask for more than its weights explain; and cards, states and weights that lie are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from radiata_core.bounded_building import BoundedBuilding
from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.files import read_json, sha256
from radiata_core.logs import read_log
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.specs import rebuild
from radiata_core.training_state import load_state, save_state
from radiata_core.weights import read_tensors, write_tensors

OPTIONS: dict[str, Any] = {
    "dims": 2, "channels": (4, 8), "down_blocks": (1, 1), "up_blocks": (1, 1), "attention": (False, True), "embedding": 8,
    "frequencies": 4,
}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        denoiser = NetworkDenoiser(UNet(**OPTIONS), LinearPath(), Prediction.VELOCITY)
    save_model(tmp_path / "model.safetensors", denoiser, metadata={})
    return tmp_path


def changed(folder: Path, **options: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    card["denoiser"]["network"] |= options
    (folder / "model.json").write_text(json.dumps(card))


def test_a_network_of_its_own_weights_is_built(saved: Path) -> None:
    assert load_model(saved).denoiser is not None


@pytest.mark.parametrize(
    "options",
    [
        {"channels": [10**5, 2 * 10**5]},  # 10¹¹ weights
        {"embedding": 10**9},
        {"frequencies": 2 * 10**9},
        {"down_blocks": [10**9, 1]},  # forever
        {"in_channels": 10**12},
        {"patch": 10**6},
        {"dims": "3"},
        {"channels": None},
        {"channels": []},
    ],
)
def test_a_network_beyond_its_weights_is_refused(saved: Path, options: dict[str, Any]) -> None:
    changed(saved, **options)
    with pytest.raises(InputError, match=r"expected|cannot be made from"):
        load_model(saved)


def test_the_allowance_counts_shapes_before_they_are_made() -> None:
    weights = {"a": torch.zeros(10)}
    with pytest.raises(InputError, match="far larger"), BoundedBuilding(weights, "a.json"):
        torch.empty(2**50)
    with pytest.raises(InputError, match="far larger"), BoundedBuilding(weights, "a.json"):
        torch.arange(2**50)
    with BoundedBuilding(weights, "a.json"):
        assert torch.zeros(3, 4).sum() == 0


@pytest.mark.parametrize("kind", [["unet"], {"kind": "unet"}, None, 3, "no-such", "__class__"])
def test_a_kind_that_is_no_word_is_refused(kind: Any) -> None:
    """A list was unhashable: a TypeError."""
    with pytest.raises(InputError, match="expected one of the kinds"):
        rebuild({"kind": kind})


def test_what_a_constructor_raises_is_said_in_one_line() -> None:
    """`channels` of words ended in a TypeError or a RuntimeError from the depths of torch."""
    with pytest.raises(InputError, match="cannot be made from"):
        rebuild({"kind": "unet"} | OPTIONS | {"channels": ["a", "b"]})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "1" * 5000, '"\\ud800'])
def test_json_without_end_is_refused(tmp_path: Path, text: str) -> None:
    """Brackets ended in a RecursionError, digits in a ValueError of `int`."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="expected JSON"):
        read_json(tmp_path / "a.json")


def test_a_log_with_a_nested_line_is_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("[" * 100_000 + '\n{"step": 1}\n')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": None},
        {"tree": {"a": {"$tensor": "none"}}},
        {"tree": {"$items": [1]}},
        {"tree": [1]},
        {"tree": {"$items": [[[], 1]]}},
    ],
)
def test_a_state_whose_tree_lies_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_state(tmp_path / "s", {"step": 3, "a": torch.ones(2)})
    content = json.loads((tmp_path / "s" / "state.json").read_text()) | change
    (tmp_path / "s" / "state.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected"):
        load_state(tmp_path / "s")


def test_metadata_that_are_no_table_are_refused(saved: Path) -> None:
    card = json.loads((saved / "model.json").read_text()) | {"metadata": [1, 2]}
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="metadata by name"):
        load_model(saved)


def test_safetensors_whose_header_lies_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(3)})
    content = (tmp_path / "a.safetensors").read_bytes()
    for size in (0, 2**63, 2**62, 10**8):
        (tmp_path / "b.safetensors").write_bytes(size.to_bytes(8, "little") + content[8:])
        with pytest.raises(InputError, match="truncated or of another format"):
            read_tensors(tmp_path / "b.safetensors")
    assert sha256(tmp_path / "a.safetensors")


def test_a_slice_to_the_end_asks_for_nothing() -> None:
    """torch writes the open end of a slice as the largest integer."""
    with BoundedBuilding({"w": torch.zeros(2)}, "card.json"):
        assert len(torch.ones(5)[1:]) == 4
