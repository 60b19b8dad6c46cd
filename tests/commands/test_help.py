"""What a newcomer and a shell ask of the command line: help that fits, and words completed."""

import os
import re
import subprocess
import sys

import pytest
from typer.main import get_command

from dpstune import cli
from dpstune.methods import REGISTRY
from dpstune.recipe.finding import shipped_recipes
from dpstune.settings.tasks import TASKS


def commands(group=None, path=()):
    """Yield every command with the words that call it."""
    for name, command in (group or get_command(cli.app)).commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_that_is_understood(words):
    (example,) = re.findall(r"^Example: (.*)$", COMMANDS[words].help, flags=re.MULTILINE)
    typed = example.split(" > ")[0].split()
    assert typed[: len(words) + 1] == ["dpstune", *words]
    command, context, rest = get_command(cli.app), None, typed[1:]
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(rest), parent=context)
        _, command, rest = command.resolve_command(context, rest)
    command.make_context(command.name, list(rest), parent=context)  # refuses a wrong flag


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=lambda words: " ".join(words) or "dpstune")
def test_help_stays_inside_a_narrow_terminal(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "dumb")
    assert cli.run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 50
    assert "\x1b" not in shown


def test_the_list_of_commands_is_short_and_in_the_order_of_a_first_day(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    cli.run(["--help"])
    shown = capsys.readouterr().out
    listed = re.findall(r"^│ ([a-z]+)  +", shown, flags=re.MULTILINE)
    assert listed[:4] == ["init", "check", "methods", "recipes"]
    assert set(listed) == {words[0] for words in COMMANDS if len(words) == 1}
    assert re.findall(r"─ (\w+) ─", shown) == ["Options", *cli.COMMANDS]


def test_commands_that_are_not_named_are_listed_alike_and_have_no_flags():
    def listed(app):
        return {name: (each.help, each.rich_help_panel) for name, each in get_command(app).commands.items()}

    assert listed(cli.new_app(named=["train", "--help"])) == listed(cli.app)
    few = get_command(cli.new_app(named=["train", "--help"])).commands
    assert len(few["train"].params) == len(COMMANDS["train",].params) > 5
    assert not few["sweep"].params


def complete(line):
    """What bash is offered for the last word of a line, through the protocol of its completion."""
    words = line.split(" ")
    environment = {"_DPSTUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "dpstune"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dpstune tra", ["train", "transfer"]),
        ("dpstune train --rec", ["--recipe"]),
        ("dpstune train --recipe electra-", [name for name in shipped_recipes() if name.startswith("electra-")]),
        ("dpstune sweep --recipe demo --method ", list(REGISTRY)),
        ("dpstune eval run --task toy-n", [name for name in TASKS if name.startswith("toy-n")]),
        ("dpstune transfer --recipe demo --targets snli,sci", ["snli,scitail"]),
        ("dpstune recipes show dem", ["demo"]),
        ("dpstune train --recipe ./my", []),
    ],
)
def test_a_shell_completes(line, offered):
    assert sorted(complete(line)) == sorted(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell, monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as ended:
        cli.run(["--show-completion", shell])
    assert ended.value.code == 0
    assert "_DPSTUNE_COMPLETE=complete_" + shell in capsys.readouterr().out
