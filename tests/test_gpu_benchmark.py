"""benchmarks/gpu.py on a machine without a GPU: every stage is rehearsed, as bare as the machine it is made for."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dpstune.report.profile_report import TABLE_3
from tests.tiny import LEARNING, METHODS

TRAINED = [name for name in METHODS if name in LEARNING]
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NOT_THERE = ("datasets", "evaluate", "optuna", "pyarrow", "sklearn", "scipy", "matplotlib", "rich", "typer", "pandas")
BARE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def benchmarks(monkeypatch):
    """Modules of the benchmarks, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def without(tmp_path):
    """Return the environment of Python processes in which packages are not there, for whoever looks."""

    def without(*names):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(BARE.format(names=repr(names)))
        return {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    return without


def run(*arguments, env=None):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1000, env=env)


def read(folder):
    content = json.loads((folder / "gpu.json").read_text())
    return content, {name: stage["found"] for name, stage in content["stages"].items()}


@pytest.mark.slow
def test_every_stage_is_rehearsed_on_a_bare_machine(without, tmp_path, benchmarks):
    env = without(*NOT_THERE)
    gone = subprocess.run([sys.executable, "-c", "import datasets"], env=env, capture_output=True, text=True)
    assert "No module named 'datasets'" in gone.stderr
    # More minutes than it takes, since a busy machine is no failure.
    done = run("--rehearse", "--output", tmp_path / "found", "--minutes", 60, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    content, found = read(tmp_path / "found")
    assert all(stage["rehearsal"] and stage["about"]["packages"]["torch"] for stage in content["stages"].values())
    assert list(content["stages"]) == list(benchmarks("gpu").STAGES)
    real_data = content["stages"].pop("minilm")
    assert real_data["status"] == "done" or real_data["reason"]
    assert [row["error"] for row in real_data.get("rows", []) if "error" in row] == []
    assert {stage["status"] for stage in content["stages"].values()} == {"done"}, content

    assert [row["raised"] for row in found["strict"]["rows"]] == [None] * (len(TRAINED) + 4)
    rows = found["methods"]["rows"]
    assert [(row["precision"], row["method"]) for row in rows] == [(p, m) for p in ("fp16", "bf16") for m in TRAINED]
    for row in rows:
        assert row["different_on_repeat"] == row["different_on_resume"] == 0, row
        assert row["beside_the_cpu"]["within"], row
        assert ("overflow" in row) == (row["precision"] == "fp16")
    for overflow in (row["overflow"] for row in rows if "overflow" in row):
        assert overflow["different"] == {"weights": 0, "moments": 0, "method": 0}
        assert overflow["halved_each_time"]
        assert overflow["schedule_moved"]
        assert overflow["trains_on"]
    assert found["padded"]["rows"]["fp16"]["strict"]["different_on_repeat"] == 0
    for part in ("one_layer", "one_slice"):
        assert all(way["equal"] for way in found["selection"][part].values())
    assert found["trace"]["vanilla"]["counts"]["operations"] > 100
    costs = [(row["model"], row["table_3_batch_size"], row["method"]["name"]) for row in found["table3"]["rows"]]
    assert {("bert", size, method) for size, column in TABLE_3.items() for method in column} <= set(costs)
    assert len(costs) == len(set(costs)) == 14 + 4 * 2
    assert found["table3"]["left_out"] == []
    assert found["half"]["fp16_over_bf16"]["median"] > 0
    assert found["trainer"]["over_trainer"].keys() == {"same", "usual"}
    assert found["trainer"]["flops_a_second"] > 0
    assert [row["workers"] for row in found["sharing"]["rows"]] == [1, 2]
    assert all("compiled_over_plain" in row for row in found["compile"]["rows"].values())

    tables = benchmarks("gpu_tables")
    page = tables.goals({**content, "stages": {**content["stages"], "minilm": real_data}})
    missing = [line for line in page.splitlines() if "not measured" in line]
    assert all("kernels" in line or "MiniLM on RTE" in line for line in missing), missing
    assert "not measured" not in tables.table_3(content)


def test_an_operation_without_a_deterministic_kernel_is_named(benchmarks, tmp_path, monkeypatch):
    from dpstune.methods.vanilla import Vanilla

    loss = Vanilla.loss

    def loss_with_such_an_operation(method, model, batch):
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        return loss(method, model, batch)

    monkeypatch.setattr(Vanilla, "loss", loss_with_such_an_operation)
    monkeypatch.setattr("dpstune.methods.REGISTRY", {"vanilla": "vanilla:Vanilla"})
    stage = benchmarks("rig").Stage(tmp_path / "part.json", 600, rehearse=True)
    try:
        benchmarks("gpu_stages.strict").run(stage)
    finally:
        torch.use_deterministic_algorithms(False)
    first = json.loads((tmp_path / "part.json").read_text())["found"]["rows"][0]
    assert first["raised_at_step"] == 1
    assert "put_" in first["raised"]
    assert ["put_" in warned for warned in first["warned"]] == [True]


@pytest.mark.slow
def test_a_stage_that_fails_says_why_and_the_next_goes_on(without, tmp_path):
    stages = ["--stage", "strict", "--stage", "selection"]
    done = run("--rehearse", "--output", tmp_path / "found", *stages, env=without("accelerate"))
    assert done.returncode == 1
    content, _ = read(tmp_path / "found")
    assert [stage["status"] for stage in content["stages"].values()] == ["failed", "done"]
    assert "accelerate" in content["stages"]["strict"]["error"]
    done = run("--rehearse", "--output", tmp_path / "found", "--stage", "selection")
    assert done.returncode == 0
    assert read(tmp_path / "found")[0]["stages"].keys() == {"strict", "selection"}, "what was found before stays"


class Asked:
    """What the command line says of a rehearsal."""

    rehearse, minilm, stage = True, None, ["methods", "selection"]


@pytest.mark.slow
def test_a_stage_without_time_is_ended_and_the_rest_is_not_started(benchmarks, tmp_path):
    asked = Asked()
    asked.minutes = 5.5 / 60  # not enough to import and to train all methods
    started = time.monotonic()
    assert benchmarks("gpu").run_stages(asked, tmp_path / "gpu.json") == []
    assert time.monotonic() - started < 30
    content, _ = read(tmp_path)
    assert [stage["status"] for stage in content["stages"].values()] == ["out of time", "no time left"]


def test_a_run_that_is_killed_leaves_what_it_measured(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--output", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--stage", "selection", "--stage", "methods"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("--- selection: done"):
            break
    process.terminate()
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + 15
    content, found = read(tmp_path)
    assert content["stages"]["selection"]["status"] == "done"
    assert found["selection"]["one_slice"]["topk"]["equal"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--minutes", "nan"], "a number above 0, please"),
        (["--minutes", "-1"], "a number above 0, please"),
        (["--minilm", "nowhere"], "nowhere is no folder"),
        (["--output", __file__], "is a file; gpu.json goes into a folder"),
        (["--output", f"{__file__}/x"], "cannot be made: Not a directory; another folder, please"),
    ],
)
def test_a_wrong_request_is_a_line(benchmarks, monkeypatch, capsys, asked, told):
    gpu = benchmarks("gpu")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", *asked])
    with pytest.raises(SystemExit) as refused:
        gpu.main()
    assert told in f"{refused.value.code} {capsys.readouterr().err}"


def test_what_was_found_stays_where_no_time_is_left(benchmarks, tmp_path):
    stage = {"status": "done", "seconds": 9.0, "found": {"rows": [1]}}
    (tmp_path / "gpu.json").write_text(json.dumps({"stages": {"methods": stage}}))
    asked = Asked()
    asked.minutes = 0.05
    assert benchmarks("gpu").run_stages(asked, tmp_path / "gpu.json") == []
    content, _ = read(tmp_path)
    assert content["stages"]["methods"] == stage
    assert content["stages"]["selection"]["status"] == "no time left"


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"stages": 5}'])
def test_a_damaged_file_is_kept_beside(benchmarks, tmp_path, damaged):
    (tmp_path / "gpu.json").write_text(damaged)
    assert benchmarks("gpu").read_earlier(tmp_path / "gpu.json") == {}
    assert (tmp_path / "gpu.damaged").read_text() == damaged


