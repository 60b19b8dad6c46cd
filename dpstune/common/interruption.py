"""SIGINT, SIGTERM and SIGHUP: stop at the next safe point, with everything saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal ended the work; like KeyboardInterrupt it passes through whatever only catches errors.

    Args:
        number: The signal.
        message: What was saved and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


_NOTED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


# A scheduler signals a whole process group, and whoever started a process passes its own signal on: one request.
SECONDS_OF_ONE_SIGNAL = 5.0


class InterruptionWatch:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered; one that is ignored (``nohup``) stays ignored.

    Outside ``deferred`` work a signal ends the run at once, since nothing would be lost. While the loop trains,
    the first signal is only noted, and the loop asks for it at its safe points; another one, some seconds later, ends
    the run at once.
    In a thread other than the main one, where Python delivers no signals, nothing is noted.

    A signal that ends the run at once is noted, too: Python drops what is raised inside a callback, and then the next
    safe point ends it.

    Args:
        message: What to say of a run that a signal ends at once.
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
        """End the work at a safe point where a signal came.

        Raises:
            Interrupted: One came.
        """
        if self.received is not None:
            raise Interrupted(self.received, self._message)
