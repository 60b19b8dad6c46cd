"""That texts are cut is told once, however many runs there are."""

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


@pytest.mark.parametrize("quiet", [False, True])
def test_from_python(tiny_task, tmp_path, capsys, quiet):
    few = {"training": {"steps": 1, "warmup_steps": 0}, "data": {"max_length": 9}, "output": tmp_path, "quiet": quiet}
    dpstune.train(tiny_task, **few)
    dpstune.sweep(tiny_task, methods=["vanilla"], seeds=2, **few)
    assert capsys.readouterr().err.count(TOLD) == (0 if quiet else 2)