def test_what_is_not_asked_in_earnest_is_refused():
    refused = run("--rehearse", "--output", BENCHMARKS / "results")
    assert refused.returncode == 1
    assert "a rehearsal measures nothing" in refused.stderr
    if not torch.cuda.is_available():
        refused = run()
        assert refused.returncode == 1
        assert refused.stderr == "there is no GPU; --rehearse runs every stage with tiny models on any machine\n"


@pytest.fixture
def made_up(benchmarks):
    """A gpu.json of round numbers, with a stage that was cut off and one that failed."""
    gb = 10**9

    def cost(model, size, method, peak):
        memory = {"peak": peak * gb, "reserved": (peak + 2) * gb, "before_training": gb}
        times = {"ratio": 1.02, "ratio_quartiles": [1.01, 1.03], "seconds": 0.05, "opening_seconds": 0.1}
        return {"model": model, "table_3_batch_size": size, "method": {"name": method}, "memory": memory, **times}

    bits = {"different_on_repeat": 3, "different_on_resume": 0}
    overflow = {"different": {"weights": 0, "moments": 0}, "halved_each_time": True, "trains_on": True}
    apart = {"within": True, "apart": 0.004}
    stages = {
        "table3": {
            "status": "out of time",
            "found": {
                "rows": [
                    cost("bert", 16, "vanilla", 9),
                    cost("bert", 16, "dps-dense", 15),
                    cost("bart", 16, "dps-mix", 9),
                ]
            },
        },
        "methods": {
            "status": "done",
            "found": {
                "rows": [
                    {"method": "vanilla", "precision": "fp16", "overflow": overflow, "beside_the_cpu": apart, **bits}
                ]
            },
        },
        "trainer": {"status": "failed", "error": "CUDA out of memory | nothing left", "found": {}},
    }
    about = {
        "device": "NVIDIA Made-up",
        "threads": 16,
        "date": "2026-01-01",
        "packages": {"torch": "2.11", "transformers": "5.17"},
    }
    stages["table3"]["about"] = about
    stages["methods"]["about"] = {**about, "device": "NVIDIA Other"}
    return {"stages": stages}


