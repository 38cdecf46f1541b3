import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from radiata_imaging.plots import STAMP, losses
from radiata_imaging.report import Image, Provenance, Section, Table, Text, Viewer, page, write_report
from radiata_imaging.volume import Volume

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&'


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href", "srcset", "data")]
        assert not any(key.startswith("on") for key, _ in attributes)

    def handle_data(self, data):
        self.text.append(data)


def hostile_page():
    volume = Volume(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([-1.0, -1.0, 1.0, 1.0]))
    blocks = [
        Text(HOSTILE),
        Table((HOSTILE, "b"), [(HOSTILE, (0.1, None)), (float("nan"), 1)], HOSTILE),
        Image(losses([{"step": 1, "loss": 2.0}]), HOSTILE),
        Viewer({HOSTILE: volume}, synthetic=True),
        Provenance({HOSTILE: HOSTILE}),
    ]
    return page(HOSTILE, [Section(HOSTILE, blocks)], synthetic=True)


def test_what_a_user_wrote_is_text():
    tags = Tags()
    tags.feed(hostile_page())
    assert tags.tags.count("script") == 2 and tags.tags.count("img") == 1
    assert HOSTILE in "".join(tags.text)
    assert STAMP in "".join(tags.text)


def test_the_page_refers_to_nothing_outside():
    text = hostile_page()
    tags = Tags()
    tags.feed(text)
    assert all(source.startswith(("data:", "#")) for source in tags.sources)
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_page_lets_the_browser_do_nothing_but_draw():
    """The policy names the one script by its checksum: another one, or a fetch, would be refused."""
    text = hostile_page()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.search(r"<script>(.*)</script></body>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


@pytest.mark.parametrize(
    ("value", "shown"), [((0.12345, 2.0), "[0.1235, 2]"), (float("nan"), "–"), (True, "yes"), (3, "3")]
)
def test_cells(value, shown):
    assert f"<td>{shown}</td>" in Table(("a",), [(value,)]).html()


def test_written_whole(tmp_path):
    path = write_report(tmp_path / "r.html", "t", [Section("s", [Text("x")])])
    assert path.read_text(encoding="utf-8").endswith("</html>\n") and len(list(tmp_path.iterdir())) == 1
