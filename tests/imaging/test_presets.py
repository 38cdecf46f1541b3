"""The arguments that a browser can bring about: holes that are filled, and everything else refused."""

import math
import sys

import pytest

from radiata_core.errors import InputError
from radiata_imaging.serving.presets import Choice, Number, Offer, Preset

PRESET = Preset(
    "p", "P", "", (("do", "{scan}", "--n={n}", "--how", "{how}", "{other}{"), ("report", "{out}/a")), "volume",
    (Number("n", "count", -3, 9, 0), Choice("how", "how", {"fast": "fast", "mean": "best"})),
)  # fmt: skip
PATHS = {"scan": "/s/scan.nii", "out": "/o", "other": "x"}


def test_holes_are_filled_and_words_stay_words():
    """A value with a space or a shell's sign could only come from a path of ours; it stays one argument."""
    made = PRESET.words({"n": -2, "how": "mean"}, PATHS | {"scan": "/a b/$(x);.nii"})
    assert made == [["do", "/a b/$(x);.nii", "--n=-2", "--how", "mean", "x{"], ["report", "/o/a"]]


@pytest.mark.parametrize(
    "given",
    [
        {"n": 10, "how": "mean"}, {"n": -4, "how": "mean"}, {"n": 1.5, "how": "mean"}, {"n": "1", "how": "mean"},
        {"n": True, "how": "mean"}, {"n": math.nan, "how": "mean"}, {"n": math.inf, "how": "mean"},
        {"n": None, "how": "mean"},
        {"n": 1, "how": "mean; ls"}, {"n": 1, "how": ["mean"]}, {"n": 1, "how": None}, {"n": 1}, {"how": "mean"},
        {"n": 1, "how": "mean", "scan": "/etc/passwd"}, {"n": 1, "how": "mean", "": 0}, {"n": {"a": 1}, "how": "mean"},
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(given):
    with pytest.raises(InputError, match="expected") as caught:
        PRESET.words(given, PATHS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_fractions_and_cards():
    number = Number("x", "x, mm", 0.5, 2, 1, whole=False)
    assert number.word(0.7) == "0.7" and number.word(2) == "2"
    assert number.card()["step"] == "any" and PRESET.card()["fields"][1]["options"] == {
        "fast": "fast",
        "mean": "best",
    }


def test_command_is_this_python_and_the_applications_own_command_line():
    argv = Offer("radiata-x", "radiata_x.cli", "", ()).argv(["do", "-rf"])
    assert (
        argv[0] == sys.executable
        and argv[1] == "-c"
        and "radiata_x.cli" in argv[2]
        and argv[3:] == ["do", "-rf"]
    )


def served():
    from importlib.metadata import entry_points

    points = sorted(entry_points(group="radiata.apps"), key=lambda point: point.name)
    return [(point.name, point.module.removesuffix(".cli")) for point in points]


@pytest.mark.parametrize(("app", "package"), served())
def test_every_preset_is_a_command_that_its_application_accepts(app, package):
    """At both ends of every number and with every word: tyro exits, and so the test fails, if the words mean nothing."""
    import importlib

    import tyro

    offer = importlib.import_module(f"{package}.experiment.serve").OFFER
    verbs = importlib.import_module(f"{package}.cli").VERBS
    assert offer.app == f"radiata-{app}" and len({preset.key for preset in offer.presets}) == len(
        offer.presets
    )
    for preset in offer.presets:
        assert preset.reads is None or preset.reads in {reader.name for reader in offer.readers}
        ends = [list(f.options) if isinstance(f, Choice) else [f.low, f.high] for f in preset.fields]
        for turn in range(max(map(len, ends), default=1)):
            values = [end[min(turn, len(end) - 1)] for end in ends]
            given = dict(zip([field.name for field in preset.fields], values, strict=True))
            for verb, *words in preset.words(given, {"scan": "scan.nii.gz", "out": "out"}):
                tyro.cli(
                    verbs[verb], args=words, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
                )
