"""The pages in a real browser: reports from a disk, and `serve` from the first click to the downloaded file.

Chromium is driven without a screen over a pipe, by its DevTools protocol: nothing to install but the browser itself, without
which these tests skip. What a person would see is asked for: pixels that are not black, words, focus, an empty console.
"""

import base64
import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radiata_imaging.nifti import read_volume
from radiata_imaging.report import Overlay, Section, Table, Viewer, write_report
from radiata_imaging.volume import Volume, centred_affine

ROOT = Path(__file__).resolve().parents[2]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed")


class Tab:
    """A browser with one tab; `console` is what it complained of."""

    def __init__(self, profile: Path) -> None:
        from_us, to_them = os.pipe()
        from_them, to_us = os.pipe()

        def wire() -> None:  # DevTools reads descriptor 3 and writes 4
            low, high = os.dup2(from_us, 10), os.dup2(to_us, 11)
            os.dup2(low, 3)
            os.dup2(high, 4)

        options = [
            "--headless=new",
            "--no-sandbox",
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
            "--no-first-run",
            *(
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-quic",
            ),
        ]
        self.process = subprocess.Popen(
            [str(BROWSER), *options, f"--user-data-dir={profile}", "about:blank"], close_fds=False, preexec_fn=wire,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0,
        )  # fmt: skip
        os.close(from_us)
        os.close(to_us)
        self._write, self._read, self._rest = to_them, from_them, b""
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "DOM"):
            self.call(f"{domain}.enable")
        size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            found = self._message()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + 120
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self._rest += os.read(self._read, 1 << 20)
        whole, _, self._rest = self._rest.partition(b"\0")
        return json.loads(whole)

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if self.run(f"Boolean({condition})"):
                    return
            except AssertionError as error:  # a page that leads on to another one, asked in between
                assert "navigated" in str(error) or "context" in str(error)
            assert time.monotonic() < end, f"never came: {condition}\n{self.run('document.body.innerText')}"
            time.sleep(0.1)

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && document.body")

    def key(self, key: str, code: int = 0) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.settled()

    def settled(self) -> None:
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settled()

    def console(self) -> list[str]:
        self.run("1")
        wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"])[:400] for event in self.events if event["method"] in wrong]

    def screenshot(self, path: Path) -> np.ndarray:
        import matplotlib.image

        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        path.write_bytes(
            base64.b64decode(
                self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
            )
        )
        return matplotlib.image.imread(path)

    def close(self) -> None:
        try:
            self.call("Browser.close")
            self.process.wait(20)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for end in (self._write, self._read):
            os.close(end)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    made = Tab(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


# Reports ----------------------------------------------------------------------------------------------------------------

SHAPE = (20, 24, 18)


def place(tab: Tab, row: str = "output") -> dict[str, float]:
    """R, A, S in mm, as the page says."""
    found = re.findall(
        r"([LRPAIS]) (\d+\.\d)", tab.run(f"document.querySelector('.status {row}').textContent")
    )
    return {
        "RAS"["RAS".find(c) if c in "RAS" else "LPI".find(c)]: float(v) * (1 if c in "RAS" else -1)
        for c, v in found
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything: before and after, labels with names, a spread on another grid, a table with intervals."""
    affine = centred_affine(SHAPE, (2.0, 2.0, 2.0), "RAS")
    x = np.mgrid[tuple(slice(n) for n in SHAPE)][0].astype(np.float32)
    before, after = Volume(np.full(SHAPE, 100.0, np.float32) + x, affine), Volume(900.0 - x, affine)
    codes = np.zeros(SHAPE, np.float32)
    codes[4:8, 4:12, 3:9], codes[12:16, 4:12, 3:9] = 17, 53
    names = {17: ("left <b>thing</b>", (200, 40, 40)), 53: ("right thing", (40, 200, 40))}
    half = Volume(x[::2, ::2, ::2], affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    overlays = {
        "labels": Overlay(Volume(codes, affine), "labels", names),
        "sd": Overlay(half, "spread", unit="au"),
    }
    view = Viewer({"before": before, "after": after}, True, (0.0, 1000.0), overlays, ("before", "after"))
    table = Table(("score", "interval"), [(0.5, (0.4, 0.6))])
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(path, "A & B", [Section("View", [view]), Section("Table", [table])], synthetic=True)


@pytest.fixture
def viewed(tab: Tab, report: Path) -> Tab:
    tab.open(report.as_uri())
    tab.until("[...document.querySelectorAll('.viewer')].every(one => one.dataset.ready)")
    assert tab.run("document.querySelector('.viewer').dataset.ready") == "yes"
    return tab


def test_report_opens_from_a_disk_and_is_not_blank(viewed: Tab, tmp_path: Path) -> None:
    picture = viewed.screenshot(tmp_path / "page.png")
    assert picture[..., :3].std() > 0.1, "blank"
    text = viewed.run("document.body.innerText")
    assert "A & B" in text and "[0.4, 0.6]" in text and "not for clinical use" in text
    assert "left <b>thing</b>  1.536 ml" in text, "names of labels with their volumes"
    assert viewed.run("document.querySelectorAll('.viewer b').length") == 0
    assert viewed.console() == []


def test_page_may_not_fetch_nor_run_other_scripts(viewed: Tab) -> None:
    """The policy in the page holds in the browser; what it stops is what the console then tells."""
    viewed.run(
        "window.bad = 0; const s = document.createElement('script'); s.textContent = 'bad = 1'; document.body.append(s)"
    )
    assert viewed.run("window.bad") == 0
    assert viewed.run("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')") == "refused"


def test_crosshair_overlay_and_value_are_told_where_they_are(viewed: Tab) -> None:
    """The middle voxel of the grid, in mm with letters; its intensity on the scale of the file, to a grey level."""
    said = viewed.run("document.querySelector('.status output').textContent")
    assert place(viewed) == {"R": 1.0, "A": 1.0, "S": 1.0}
    value = float(re.search(r"before ([\d.]+)", said)[1])  # type: ignore[index]
    assert abs(value - 110) < 1000 / 255
    viewed.run(
        "[...document.querySelectorAll('.legend button')].find(b => b.innerText.includes('left')).click()"
    )
    viewed.settled()
    assert "left <b>thing</b>" in viewed.run("document.querySelector('.status output').textContent")
    assert place(viewed)["R"] < 0, "RAS: the left thing lies on the left"


def test_keys_do_what_the_mouse_does(viewed: Tab) -> None:
    """Tab reaches the planes; arrows move by a voxel of 2 mm; the side of the patient turns them round."""
    reached = []
    for _ in range(20):
        viewed.key("Tab", 9)
        reached.append(
            viewed.run(
                "document.activeElement.tagName + (document.activeElement.getAttribute('aria-label') || '')"
            )
        )
        if reached[-1].startswith("CANVASaxial"):
            break
    assert reached[0].startswith("A") and reached[-1].startswith("CANVASaxial"), reached
    start = place(viewed)
    viewed.key("ArrowRight", 39)
    viewed.key("ArrowUp", 38)
    viewed.key("PageUp", 33)
    assert {axis: place(viewed)[axis] - start[axis] for axis in "RAS"} == {"R": 2.0, "A": 2.0, "S": 2.0}
    viewed.key("s")
    viewed.key("ArrowRight", 39)
    assert place(viewed)["R"] == start["R"], "radiological: to the right is to the patient's left"
    viewed.key("Home", 36)
    assert place(viewed) == start
    wide = viewed.run("document.querySelector('canvas').clientWidth")
    viewed.key("z")
    assert viewed.run("document.querySelector('canvas').clientWidth") > 1.5 * wide


PIXEL = """(x => { const c = document.querySelector('canvas'), g = c.getContext('2d');
  return g.getImageData(Math.round(x * c.width), Math.round(.3 * c.height), 1, 1).data[0]; })"""


def test_slider_moves_between_before_and_after(viewed: Tab) -> None:
    """Before is dark and left, after is bright and right; dragging the line and the keys move the border."""
    viewed.run("(s => { s.value = ''; s.onchange(); })(document.querySelectorAll('.viewer select')[2])")
    viewed.settled()
    assert viewed.run(f"{PIXEL}(.3)") < 60 and viewed.run(f"{PIXEL}(.7)") > 200
    box = viewed.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    y = box[1] + 0.2 * box[3]
    viewed.mouse("mousePressed", box[0] + 0.5 * box[2], y, button="left", clickCount=1, buttons=1)
    viewed.mouse("mouseMoved", box[0] + 0.9 * box[2], y, button="left", buttons=1)
    viewed.mouse("mouseReleased", box[0] + 0.9 * box[2], y, button="left")
    assert viewed.run(f"{PIXEL}(.7)") < 60
    for _ in range(2):
        viewed.key("c")
    assert viewed.run("document.querySelectorAll('.viewer select')[1].value") == "1"
    for _ in range(40):
        viewed.key("[")
    assert viewed.run(f"{PIXEL}(.3)") > 200


def test_value_under_the_cursor_and_the_other_sides_letters(viewed: Tab) -> None:
    """Hovering tells without moving the crosshair: a plane's left edge is the patient's left."""
    box = viewed.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    start = place(viewed)
    viewed.mouse("mouseMoved", box[0] + 2, box[1] + box[3] / 2)
    there = place(viewed, ".cursor")
    assert there["R"] == -19.0 and place(viewed) == start
    assert "no label" in viewed.run("document.querySelector('.cursor').textContent")


# The server -------------------------------------------------------------------------------------------------------------


def served(words: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    """A server and its link."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a suite in the background ignores it
    )  # fmt: skip
    found = re.search(r"http\S+", process.stdout.readline())  # type: ignore[union-attr]
    assert found, process.communicate(timeout=60)
    return process, found[0]


def ended(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130 and "Traceback" not in said, said


def choose(tab: Tab, path: Path) -> None:
    node = tab.call("DOM.getDocument")["root"]["nodeId"]
    found = tab.call("DOM.querySelector", nodeId=node, selector="#file")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=found, files=[str(path)])


def downloaded(tab: Tab, ending: str) -> bytes:
    """The file behind a link of the page, fetched by the page itself."""
    script = f"""(async () => {{
      const link = [...document.querySelectorAll('.downloads a')].find(a => a.download.endsWith({json.dumps(ending)}));
      const bytes = new Uint8Array(await (await fetch(link.href)).arrayBuffer());
      let text = ''; for (const b of bytes) text += String.fromCharCode(b); return btoa(text); }})()"""
    return base64.b64decode(tab.run(script))


def test_serve_from_the_first_click_to_the_file(tab: Tab, tmp_path: Path) -> None:
    """A quick command line behind the page: a wrong file is explained, a head is shown, copied, compared, downloaded."""
    pytest.importorskip("starlette", reason="the server's packages are not installed")
    helper = ROOT / "tests" / "imaging" / "served_app.py"
    temporary, runs = tmp_path / "t", tmp_path / "runs"
    temporary.mkdir()
    runs.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(helper.parent), "TMPDIR": str(temporary)}
    process, link = served([sys.executable, str(helper), "serve", str(runs)], environment)
    head, wrong = tmp_path / "my head.nii.gz", tmp_path / "wrong.nii"
    array = np.random.default_rng(0).uniform(0, 900, SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(array, centred_affine(SHAPE, (2.0, 2.0, 2.0), "LPS")), head)
    wrong.write_bytes(b"nonsense")
    try:
        tab.open(link)
        tab.until("document.body?.dataset.ready === 'yes'")
        assert "token" not in tab.run("location.href"), "the token stays out of the history's last entry"
        assert "An <i>app</i> & its page." in tab.run("document.body.innerText")
        assert tab.run("document.querySelector('button[data-key=copy]').disabled"), "nothing to copy yet"
        choose(tab, head)
        tab.until("document.querySelector('#scan .viewer')?.dataset.ready === 'yes'")
        tab.run("document.querySelector('button[data-key=copy]').click()")
        tab.until("document.querySelector('.job')?.dataset.ended === 'done'")
        tab.until("document.querySelector('.job .viewer')?.dataset.ready === 'yes'")
        assert "restored" in tab.run("document.querySelector('.job .status').textContent")
        assert downloaded(tab, "_restored.nii.gz") == head.read_bytes()
        tab.screenshot(tmp_path / "page.png")
        assert tab.console() == []
        choose(tab, wrong)
        tab.until("!document.getElementById('trouble').hidden")
        assert tab.run("document.getElementById('trouble').textContent").startswith("expected")
        tab.run("document.querySelector('button[data-key=fail]').click()")
        tab.until("document.querySelector('.job')?.dataset.ended === 'failed'")
        assert "<b>bold</b> & brave" in tab.run("document.querySelector('.job').innerText")
        tab.open(link)
        assert "used already" in tab.run("document.body.innerText"), "a link works once"
    finally:
        ended(process)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_t1_draws_a_head_that_is_the_files_byte_for_byte(tab: Tab, tmp_path: Path) -> None:
    """The real application: a seed from the page, its own command in a child, the same bytes as the command alone."""
    command = str(Path(sys.executable).parent / "radiata-t1")
    process, link = served([command, "serve", "--no-browser"], dict(os.environ))
    try:
        tab.open(link)
        tab.until("document.body?.dataset.ready === 'yes'")
        tab.run(
            "document.querySelector('.card input').value = 5; document.querySelector('button[data-key=few]').click()"
        )
        tab.until("document.querySelector('.job')?.dataset.ended", 900)
        tab.until("document.querySelector('.job .viewer')?.dataset.ready === 'yes'")
        found = downloaded(tab, "_T1w.nii.gz")
        assert tab.console() == []
    finally:
        ended(process)
    words = [
        "sample",
        "--model",
        "few-step-4mm",
        "--steps",
        "4",
        "--seeds",
        "5",
        "--out",
        str(tmp_path / "alone"),
    ]
    subprocess.run([command, *words], check=True, capture_output=True, timeout=900)
    assert found == next((tmp_path / "alone").glob("*_T1w.nii.gz")).read_bytes()


