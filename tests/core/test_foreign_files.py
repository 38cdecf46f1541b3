"""Parsers' errors become one; what a file may declare is an option."""

from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.foreign_files import (
    MAX_BYTES,
    VARIABLE,
    allowed_bytes,
    check_declared,
    foreign,
    foreign_text,
)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), MemoryError(), ZeroDivisionError("x"), SystemError("y")]
)
def test_whatever_a_parser_raises_is_one_kind(error: Exception) -> None:
    with (
        pytest.raises(InputError, match=r"expected a; got b \(.+\)\. Copy it again\."),
        foreign("expected a; got b"),
    ):
        raise error


def test_an_input_error_and_an_interruption_pass() -> None:
    with pytest.raises(InputError, match=r"^mine$"), foreign("other"):
        raise InputError("mine")
    with pytest.raises(KeyboardInterrupt), foreign("other"):
        raise KeyboardInterrupt


def test_the_limit_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert allowed_bytes() == MAX_BYTES
    check_declared(MAX_BYTES, "a")
    with pytest.raises(InputError, match=rf"a declares {MAX_BYTES + 1:,}.*set {VARIABLE}"):
        check_declared(MAX_BYTES + 1, "a")
    monkeypatch.setenv(VARIABLE, str(10 * MAX_BYTES))
    check_declared(MAX_BYTES + 1, "a")
    for wrong in ("0", "-1", "8GB", "²", "9" * 40):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(InputError, match=VARIABLE):
            allowed_bytes()


def test_text_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "a", tmp_path / "none"):
        with pytest.raises(InputError, match="expected a table"):
            foreign_text(path, "a table")
    (tmp_path / "b").write_text("é" * 10)
    assert foreign_text(tmp_path / "b", "a table") == "é" * 10
    monkeypatch.setenv(VARIABLE, "5")
    with pytest.raises(InputError, match="declares 20"):
        foreign_text(tmp_path / "b", "a table")
