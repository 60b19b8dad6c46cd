"""Run command lines in forks of one warm process: a start costs milliseconds, so that a test can kill many.

The warm process has imported everything heavy and has run none of it; each command line runs in a fork of its own,
with signal handling, files and memory like a process started by a shell.
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
import json, multiprocessing, os, signal, sys
import accelerate, datasets, evaluate, pyarrow.parquet, scipy.stats, sklearn.metrics, torch, transformers
import matplotlib.backends.backend_agg, matplotlib.figure, optuna, sqlalchemy, torch.utils.tensorboard
import dpstune.cli, dpstune.data.batches, dpstune.data.reading, dpstune.evaluation.metrics, dpstune.models.loading
import dpstune.report.progress, dpstune.report.run_report, dpstune.report.tables
import dpstune.training.checkpoints, dpstune.training.engine, dpstune.training.optim, dpstune.training.results
import dpstune.studies.sweep.workers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_scheduler
import transformers.models.bert.modeling_bert
torch.set_num_threads(1)
dpstune.studies.sweep.workers.CONTEXT = multiprocessing.get_context("fork")  # a sweep's workers are warm, too
signal.signal(signal.SIGTERM, dpstune.cli._exit_on_signal)  # a fork has it from its first moment on
SIGNALS = {signal.SIGINT, signal.SIGTERM}
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
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
            sys.argv = ["dpstune", *request["arguments"]]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            dpstune.cli.main()
        except SystemExit as ended:
            code = ended.code
        except KeyboardInterrupt:
            code = 130
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    print(child, flush=True)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Finished:
    """A command line that has ended: its exit code (negative for a signal), what it wrote, how long it took."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    seconds_after_signal: float | None


class Zygote:
    """The warm process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._server.stdout.readline().strip() == "ready"

    def run(self, *arguments, after=None, send=signal.SIGKILL, when=None):
        """Run a command line; ``after`` seconds, or once ``when()`` is true, send it a signal if it still runs."""
        stdout, stderr = self.folder / "stdout", self.folder / "stderr"
        for file in (stdout, stderr):
            file.write_text("")
        request = {
            "arguments": [str(argument) for argument in arguments],
            "stdout": str(stdout),
            "stderr": str(stderr),
            "cwd": str(self.folder),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        child = int(self._server.stdout.readline())
        started = time.monotonic()
        signalled = None
        if after is not None or when is not None:
            while _alive(child) and (time.monotonic() - started < after if when is None else not when()):
                time.sleep(0.001)
            if _alive(child):
                signalled = time.monotonic()
                with suppress(ProcessLookupError):  # it ended between the question and the signal
                    os.kill(child, send)
        code = int(self._server.stdout.readline())
        ended = time.monotonic()
        return Finished(
            code,
            stdout.read_text(),
            stderr.read_text(),
            ended - started,
            None if signalled is None else ended - signalled,
        )

    def close(self):
        self._server.communicate(timeout=300)  # ends its input, and closes its output too


def _alive(child):
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
