"""How long what is left of a sweep will take."""

import pytest

from dpstune.studies.sweep.estimate import pace
from tests.studies.test_records import record


@pytest.mark.parametrize(("workers", "processors", "seconds"), [(1, 4, 480), (4, 4, 120), (8, 4, 120), (8, 1, 480)])
def test_no_more_runs_go_on_at_once_than_there_are_processors(monkeypatch, workers, processors, seconds):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    finished = [record(seed=1, seconds=50.0, other_seconds=0.0), record(seed=2, seconds=60.0, other_seconds=10.0)]
    assert pace(finished, 8, workers) == seconds


def test_before_the_first_is_finished_there_is_no_pace():
    assert pace([], 8, 2) is None
