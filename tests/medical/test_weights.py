"""Models of the application by name."""

from pathlib import Path

import pytest

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_medical.model.prior import build_prior
from radiata_medical.model.weights import find_model, shipped

NAMES = {"prior-2d", "prior-3d", "restorer-2d", "restorer-3d", "segmenter", "joint-2d"}


def test_shipped_models_have_known_names_and_are_found() -> None:
    assert set(shipped()) <= NAMES
    for name, path in shipped().items():
        assert find_model(name) == path and path.with_suffix(".json").is_file()


def test_a_run_and_its_file_are_one_model(tmp_path: Path) -> None:
    file = save_model(tmp_path / "model.safetensors", build_prior(2, (8, 8)), metadata={}) or (
        tmp_path / "model.safetensors"
    )
    assert find_model(tmp_path) == find_model(tmp_path / "model.safetensors") == Path(file)


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(InputError, match=r"expected a model's name .* got 'prior-4d'\. Check the path\."):
        find_model("prior-4d")
