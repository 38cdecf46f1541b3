"""Models in files: rebuilt exactly, and refused in one line when anything is off."""

import json

import pytest
import torch

from radiata_core.checkpoint import load_model, load_state, save_model, save_state
from radiata_core.errors import InputError
from radiata_core.specs import buildable


@buildable("two-layers-of-tests")
class TwoLayers(torch.nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.options = {"width": width}
        self.first, self.second = torch.nn.Linear(2, width), torch.nn.Linear(width, 2)
        self.register_buffer("count", torch.tensor(7))


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        return TwoLayers(5)


@pytest.fixture
def saved(model, tmp_path):
    save_model(tmp_path / "model.safetensors", model, metadata={"spacing": [4.0, 4.0, 4.0]})
    return tmp_path / "model.safetensors"


def test_round_trip(model, saved):
    loaded = load_model(saved.parent)
    assert loaded.metadata == {"spacing": [4.0, 4.0, 4.0]}
    assert all(torch.equal(v, loaded.denoiser.state_dict()[k]) for k, v in model.state_dict().items())
    assert not loaded.denoiser.training


def test_half_precision_is_smaller_and_comes_back_in_float32(model, saved, tmp_path):
    save_model(tmp_path / "half.safetensors", model, metadata={}, dtype="float16")
    loaded = load_model(tmp_path / "half.safetensors").denoiser
    assert loaded.first.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.first.weight, model.first.weight, rtol=2**-11, atol=1e-7)
    assert (tmp_path / "half.safetensors").stat().st_size < saved.stat().st_size
    with pytest.raises(InputError, match="finite in float16"), torch.no_grad():
        model.first.weight[0, 0] = 1e6
        save_model(tmp_path / "half.safetensors", model, metadata={}, dtype="float16")


def edit_card(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | changes))


def one_line(path, match):
    with pytest.raises(InputError, match=match) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_damage_is_refused(saved, tmp_path):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-8])
    one_line(saved, "truncated")
    saved.write_bytes(b"")
    one_line(saved, "0 bytes")
    saved.write_bytes(b"not weights at all")
    one_line(saved, "another format")
    saved.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    one_line(saved, "sha256")
    saved.unlink()
    one_line(saved, "nothing there")
    torch.save({"model": {}}, tmp_path / "old.pt")
    one_line(tmp_path / "old.pt", "radiata-t1 convert")
    (tmp_path / "old.pt").rename(tmp_path / "disguised.safetensors")
    one_line(tmp_path / "disguised.safetensors", "a pickle")


def test_another_architecture_is_named_by_its_first_key(saved):
    edit_card(saved, denoiser={"kind": "two-layers-of-tests", "width": 6})
    one_line(saved, r"first.bias of shape \(6,\).*got \(5,\)")
    edit_card(saved, denoiser={"kind": "os.system"})
    one_line(saved, "os.system")
    edit_card(saved, format="else")
    one_line(saved, "model card")
    saved.with_suffix(".json").write_text("{")
    one_line(saved, "JSON")


def test_missing_and_unexpected_keys(saved, monkeypatch):
    import radiata_core.checkpoint as checkpoint

    read = checkpoint.read_tensors
    for change, match in (
        (lambda t: t.pop("second.bias"), "second.bias of shape"),
        (lambda t: t.update(third=torch.ones(1)), "third too"),
    ):

        def changed(path, change=change):
            tensors = read(path)
            change(tensors)
            return tensors

        monkeypatch.setattr(checkpoint, "read_tensors", changed)
        one_line(saved, match)


def test_training_state_round_trip_and_truncation(tmp_path):
    state = {
        "optimizer": {"state": {0: {"m": torch.rand(3, generator=torch.Generator())}}, "lr": [0.1, None]}
    }
    save_state(tmp_path / "s", state)
    back = load_state(tmp_path / "s")
    assert torch.equal(back["optimizer"]["state"][0]["m"], state["optimizer"]["state"][0]["m"])
    assert back["optimizer"]["lr"] == [0.1, None]
    tensors = tmp_path / "s" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        load_state(tmp_path / "s")
    with pytest.raises(TypeError, match="/bad"):
        save_state(tmp_path / "t", {"bad": object()})
    assert not (tmp_path / "t").exists()


def test_weights_are_as_readable_as_any_new_file(saved, tmp_path):
    """safetensors makes files for their owner alone; another user's pipeline must be able to read a shared model."""
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert saved.stat().st_mode == ordinary.stat().st_mode
    save_state(tmp_path / "state", {"a": torch.zeros(1)})
    assert (tmp_path / "state" / "state.safetensors").stat().st_mode == ordinary.stat().st_mode
