"""SIGINT and SIGTERM: training finishes its step and saves, everything else stops where it is.

Nothing is caught until a program asks for it: the command line does, the library on its own does not.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

_CAUGHT = (signal.SIGINT, signal.SIGTERM)
_GO_ON = "Give the same command again to go on."


class Interrupted(KeyboardInterrupt):
    """The user or the system asked the program to stop.

    Args:
        received: the signal.
        place: what was being done and what is kept of it, as it goes on after ``Stopped by SIGINT``.

    Attributes:
        exit_code: what a shell expects of a program ended by this signal: 130 or 143.
    """

    def __init__(self, received: signal.Signals = signal.SIGINT, place: str = "") -> None:
        super().__init__(f"Stopped by {received.name}{place or '; every finished stage is kept'}. {_GO_ON}")
        self.received = received
        self.exit_code = 128 + received


@dataclass
class _Watch:
    """What has happened since signals are caught."""

    received: signal.Signals | None = None
    held: bool = False


_watch = _Watch()


@contextmanager
def caught() -> Iterator[None]:
    """Inside, both signals raise ``Interrupted``; for programs, around all they do.

    Where the process was told to ignore a signal (``nohup``), and outside the main thread, it stays as it is.
    """
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _watch = _watch, _Watch()
    before = {number: signal.getsignal(number) for number in _CAUGHT}
    # A handler that is not Python's own could not be put back.
    taken = {number: old for number, old in before.items() if old not in (None, signal.SIG_IGN)}
    try:
        for number in taken:
            signal.signal(number, _received)
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)
        _watch = outer


def _received(number: int, frame: FrameType | None) -> None:
    again, _watch.received = _watch.received is not None, signal.Signals(number)
    if again or not _watch.held:
        raise Interrupted(_watch.received)
    # Not through sys.stderr: the signal may have come while something was being written to it.
    with suppress(OSError):
        name = _watch.received.name
        os.write(2, f"\n{name}: saving after this step; once more stops at once.\n".encode())


@contextmanager
def held() -> Iterator[None]:
    """Inside, the first signal waits until ``asked`` is looked at; a second one stops at once.

    Raises:
        Interrupted: at the end, if a signal waits still.
    """
    _watch.held = True
    try:
        yield
    finally:
        _watch.held = False
    if _watch.received is not None:
        raise Interrupted(_watch.received)


@contextmanager
def let_through() -> Iterator[None]:
    """Inside ``held``: a part that may stop anywhere, because it changes nothing.

    Raises:
        Interrupted: at once where a signal waits already.
    """
    _watch.held = False
    try:
        if _watch.received is not None:
            raise Interrupted(_watch.received)
        yield
    finally:
        _watch.held = True


def asked() -> signal.Signals | None:
    """The signal that waits to be obeyed, if one came."""
    return _watch.received
