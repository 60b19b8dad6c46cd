"""Which run comes next beside those that are under way, and when there is none."""

import heapq
from collections import defaultdict
from types import SimpleNamespace

import optuna
import pytest

from dpstune.studies.fit.budget import Budget
from dpstune.studies.fit.candidates import SearchSpace
from dpstune.studies.fit.order import next_run
from dpstune.studies.fit.request import FitRequest
from dpstune.studies.fit.search import CandidateSearch

SPACE = SearchSpace(("vanilla", "dps-dense", "mixout", "r-drop"), 1e-4, (3, 12))


pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    """Keep each study in memory, by its URL: a file takes long to write where the disk is busy."""
    studies = defaultdict(optuna.storages.InMemoryStorage)
    monkeypatch.setattr("dpstune.studies.fit.search.open_storage", lambda url, heartbeats: studies[url])
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def budget_of(jobs=2, **most):
    return Budget(FitRequest("rows", {}, None, jobs=jobs, **most), growth=1.0)


class Machine:
    """Workers whose runs end when they are told to; a score is what ``score`` says of a method and a part."""

    def __init__(self, tmp_path, parts=5, score=lambda candidate, part: 0.5, space=SPACE, **most):
        self.search = CandidateSearch(tmp_path / "study.db", lambda: space, parts=parts, seed=1)
        self.budget = budget_of(**{"runs": 40, **most})
        self.score, self.running, self.waited = score, [], 0.0

    def begin(self, count=1):
        """Hand out runs, and return each as the trial's number and the part; what cannot be handed out is left out."""
        begun = []
        for _ in range(count):
            found = next_run(self.search, self.budget, self.running, self.waited)
            if found is not None:
                begun.append((found[0].number, found[1]))
                self.running.append(begun[-1])
        return begun

    def begin_beside_the_first(self, count):
        """Hand out the first candidate's runs, end one of them, and hand out some more, which are returned."""
        self.begin(self.search.parts)
        self.end(0, 1)
        return self.begin(count)

    def end(self, number, part, seconds=10.0, taken=None):
        taken = seconds if taken is None else taken
        self.running.remove((number, part))
        trial = next(trial for trial in self.search.trials() if trial.number == number)
        self.budget.add(trial.candidate, SimpleNamespace(all_seconds=seconds), taken)
        return self.search.report(trial, part, self.score(trial.candidate, part), taken)


def test_what_is_tried_in_full_is_tried_at_once_and_then_candidates_side_by_side(tmp_path):
    machine = Machine(tmp_path)
    assert machine.begin(8) == [(0, part) for part in range(1, 6)], "what is wrong with the first ends the fit"
    machine.end(0, 1)
    assert machine.begin(3) == [(1, 1), (2, 1), (3, 1)]


def test_a_candidate_waits_for_its_judgement_while_others_begin(tmp_path):
    machine = Machine(tmp_path, score=lambda candidate, part: 0.5 - 0.1 * (candidate.method == "dps-dense"))
    machine.begin_beside_the_first(2)
    for part in range(2, 6):
        machine.end(0, part)
    assert machine.end(1, 1).state == "open"
    assert machine.end(2, 1).state == "given up"
    assert machine.begin(2) == [(1, 2), (3, 1)]
    machine.end(1, 2)
    assert machine.begin(3) == [(1, 3), (1, 4), (4, 1)]


def test_where_no_other_can_be_tried_in_full_open_ones_are_tried_before_they_are_judged(tmp_path):
    machine = Machine(tmp_path, runs=12, score=lambda candidate, part: 0.5 - 0.1 * (candidate.method == "mixout"))
    assert machine.begin_beside_the_first(2) == [(1, 1), (1, 2)]


def test_a_fold_that_runs_while_its_candidate_is_given_up_is_not_noted(tmp_path):
    def score(candidate, part):
        return 0.5 - candidate.settings.get("model.dropout", 0.0)

    machine = Machine(tmp_path, runs=10, score=score)
    machine.begin_beside_the_first(2)
    for part in range(2, 6):
        machine.end(0, part)
    assert machine.running == [(1, 1), (1, 2)]
    assert machine.end(1, 1).state == "given up"
    after = machine.end(1, 2)
    assert (after.state, after.values) == ("given up", {1: 0.4})
    assert machine.search.late() == [10.0]
    assert [each.state for each in machine.search.trials()] == ["complete", "given up"]


def test_a_candidate_is_judged_once_all_of_its_first_folds_are_done_whatever_the_order(tmp_path):
    machine = Machine(tmp_path, score=lambda candidate, part: 0.9 if part == 4 else 0.5)
    machine.begin(5)
    for part in (3, 5, 1, 2):
        machine.end(0, part)
    machine.begin(1)
    machine.end(1, 1)
    machine.begin(1)
    machine.end(1, 2)
    machine.begin(2)
    assert set(machine.running) == {(0, 4), (1, 3), (1, 4)}
    machine.score = lambda candidate, part: {4: 0.9, 3: 0.4}[part]
    assert machine.end(1, 4).state == "open", "its third fold is still running"
    machine.end(0, 4)
    assert machine.end(1, 3).state == "given up"


def test_the_first_candidate_is_tried_in_full_whatever_the_budget_and_nothing_else(tmp_path):
    machine = Machine(tmp_path, runs=1)
    assert machine.begin(3) == [(0, 1), (0, 2), (0, 3)]
    machine.end(0, 1, seconds=1e9)
    assert machine.begin(4) == [(0, 4), (0, 5)]
    for part in range(2, 6):
        machine.end(0, part)
    assert machine.begin(4) == []


