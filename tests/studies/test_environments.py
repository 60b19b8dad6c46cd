import json

from dpstune.studies.environments import compared_value, told_of_environments
from dpstune.studies.points import read_runs
from tests.studies.test_records import make_run, record


def run_on(folder, torch, **more):
    environment = {"device": "cpu", "precision": "fp32", "packages": {"dpstune": "0.1.0", "torch": torch}}
    (folder / "environment.json").write_text(json.dumps({**environment, **more}))


def test_runs_of_one_machine_and_software_say_nothing(tmp_path):
    for seed in (1, 2):
        run_on(make_run(tmp_path / f"seed-{seed}", seed=seed), "2.13.0")
    records, _ = read_runs(tmp_path)
    assert told_of_environments([*records, record(seed=3)]) == [], "of that run nothing is known"


def test_runs_of_several_say_which_had_which(tmp_path):
    run_on(make_run(tmp_path / "seed-1-a", seed=1), "2.6.0")
    run_on(make_run(tmp_path / "seed-2-a", seed=2), "2.13.0")
    run_on(make_run(tmp_path / "seed-2-b", "mixout", seed=2), "2.13.0", precision="bf16")
    went_on = {"device": "cpu", "precision": "fp32", "packages": {"torch": "2.6.0"}}
    run_on(make_run(tmp_path / "seed-3-b", "mixout", seed=3), "2.13.0", earlier=[went_on])
    records, _ = read_runs(tmp_path)
    assert told_of_environments(records) == [
        "not all runs had the same machine and software, so scores can differ by that, too: "
        "torch 2.6.0 (1 of vanilla) and 2.13.0 (1 of vanilla, 1 of mixout) and 2.6.0, then 2.13.0 (1 of mixout); "
        "precision fp32 (2 of vanilla, 1 of mixout) and bf16 (1 of mixout)"
    ]
    assert compared_value(records[-1], "torch") == "2.6.0, then 2.13.0"