COLOURED = """(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
  for (let i = 0; i < d.length; i += 4) n += Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 40;
  return n / (d.length / 4); })(document.querySelector('.job .viewer canvas'))"""


@pytest.mark.slow
def test_medical_segments_and_cleans_a_head_on_its_page(tab: Tab, tmp_path: Path) -> None:
    """Shipped weights, the example head at 2 mm: labels with names, colours and volumes of the file, then a cleaned head."""
    from radiata_medical.data.example_head import example_head

    whole = read_volume(example_head())
    array = whole.array[:180, :216, :180].reshape(90, 2, 108, 2, 90, 2).mean((1, 3, 5))
    affine = whole.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] += whole.affine[:3, :3] @ [0.5, 0.5, 0.5]
    head = tmp_path / "colin 2 mm.nii.gz"
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), head)
    command = str(Path(sys.executable).parent / "radiata-medical")
    process, link = served([command, "serve", "--no-browser"], dict(os.environ))
    made = []
    try:
        tab.open(link)
        tab.until("document.body?.dataset.ready === 'yes'")
        choose(tab, head)
        tab.until("document.querySelector('#scan .viewer')?.dataset.ready === 'yes'")
        for number, (key, ending) in enumerate(
            (("segment", "_dseg.nii.gz"), ("denoise", "_restored.nii.gz"))
        ):
            tab.run(f"document.querySelector('button[data-key={key}]').click()")
            tab.until(f"document.querySelectorAll('.job').length > {number}")
            tab.until("document.querySelector('.job').dataset.ended", 1800)
            assert tab.run("document.querySelector('.job').dataset.ended") == "done"
            tab.until("document.querySelector('.job .viewer')?.dataset.ready === 'yes'")
            assert downloaded(tab, "report.html").startswith(b"<!doctype html>")
            path = tmp_path / ending
            path.write_bytes(downloaded(tab, ending))
            made.append(read_volume(path))
            tab.screenshot(tmp_path / f"{key}.png")
            if key == "segment":
                assert tab.run(COLOURED) > 0.1
                legend = tab.run(
                    "[...document.querySelectorAll('.job .legend span')].map(s => s.textContent)"
                )
                chip = "[...document.querySelectorAll('.job .legend button')].find(b => b.innerText.includes('left thal'))"
                tab.run(f"{chip}.click()")
                tab.settled()
                said = tab.run("document.querySelector('.job .status output').textContent")
        assert tab.console() == []
    finally:
        ended(process)
    labels, cleaned = made
    assert len(legend) == len(np.unique(labels.array)) - 1 > 25
    thalamus = next(text for text in legend if text.startswith("left thalamus"))
    assert float(thalamus.split()[-2]) == pytest.approx((labels.array == 10).sum() * 0.008, rel=0.01)
    assert said.endswith("left thalamus") and re.match(r"crosshair +L ", said)
    assert labels.shape == cleaned.shape == array.shape
    assert np.corrcoef(cleaned.array.ravel(), array.ravel())[0, 1] > 0.98


