"""A wish to stop is never lost, wherever it finds the program."""

import signal
import sys
import time
import weakref

import pytest

from radiata_core.signals import interruptible


class Thing:
    """Something with a finaliser, or with a callback when it dies."""

    def __init__(self, last=lambda: None):
        self.last = last

    def __del__(self):
        self.last()


def dies(last):
    """Something is made and finalised at once."""
    Thing(last)


def work(seconds=10.0):
    """Python's own work, which an interrupt ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    return "finished as if nothing had come"


@pytest.fixture(autouse=True)
def heard():
    """SIGINT raises, also where the suite runs in the background, which ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["finaliser", "weak reference", "work"])
def test_an_interrupt_is_raised_wherever_it_came(capsys, number, place):
    """In a finaliser the interpreter ignores what is raised: it must come again."""

    def strike(*_):
        signal.raise_signal(number)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        if place == "finaliser":
            dies(strike)
        elif place == "weak reference":
            things = [Thing()]
            watch = weakref.ref(things[0], strike)  # noqa: F841
            del things[0]
        else:
            strike()
        work()
    assert time.monotonic() - began < 5
    assert str(caught.value) == ("by SIGTERM" if number == signal.SIGTERM else "")
    assert "ignored" not in capsys.readouterr().err


def test_other_complaints_of_finalisers_are_shown(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: seen.append(dropped.exc_type))
    with interruptible():
        dies(lambda: 1 // 0)
    assert seen == [ZeroDivisionError]


def test_handlers_and_hook_are_as_before():
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before
    work(0.2)  # nothing is sent afterwards


def test_an_interrupt_dropped_at_the_very_end_is_not_sent_into_other_work():
    with interruptible():
        dies(lambda: signal.raise_signal(signal.SIGINT))
    assert work(0.2).startswith("finished")
