"""What ships has a card: weights a file that builds them, a model card and a row; data sets a card and a row."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "docs" / "cards.md"
WEIGHTS = sorted(ROOT.glob("apps/*/src/*/weights/*.safetensors"))
DATASETS = sorted(ROOT.glob("datasets/*.toml"))


def rows() -> list[tuple[str, Path]]:
    """(name, file that it links to) for each row of the index."""
    text = INDEX.read_text(encoding="utf-8")
    found = re.findall(r"^\| `([\w-]+)` \|.*\| \[[\w-]+\]\(([^)]+)\) \|$", text, re.MULTILINE)
    found += re.findall(r"^\| \[([\w-]+)\]\(([^)]+)\) \|", text, re.MULTILINE)
    return [(name, (INDEX.parent / target).resolve()) for name, target in found]


def test_something_ships() -> None:
    assert WEIGHTS and DATASETS


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_weights_have_a_card_and_a_row(weights: Path) -> None:
    built = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    assert isinstance(built, dict) and built
    card = weights.parent / "README.md"
    text = card.read_text(encoding="utf-8")
    assert weights.stem in text, f"{weights.stem} is not in its card"
    assert "ot for clinical use" in text
    assert (weights.stem, card) in rows(), (
        f"docs/cards.md has no row of {weights.stem} that links to its card"
    )


@pytest.mark.parametrize("card", DATASETS, ids=lambda path: path.stem)
def test_data_sets_have_a_row(card: Path) -> None:
    assert (card.stem, card) in rows(), f"docs/cards.md has no row of {card.stem}"
    assert card.name in (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")


def test_rows_speak_of_what_is_there() -> None:
    ships = {path.stem for path in (*WEIGHTS, *DATASETS)}
    assert [name for name, _ in rows() if name not in ships] == []