def test_no_candidate_is_begun_that_the_budget_has_no_room_for_but_once(tmp_path):
    machine = Machine(tmp_path, parts=1, minutes=1, runs=None)
    machine.begin(1)
    machine.end(0, 1, seconds=29.0)
    machine.waited = 5.0
    assert [machine.begin(1) for _ in range(4)] == [[]] * 4
    assert len(machine.search.trials()) == 2


def test_after_five_failures_in_a_row_nothing_more_is_handed_out(tmp_path):
    machine = Machine(tmp_path, parts=1)
    machine.begin(1)
    machine.end(0, 1)
    for number, _ in machine.begin(5):
        machine.search.fail(machine.search.trials()[number], 1, "nan", 1.0)
    assert machine.begin(2) == []


def test_while_none_is_tried_in_full_the_first_goes_on_whatever_fails(tmp_path):
    machine = Machine(tmp_path, parts=2)
    machine.begin_beside_the_first(5)
    for number in range(1, 6):
        machine.search.fail(machine.search.trials()[number], 1, "nan", 1.0)
    machine.running = []
    assert machine.begin(3) == [(0, 2)]
    machine.end(0, 2)
    assert machine.begin(2) == []


def test_equal_candidates_are_not_tried_on_one_part_at_a_time(tmp_path):
    """They would be one run, and the second a worker that waits for the first."""
    fixed = ("training.learning_rate", "training.epochs", "model.dropout")
    machine = Machine(tmp_path, parts=1, space=SearchSpace(("vanilla",), 1e-4, (3, 12), fixed))
    assert machine.begin(8) == [(0, 1)]
    machine.end(0, 1)
    assert machine.begin(8) == [(1, 1)]


@pytest.mark.parametrize("jobs", [1, 3, 8])
def test_one_after_the_other_is_what_it_is_without_workers(tmp_path, jobs):
    alone = CandidateSearch(tmp_path / "alone.db", lambda: SPACE, parts=5, seed=1)
    machine = Machine(tmp_path, jobs=jobs, score=lambda candidate, part: candidate.settings["training.learning_rate"])
    for _ in range(20):
        trial = alone.next()
        part = next(part for part in range(1, 6) if part not in trial.values)
        assert machine.begin(1) == [(trial.number, part)]
        machine.end(trial.number, part)
        alone.report(trial, part, machine.score(trial.candidate, part))


def work(machine, jobs, seconds_of, until=float("inf")):
    """Let workers train for so long, or until the budget is spent; return what a clock shows, and how long each waited.

    A run that is under way at the end is lost.
    """
    ends, clock, since, idle = [], 0.0, 0.0, 0.0
    while clock < until:
        machine.waited = clock - since
        for run in machine.begin(jobs - len(ends)):
            heapq.heappush(ends, (clock + seconds_of(run), run))
        if not ends:
            break
        ended, run = heapq.heappop(ends)
        idle += (jobs - len(ends) - 1) * (ended - clock)
        clock = ended
        machine.end(*run, seconds=seconds_of(run), taken=clock - since)
        since = clock
    return clock, idle


@pytest.mark.parametrize(("jobs", "parts"), [(2, 5), (3, 1), (8, 5)])
def test_the_minutes_are_those_of_a_clock_and_no_worker_waits_long(tmp_path, jobs, parts):
    """The last run, on all rows, takes as long as the longest one so far."""

    def seconds_of(run):
        return 100.0 + 7 * (run[0] + run[1]) % 11

    machine = Machine(tmp_path, parts, jobs=jobs, minutes=20, runs=None, score=lambda candidate, part: part % 2)
    clock, idle = work(machine, jobs, seconds_of)
    longest = 110.0
    assert 20 * 60 - 2 * longest < clock + longest <= 20 * 60
    assert idle <= 2 * jobs * longest


def test_a_fit_that_goes_on_with_other_jobs_takes_the_rest_of_the_minutes(tmp_path):
    def seconds_of(run):
        return 20.0

    most = {"minutes": 10, "runs": None}
    first, _ = work(Machine(tmp_path, jobs=4, **most), 4, seconds_of, until=200)
    machine = Machine(tmp_path, jobs=2, **most)
    for trial in machine.search.trials():
        for taken in trial.taken.values():
            machine.budget.add(trial.candidate, SimpleNamespace(all_seconds=20.0), taken)
    for taken in machine.search.late():
        machine.budget.add_failure(taken)
    assert machine.budget.seconds == first
    then, _ = work(machine, 2, seconds_of)
    assert 600 - 20 - 40 <= first + then <= 600 - 20


def test_a_budget_says_the_same_to_other_jobs(tmp_path):
    candidate, record = SPACE.baselines()[0], SimpleNamespace(all_seconds=40.0)
    for jobs in (1, 2, 8):
        budget = budget_of(jobs, minutes=10)
        budget.add(candidate, record)
        for _ in range(4):
            budget.add(candidate, record, 10.0)
        assert (budget.runs, budget.seconds) == (5, 80.0)
        assert budget.allows(candidate, waited=600 - 80 - 40 - 40)
        assert not budget.allows(candidate, waited=600 - 80 - 40 - 40 + 1)


def test_runs_under_way_count_and_more_at_a_time_have_room_for_more():
    candidate, record = SPACE.baselines()[0], SimpleNamespace(all_seconds=60.0)
    budget = budget_of(4, minutes=10, runs=10)
    budget.add(candidate, record, 15.0)
    assert budget.allows(candidate, running=8)
    assert not budget.allows(candidate, running=9)
    assert budget.allows_more(9)
    assert not budget.allows_more(9, running=1)
    assert not budget.allows_more(9, waited=600 - 15 - 60 - 9 * 15 + 1)
