"""Large blocks of memory that go back to the system as soon as they are freed.

    return_large_blocks()      # once, before the maps are made
    return_freed_memory()      # now, what is held and not used

glibc serves blocks of up to 32 MiB from a heap, which only shrinks from its end: the maps of a network, of all sizes, freed
in another order than they were made, leave holes that no larger map fits into. In a training step with checkpointing the
holes took a third of the peak (`benchmarks/t1_speed.py`, train). Mapped each for itself, blocks leave none; for that the
system clears every page again, which costs time. Accelerators have allocators of their own and are not concerned.

References:
    mallopt(3), M_MMAP_THRESHOLD, and malloc_trim(3), of the Linux man-pages.
"""

import ctypes
import sys

__all__ = ["return_freed_memory", "return_large_blocks"]

_M_MMAP_THRESHOLD = -3


def return_large_blocks(least: int = 2**20) -> bool:
    """From now on blocks of at least `least` bytes are returned when they are freed; for the whole process.

    Args:
        least: Bytes, >= 1.

    Returns:
        Whether the C library can: glibc. With another nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, least))


def return_freed_memory() -> bool:
    """Give back to the system what was freed and is still held by the process, so that what it holds is what it uses.

    Returns:
        Whether the C library can: glibc. With another nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
