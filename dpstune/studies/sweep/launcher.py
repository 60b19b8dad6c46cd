"""A sweep's workers as SLURM tasks: submitit writes the batch script and submits it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from dpstune.common.hub import first_line
from dpstune.common.private import make_private_folder
from dpstune.common.writing import writing_to
from dpstune.errors import RequestError, RunError, did_you_mean
from dpstune.recipe.draft import split_override

LAUNCHERS = ("slurm", "local")
SECONDS_TO_SAVE = 60
_MINUTES_OF_A_LOCAL_TASK = 7 * 24 * 60
_TAKEN = {"array": "--jobs says how many tasks", "output": "the logs lie in the sweep's folder"}
_TAKEN["error"] = _TAKEN["output"]
# Since SLURM 22.05 srun asks for one CPU, however many sbatch was asked for.
_AS_MANY_CPUS = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'


def refuse_wrong_options(launcher: str | None, options: Sequence[str]) -> None:
    """Refuse a launcher that there is not, options where nothing takes them, and what is no option of sbatch.

    Raises:
        RequestError: The launcher is unknown, or there are options and it is not ``slurm``.
    """
    if launcher is not None and launcher not in LAUNCHERS:
        raise RequestError(f"--launcher {launcher}: should be slurm or local{did_you_mean(launcher, LAUNCHERS)}")
    if options and launcher != "slurm":
        raise RequestError(f"--launcher-set {options[0]}: is an option of sbatch; add --launcher slurm")
    for option in options:
        key, _ = split_override(option)
        if not re.fullmatch(r"[A-Za-z][\w-]*", key):
            raise RequestError(
                f"--launcher-set {option}: should be KEY=VALUE, for example partition=gpu, without dashes"
            )
        if not option.isprintable():
            raise RequestError(f"--launcher-set {option!r}: should be one line without control characters")
        if key in _TAKEN:
            raise RequestError(f"--launcher-set {option}: cannot be set: {_TAKEN[key]}")


def submit(launcher: str, folder: Path, arguments: Sequence[str], tasks: int, options: Sequence[str]) -> list[str]:
    """Submit tasks that run a command line of dpstune, and return their ids without waiting for them.

    A task's process becomes that command: it gets the task's signals, and its exit code is the task's.

    Args:
        launcher: ``slurm``; or ``local``, processes on this machine without its GPUs, to try a command.
        folder: For submitit's scripts and the tasks' logs. Only its owner can read it: a command may hold a password.
        arguments: The command line.
        tasks: How many tasks.
        options: Options of ``sbatch``, ``KEY=VALUE`` each; ``KEY`` for an option without a value.

    Raises:
        RequestError: submitit is not installed, or this machine is not part of a SLURM cluster.
        RunError: ``sbatch`` refused the tasks, or the folder cannot be written or is another user's.
    """
    try:
        from submitit import LocalExecutor, SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError:
        raise RequestError(f"--launcher {launcher}: needs submitit; pip install 'dpstune[slurm]'") from None
    with writing_to(folder):
        make_private_folder(folder, "choose another place with --output")
    executor: LocalExecutor | SlurmExecutor
    if launcher == "local":
        executor = LocalExecutor(folder)
        executor.update_parameters(timeout_min=_MINUTES_OF_A_LOCAL_TASK)
    else:
        try:
            executor = SlurmExecutor(folder)
        except RuntimeError:
            hint = "submit from a node of a SLURM cluster"
            raise RequestError(f"--launcher slurm: there is no srun on this machine; {hint}") from None
        # By default submitit asks for five minutes, and for a signal that would end dpstune before it has saved.
        asked: dict[str, Any] = {"signal": f"TERM@{SECONDS_TO_SAVE}", "requeue": True}
        for key, value in map(split_override, options):
            asked[key.replace("-", "_")] = True if value is None else value
        executor.update_parameters(
            job_name="dpstune", time=None, wckey=None, setup=[_AS_MANY_CPUS], additional_parameters=asked
        )
    command = partial(os.execv, sys.executable, [sys.executable, "-m", "dpstune", *arguments])
    try:
        with redirect_stderr(StringIO()):  # submitit prints its errors there, and raises them, too
            jobs = executor.submit_array([command] * tasks)
    except (FailedJobError, FailedSubmissionError, FileNotFoundError) as error:
        raise RunError(f"--launcher {launcher}: nothing was submitted: {first_line(error)}") from None
    return [job.job_id for job in jobs]
