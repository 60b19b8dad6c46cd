"""Names of workers in the storage: they tell process and machine, and so whether the process still lives."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


def worker_name(number: int) -> str:
    """Return this process's name as worker ``number``: it tells process, machine and start time."""
    return f"{number} {socket.gethostname()} {os.getpid()} {_started(os.getpid())} {_machine()}"


def is_dead(worker: str) -> bool:
    """Tell whether a worker of this machine has ended; false for workers of other machines."""
    parts = worker.split()
    if len(parts) != 5 or parts[4] != _machine():
        return False
    return _started(int(parts[2])) != parts[3]


@lru_cache
def _machine() -> str:
    """Return an id of this machine or container; a container of the same name has another."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def _started(process: int) -> str:
    """Return when a process was started, in the system's ticks; ``gone`` where there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "gone"
    return "gone" if fields[0] == "Z" else fields[19]
