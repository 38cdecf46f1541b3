"""The pages of `radiata-latents serve` and `radiata-decode serve` in Chromium: from a file or a choice to the result."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from .test_page import Tab, choose, downloaded, ended, served, tab  # noqa: F401

pytestmark = pytest.mark.slow


def command(app: str) -> str:
    return str(Path(sys.executable).parent / f"radiata-{app}")


def opened(tab: Tab, link: str) -> None:  # noqa: F811
    tab.open(link)
    tab.until("document.body?.dataset.ready === 'yes'")


def job_done(tab: Tab) -> None:  # noqa: F811
    tab.until("document.querySelector('.job')?.dataset.ended", 600)
    said = tab.run("document.querySelector('.job').innerText")
    assert tab.run("document.querySelector('.job').dataset.ended") == "done", said


def test_latents_infers_rates_of_a_population_on_its_page(tab: Tab, tmp_path: Path) -> None:  # noqa: F811
    """Chosen on the page, its rates are those of the command; a file that is none is explained."""
    population, alone = tmp_path / "my population.h5", tmp_path / "alone.h5"
    words = ["prepare", "--preset", "lorenz", "--trials", "2", "--holdout", "0.25", "--out", str(population)]
    subprocess.run([command("latents"), *words], check=True, capture_output=True, timeout=300)
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(b"nonsense")
    process, link = served([command("latents"), "serve", "--no-browser"], dict(os.environ))
    try:
        opened(tab, link)
        assert tab.run("document.querySelector('button[data-key=infer]').disabled"), "nothing to read yet"
        choose(tab, population)
        tab.until("!document.querySelector('button[data-key=infer]').disabled", 60)
        assert "my population" in tab.run("document.getElementById('uploads').innerText")
        tab.run("document.querySelector('button[data-key=infer]').focus()")
        tab.key(" ", 32)
        job_done(tab)
        (tmp_path / "rates.h5").write_bytes(downloaded(tab, "rates.h5"))
        page = downloaded(tab, "report.html")
        tab.screenshot(tmp_path / "latents.png")
        assert tab.console() == []
        choose(tab, wrong)
        tab.until("!document.getElementById('trouble').hidden")
        assert tab.run("document.getElementById('trouble').textContent").startswith("expected")
    finally:
        ended(process)
    words = ["infer", str(population), "--model", "lorenz", "--out", str(alone), "--passes", "0"]
    subprocess.run([command("latents"), *words], check=True, capture_output=True, timeout=300)
    with (
        xr.open_dataset(tmp_path / "rates.h5", engine="h5netcdf") as found,
        xr.open_dataset(alone, engine="h5netcdf") as want,
    ):
        assert found["rates"].shape[0] > 0 and np.isfinite(found["rates"]).all()
        np.testing.assert_array_equal(found["rates"], want["rates"])
    assert page.startswith(b"<!doctype html>")


def test_decode_shows_its_demo_on_its_page(tab: Tab, tmp_path: Path) -> None:  # noqa: F811
    """Categories from one real slice: a choice and a button, by the keyboard; the report is opened from the page."""
    process, link = served([command("decode"), "serve", "--no-browser"], dict(os.environ))
    try:
        opened(tab, link)
        tab.run("document.querySelector('.card select').value = 'haxby'")
        tab.run("document.querySelector('button[data-key=demo]').focus()")
        tab.key(" ", 32)
        job_done(tab)
        report, scores = downloaded(tab, "report.html"), downloaded(tab, "scores.tsv").decode()
        tab.screenshot(tmp_path / "decode.png")
        assert tab.console() == []
        path = tmp_path / "report.html"
        path.write_bytes(report)
        tab.open(path.as_uri())
        assert "Haxby" in tab.run("document.body.innerText")
        assert tab.screenshot(tmp_path / "report.png")[..., :3].std() > 0.05
        assert tab.console() == []
    finally:
        ended(process)
    rows = [line.split("\t") for line in scores.splitlines()]
    assert rows[0][0] == "part" and {row[0] for row in rows[1:]} == {"haxby"}
