"""Whether freed memory goes back."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from radiata_core.allocation import return_large_blocks
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
if sys.argv[1] == "asked":
    print(return_large_blocks(), file=sys.stderr)
torch.ones(31 * 2**18)  # a freed block of 31 MiB: from now on glibc keeps blocks as large in its heap
before = resident()
blocks = [torch.ones(2**20) for _ in range(40)]  # of 4 MiB
del blocks[:-1]  # the last one holds the end of the heap
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_blocks_go_back_where_it_was_asked_for() -> None:
    """Of 160 MiB in forty blocks one is left: 4 MiB with it, and all of them in a heap without."""
    found = {}
    for how in ("asked", "not asked"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        found[how] = float(done.stdout)
        if how == "asked" and "False" in done.stderr:
            pytest.skip("another C library than glibc")
    assert found["asked"] < 10 and found["not asked"] > 100


AFTERWARDS = """
import torch
from radiata_core.allocation import return_freed_memory
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
torch.ones(31 * 2**18)
before = resident()
blocks = [torch.ones(2**20) for _ in range(40)]
del blocks[:-1]
held = resident() - before
print(return_freed_memory(), held, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_what_is_held_and_not_used_goes_back_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=True)
    could, held, left = done.stdout.split()
    if could == "False":
        pytest.skip("another C library than glibc")
    assert float(held) > 100 and float(left) < 10
