"""The functions are guests in their caller's process: they leave it as it was, and speak of its parameters."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from dpstune.common.interruption import Interrupted, Stopped
from dpstune.errors import DpstuneError, RunError, out_of_memory

P = ParamSpec("P")
T = TypeVar("T")

_WITH_BARS = ("transformers", "datasets")
_LIBRARIES = (*_WITH_BARS, "huggingface_hub", "optuna")
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)(?![\w-])")
_OTHERWISE_CALLED = {"text2": "text", "method": "methods"}


def guest(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function leave libraries, the hub's answers and memory as it found them.

    Its errors name parameters in the place of a command's flags, and memory that does not suffice is a ``RunError``.
    """
    parameters = list(signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with _LIBRARIES_OF_THE_PROCESS.as_they_were():
                return function(*args, **kwargs)
        except DpstuneError as error:
            error.args = (with_parameters(str(error), parameters), *error.args[1:])
            raise
        except Interrupted as error:
            kind = Stopped if error.number == signal.SIGINT else Interrupted
            raise kind(error.number, with_parameters(str(error), parameters)) from None
        except Exception as error:
            why = out_of_memory(error)
            if why is None:
                raise
            raise RunError(why) from error

    return call


def with_parameters(told: str, parameters: Collection[str]) -> str:
    """Return what an error says with a function's parameters in the place of the flags of the same name.

    >>> with_parameters("--set training.steps=0: ...; leave --data-dir out; --plan says more", ["data_dir"])
    'training.steps=0: ...; leave data_dir out; --plan says more'
    """

    def named(flag: re.Match[str]) -> str:
        plain = flag[1].replace("-", "_")
        name = plain if plain in parameters else _OTHERWISE_CALLED.get(flag[1], "")
        return name if name in parameters else flag[0]

    return _FLAG.sub(named, told.replace("--set ", "").replace("the same command", "the same call"))


class _Libraries:
    """How much libraries tell, put back when the last of the calls that run at the same time has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._levels: dict[str, int] = {}
        self._show_bars: dict[str, bool] = {}

    @contextmanager
    def as_they_were(self) -> Iterator[None]:
        """Put them back after the block."""
        with self._lock:
            if self._calls == 0:
                self._look()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self._put_back()

    def _look(self) -> None:
        self._levels = {name: logging.getLogger(name).level for name in _LIBRARIES if name in sys.modules}
        self._show_bars = {name: _shows_bars(name) for name in _WITH_BARS}

    def _put_back(self) -> None:
        from dpstune.common.hub import ask_again
        from dpstune.device.hardware import give_memory_back

        for name in _LIBRARIES:
            if name in sys.modules:
                logging.getLogger(name).setLevel(self._levels.get(name, _usual_level(name)))
        for name in _WITH_BARS:
            module = _bars_of(name)
            if module is not None and self._show_bars[name]:
                module.enable_progress_bar()
        ask_again()
        give_memory_back()


_LIBRARIES_OF_THE_PROCESS = _Libraries()


def _usual_level(library: str) -> int:
    """Return what a library that was imported meanwhile tells by itself."""
    asked = getattr(sys.modules.get(f"{library}.utils.logging"), "_get_default_logging_level", None)
    return int(asked()) if asked is not None else logging.INFO  # Optuna's


def _bars_of(library: str) -> Any:
    """Return the module that switches a library's progress bars; None where it is not imported."""
    return sys.modules.get(f"{library}.utils.logging")


def _shows_bars(library: str) -> bool:
    """Tell whether a library shows progress bars; one that is not imported will."""
    module = _bars_of(library)
    return module is None or bool(module.is_progress_bar_enabled())
