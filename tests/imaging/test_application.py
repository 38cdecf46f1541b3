"""The page over HTTP, as a browser and as an enemy would talk to it: one real server, a small command line behind it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server's packages are not installed")
HERE = Path(__file__).parent


class Client:
    """A browser that has the link."""

    def __init__(self, link):
        self.port = int(re.search(r":(\d+)/", link)[1])
        self.host = f"127.0.0.1:{self.port}"
        status, headers, _ = self.raw("GET", link.partition(self.host)[2], cookie=None)
        assert status == 200
        self.cookie = headers["set-cookie"].split(";")[0]

    def raw(self, method, path, body=None, cookie=True, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {"Origin": f"http://{self.host}"} if method != "GET" else {}
        if cookie:
            named["Cookie"] = self.cookie
        try:
            connection.request(method, path, body, named | headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers.items()), answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, **headers):
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        status, _, answer = self.raw(method, path, data, **headers)
        return status, json.loads(answer)

    def upload(self, data, name="head.nii.gz", reader="volume"):
        return self.json("POST", f"/api/uploads?reader={reader}&name={name}", data)

    def ended(self, key, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            card = self.json("GET", f"/api/jobs/{key}")[1]
            if card["state"] in ("done", "failed", "stopped"):
                return card
            time.sleep(0.1)
        raise AssertionError(f"not ended: {card}")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server in a process of its own, its client, and where its temporary files are."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "a").mkdir()
    (folder / "a" / "report.html").write_text("<!doctype html><title>of a run</title>")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "report.html").write_text("secret")
    (folder / "b").symlink_to(outside)
    temporary = tmp_path_factory.mktemp("temporary")
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TMPDIR": str(temporary)}
    call = [sys.executable, str(HERE / "served_app.py"), "serve", str(folder)]
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield Client(re.search(r"http\S+", process.stdout.readline())[0]), temporary
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "stopped" in said
    assert list(temporary.iterdir()) == [], "the temporary folder was left behind"


@pytest.fixture(scope="module")
def client(world):
    return world[0]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Bytes of a small head."""
    path = tmp_path_factory.mktemp("head") / "h.nii.gz"
    array = np.random.default_rng(0).uniform(0, 900, (12, 10, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 2, 1])), path)
    return path.read_bytes()


def test_only_loopback_listens(client):
    """Another address of this machine answers nothing at the same port."""
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.skip("no /proc here")
    port = f"{client.port:04X}"
    found = [row.split()[1] for row in listening.read_text().splitlines()[1:] if row.split()[3] == "0A"]
    assert [address for address in found if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_page_is_escaped_and_says_what_it_is_not_for(client):
    status, headers, body = client.raw("GET", "/")
    text = body.decode()
    assert (
        status == 200
        and "not for clinical use" in text
        and "An &lt;i&gt;app&lt;/i&gt; &amp; its page." in text
    )
    assert "script-src 'self'" in headers["content-security-policy"] and "<script>" not in text
    for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
        assert client.raw("GET", name)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/static/..%2f..%2freport.py", 404), ("GET", "/static/serve.py", 404), ("GET", "/../../etc/passwd", 404),
        ("GET", "/api/uploads/..%2f..%2fx/volume", 404), ("GET", "/api/jobs/0/files/0", 404), ("GET", "/reports/1", 404),
        ("GET", "/reports/-1", 404), ("GET", "/openapi.json", 404), ("PUT", "/api/jobs", 405), ("DELETE", "/", 405),
    ],
)  # fmt: skip
def test_names_are_looked_up_and_nothing_else(client, method, path, status):
    assert client.raw(method, path)[0] == status


def test_reports_are_listed_and_shown_in_a_sandbox(client):
    """The link that leads out of the folder is not followed."""
    reports = client.json("GET", "/api/state")[1]["reports"]
    assert [report["name"] for report in reports] == ["a"]
    status, headers, body = client.raw("GET", reports[0]["url"])
    assert (
        status == 200
        and b"of a run" in body
        and headers["content-security-policy"].startswith("sandbox allow-scripts")
    )


