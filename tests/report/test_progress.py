import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dpstune.report.progress import BarProgress, LineProgress, new_progress


def tell_a_run(progress):
    """Tell of a run of three steps that continues after the first."""
    progress.note("resumed [after] step 1")
    progress.start(3, 1)
    for step in (2, 3):
        progress.step(step, loss=0.5, rate=2e-5)
    progress.evaluation(3, "validation", {"spearman": 0.25, "pearson": None})
    progress.finish()


@pytest.fixture
def still_clock(monkeypatch):
    """However slow the machine is, no time passes."""
    monkeypatch.setattr("dpstune.report.progress.time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("still_clock")
def test_lines_go_to_stderr_and_name_first_and_last_step(capsys):
    tell_a_run(LineProgress())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "resumed [after] step 1",
        "step 2/3  loss 0.5000  rate 2.00e-05  0:00:00 left",
        "step 3/3  loss 0.5000  rate 2.00e-05  0:00:00 left",
        "step 3/3  validation  spearman 0.2500  pearson undefined",
    ]


@pytest.mark.usefixtures("still_clock")
def test_lines_between_are_few(capsys):
    progress = LineProgress()
    progress.start(1000, 0)
    for step in range(1, 1000):
        progress.step(step, 0.5, 2e-5)
    assert len(capsys.readouterr().err.splitlines()) == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_loss_rate_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    progress = new_progress()
    assert isinstance(progress, BarProgress)
    tell_a_run(progress)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue())
    for expected in ("resumed [after] step 1", "3/3", "loss 0.5000", "rate 2.00e-05", "left", "spearman 0.2500"):
        assert expected in shown


def test_ending_before_the_start_shows_no_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    BarProgress().finish()
    assert "training" not in sys.stderr.getvalue()


@pytest.mark.parametrize("opened", [os.openpty, os.pipe], ids=["a closed terminal", "a reader that has left"])
def test_a_bar_that_nobody_sees_any_more_stops_nothing(opened, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    reader, written = opened()
    with open(written, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        progress = new_progress() if stderr.isatty() else BarProgress()
        assert isinstance(progress, BarProgress)
        progress.start(3, 0)
        os.close(reader)
        tell_a_run(progress)


def begin(code):
    """Start a program whose streams are pipes."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], **pipes)


def test_a_reader_that_has_left_stops_nothing():
    code = (
        "import sys; from dpstune.report.output import print_out, tell; sys.stdin.read()\n"
        "for _ in range(3): tell('to people'); print_out('to programs')\n"
        "sys.exit(7)"
    )
    process = begin(code)
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    assert process.wait(timeout=300) == 7


def test_where_the_reader_of_stderr_has_left_stdout_gets_the_result_all_the_same():
    code = (
        "import sys; from dpstune.report.output import people_console, print_out; sys.stdin.read()\n"
        "for _ in range(3): people_console().print('to people')\n"
        "print_out('to programs')"
    )
    process = begin(code)
    process.stderr.close()
    process.stdin.close()
    assert (process.stdout.read(), process.wait(timeout=300)) == (b"to programs\n", 0)
    process.stdout.close()
