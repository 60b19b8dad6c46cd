"""SIGINT, SIGTERM and SIGHUP: stop at the next safe point, with everything saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal ended the work. Like KeyboardInterrupt, it is not caught by ``except Exception``.

    Args:
        number: The signal.
        message: What was saved and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, str]]:
        """Have it go from one process to another."""
        return type(self), (self.number, str(self))


class Stopped(Interrupted, KeyboardInterrupt):
    """Ctrl-C, or a notebook's button, ended a function's work: ``except KeyboardInterrupt`` catches it, too."""


_NOTED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


# A process may get one request twice: from a scheduler that signals its whole group, and from its parent process.
SECONDS_OF_ONE_SIGNAL = 5.0


class InterruptionWatch:
    """Notes SIGINT, SIGTERM and SIGHUP inside a ``with`` block; a signal that is ignored (``nohup``) stays ignored.

    While ``deferring`` is False, a signal ends the run at once, since nothing would be lost. While it is True (the loop
    trains), the first signal is only noted, and the loop asks for it at its safe points. Another signal, more than 5
    seconds later, ends the run at once. In a thread other than the main one Python delivers no signals, so none is
    noted.

    A signal that ends the run at once is noted, too. If it comes inside a callback, Python drops the exception, and the
    next safe point ends the run.

    Args:
        message: The message of ``Interrupted``.
    """

    def __init__(self, message: str = "interrupted before anything new could be saved") -> None:
        self._message = message
        self.received: int | None = None
        self.deferring = False
        self._received_at = 0.0

    def __enter__(self) -> InterruptionWatch:
        self._earlier = {}
        if threading.current_thread() is threading.main_thread():
            for number in _NOTED:
                if signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_another = self.received is not None
        if is_another and time.monotonic() - self._received_at < SECONDS_OF_ONE_SIGNAL:
            return
        self.received, self._received_at = number, time.monotonic()
        if is_another or not self.deferring:
            self.end_if_asked()

    def end_if_asked(self) -> None:
        """End the work if a signal came; to be called at safe points.

        Raises:
            Interrupted: A signal came.
        """
        if self.received is not None:
            raise Interrupted(self.received, self._message)
