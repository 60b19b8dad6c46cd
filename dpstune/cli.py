"""The command line: reads flags, calls one function, prints its result.

People read stderr, programs read stdout. Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 and 143
interrupted. A command imports what it needs when it runs, so that ``--help`` and a wrong flag are answered at once.
"""

from __future__ import annotations

import codecs
import gc
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from dpstune.commands import recipes
from dpstune.commands.casestudy import casestudy
from dpstune.commands.check import check
from dpstune.commands.ensemble import ensemble
from dpstune.commands.evaluate import evaluate
from dpstune.commands.export import export
from dpstune.commands.fit import fit
from dpstune.commands.init import init
from dpstune.commands.methods import methods
from dpstune.commands.predict import predict
from dpstune.commands.probe import probe
from dpstune.commands.profile import profile
from dpstune.commands.sweep import sweep
from dpstune.commands.train import train
from dpstune.commands.transfer import transfer
from dpstune.common.interruption import Interrupted
from dpstune.errors import DpstuneError, did_you_mean, unforeseen
from dpstune.report.output import print_out, tell

DEBUG_VARIABLE = "DPSTUNE_DEBUG"
COMPLETION_VARIABLE = "_DPSTUNE_COMPLETE"  # typer's, where a shell completes a word
SECONDS_TO_LEAVE_A_CALLBACK = 0.01
INTERRUPTED = "interrupted; nothing that was finished is lost"
# Typer exports only this one of its usage errors; the base class is that of all.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

# In the order in which a newcomer needs them; the help shows them under these headings.
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Begin": {"init": init, "check": check, "methods": methods},
    "Train": {"fit": fit, "train": train},
    "Look": {"eval": evaluate, "predict": predict, "export": export},
    "Study": {
        "sweep": sweep,
        "transfer": transfer,
        "casestudy": casestudy,
        "probe": probe,
        "ensemble": ensemble,
        "profile": profile,
    },
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from dpstune import __version__

        print_out(f"dpstune {__version__}")
        raise typer.Exit


def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Fine-tune pre-trained encoders on small data with Dynamic Parameter Selection and its rivals."""


def new_app(named: Container[str] | None = None) -> typer.Typer:
    """Put the commands together.

    Args:
        named: The commands that may run; the others are only listed, since typer takes a while to read the flags of
            all. None: any may run.
    """
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(common)
    for panel, commands in COMMANDS.items():
        for name, command in commands.items():
            runs = named is None or name in named
            app.command(name, help=command.__doc__, rich_help_panel=panel)(command if runs else _only_listed)
    app.add_typer(recipes.app, name="recipes", rich_help_panel="Begin")
    return app


def _only_listed() -> None:
    """Stand in for a command that the command line does not name."""


app = new_app()


def main() -> NoReturn:
    """Run the command line and exit with its code; every error is one line on stderr."""
    _open_what_is_closed()
    signal.signal(signal.SIGTERM, _exit_on_signal)
    again = sys.unraisablehook = _SignalAgain()
    codecs.register_error("jsonescape", _as_json_escapes)
    sys.stdout.reconfigure(encoding=_encoding_of_stdout(), errors="jsonescape")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = run(sys.argv[1:] or ["--help"])
    finally:
        again.stop()
    gc.freeze()  # else Python searches all of torch and transformers for garbage once more, which takes a second
    sys.exit(code or again.exit_code())


def _open_what_is_closed() -> None:
    """Have a standard stream that a shell closed (``>&-``) lead nowhere, since Python then has none."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until Python ends


def _encoding_of_stdout() -> str | None:
    """Return the encoding of what a file or another program gets, whatever the locale; None leaves the system's."""
    return None if sys.stdout.isatty() or "PYTHONIOENCODING" in os.environ else "utf-8"


