"""How long what is left of a sweep will take."""

import pytest
import torch

from dpstune.studies import processes
from dpstune.studies.sweep import estimate
from dpstune.studies.sweep.estimate import pace, plan_as_json
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from tests.studies.test_records import record


@pytest.mark.parametrize(("workers", "processors", "seconds"), [(1, 4, 480), (4, 4, 120), (8, 4, 120), (8, 1, 480)])
def test_no_more_runs_go_on_at_once_than_there_are_processors(monkeypatch, workers, processors, seconds):
    monkeypatch.setattr(estimate, "cores", lambda: processors)
    finished = [record(seed=1, seconds=50.0, other_seconds=0.0), record(seed=2, seconds=60.0, other_seconds=10.0)]
    assert pace(finished, 8, workers) == seconds


def test_before_the_first_is_finished_there_is_no_pace():
    assert pace([], 8, 2) is None


def test_what_is_timed_for_workers_has_their_threads_and_is_shared_among_them(tiny_task, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr("dpstune.device.hardware.visible_gpus", list)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(estimate, "seconds_of_a_run", lambda loaded, inputs: 30.0)
    sweep = Sweep(SweepRequest(str(tiny_task), ("vanilla",), 8, tmp_path))
    assert [plan_as_json(sweep, workers)["seconds"] for workers in (1, 4, 9)] == [240, 60, 60]
    assert threads == [4, 4, 1, 4, 1, 4]


def test_a_run_alone_is_not_shared_among_workers_that_have_none(tiny_task, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(estimate, "seconds_of_a_run", lambda loaded, inputs: 30.0)
    sweep = Sweep(SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path))
    assert plan_as_json(sweep, 4)["seconds"] == 30
