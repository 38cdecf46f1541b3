"""A wish to stop: noticed between two steps, and never lost.

`StopSignal`: the first Ctrl-C or SIGTERM is remembered, so that a step can be finished and saved; a second one interrupts
at once. `interruptible`: both signals raise `KeyboardInterrupt`, again if the interpreter had to drop the first one.
"""

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["StopSignal", "interruptible"]

_AGAIN = (
    0.05  # seconds until a dropped interrupt is raised once more: finalisers and callbacks are over by then
)


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM (a scheduler's end of time) raise `KeyboardInterrupt`, "by SIGTERM" for the latter.

    An exception in a finaliser or in the callback of a weak reference cannot be raised by the interpreter: it is shown as
    "ignored", and the program goes on as if nobody had wished it to stop. Such an interrupt is sent again, until it is
    raised where it counts. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    within = True

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("by SIGTERM")

    def send(number: int) -> None:
        time.sleep(_AGAIN)
        if within:
            _thread.interrupt_main(signal.Signals(number))

    def unraisable(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            former_hook(dropped)
        elif within:
            number = signal.SIGTERM if dropped.exc_value.args == ("by SIGTERM",) else signal.SIGINT
            _thread.start_new_thread(send, (number,))  # not threading.Thread: the callback may hold its locks

    former, former_hook = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        within = False
        sys.unraisablehook = former_hook
        signal.signal(signal.SIGTERM, former)