def _as_json_escapes(error: UnicodeError) -> tuple[str, int]:
    """Write what stdout's encoding lacks so that JSON is still JSON."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    >>> run(["recipes", "check", "demo"])
    demo: ok: minilm on toy-nli, dps-dense (p 0.3, update_ratio 0.05), 300 steps of 16 examples, seed 42
    0
    """
    try:
        command = typer.main.get_command(app if COMPLETION_VARIABLE in os.environ else new_app(named=arguments))
        code = command.main(list(arguments), prog_name="dpstune", standalone_mode=False, obj=list(arguments))
    except DpstuneError as error:
        return _fail(error, str(error), error.exit_code)
    except Interrupted as error:
        return _fail(error, str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt) as error:
        return _fail(error, INTERRUPTED, 128 + signal.SIGINT)
    except UsageError as error:
        return _fail(error, _usage_message(error), 2)
    except Exception as error:  # also an unexpected error is one line
        return _fail(error, f"{unforeseen(error)} ({DEBUG_VARIABLE}=1 shows where)", 1)
    if code == 128 + signal.SIGINT:  # so typer ends a command after Ctrl-C
        return _fail(KeyboardInterrupt(), INTERRUPTED, code)
    return code if isinstance(code, int) else 0


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """End the process as a shell would report it; training itself takes the signal over to save first."""
    signal.signal(number, _exit_in_silence)  # one line is enough
    with suppress(OSError):  # nobody may read it any more
        os.write(sys.stderr.fileno(), f"error: {INTERRUPTED}\n".encode())  # a print may be under way
    sys.exit(128 + number)


def _exit_in_silence(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


class _SignalAgain:
    """Sends a signal once more whose exception Python dropped, since it came while a callback ran.

    What trains notes its signals itself, and ends at its next safe point.
    """

    def __init__(self) -> None:
        self._number: int | None = None

    def __call__(self, dropped: sys.UnraisableHookArgs) -> None:
        """Take the place of ``sys.unraisablehook``."""
        number = _number_of(dropped.exc_value)
        if number is not None:
            self._number = number
            threading.Timer(SECONDS_TO_LEAVE_A_CALLBACK, os.kill, (os.getpid(), number)).start()
        elif not isinstance(dropped.exc_value, Interrupted):
            sys.__unraisablehook__(dropped)

    def stop(self) -> None:
        """Have a signal that is yet to come meet nothing: the command is over."""
        if self._number is not None:
            with suppress(KeyboardInterrupt, SystemExit):  # or comes this very moment
                signal.signal(self._number, signal.SIG_IGN)

    def exit_code(self) -> int:
        """Return the exit code of a command that was over before its signal came again; 0 where there was none."""
        if self._number is None:
            return 0
        if self._number == signal.SIGINT:  # of SIGTERM it was told when it came
            tell(f"error: {INTERRUPTED}")
        return 128 + self._number


def _number_of(error: BaseException | None) -> int | None:
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM else None


def _fail(error: BaseException, message: str, exit_code: int) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    tell(f"error: {' '.join(message.split())}")
    return exit_code


def _usage_message(error: Any) -> str:
    """Return what is wrong with a command line, with the nearest flag and where help is."""
    message: str = error.format_message()
    wrong = getattr(error, "option_name", None)
    if error.ctx is None:
        return message
    if type(error).__name__ == "NoSuchOption" and wrong is not None:
        known = [option for parameter in error.ctx.command.params for option in parameter.opts]
        message = f"no such option: {wrong}{did_you_mean(wrong, [*known, '--help'])}"
    return f"{message.rstrip('.')}{_pattern_hint(message, error.ctx.command)} (see {error.ctx.command_path} --help)"


def _pattern_hint(message: str, command: Any) -> str:
    """Return a hint if the extra arguments are existing paths, as when the shell expands a pattern."""
    extra = re.search(r"extra argument\S* \((.*)\)", message)
    if extra is None or not all(map(os.path.exists, extra[1].split())):
        return ""
    if any("--from" in parameter.opts for parameter in command.params):
        return "; if a pattern matched several paths, put --from before each"
    takes_a_path = any(parameter.param_type_name == "argument" for parameter in command.params)
    return "; if a pattern matched several paths, name one" if takes_a_path else ""
