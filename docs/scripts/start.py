"""Every command of docs/start.md after the installation, in its order, with the time that it took.

    python docs/scripts/start.py                  in a temporary folder
    python docs/scripts/start.py --out FOLDER     and keep what the commands write

A line a command: seconds on the clock, seconds of processors (of its child processes too), the command; then the load of the
machine, without which the first number says little. Exit code 1 where a command fails, with what it said.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "start.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines of the page's blocks that call a program of ours."""
    lines = "".join(_BLOCK.findall(PAGE.read_text(encoding="utf-8"))).splitlines()
    return [line for line in lines if line.startswith("radiata-")]


def timed(folder: Path) -> Iterator[tuple[float, float, str]]:
    """Seconds on the clock, seconds of processors, and the command, after each.

    Args:
        folder: Where they run; the repository's `apps` are linked into it, as the page expects a checkout.

    Raises:
        RuntimeError: a command failed, with what it said.
    """
    (folder / "apps").symlink_to(ROOT / "apps")
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands():
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                shlex.split(command), cwd=folder, env={**os.environ, "PATH": beside},
                stdout=subprocess.DEVNULL, stderr=said, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                said.seek(0)
                raise RuntimeError(f"{command}\n{said.read()}")
        yield time.monotonic() - began, used.ru_utime + used.ru_stime, command


def main() -> int:
    words = argparse.ArgumentParser(description="Time the commands of docs/start.md.")
    words.add_argument("--out", type=Path, help="folder to run in, which stays; default: a temporary one")
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        total = used = 0.0
        try:
            for seconds, processors, command in timed(folder):
                print(f"{seconds:6.0f} s {processors:6.0f} s  {command}", flush=True)
                total, used = total + seconds, used + processors
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{total:6.0f} s {used:6.0f} s  in all; {os.cpu_count()} cores, load {loads}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
