"""That texts are cut, or not known to the model, is told once, however many runs there are."""

import pytest

import dpstune

SHORT = ["--set", "training.steps=1", "--set", "training.warmup_steps=0", "--set", "data.max_length=9"]
TOLD = "72 of 72 training rows are longer than data.max_length 9 and are cut; the longest has "


def test_train_tells_it_once_for_all_seeds(zygote, tiny_task, tmp_path):
    run = zygote.run("train", "--recipe", tiny_task, "--output", tmp_path, "--seeds", 2, *SHORT)
    assert run.code == 0, run.stderr
    assert run.stderr.count(TOLD) == 1


def test_a_sweep_tells_it_once_of_the_runs_that_cut_most_and_not_where_all_are_finished(zygote, tiny_task, tmp_path):
    asked = ["--recipe", tiny_task, "--output", tmp_path, "--method", "vanilla", "--seeds", 1, "--jobs", 1]
    asked += [*SHORT[:-2], "--grid", "data.max_length=24,9", "--no-models"]
    first, again = zygote.run("sweep", *asked), zygote.run("sweep", *asked)
    assert (first.code, again.code) == (0, 0), first.stderr
    assert first.stderr.count("are cut") == first.stderr.count(TOLD) == 1
    assert "are cut" not in again.stderr


def test_train_tells_that_the_model_does_not_know_a_script(zygote, tiny_task, tmp_path):
    for split in ("train", "validation"):
        lines = [f"แมว {number},สุนัข,{number % 2}" for number in range(12)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["first,second,label", *lines]), encoding="utf-8")
    recipe = tmp_path / "thai.yaml"
    recipe.write_text(tiny_task.read_text())
    run = zygote.run("train", "--recipe", recipe, "--output", tmp_path, "--seeds", 2, *SHORT[:4])
    assert run.code == 0, run.stderr
    assert run.stderr.count("12 of 12 training rows are mostly one unknown token to the model") == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_from_python(tiny_task, tmp_path, capsys, quiet):
    few = {"training": {"steps": 1, "warmup_steps": 0}, "data": {"max_length": 9}, "output": tmp_path, "quiet": quiet}
    dpstune.train(tiny_task, **few)
    dpstune.sweep(tiny_task, methods=["vanilla"], seeds=2, **few)
    assert capsys.readouterr().err.count(TOLD) == (0 if quiet else 2)
