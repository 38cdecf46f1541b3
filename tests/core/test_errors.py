"""A message is one printable line of bounded length, whatever a file says of itself."""

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from radiata_core.errors import LONGEST, InputError


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_one_printable_line(text: str) -> None:
    line = str(InputError(text))
    assert "\n" not in line and "\x1b" not in line and len(line.splitlines()) <= 1
    line.encode()


def test_plain_text_stays_as_it_is() -> None:
    text = "expected 5×6×7 at 2 mm in head été.nii; got x₀ — λ “a”."
    assert str(InputError(text)) == text
    assert str(pickle.loads(pickle.dumps(InputError(text)))) == text


def test_a_terminal_is_not_coloured_and_a_log_gets_no_second_line() -> None:
    assert str(InputError("subject \x1b[31mred\nok: done\u202e")) == "subject \\x1b[31mred ok: done\\u202e"


def test_a_name_of_a_megabyte_leaves_room_for_what_to_do() -> None:
    line = str(InputError(f"expected a name; got {'A' * 10**6}. Rename it."))
    assert len(line) <= LONGEST + 3 and line.startswith("expected a name") and line.endswith("Rename it.")
