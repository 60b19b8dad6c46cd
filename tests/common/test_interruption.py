"""A signal ends the work, also where what its handler raises is lost."""

import os
import signal
from contextlib import suppress

import pytest

from dpstune.common.interruption import Interrupted, InterruptionWatch


def test_a_signal_whose_exception_is_lost_counts_at_the_next_safe_point():
    with InterruptionWatch("all is saved") as watch:
        watch.end_if_asked()
        with suppress(Interrupted):  # as Python does with what is raised inside a callback
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="all is saved") as caught:
            watch.end_if_asked()
    assert caught.value.exit_code == 130


def test_deferred_work_goes_on_to_its_safe_point():
    with InterruptionWatch() as watch:
        watch.deferring = True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # within seconds, the same request
        assert watch.received == signal.SIGTERM