DEMO = {
    "t1": ("--seeds", "0", "1", "--steps", "2", "--resolution", "4mm"),
    "latents": ("--trials", "2", "--train-steps", "0", "--passes", "1"),
    "medical": ("--block", "64"),
    "decode": ("--train", "60", "--test", "8", "--voxels", "100", "--draws", "1", "--permutations", "20"),
}


@pytest.mark.slow
def test_report_of_each_demo_opens(app: EntryPoint, tab: Tab, tmp_path: Path) -> None:
    """No complaint in the console, nothing blank, links reached by the keyboard, every viewer ready and movable."""
    command = str(Path(sys.executable).parent / f"radiata-{app.name}")
    subprocess.run(
        [command, "demo", "--out", str(tmp_path / "demo"), *DEMO.get(app.name, ())],
        check=True, capture_output=True, timeout=900,
    )  # fmt: skip
    tab.open((tmp_path / "demo" / "report.html").as_uri())
    tab.until("[...document.querySelectorAll('.viewer')].every(one => one.dataset.ready)")
    ready = tab.run("[...document.querySelectorAll('.viewer')].map(one => one.dataset.ready)")
    assert set(ready) <= {"yes"} and (ready or app.name in ("latents", "decode"))
    assert tab.screenshot(tmp_path / "page.png")[..., :3].std() > 0.05
    tab.key("Tab", 9)
    assert tab.run("document.activeElement.tagName") == "A"
    if ready:
        before = place(tab)
        tab.run("document.querySelector('.viewer canvas').focus()")
        tab.key("ArrowRight", 39)
        assert place(tab) != before
    assert tab.console() == []
