"""What reaches a terminal: nothing that it would obey."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.table import Table

from dpstune.report.output import people_console, tell


def test_text_of_a_user_moves_no_cursor_and_sets_no_title(capsys):
    wrong = "a\x1b[2Jb\x1b]0;title\x07\u202ec"
    tell(wrong)
    console = people_console()
    console.print(wrong)
    table = Table(title=wrong)
    table.add_column(wrong)
    table.add_row(wrong)
    console.print(table)
    told = capsys.readouterr().err
    assert r"a\x1b[2Jb\x1b]0;title\x07\u202ec" in told
    assert not set("\x1b\x07\u202e") & set(told)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_file_or_pipe_gets_utf_8_in_any_locale(terminal):
    program = (
        "from dpstune import cli; from dpstune.report.output import print_lines\n"
        "cli.run = lambda words: print_lines(['id,label', '1,gut \\u732b'])\n"
        "cli.main()\n"
    )
    environment = {"LC_ALL": "C", "PYTHONPATH": ":".join(sys.path)}
    reader, writer = os.openpty() if terminal else os.pipe()
    command = [sys.executable, "-X", "utf8=0", "-c", program]
    assert subprocess.run(command, stdout=writer, env=environment, check=False).returncode == 0
    told = os.read(reader, 1000)
    os.close(writer)
    os.close(reader)
    assert told.split()[1:] == [b"1,gut", b"\\u732b" if terminal else "猫".encode()]


def test_json_is_json_where_stdout_is_not_utf_8(tmp_path):
    program = (
        "import sys; from dpstune import cli; from dpstune.report.output import print_json\n"
        "cli.run = lambda words: print_json({'text': '\\U0001f600é'})\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program],
        capture_output=True,
        env={"PYTHONIOENCODING": "latin-1", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert json.loads(io.TextIOWrapper(io.BytesIO(done.stdout), "latin-1").read()) == {"text": "\U0001f600é"}, (
        done.stderr
    )
