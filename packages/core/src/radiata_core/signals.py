"""A wish to stop, noticed between two steps.

The first Ctrl-C or SIGTERM is remembered, so that a step can be finished and saved; a second one interrupts at once.
"""

import signal
import threading
from typing import Any

__all__ = ["StopSignal"]


class StopSignal:
    """Context manager; `number` is the signal that came, or None. Outside the main thread it never sees one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._former: dict[int, Any] = {}

    def _note(self, number: int, frame: object) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
