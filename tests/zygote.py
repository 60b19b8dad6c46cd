"""Run command lines in forks of one warm process: a start costs milliseconds, so that a test can kill many.

The warm process has imported everything heavy and has run none of it; each command line runs in a fork of its own,
with signal handling, files and memory like a process started by a shell. Several may run at the same time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVER = """
import json, multiprocessing, os, signal, sys, traceback
import accelerate, datasets, evaluate, gc, pyarrow.parquet, runpy, scipy.stats, sklearn.metrics, torch, transformers
import matplotlib.backends.backend_agg, matplotlib.figure, optuna, sqlalchemy, torch.utils.tensorboard
import dpstune.cli, dpstune.data.batches, dpstune.data.reading, dpstune.evaluation.metrics, dpstune.models.loading
import dpstune.report.progress, dpstune.report.run_report, dpstune.report.tables
import dpstune.training.checkpoints, dpstune.training.engine, dpstune.training.optim, dpstune.training.results
import dpstune.studies.fit.outcome, dpstune.studies.processes, dpstune.studies.sweep.workers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_scheduler
import transformers.models.bert.modeling_bert
torch.set_num_threads(1)
dpstune.studies.processes.CONTEXT = multiprocessing.get_context("fork")  # workers are warm, too
signal.signal(signal.SIGTERM, dpstune.cli._exit_on_signal)  # a fork has it from its first moment on
SIGNALS = {signal.SIGINT, signal.SIGTERM}
gc.collect()
gc.freeze()  # what is warm is no garbage: a fork need not look through it
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        continue
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what libraries do after a fork should not meet one
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setsid()
            for number, name in ((1, "stdout"), (2, "stderr")):
                file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(file, number)
            os.chdir(request["cwd"])
            os.environ.update(request["environment"])
            sys.argv = [request["program"], *request["arguments"]]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if request["program"] == "dpstune":
                dpstune.cli.main()
            else:
                runpy.run_module(request["program"], run_name="__main__")
                code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    print(child, flush=True)
"""


@dataclass
class Finished:
    """A command line that has ended: its exit code (negative for a signal), what it wrote, how long it took."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    seconds_after_signal: float | None


class Running:
    """A command line that was started; it leads a process group of its own."""

    def __init__(self, zygote, pid, stdout, stderr) -> None:
        self.pid, self.started, self._signalled = pid, time.monotonic(), None
        self._zygote, self._stdout, self._stderr = zygote, stdout, stderr

    @property
    def alive(self):
        return _alive(self.pid)

    def send(self, number):
        """Send it a signal if it still runs."""
        if self.alive:
            self._signalled = time.monotonic()
            with suppress(ProcessLookupError):  # it ended between the question and the signal
                os.kill(self.pid, number)

    def send_to_all(self, number):
        """Send it a signal, and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self):
        """Wait for its end."""
        code = self._zygote._ask({"wait": self.pid})
        ended = time.monotonic()
        after_signal = None if self._signalled is None else ended - self._signalled
        return Finished(code, self._stdout.read_text(), self._stderr.read_text(), ended - self.started, after_signal)


class Zygote:
    """The warm process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._started = folder, 0
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._server.stdout.readline().strip() == "ready"

    def start(self, *arguments, program="dpstune", **environment):
        """Start a command line, or a module, and return it while it runs."""
        self._started += 1
        stdout, stderr = (self.folder / f"{name}-{self._started}" for name in ("stdout", "stderr"))
        for file in (stdout, stderr):
            file.touch()  # it may be killed before it opens them
        request = {
            "program": program,
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "stdout": str(stdout),
            "stderr": str(stderr),
            "cwd": str(self.folder),
        }
        return Running(self, self._ask(request), stdout, stderr)

    def run(self, *arguments, after=None, send=signal.SIGKILL, when=None):
        """Run a command line; ``after`` seconds, or once ``when()`` is true, send it a signal if it still runs."""
        command = self.start(*arguments)
        if after is not None or when is not None:
            while command.alive and (time.monotonic() - command.started < after if when is None else not when()):
                time.sleep(0.001)
            command.send(send)
        return command.wait()

    def _ask(self, request):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self):
        self._server.communicate(timeout=300)  # ends its input, and closes its output too


def _alive(child):
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
