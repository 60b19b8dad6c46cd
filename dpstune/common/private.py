"""Folders that only their owner can read."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from dpstune.errors import RunError


def make_private_folder(folder: Path, remedy: str) -> None:
    """Make a folder that only this user can read, or take from others what rights they have in the one that is there.

    Args:
        folder: The folder; what it lies in is made, too, as any folder is.
        remedy: How to have it elsewhere, for the error.

    Raises:
        RunError: It is a link, or another user's, who could read what is put there, or put links there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise RunError(f"{folder} should be a folder of this user; remove it, or {remedy}")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
