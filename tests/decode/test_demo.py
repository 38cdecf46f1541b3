"""The demo's part of real fMRI: stopped before its page and called again, it ends as if nothing had been."""

from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.experiment import demo_run
from radiata_decode.experiment.demo import Demo


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_unfinished_demo_is_begun_again_and_a_finished_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    task = Demo(out, ("haxby",), generator="none", permutations=19)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(demo_run, "write_page", interrupted)
        task.run()
    assert read_json(out / "run.json")["state"] == "interrupted" and not (out / "report.html").exists()
    decoded = (out / "decoded-haxby.h5").read_bytes()
    task.run()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert read_json(out / "run.json")["state"] == "done" and "Categories from real fMRI" in page
    assert (out / "decoded-haxby.h5").read_bytes() == decoded and "&quot;running&quot;" not in page
    with pytest.raises(InputError, match="--overwrite"):
        task.run()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="expected an empty or new folder"):
        Demo(tmp_path, ("haxby",), generator="none", permutations=19).run()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
