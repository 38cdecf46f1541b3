"""Standard error as JSON lines: every line of every kind is one object that says when, how grave, who and what."""

import io
import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import fake_app as fake
import pytest

from radiata_core.commands import main
from radiata_core.json_lines import JsonLines, json_stderr
from radiata_core.logs import Progress

ALWAYS = {"time", "level", "app", "command", "message"}
NOON = datetime(2026, 5, 4, 12, 0, 0, 123000, tzinfo=UTC)


def records(text: str) -> list[dict]:
    """Every line as an object; a line that is none fails here."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(set(record) >= ALWAYS for record in found)
    return found


def call(*arguments: str) -> int:
    verbs = {"sample": fake.Sample, "report": fake.Report, "measure": fake.Measure}
    return main("radiata-fake", "Fake things.", verbs, arguments)


@pytest.fixture
def lines() -> JsonLines:
    return JsonLines(io.StringIO(), "radiata-fake", "sample", clock=lambda: NOON)


def said(lines: JsonLines) -> list[dict]:
    return records(lines.stream.getvalue())


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("memory does not suffice: going on", "info", "memory does not suffice: going on"),
        ("warning: no validation trials", "warning", "no validation trials"),
        ("radiata-fake sample: warning: scan 3: dark", "warning", "scan 3: dark"),
        ("radiata-fake sample: error: expected a; got b. Do c.", "error", "expected a; got b. Do c."),
        ("scans/a.nii: expected a head; got a foot. Use a head.", "error", None),
        ("sub-01 failed: no voxels", "error", None),
        ("radiata-fake sample: interrupted: kept", "warning", "interrupted: kept"),
        ('quotes " and \\ and ä\x1b[31m', "info", None),
    ],
)
def test_a_line_is_one_object_of_its_level(lines, line, level, message):
    print(line, file=lines)
    assert said(lines) == [
        {
            "time": "2026-05-04T12:00:00.123+00:00",
            "level": level,
            "app": "radiata-fake",
            "command": "sample",
            "message": message or line,
        }
    ]


def test_pieces_carriage_returns_and_empty_lines(lines):
    lines.write("half")
    assert lines.stream.getvalue() == ""
    lines.write(" a line\n\n\r 10%|# |\r 20%|## |")
    assert [record["message"] for record in said(lines)] == ["half a line", "10%|# |"]
    lines.finish()
    assert said(lines)[-1]["message"] == "20%|## |"


def test_threads_do_not_mix_their_lines(lines):
    def speak(name: str) -> None:
        for _ in range(50):
            print(name, name, name, file=lines)

    threads = [threading.Thread(target=speak, args=(name * 20,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record["message"] for record in said(lines)) == sorted(
        " ".join([name * 20] * 3) for name in "abc" for _ in range(50)
    )


def test_fields_are_json_and_never_replace_what_every_object_has(lines):
    lines.record("info", "x", loss=float("nan"), path=Path("a"), time="never", shape=(1, 2))
    (record,) = said(lines)
    assert record["loss"] is None and record["path"] == "a" and record["shape"] == [1, 2]
    assert record["time"].startswith("2026")
    with pytest.raises(ValueError, match="progress, info, warning, error; got loud"):
        lines.record("loud", "x")


def test_progress_has_its_counts(lines):
    """Said where `every` seconds have gone, and at the end where something came since."""
    now = [0.0]
    with Progress(3, "train", every=10.0, stream=lines, clock=lambda: now[0]) as bar:
        for now[0], loss in ((1.0, 4.0), (12.0, 2.0), (13.0, 1.0)):
            bar.update(loss=loss)
    names = ("level", "done", "total", "unit", "loss", "seconds")
    assert [[record[name] for name in names] for record in said(lines)] == [
        ["progress", 2, 3, "step", 2.0, 12.0],
        ["progress", 3, 3, "step", 1.0, 13.0],
    ]
    assert said(lines)[0]["message"] == "train: 2/3 step, loss 2, 0:12 gone, 0:06 to go"


def test_warnings_and_logging_are_objects_too_and_everything_is_put_back(capsys):
    before = sys.stderr, warnings.showwarning
    with json_stderr("radiata-fake", "sample"), warnings.catch_warnings(record=False):
        warnings.simplefilter("always")
        warnings.warn("two\nlines", stacklevel=1)
        logging.lastResort.handle(logging.makeLogRecord({"msg": "from a library", "levelno": 30}))
        print("no end of line", end="", file=sys.stderr)
    assert (sys.stderr, warnings.showwarning) == before
    warned, logged, printed = records(capsys.readouterr().err)
    assert (warned["level"], warned["message"], warned["category"]) == (
        "warning",
        "two lines",
        "UserWarning",
    )
    assert warned["module"] == "core/test_json_lines.py"
    assert logged["message"] == "from a library" and printed["message"] == "no end of line"


@pytest.mark.parametrize(
    ("arguments", "code", "level", "message"),
    [
        (["sample", "--out", "x", "--log-json"], 0, None, None),
        (["--log-json", "sample", "--out", "x", "--fail", "input"], 1, "error", "expected a head; got a foot."),
        (["sample", "--out", "x", "--fail", "interrupt", "--log-json"], 130, "warning", "interrupted"),
        (["sample", "--log-json", "--out", "x", "--fail", "disk"], 1, "error", "no space left"),
        (["sample", "--out", "x", "--sedes", "3", "--log-json"], 2, "error", "--seeds"),
        (["measure", "--count", "0", "--log-json"], 2, "error", "expected count of 1 or more; got 0."),
        (["sampel", "--log-json"], 2, "error", "did you mean 'sample'?"),
        (["sample", "--out", "x", "--fail", "bug", "--log-json"], 1, "error", "please report"),
    ],
)  # fmt: skip
def test_a_command_says_objects_and_ends_with_its_code(capsys, arguments, code, level, message):
    assert call(*arguments) == code
    *before, last = records(capsys.readouterr().err)
    assert last["exit_code"] == code and last["seconds"] >= 0
    assert last["level"] == ("error" if code else "info")
    assert [record["level"] for record in before] == ([level] if level else [])
    if level:
        (record,) = before
        assert message in record["message"] and record["app"] == "radiata-fake"
        assert record["command"] == ("" if "sampel" in arguments else arguments[arguments[0] == "--log-json"])
        assert ("traceback" in record) == ("bug" in arguments)


def test_results_stay_on_standard_output_and_help_names_the_option(capsys):
    assert call("sample", "--out", "x", "--seeds", "3", "--log-json") == 0
    assert capsys.readouterr().out.startswith("3 ")
    for arguments in (["--help"], ["sample", "--help"]):
        assert call(*arguments) == 0
        assert "--log-json, with every verb" in capsys.readouterr().out