def test_the_tables_of_a_made_up_gpu(benchmarks, made_up, tmp_path, monkeypatch):
    tables = benchmarks("tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "gpu.json").write_text(json.dumps(made_up))
    for name in ("README", "PROFILE"):
        page = tmp_path / f"{name}.md"
        page.write_text(getattr(tables, name).read_text())
        monkeypatch.setattr(tables, name, page)
    tables.write_tables()
    readme, profile = ((tmp_path / f"{name}.md").read_text() for name in ("README", "PROFILE"))
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in readme.partition("<!-- gpu -->")[2].splitlines()}
    assert rows["| dps-dense step over vanilla, BERT-large, 16 x 128"] == ["<= 1.03", "1.020 (1.010 to 1.030) |"]
    assert rows["| dps-mix step over vanilla, BERT-large, 16 x 128"][1] == "not measured: out of time |"
    assert rows["| dps-mix step over vanilla, bart, 16 x 128"][1] == "1.020 (1.010 to 1.030) |"
    # 9 of 10.6 and 15 of 16.3 as allocated; 11 and 17 as reserved; 10^9 bytes.
    assert rows["| peak memory below the paper's Table 3"][1] == "2 of 2 measured (as reserved: 0) |"
    assert rows["| numbers that differ in a second run"][1] == "3 in 1 pairs of runs |"
    assert rows["| methods in which overflows in fp16 change the schedule and the scale alone"][1] == "1 of 1 |"
    assert (
        "CUDA out of memory / nothing left"
        in rows["| the same, `Trainer` as run_glue.py has it: fp32, all padded to 128"][1]
    )
    assert rows["| operations without a deterministic kernel"][1] == "not measured: not asked for |"
    assert "\nNVIDIA Made-up, 16 threads; torch 2.11, transformers 5.17; 2026-01-01 (table3).\n" in readme
    assert "\nNVIDIA Other, 16 threads; torch 2.11, transformers 5.17; 2026-01-01 (methods).\n" in readme
    assert "NVIDIA Made-up" in profile
    assert "NVIDIA Other" not in profile
    assert "| dps-dense | 16 | 16.3 | 15.0, 17.0 reserved; 1.0 before step 1 |" in profile
    assert "| dps-dense | 32 | 20.0 | not measured: out of time |" in profile


def test_the_pages_say_what_their_tables_say(benchmarks):
    """Which is, while there is no results/gpu.json, that nothing was measured."""
    tables = benchmarks("tables")
    result = tables.read("gpu")
    for page, name, table in (
        (tables.README, "gpu", tables.gpu_tables.goals(result)),
        (tables.PROFILE, "table3", tables.gpu_tables.table_3(result)),
    ):
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in page.read_text()
        if result is None:
            assert all(tables.gpu_tables.NOT_MEASURED in line for line in table.splitlines()[2:])


def test_peaks_are_looked_up_by_the_cards_name(benchmarks):
    peak_of = benchmarks("gpu_stages.trainer").peak_of
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of("NVIDIA H100 PCIe") < peak_of("NVIDIA H100 80GB HBM3") == peak_of("NVIDIA H200")
    assert peak_of("NVIDIA L40S") == 362e12
    assert peak_of("Tesla T4") == 65e12
    assert peak_of("NVIDIA Z9") is None
