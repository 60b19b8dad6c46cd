"""What of a machine this process may use: memory and processors, where a container or a scheduler gives it a part.

Linux keeps the limits in control groups. A group's limits hold for all below it, so those of every parent count.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_GIB = 2**30


def memory_bytes() -> int:
    """Return how much memory this process may use, in bytes; one GiB where nothing says it."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a Unix
        whole = _GIB
    return min([whole, *map(int, _values("memory.max", "memory.limit_in_bytes"))])


def processors() -> float:
    """Return how many processors' time this process may use; infinite where nothing limits it."""
    shares = [int(quota) / int(period) for quota, period in (text.split() for text in _values("cpu.max"))]
    quotas, periods = _values("cpu.cfs_quota_us"), _values("cpu.cfs_period_us")
    shares += [int(quota) / int(period) for quota, period in zip(quotas, periods, strict=False) if int(quota) > 0]
    return min(shares, default=float("inf"))


def cores() -> int:
    """Return how many processors this process may use at the same time: of a container's, its share; at least 1."""
    given = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, int(min(len(given), processors())))


def _values(*names: str) -> list[str]:
    """Return what the files of these names hold in this process's groups and their parents, but for ``max``."""
    found = []
    for folder in _folders():
        for name in names:
            with suppress(OSError):
                text = (folder / name).read_text().strip()
                if text and not text.startswith("max"):
                    found.append(text)
    return found


def _folders() -> list[Path]:
    """Return the folders of this process's control groups, of both versions of them, and of their parents."""
    folders = [_ROOT]  # inside a container its own group is the root
    with suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            root = _ROOT / controllers
            own = root / group.lstrip("/")
            folders += [own, *(parent for parent in own.parents if root in (parent, *parent.parents))]
    return list(dict.fromkeys(folders))
