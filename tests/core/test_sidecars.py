"""The card beside a file, and files that are not replaced unasked."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.sidecars import card_of, free_path, generated_by, in_the_way, write_sidecar


def test_the_card_says_what_made_the_file_from_what(tmp_path: Path) -> None:
    card = write_sidecar(
        tmp_path / "decoded.h5", "radiata-core", {"subject": "ab12"}, SyntheticData=True, Seed=3
    )
    assert card == tmp_path / "decoded.json"
    assert json.loads(card.read_text()) == {
        "GeneratedBy": [{"Name": "radiata-core", "Version": version("radiata-core")}],
        "Sources": [{"Name": "subject", "SHA256": "ab12"}],
        "SyntheticData": True,
        "Seed": 3,
    }
    assert generated_by("no-such-program")[0]["Version"] == "unknown"


def test_neither_a_file_nor_its_card_is_replaced_unasked(tmp_path: Path) -> None:
    free = tmp_path / "a.h5"
    assert free_path(free, False, (".h5",)) == free
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"a\.json, which exists"):
        free_path(free, False, (".h5",))
    assert free_path(free, True, (".h5",)) == free
    with pytest.raises(InputError, match="another file than its source"):
        free_path(free, True, (".h5",), source=tmp_path / "." / "a.h5")
    with pytest.raises(InputError, match=r"ending in \.h5 or \.nc; got .*a\.npz"):
        free_path(tmp_path / "a.npz", False, (".h5", ".nc"))


def test_a_card_of_this_house_without_its_file_is_not_in_the_way(tmp_path: Path) -> None:
    """A process was killed between the two; a card of anybody else is kept, and so is one beside its file."""
    path = tmp_path / "rates.h5"
    card, content = card_of(path, "radiata-core", {"subject": "ab12"}, Seed=3)
    card.write_text(json.dumps(content(path)))
    assert free_path(path, False, (".h5",)) == path and in_the_way(path, card) is None
    path.write_bytes(b"rates")
    assert in_the_way(path, card) == path
    path.unlink()
    for foreign in ('{"GeneratedBy": [{"Name": "fmriprep"}]}', '{"GeneratedBy": []}', "[]", "{", "3"):
        card.write_text(foreign)
        assert in_the_way(path, card) == card
