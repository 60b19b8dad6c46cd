from pathlib import Path

from dpstune import cli


def test_it_writes_a_recipe_and_says_what_to_type_next(tiny_task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["init", str(tiny_task.parent / "train.csv")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "wrote recipe.yaml; look at its guesses, then:",
        "  dpstune recipes check recipe.yaml",
        "  dpstune train --recipe recipe.yaml",
    ]
    assert cli.run(told[1].split()[1:]) == 0
    assert "minilm on recipe, dps-dense" in capsys.readouterr().out


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
