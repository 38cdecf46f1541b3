"""Models by name, file or run folder."""

from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.shipped_weights import find_weights, shipped_weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with two models."""
    folder = tmp_path / "site" / "package_with_two_models"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").touch()
    for name in ("small.safetensors", "large.safetensors", "small.json", "README.md"):
        (folder / "weights" / name).touch()
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder.name


def test_names_are_those_of_the_files(package: str) -> None:
    known = shipped_weights(package)
    assert list(known) == ["large", "small"] and all(path.is_file() for path in known.values())
    assert find_weights(package, "small") == known["small"]


def test_files_and_runs(package: str, tmp_path: Path) -> None:
    """A run's model, the only one of another folder, a file by itself."""
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
        (folder / "ema-0.1.safetensors").touch()
    (run / "model.safetensors").touch()
    assert find_weights(package, run) == find_weights(package, str(run)) == run / "model.safetensors"
    assert find_weights(package, other) == other / "ema-0.1.safetensors"
    assert find_weights(package, run / "ema-0.1.safetensors") == run / "ema-0.1.safetensors"


def test_a_shipped_name_goes_before_a_folder_of_that_name(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_weights(package, "small") == shipped_weights(package)["small"]


def test_what_is_not_there_is_said(package: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected a model's name \(large, small\), file or run folder; got 'smal'"
    ):
        find_weights(package, "smal")
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(InputError, match=r"has none yet: training is not finished"):
        find_weights(package, tmp_path / "unfinished")
    for number in range(2):
        (tmp_path / "unfinished" / f"{number}.safetensors").touch()
    with pytest.raises(InputError, match=r"has 2: name one"):
        find_weights(package, tmp_path / "unfinished")


def test_a_package_without_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_without_models").mkdir()
    (tmp_path / "package_without_models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert shipped_weights("package_without_models") == {}
    with pytest.raises(InputError, match="none is shipped"):
        find_weights("package_without_models", "prior")
