"""What a step asks of a GPU, counted on a simulated one: benchmarks/launches.py on tiny models."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.once import made_once

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.version.cuda is None and shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
    ),
    pytest.mark.skipif(
        torch.version.cuda is not None and not torch.cuda.is_available(),
        reason="a torch built for CUDA, without a GPU, can neither use one nor be told of one",
    ),
]


def count(folder, *what):
    """Count in a process of its own, into counted.json: what simulates the GPU must be there before torch."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        environment = importlib.import_module("launches").environment(folder)
    finally:
        sys.path.pop(0)
    program = [sys.executable, "-m", "tests.launch_counts", folder / "counted.json", *what]
    subprocess.run(program, check=True, cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)})


def read(folder):
    return json.loads((folder / "counted.json").read_text())


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    return read(made_once(tmp_path_factory, "launches", count))


def by_phase(rows):
    return {(row["method"], row["phase"]): row for row in rows}


# Kernel launches beyond vanilla: of a step, and of each further layer.
MOST = {
    ("dps-dense", "Stage I"): (12, 0),
    ("dps-dense", "opening of Stage II"): (34, 24),
    ("dps-dense", "Stage II"): (1, 0),
    ("dps-mix", "Stage I"): (18, 0),
    ("dps-mix", "opening of Stage II"): (99, 66),
    ("dps-mix", "Stage II"): (2, -6),
    ("mixout", "every step"): (4, 0),
    ("child-tuning-d", "every step"): (2, 0),
    ("child-tuning-f", "every step"): (1, 0),
    ("r3f", "every step"): (40, 0),
    ("r-drop", "every step"): (40, 0),
    ("sam", "every step"): (160, 80),  # a second forward and backward pass
    ("ema", "every step"): (19, 0),
}


@pytest.mark.parametrize("phase", MOST, ids="-".join)
def test_launches_beyond_vanilla_do_not_grow_with_the_layers(counted, phase):
    one, two = (by_phase(rows)[phase] for rows in counted["launches"])
    beyond = one["launches"] - one["vanilla_launches"]
    a_layer = (two["launches"] - two["vanilla_launches"]) - beyond
    assert (beyond <= MOST[phase][0], a_layer <= MOST[phase][1]) == (True, True), (beyond, a_layer)


def test_a_layer_of_vanilla_is_counted_right(counted):
    """Six linear layers, each with matrix products forward, for its input and for its weight, and casts of both."""
    one, two = (by_phase(rows)["vanilla", "every step"] for rows in counted["launches"])
    assert 6 * 6 < two["launches"] - one["launches"] < 100
    assert two["operations"] - one["operations"] > two["launches"] - one["launches"]


OF_THE_MODEL = {"bart": {"unique_consecutive", "index", "index_put"}, "deberta": {"nonzero"}}


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "bart", "deberta"])
def test_no_method_makes_the_host_wait_for_the_device(counted, family):
    """Nor does one touch a tensor of another device: the simulated step would have raised."""
    found = counted["found"][family]
    assert len(found) == 11
    hooks = ("after_round", "before_clip", "before_update", "after_update", "scaler", "clipping")
    for method, phases in found.items():
        for phase, each in phases.items():
            assert [wait for wait in each["waits"] if wait[0] in hooks] == [], (method, phase)
            # Without labels, as r3f, r-drop and smart ask it, a model of another family may wait for other things.
            if method not in ("r3f", "r-drop", "smart") or family == "bert":
                assert {name for _, name in each["waits"]} <= OF_THE_MODEL.get(family, set()), (method, phase)


OF_THE_MODELS_OWN = {"roberta": {"cumsum"}, "bart": {"cumsum"}}  # of whole numbers: the order is nothing to it


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "bart", "deberta"])
def test_no_method_takes_an_operation_without_a_deterministic_kernel(counted, family):
    for method, phases in counted["found"][family].items():
        for phase, each in phases.items():
            assert {name for _, name in each["unsteady"]} <= OF_THE_MODELS_OWN.get(family, set()), (method, phase)


@pytest.mark.slow
def test_a_step_of_bert_large_launches_little_more_than_vanillas(tmp_path):
    count(tmp_path, "bert-large")
    over = {(row["method"], row["phase"]): row["launches"] / row["vanilla_launches"] for row in read(tmp_path)}
    opening = {key: over.pop(key) for key in list(over) if key[1] == "opening of Stage II"}
    assert over.keys() == {(method, phase) for method in ("dps-dense", "dps-mix") for phase in ("Stage I", "Stage II")}
    assert max(over.values()) <= 1.15
    assert max(opening.values()) <= 2, "one step in hundreds, which selects matrix by matrix"
