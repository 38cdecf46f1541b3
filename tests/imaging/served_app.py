"""A command line in a file, for the tests of the page: quick, and honest about what it was given."""

import shutil
import sys
import time
from pathlib import Path


def main() -> None:
    verb, *words = sys.argv[1:]
    if verb == "copy":
        scan, out = Path(words[0]), Path(words[1])
        out.mkdir(parents=True)
        print("\rcopy:  50%|#####     | 1/2", end="", file=sys.stderr, flush=True)
        shutil.copyfile(scan, out / f"{scan.name.split('.')[0]}_restored.nii.gz")
        (out / "card.json").write_text("{}")
        (out / "report.html").write_text("<!doctype html><title>r</title><script>parent.x = 1</script>")
        (out / ".lock").write_text("")
        print(f"copied with {' '.join(words[2:])} in {Path.cwd()}")
    elif verb == "fail":
        print("served-app fail: error: expected <b>bold</b> & brave; got neither.", file=sys.stderr)
        sys.exit(1)
    elif verb == "wait":
        print("waiting", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted, state saved")
            sys.exit(130)


if __name__ == "__main__":
    main()
