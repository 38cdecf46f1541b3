"""Durations carry their unit, or are refused."""

import pytest

from radiata_core.errors import InputError
from radiata_latents.experiment.durations import milliseconds, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("5 ms", 0.005),
        ("0.02s", 0.02),
        (" 1.5 s ", 1.5),
        ("-20ms", -0.02),
        (".5s", 0.5),
        ("1e3ms", 1.0),
    ],
)
def test_units(text: str, seconds: float) -> None:
    assert seconds_of(text, "--bin") == pytest.approx(seconds)


def test_no_unit_no_guess() -> None:
    with pytest.raises(InputError, match="such as --bin 20ms or --bin 20s"):
        seconds_of("20", "--bin")
    for text in ("20min", "ms", "", "twenty ms", "20 ms 3"):
        with pytest.raises(InputError, match="with its unit, ms or s"):
            seconds_of(text, "--bin")
    assert milliseconds(0.005) == "5 ms"
