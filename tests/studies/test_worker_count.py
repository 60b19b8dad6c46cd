"""How many runs a machine trains at a time where nobody says it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, BartConfig, BertConfig

from dpstune.recipe.recipe import load_recipe
from dpstune.studies import worker_count
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.studies.worker_count import default_workers, run_bytes

GIB = 2**30
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def machine(monkeypatch):
    """Return a function that says what the machine has."""

    def has(cores=8, memory=64.0, share=float("inf"), gpu=False):
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
        monkeypatch.setattr("dpstune.device.limits.memory_bytes", lambda: int(memory * GIB))
        monkeypatch.setattr("dpstune.device.limits.processors", lambda: share)

    return has


@pytest.fixture
def planned(tiny_task, tmp_path):
    """Return a function that plans a sweep."""

    def plan(*overrides, grid=("method.p=0.1,0.3",), budget=None):
        size = ("data.max_length=128", "training.batch_size=16")
        return Sweep(SweepRequest(str(tiny_task), ("mixout",), 2, tmp_path, grid, (*size, *overrides), budget=budget))

    return plan


def test_a_worker_for_each_core(machine, planned):
    for cores in (1, 2, 8):
        machine(cores)
        assert default_workers(planned()) == cores
    machine(8, share=2.5)
    assert default_workers(planned()) == 2


def test_no_more_than_memory_allows(machine, planned, tmp_path):
    LARGE.save_pretrained(tmp_path / "large")
    machine(memory=64)
    large = f"model.name={tmp_path / 'large'}"
    assert default_workers(planned(large)) == 3
    assert default_workers(planned(large, "training.batch_size=64")) == 1
    machine(memory=4)
    assert default_workers(planned(large)) == 1


def test_the_largest_of_several_models_counts(machine, planned, tiny_task, tmp_path):
    LARGE.save_pretrained(tmp_path / "large")
    machine(memory=64)
    small = load_recipe(str(tiny_task)).recipe.model.name
    for names in ((small, tmp_path / "large"), (tmp_path / "large", small)):
        grid = f"model.name={','.join(map(str, names))}"
        assert default_workers(planned(grid=(grid, "method.p=0.1"))) == 3


def test_one_worker_where_there_is_a_gpu(machine, planned):
    machine(gpu=True)
    assert default_workers(planned()) == 1


def test_a_search_has_fewer_workers_than_it_has_points(machine, planned):
    machine(cores=16)
    assert [default_workers(planned(budget=budget)) for budget in (2, 20, 400)] == [1, 5, 16]


@pytest.mark.parametrize("name", ["methods-minilm-cpu-memory", "methods-bert-large-cpu-memory"])
def test_a_run_of_any_method_takes_no_more_than_is_counted(name):
    found = json.loads((MEASURED / f"{name}.json").read_text())
    model = found["model"]
    config = LARGE if "large" in model else AutoConfig.for_model("bert", hidden_size=384, num_hidden_layers=6)
    recipe = load_recipe("minilm-rte").recipe
    for cost in found["costs"]:
        training = recipe.training.model_copy(update={"batch_size": cost["batch_size"]})
        counted = run_bytes(config, recipe.model_copy(update={"training": training}))
        assert cost["memory"]["peak"] + GIB / 2 < counted, cost["method"]["name"]
    assert counted < 2.5 * max(cost["memory"]["peak"] for cost in found["costs"]) + GIB


def test_a_decoder_counts_too():
    recipe = load_recipe("minilm-rte").recipe
    with_decoder, without = (run_bytes(BartConfig(decoder_layers=layers), recipe) for layers in (12, 0))
    assert with_decoder - without > 24 * 12 * 12 * 1024**2


def test_a_command_says_and_takes_what_suits_the_machine(run, tiny_task, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(worker_count, "default_workers", lambda sweep: 3)
    monkeypatch.setattr(
        "dpstune.studies.sweep.coordinator.Workers", lambda request, count: taken.append(count) or 1 / 0
    )
    asked = ["sweep", "--recipe", tiny_task, "--output", tmp_path, "--method", "mixout", "--grid", "method.p=0.1,0.2"]
    code, out, _ = run(*asked, "--plan", "--json")
    assert (code, json.loads(out)["workers"]) == (0, 3)
    for more, workers in ([], 2), (["--jobs", "1"], 1):
        run(*asked, "--seeds", 1, *more)
        assert taken.pop() == workers  # no more than there are runs
