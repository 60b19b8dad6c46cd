"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder; of a user who is not there it stays, as a shell leaves it.

    >>> expanded("~nobody-is-called-so/runs").as_posix()
    '~nobody-is-called-so/runs'
    """
    return Path(os.path.expanduser(path))
