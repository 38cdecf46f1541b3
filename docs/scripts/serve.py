"""The picture of docs/serve.md: Colin27 dropped on the page of `radiata-medical serve`, as Chromium shows it.

    python docs/scripts/serve.py            the scan in the viewer, and what can be done with it: docs/images/serve.png
    python docs/scripts/serve.py segment    the same after that preset has run (minutes), as serve-segment.png

Prints how large a whole head of 1 mm is on a page, in bytes of the page, and how long it takes to pack.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from radiata_imaging.nifti import read_volume
from radiata_imaging.viewer import embedded
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.example_head import example_head

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "workspace"))
from test_page import Tab, choose, ended, served  # noqa: E402

VIEWER = "?.dataset.ready === 'yes'"


def sizes() -> None:
    """Colin27, and the same head with noise all over a grid of 192×224×192."""
    head = read_volume(example_head())
    shape, rng = (192, 224, 192), np.random.default_rng(0)
    cut = tuple(slice(0, min(n, m)) for n, m in zip(shape, head.shape, strict=True))
    noisy = np.zeros(shape, np.float32)
    noisy[cut] = head.array[cut]
    noisy = np.hypot(noisy + rng.normal(0, 8, shape), rng.normal(0, 8, shape)).astype(np.float32)
    for name, volume in (
        ("colin27", head),
        ("noisy", Volume(noisy, centred_affine(shape, (1.0, 1.0, 1.0), "RAS"))),
    ):
        began = time.process_time()
        item = embedded(name, volume)
        print(
            f"{name}: {item['shape']}, {item['levels']} grey levels, {len(item['data']) * 4 / 3 / 1e6:.1f} MB of the page, "
            f"{time.process_time() - began:.1f} s to pack"
        )


def picture(preset: str) -> Path:
    """Where the picture is."""
    command = str(Path(sys.executable).parent / "radiata-medical")
    process, link = served([command, "serve", "--no-browser"], dict(os.environ))
    out = ROOT / "docs" / "images" / (f"serve-{preset}.png" if preset else "serve.png")
    with tempfile.TemporaryDirectory() as profile:
        tab = Tab(Path(profile))
        try:
            tab.open(link)
            tab.until("document.body?.dataset.ready === 'yes'")
            choose(tab, example_head())
            tab.until(f"document.querySelector('#scan .viewer'){VIEWER}")
            if preset:
                tab.run(f"document.querySelector('button[data-key={preset}]').click()")
                tab.until("document.querySelector('.job')?.dataset.ended", 3600)
                tab.until(f"document.querySelector('.job .viewer'){VIEWER}")
            tab.screenshot(out)
        finally:
            tab.close()
            ended(process)
    return out


if __name__ == "__main__":
    sizes()
    print(picture(sys.argv[1] if len(sys.argv) > 1 else ""))