@pytest.mark.parametrize(
    ("data", "name", "reader", "status", "match"),
    [
        (b"not a volume at all", "x.nii", "volume", 400, "expected"),
        (b"", "x.nii.gz", "volume", 400, "empty"),
        (b"\x1f\x8bbroken", "x.nii.gz", "volume", 400, "expected a readable volume|expected"),
        (b"GIF89a", "x.gif", "volume", 400, "expected a volume"),
        (b"ok", "x.nii", "picture", 404, "expected"),
        (b"no", "x.txt", "text", 400, "begins with ok; got the file"),
        (b"x" * (2**20 + 1), "x.nii", "volume", 413, "at most 1 MiB"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_line_and_leave_nothing(world, data, name, reader, status, match):
    client, temporary = world
    before = {path for path in temporary.rglob("*") if path.is_file()}
    got, answer = client.upload(data, name, reader)
    assert got == status and re.search(match, answer["error"])
    assert "\n" not in answer["error"] and str(temporary) not in answer["error"]
    assert {path for path in temporary.rglob("*") if path.is_file()} == before


def test_a_length_that_lies_is_counted(client):
    """Chunked, without a length: refused before a byte is stored."""
    status, _, _ = client.raw("POST", "/api/uploads?reader=volume&name=x.nii", iter([b"x" * 10]))
    assert status == 411


def test_another_kind_of_file_goes_through_its_own_reader(client):
    status, made = client.upload(b"ok then", "notes.txt", "text")
    assert status == 201 and made["volume"] is None
    assert client.json("GET", f"/api/uploads/{made['key']}/volume")[0] == 404
    status, answer = client.json(
        "POST", "/api/jobs", {"preset": "copy", "upload": made["key"], "values": {"n": 1}}
    )
    assert status == 400 and "expected volume" in answer["error"]


def test_a_volume_is_copied_shown_and_downloaded_byte_for_byte(world, head):
    """Upload, run, watch, look, download; the browser's name for the file is text and never a path."""
    client, temporary = world
    status, made = client.upload(head, "..%2F..%2F%3Cb%3Ehead.nii.gz")
    assert status == 201 and made["label"] == "../../<b>head.nii.gz"
    assert "12×10×8 voxels of 2×2×2 mm" in made["facts"] and re.fullmatch("[0-9a-f]{16}", made["key"])
    stored = temporary.glob("radiata-serve-*/uploads/*/*")
    assert {path.name for path in stored} <= {"scan.nii.gz", "scan.txt", "view", "view.json"}
    assert client.raw("GET", made["volume"]["url"])[2][:2] == b"\x1f\x8b"

    asked = {"preset": "copy", "upload": made["key"], "values": {"n": 4}}
    status, job = client.json("POST", "/api/jobs", asked)
    assert status == 201
    card = client.ended(job["key"])
    assert card["state"] == "done" and card["lines"] == ["copied with 4 in"], card
    assert [file["name"] for file in card["files"]] == ["scan_restored.nii.gz", "report.html", "card.json"]
    written = next(temporary.glob(f"radiata-serve-*/jobs/{job['key']}/out/scan_restored.nii.gz"))
    status, headers, body = client.raw("GET", card["files"][0]["url"])
    assert status == 200 and body == written.read_bytes() == head
    assert headers["content-disposition"] == 'attachment; filename="scan_restored.nii.gz"'
    assert client.raw("GET", card["files"][1]["url"] + "?show")[1]["content-security-policy"].startswith(
        "sandbox"
    )

    page = client.json("GET", f"/api/jobs/{job['key']}/view")[1]
    assert [item["name"] for item in page["volumes"]] == [made["label"], "restored"] and page["compare"] == 1
    assert page["overlays"][0]["unit"] == "nats" and "not for clinical use" in page["stamp"]
    assert client.raw("GET", page["overlays"][0]["url"])[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"[" * 9000, {"preset": "rm"}, {"preset": ["copy"]}, {"preset": "copy"},
        {"preset": "copy", "upload": "../x"}, {"preset": "fail", "values": {"x": 1}}, {"preset": "fail", "values": [1]},
        b"x" * 20000,
    ],
)  # fmt: skip
def test_requests_that_mean_nothing_start_nothing(client, body):
    before = len(client.json("GET", "/api/state")[1]["jobs"])
    status, answer = client.json("POST", "/api/jobs", body)
    assert status in (400, 404, 413) and answer["error"].startswith("expected")
    assert len(client.json("GET", "/api/state")[1]["jobs"]) == before


def test_a_command_that_fails_says_why_and_the_next_one_is_not_run(client):
    card = client.ended(client.json("POST", "/api/jobs", {"preset": "fail"})[1]["key"])
    assert card["state"] == "failed" and card["files"] == []
    assert card["lines"] == ["served-app fail: error: expected <b>bold</b> & brave; got neither."]


def test_one_at_a_time_and_both_are_stopped(client):
    """The first is interrupted as by a scheduler and keeps its own rules; the second never begins."""
    first = client.json("POST", "/api/jobs", {"preset": "wait"})[1]["key"]
    second = client.json("POST", "/api/jobs", {"preset": "wait"})[1]["key"]
    end = time.monotonic() + 60
    while client.json("GET", f"/api/jobs/{first}")[1]["lines"] != ["waiting"] and time.monotonic() < end:
        time.sleep(0.05)
    assert client.json("GET", f"/api/jobs/{second}")[1]["state"] == "waiting"
    assert client.json("POST", f"/api/jobs/{second}/stop")[1]["state"] == "stopped"
    client.json("POST", f"/api/jobs/{first}/stop")
    card = client.ended(first)
    assert card["state"] == "stopped" and card["lines"] == ["waiting", "interrupted, state saved"]


def test_only_the_link_opens_it(client):
    for headers in ({"Cookie": ""}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert client.raw("POST", "/api/jobs", b'{"preset": "fail"}', **headers)[0] == 403
    assert client.raw("GET", "/enter?token=wrong", cookie=False)[0] == 403
    assert tempfile.gettempdir() not in client.raw("GET", "/api/state")[2].decode()
