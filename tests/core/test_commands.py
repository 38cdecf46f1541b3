"""The contract of every command line: exit codes, one line for errors, help without torch."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from radiata_core.commands import main

SCRIPT = Path(__file__).with_name("fake_app.py")
_spec = importlib.util.spec_from_file_location("fake_app", SCRIPT)
fake = importlib.util.module_from_spec(_spec)
sys.modules["fake_app"] = fake
_spec.loader.exec_module(fake)


def call(*arguments: str) -> int:
    return main(
        "radiata-fake",
        "Fake things.",
        {"sample": fake.Sample, "report": fake.Report, "measure": fake.Measure},
        arguments,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["sample", "--help"]])
def test_help_is_light(arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "Draw things." in done.stdout
    assert done.stderr.strip() == "light"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["sample", "--help"], ["--version"], ["sample", "--out", "x"]]
)
def test_a_reader_who_has_seen_enough_is_not_told_of_a_bug(arguments):
    words = [sys.executable, str(SCRIPT), *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.strip() in ("", "light")


def test_a_verb_runs(capsys):
    assert call("sample", "--out", "x", "--seeds", "3", "4") == 0
    assert capsys.readouterr().out.startswith("3 4")


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["sampel", "--out", "x"], "'sample'"),
        (["sample", "--out", "x", "--sedes", "3"], "--seeds"),
        (["sample", "--out", "x", "--seeds", "three"], "--seeds"),
        (["sample", "--out"], "Missing value for argument '--out'"),
        (["sample"], "--out"),
    ],
)
def test_misuse_exits_2_and_suggests(capsys, arguments, suggestion):
    """In one line, which says where the help is; tyro alone would draw a frame of five."""
    assert call(*arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert suggestion in errors[0]
    if arguments[0] == "sample":
        assert len(errors) == 1 and errors[0].startswith("radiata-fake sample: error: ")
        assert errors[0].endswith(". See radiata-fake sample --help.")


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        ("input", 1, "radiata-fake sample: error: expected a head; got a foot. Use a head."),
        ("disk", 1, "no space left"),
        ("missing", 1, "lost.nii: no such file"),
        ("memory", 1, "ran out of memory"),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_failures_are_one_line(capsys, fail, code, line):
    assert call("sample", "--out", "x", "--fail", fail) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert line in errors[0]


@dataclasses.dataclass(frozen=True)
class Choose:
    """Choose."""

    how: Literal["slow", "fast", "best"] | None = None
    """A way; by default the one that fits."""

    def run(self) -> None:
        print(repr(self.how))


def test_choices_stand_in_their_order_and_none_is_no_word(capsys):
    """tyro alone counts None among the choices, and shows them in an order that changes from call to call."""
    for words, said in ((("--how", "fast"), "'fast'"), ((), "None")):
        assert main("radiata-fake", "Fake things.", {"choose": Choose}, ["choose", *words]) == 0
        assert capsys.readouterr().out.strip() == said
    assert main("radiata-fake", "Fake things.", {"choose": Choose}, ["choose", "--how", "None"]) == 2
    assert "Expected one of ('slow', 'fast', 'best')" in capsys.readouterr().err
    assert main("radiata-fake", "Fake things.", {"choose": Choose}, ["choose", "--help"]) == 0
    assert "{slow,fast,best}" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--count", "--least"])
def test_a_value_refused_while_parsing_is_one_line_and_misuse(capsys, option):
    """By the verb's own check, and by that of options inside options; tyro alone would draw a frame of five lines."""
    assert call("measure", option, "0") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"radiata-fake measure: error: expected {option[2:]} of 1 or more; got 0. Give more.\n"
    assert call("measure", option, "2") == 0
    assert capsys.readouterr() == ("measured\n", "")


def test_a_bug_keeps_its_traceback(capsys):
    assert call("sample", "--out", "x", "--fail", "bug") == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert "please report" in errors.splitlines()[-1]


def test_version_and_nothing(capsys):
    assert call("--version") == 0
    assert "radiata-core 0" in capsys.readouterr().out
    assert call() == 2
    assert "usage: radiata-fake" in capsys.readouterr().err


class Freed:
    """A file that meets a full disk again when it is freed."""

    def __del__(self) -> None:
        raise RuntimeError(
            "Can't decrement id ref count (file write failed: errno = 28, No space left on device)"
        )


@dataclasses.dataclass(frozen=True)
class Store:
    """Write a store."""

    caught: bool = False

    def run(self) -> None:
        kept = Freed()
        if not self.caught:
            raise OSError(28, "No space left on device")
        del kept


@pytest.mark.parametrize("words", [[], ["--caught"]])
def test_a_full_disk_that_finalisers_meet_again_is_one_line(capfd, words):
    """Whether the command failed of it, or nobody else noticed; and the hooks are as before."""
    hooks = sys.excepthook, sys.unraisablehook
    assert main("radiata-fake", "Fake things.", {"store": Store}, ["store", *words]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("radiata-fake store: error: no space left on the disk;")
    assert (sys.excepthook, sys.unraisablehook) == hooks
