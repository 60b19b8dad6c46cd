"""Files and folders that are written beside their place and renamed into it, and locks.

So a reader, or a process that was killed and started again, sees the old content or the new, never a part.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from dpstune.errors import BusyError, RequestError, RunError


@contextmanager
def locked(file: Path, path: Path, doing: str, *, wait: float = 0) -> Iterator[None]:
    """Keep other processes from the same work; the lock ends with the process that holds it.

    Args:
        file: The lock's file; its folder is made where there is none.
        path: What is worked on, for errors.
        doing: What another process does with it that holds the lock: ``training``, ``at``.
        wait: How many seconds another process is waited for.

    Raises:
        RequestError: The place cannot be written to.
        BusyError: Another process holds the lock.
    """
    from filelock import FileLock, Timeout

    with writing_to(path):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(file).acquire(timeout=wait)
        except Timeout:
            raise BusyError(f"another process is {doing} {path}; wait for it, or stop it") from None
    with lock:
        yield


def set_aside(path: Path) -> Path:
    """Rename a file or folder to ``NAME.earlier-N`` to make room for a new one, and return where it went.

    Raises:
        RequestError, RunError: See ``writing_to``.
    """
    aside = _free_name(path)
    with writing_to(path):
        path.rename(aside)
    return aside


def copy_aside(path: Path) -> Path:
    """Copy a file to ``NAME.earlier-N``, so that a new one can take its place, and return the copy, of the same mode.

    Raises:
        RequestError, RunError: See ``writing_to``.
    """

    def copy(beside: Path) -> None:
        shutil.copyfile(path, beside)
        _keep_mode(path, beside)

    aside = _free_name(path)
    write_atomically(aside, copy)
    return aside


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.earlier-{number}")):
        number += 1
    return aside


@contextmanager
def writing_to(path: Path, flag: str = "--output") -> Iterator[None]:
    """Turn what the operating system says about a failed write into one line.

    Args:
        path: What is written.
        flag: The flag that named the place.

    Raises:
        RequestError: The place is read-only, not permitted or no folder, or its name is too long.
        RunError: The disk is full or broken.
    """
    try:
        yield
    except OSError as error:
        raise _write_error(path, flag, error) from error


def make_writable_folder(path: Path, flag: str = "--output") -> None:
    """Make a folder where there is none, and see that files can be written into it.

    Args:
        path: The folder.
        flag: The flag that named the place.

    Raises:
        RequestError, RunError: See ``writing_to``.
    """
    with writing_to(path, flag):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / _temporary_name()
        probe.touch()
        probe.unlink(missing_ok=True)


def _temporary_name() -> str:
    """Return a name that no other process uses, and that ``RunFolder.clear_partial`` removes."""
    return f".{uuid4().hex[:8]}.partial"


_NO_PLACE = PermissionError | NotADirectoryError | FileExistsError | FileNotFoundError
_NO_PLACE_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def _write_error(path: Path, flag: str, error: OSError) -> RequestError | RunError:
    if isinstance(error, _NO_PLACE) or error.errno in _NO_PLACE_NUMBERS:
        return RequestError(f"cannot write to {path}: {error.strerror}; choose another folder with {flag}")
    return RunError(
        f"writing to {path} failed: {error.strerror or error}; what was saved before is untouched: "
        "make room and run the same command again"
    )


def write_atomically(path: Path, write: Callable[[Path], None], flag: str = "--output") -> None:
    """Have ``write`` fill a file beside ``path``, bring it to the disk, and rename it into place.

    Args:
        path: The file; of a link, the file that it points to is written. What is replaced hands its mode on.
        write: Fills the file it is given.
        flag: The flag that named the place.

    Raises:
        RequestError, RunError: The file could not be written; ``path`` is as it was.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise RequestError(f"cannot write to {path}: it is not a file; choose another with {flag}")
    path = Path(os.path.realpath(path))
    beside = path.with_name(_temporary_name())  # two processes may write the same report
    try:
        with writing_to(path, flag):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_replaced = path.exists()
            if is_replaced:  # whose readers may be few
                beside.touch(mode=0o600)
            write(beside)
            if is_replaced:
                _keep_mode(path, beside)
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):  # the first error is the one to report
            beside.unlink()


def _keep_mode(earlier: Path, now: Path) -> None:
    """Give a file or folder the rights for group and others that an earlier one has; its owner's stay."""
    mode = stat.S_IMODE(now.stat().st_mode)
    wanted = (mode & ~0o077) | (earlier.stat().st_mode & 0o077)
    if wanted != mode:  # where there are no modes nothing can be changed
        now.chmod(wanted)


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no name may hold: control characters, line ends, and half of a character."""


def can_name_a_folder(name: str) -> bool:
    r"""Tell whether a folder can be called so, without leading elsewhere.

    >>> [can_name_a_folder(name) for name in ("rte", "..", "../rte", "a\nb", "")]
    [True, False, False, False, False]
    """
    return name.strip(" .") != "" and Path(name).name == name and CONTROL.search(name) is None


def is_text(path: Path) -> bool:
    r"""Tell whether a path is UTF-8 text, as what is told of it has to be.

    >>> is_text(Path("runs")), is_text(Path("b\udcffr"))
    (True, False)
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping that a JSON file holds; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; nan is refused, since JSON has none."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str, flag: str = "--output") -> None:
    """Write a UTF-8 text file as ``write_atomically`` does."""
    write_atomically(path, lambda beside: _write(beside, text), flag)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_folder(path: Path, fill: Callable[[Path], None], flag: str = "--output") -> None:
    """Have ``fill`` fill a folder beside ``path``, bring it to the disk, and rename it into place.

    Args:
        path: The folder; of a link, the folder that it points to is written. What is replaced hands its mode on.
        fill: Fills the folder it is given.
        flag: The flag that named the place.

    Raises:
        RequestError, RunError: It could not be written; ``path`` is as it was.
    """
    put_back(path, flag)
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isdir(path):
        raise RequestError(f"cannot write to {path}: it is not a folder; choose another with {flag}")
    beside, replaced = path.with_name(f".{path.name}.partial"), _replaced(path)
    _remove(beside)
    try:
        with writing_to(path, flag):
            is_replaced = path.exists()
            beside.mkdir(mode=0o700 if is_replaced else 0o777, parents=True)
            _fill(beside, fill)
            if is_replaced:
                _keep_mode(path, beside)
            for entry in [*beside.rglob("*"), beside]:
                _sync(entry)
            if path.exists():
                _remove(replaced)
                path.rename(replaced)
            beside.rename(path)
            _sync(path.parent)
    finally:
        put_back(path, flag)
        _remove(beside)
        _remove(replaced)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, as far as that can be done."""
    if path.is_symlink() or path.is_file():
        with suppress(OSError):
            path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def put_back(path: Path, flag: str = "--output") -> None:
    """Put back the folder that a ``write_folder`` had renamed out of the way when it was killed.

    To be called before anything looks at what is there.

    Args:
        path: The folder that was written.
        flag: The flag that named the place.

    Raises:
        RequestError, RunError: See ``writing_to``.
    """
    path = Path(os.path.realpath(path))
    with writing_to(path, flag):
        if _replaced(path).is_dir() and not path.exists():
            _replaced(path).rename(path)


def _replaced(path: Path) -> Path:
    return path.parent / f".{path.name}.replaced"  # with_name refuses the root


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    """Run ``fill``; where torch or safetensors fail to write, raise the OSError behind their error."""
    from safetensors import SafetensorError

    try:
        fill(folder)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
