from pathlib import Path

import pytest

from dpstune import cli


def test_it_writes_a_recipe_and_says_what_to_type_next(tiny_task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["init", str(tiny_task.parent / "train.csv")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "wrote recipe.yaml; look at its guesses, then:",
        "  dpstune check recipe.yaml",
        "  dpstune train --recipe recipe.yaml",
    ]
    assert cli.run(told[1].split()[1:]) == 0
    assert "recipe.yaml: 102 rows (train 72, validation 30)" in capsys.readouterr().err
    assert cli.run(["recipes", "check", "recipe.yaml"]) == 0
    assert "minilm on recipe, dps-dense" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--text", "second", "--text", "first"], ["--text", "second", "--text2", "first"]])
def test_a_pair_is_named_by_either_flag(tiny_task, tmp_path, capsys, flags):
    target = tmp_path / "mine.yaml"
    arguments = ["init", str(tiny_task.parent / "train.csv"), *flags, "--output", str(target)]
    assert cli.run(arguments) == 0
    assert "text: [second, first]" in target.read_text()
    assert cli.run([*arguments, "--text", "label", "--force"]) == 2
    assert capsys.readouterr().err.endswith("there are three text columns; a text is one, or a pair\n")


def test_a_table_that_is_not_in_utf_8_says_which_flag_reads_it(tmp_path, capsys):
    table = tmp_path / "old.csv"
    table.write_bytes(("message,topic\n" + "un café,a\nno tea,b\n" * 4).encode("latin-1"))
    target = tmp_path / "mine.yaml"
    assert cli.run(["init", str(table), "--output", str(target)]) == 2
    assert "old.csv:2: not UTF-8 text" in (told := capsys.readouterr().err)
    assert "such as --encoding latin-1" in told
    assert cli.run(["init", str(table), "--output", str(target), "--encoding", "latin-1"]) == 0
    assert "encoding: latin-1" in target.read_text()


def test_it_overwrites_only_when_told(tiny_task, tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    target.write_text("precious")
    arguments = ["init", str(tiny_task.parent / "train.csv"), "--output", str(target)]
    assert cli.run(arguments) == 2
    assert "choose another file with --output, or overwrite it with --force" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert cli.run([*arguments, "--force"]) == 0
    assert "text: [first, second]" in target.read_text()
    assert list(tmp_path.iterdir()) == [target]


def test_a_wrong_column_is_one_line(tiny_task, tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert cli.run(["init", str(tiny_task.parent / "train.csv"), "--label", "lable", "--output", str(target)]) == 2
    assert capsys.readouterr().err.endswith(
        "no column 'lable'; its columns are first, second, label; did you mean 'label'?\n"
    )
    assert not Path(target).exists()
