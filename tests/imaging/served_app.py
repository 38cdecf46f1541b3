"""A command line in a file, for the tests of the page: quick, and honest about what it was given.

`python served_app.py serve FOLDER` puts it behind the page, as an application's verb does; PYTHONPATH holds this folder.
"""

import shutil
import sys
import time
from pathlib import Path


def main() -> None:
    verb, *words = sys.argv[1:]
    if verb == "copy":
        scan, out = Path(words[0]), Path(words[1])
        out.mkdir(parents=True)
        print("\rcopy:  50%|#####     | 1/2", file=sys.stderr, flush=True)
        shutil.copyfile(scan, out / f"{scan.name.split('.')[0]}_restored.nii.gz")
        (out / "card.json").write_text("{}")
        (out / "report.html").write_text("<!doctype html><title>r</title><script>parent.x = 1</script>")
        (out / ".lock").write_text("")
        print(f"copied with {' '.join(words[2:])} in {Path.cwd()}")
    elif verb == "fail":
        print("served-app fail: error: expected <b>bold</b> & brave; got neither.", file=sys.stderr)
        sys.exit(1)
    elif verb == "wait":
        from radiata_core.signals import interruptible

        try:
            with interruptible():
                print("waiting", flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted, state saved")
            sys.exit(130)
    elif verb == "serve":
        served(Path(words[0]))


def served(folder: Path) -> None:
    """The page, with presets for all that can happen."""
    from radiata_core.signals import interruptible
    from radiata_imaging.serving.presets import VOLUME, Number, Offer, Preset, Reader, Shown
    from radiata_imaging.serving.server import serve

    shown = (Shown("*_restored.nii.gz", "restored"), Shown("*_restored.nii.gz", "doubt", "spread", "nats"))
    copy = ("copy", "{scan}", "{out}", "{n}")
    presets = (
        Preset("copy", "Copy", "Copies.", (copy,), "volume", (Number("n", "count", 1, 9, 3),), shown, True),
        Preset("fail", "Fail", "Fails.", (("fail",), ("never",))),
        Preset("wait", "Wait", "Waits.", (("wait",),)),
    )
    readers = (VOLUME, Reader("text", "a text (.txt)", (".txt",), "served_app:read_text"))
    offer = Offer("served-app", "served_app", "An <i>app</i> & its page.", presets, readers)
    try:
        with interruptible():
            serve(offer, 0, folder, 2**20, browser=False)
    except KeyboardInterrupt:
        sys.exit(130)


def read_text(path: Path) -> None:
    """A reader of another kind of file."""
    from radiata_core.errors import InputError

    if path.read_bytes()[:2] != b"ok":
        raise InputError(f"expected a text that begins with ok; got {path}.")


if __name__ == "__main__":
    main()
