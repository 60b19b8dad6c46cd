"""Which candidates are tried, in which order, and which are given up."""

from functools import partial

import pytest

from dpstune.errors import RequestError
from dpstune.studies.fit.candidates import Candidate, SearchSpace, check_methods, epochs_to_try
from dpstune.studies.fit.search import CandidateSearch

SPACE = SearchSpace(("vanilla", "dps-dense", "mixout", "r-drop"), 1e-4, (3, 12))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


def run(search, score, count):
    """Try ``count`` runs."""
    for _ in range(count):
        trial = search.next()
        part = len(trial.values) + 1
        search.report(trial, part, score(trial.candidate, part))


def test_plain_fine_tuning_without_and_with_dropout_comes_first_then_every_method_at_its_defaults(file):
    search = CandidateSearch(file, lambda: SPACE, parts=1, seed=1)
    run(search, lambda candidate, part: 0.5, 5)
    first = [trial.candidate for trial in search.trials()]
    assert [candidate.method for candidate in first] == ["vanilla", "vanilla", "dps-dense", "mixout", "r-drop"]
    middle = {"training.learning_rate": 1e-4, "training.epochs": 6}
    assert [candidate.settings for candidate in first[:2]] == [
        {**middle, "model.dropout": 0.0},
        {**middle, "model.dropout": 0.1},
    ]
    assert first[2].settings == {"method.p": 0.3, "method.update_ratio": 0.05, **middle, "model.dropout": 0.0}
    assert "model.dropout" not in first[4].settings, "r-drop has a dropout of its own"


def test_later_candidates_lie_in_the_ranges_and_are_of_several_methods(file):
    search = CandidateSearch(file, lambda: SPACE, parts=1, seed=1)
    run(search, lambda candidate, part: 0.5, 25)
    later = [trial.candidate for trial in search.trials()[5:]]
    assert len({candidate.method for candidate in later}) == 4
    for candidate in later:
        assert set(candidate.settings) == set(SPACE.grid(candidate.method))
        assert 2.5e-5 <= candidate.settings["training.learning_rate"] <= 4e-4
        assert candidate.settings["training.epochs"] in range(3, 13)


def test_plain_fine_tuning_is_tried_on_every_part_however_bad_and_others_are_given_up(file):
    search = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    score = {"vanilla": 0.1, "dps-dense": 0.0, "mixout": 0.9, "r-drop": 0.05}
    run(search, lambda candidate, part: score[candidate.method] + 0.001 * part, 5 + 5 + 1 + 5 + 1)
    states = [(trial.candidate.method, trial.state, len(trial.values)) for trial in search.trials()]
    assert states == [
        ("vanilla", "complete", 5),
        ("vanilla", "complete", 5),
        ("dps-dense", "given up", 1),
        ("mixout", "complete", 5),
        ("r-drop", "given up", 1),
    ]


def test_of_plain_fine_tuning_only_that_without_dropout_is_tried_on_every_part_however_bad(file):
    search = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    run(search, lambda candidate, part: 0.5 - candidate.settings.get("model.dropout", 0.0), 5 + 1)
    states = [(trial.candidate.settings["model.dropout"], trial.state) for trial in search.trials()]
    assert states == [(0.0, "complete"), (0.1, "given up")]


def test_what_could_not_be_trained_pushes_nothing_out_of_the_better_half(file):
    search = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    run(search, lambda candidate, part: 0.1, 10)
    promising = search.next()
    search.fail(search.report(promising, 1, 0.9), 2, "nan")
    trial = search.next()
    assert search.report(trial, 1, 0.15).state == "open"


def test_opening_a_search_again_judges_nobody_twice(file):
    search = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    run(search, lambda candidate, part: 0.1, 5)
    begun = [search.begin() for _ in range(4)]
    for trial, score in zip(begun, (0.3, 0.4, 0.6, 0.7), strict=True):
        assert search.report(trial, 1, score).state == "open"
    again = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    assert [trial.state for trial in again.trials()] == ["complete", *["open"] * 4]
    assert again.report(begun[0], 2, -0.5).state == "given up", "by two parts it is judged anew"


def test_a_candidate_is_given_up_by_the_mean_of_its_parts_not_by_the_last_one(file):
    search = CandidateSearch(file, lambda: SPACE, parts=5, seed=1)
    scores = {"vanilla": [0.5] * 5, "dps-dense": [0.9, 0.2, 0.9, 0.2, 0.9]}
    run(search, lambda candidate, part: scores[candidate.method][part - 1], 5 + 5 + 5)
    assert [trial.state for trial in search.trials()] == ["complete"] * 3


class TestKilled:
    """What a process that is killed at any of its writes leaves is gone on with."""

    def reopened(self, file, **options):
        return CandidateSearch(file, lambda: SPACE, seed=1, **{"parts": 2, **options})

    def killed_at(self, monkeypatch, target, work):
        """Do some work that is killed as it calls ``target``."""

        def die(*arguments, **options):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(target, die)
            with pytest.raises(KeyboardInterrupt):
                work()

    def killed_before_its_end(self, monkeypatch, search):
        trial = search.next()
        report = partial(search.report, trial, len(trial.values) + 1, 0.5)
        self.killed_at(monkeypatch, "optuna.study.Study.tell", report)

    def test_before_a_trial_whose_parts_are_all_done_was_ended(self, file, monkeypatch):
        search = self.reopened(file)
        run(search, lambda candidate, part: 0.5, 1)
        self.killed_before_its_end(monkeypatch, search)
        again = self.reopened(file)
        assert again.next().number == 1
        assert (again.trials()[0].state, again.trials()[0].values) == ("complete", {1: 0.5, 2: 0.5})

    def test_before_a_trial_that_falls_behind_was_given_up(self, file, monkeypatch):
        search = self.reopened(file)
        run(search, lambda candidate, part: 0.9, 4)
        self.killed_before_its_end(monkeypatch, search)
        again = self.reopened(file)
        assert again.next().number == 3
        assert again.trials()[2].state == "given up"

    @pytest.mark.parametrize("target", ["set_user_attr", "suggest_categorical", "suggest_float", "suggest_int"])
    @pytest.mark.parametrize("begun", [0, 3, 6, 9])
    def test_as_a_candidate_began_it_is_tried_in_its_place(self, file, monkeypatch, begun, target):
        def score(candidate, part):
            return candidate.settings["training.learning_rate"]

        whole = CandidateSearch(file.with_name("whole"), lambda: SPACE, parts=1, seed=1)
        run(whole, score, 12)
        run(self.reopened(file, parts=1), score, begun)
        for _ in range(3):
            self.killed_at(monkeypatch, f"optuna.trial.Trial.{target}", lambda: self.reopened(file, parts=1).next())
        again = self.reopened(file, parts=1)
        run(again, score, 12 - begun)
        tried = [[(trial.candidate, trial.always) for trial in search.trials()] for search in (again, whole)]
        assert tried[0] == tried[1]

    def test_while_candidates_were_put_in_line(self, file, monkeypatch):
        import optuna

        enqueue, count = optuna.study.Study.enqueue_trial, []

        def die_at_the_third(*arguments, **options):
            count.append(1)
            if len(count) == 3:
                raise KeyboardInterrupt
            enqueue(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(optuna.study.Study, "enqueue_trial", die_at_the_third)
            with pytest.raises(KeyboardInterrupt):
                self.reopened(file)
        again = self.reopened(file, parts=1)
        run(again, lambda candidate, part: 0.5, 5)
        first = [trial.candidate.method for trial in again.trials()]
        assert first == ["vanilla", "vanilla", "dps-dense", "mixout", "r-drop"]


def test_better_candidates_are_found_than_the_first_ones(file):
    search = CandidateSearch(file, lambda: SPACE, parts=1, seed=3)
    run(search, lambda candidate, part: -abs(candidate.settings["training.epochs"] - 11), 40)
    epochs = [trial.candidate.settings["training.epochs"] for trial in search.trials()]
    assert sum(epochs[-10:]) / 10 > 9, "by chance it is 7.5"


def test_a_search_goes_on_with_the_trial_that_is_open_and_in_its_own_space(file):
    first = CandidateSearch(file, lambda: SPACE, parts=3, seed=1)
    run(first, lambda candidate, part: 0.5, 4)
    again = CandidateSearch(file, lambda: SearchSpace(("vanilla",), 1.0, (1, 1)), parts=3, seed=1)
    assert again.space == SPACE
    trial = again.next()
    assert (trial.number, trial.values) == (1, {1: 0.5})
    assert CandidateSearch(file, lambda: SPACE, parts=3, seed=1).next() == trial


def test_two_searches_that_are_told_the_same_choose_the_same(tmp_path):
    found = []
    for name in ("one", "two"):
        search = CandidateSearch(tmp_path / name, lambda: SPACE, parts=1, seed=7)
        run(search, lambda candidate, part: candidate.settings["training.learning_rate"], 15)
        found.append([trial.candidate for trial in search.trials()])
    assert found[0] == found[1]


def test_what_cannot_be_trained_is_kept_with_its_error_and_not_tried_again(file):
    search = CandidateSearch(file, lambda: SPACE, parts=2, seed=1)
    trial = search.next()
    search.fail(trial, 1, "the loss is nan")
    assert (search.trials()[0].state, search.trials()[0].error) == ("failed", "the loss is nan")
    assert search.next().number == 1


def test_what_the_user_set_is_not_searched():
    space = SearchSpace(("vanilla", "mixout"), 1e-4, (3, 12), ("training.steps", "model.dropout", "method.p"))
    assert [candidate.settings for candidate in space.baselines()] == [{"training.learning_rate": 1e-4}]
    assert set(space.grid("mixout")) == {"training.learning_rate"}


@pytest.mark.parametrize(
    ("steps", "affordable", "epochs"),
    [(25, float("inf"), (5, 24)), (1, float("inf"), (120, 600)), (5000, float("inf"), (2, 3)), (25, 60, (5, 6))],
)
def test_few_examples_want_many_epochs_also_where_time_is_short(steps, affordable, epochs):
    assert epochs_to_try(steps, affordable) == epochs


def test_no_candidate_asks_for_more_layers_than_there_are():
    space = SearchSpace(("vanilla", "reinit", "top-layers"), 1e-4, (3, 12), layers=6)
    assert space.grid("reinit")["method.layers"] == [1, 2, 3, 4, 5, 6]
    assert space.grid("top-layers")["method.layers"] == [0, 1, 3, 6]
    assert [candidate.settings["method.layers"] for candidate in space.defaults()] == [4, 4]


@pytest.mark.parametrize(("layers", "trained"), [(1, 1), (2, 1), (6, 4), (12, 8), (24, 16), (None, 3)])
def test_top_layers_is_first_tried_with_two_thirds_of_the_layers(layers, trained):
    candidate, *_ = SearchSpace(("vanilla", "top-layers"), 1e-4, (3, 12), layers=layers).defaults()
    assert candidate.settings["method.layers"] == trained


@pytest.mark.parametrize(("rate", "first", "tried"), [(2e-5, 1e-4, (5e-6, 1e-3)), (4e-4, 4e-4, (1e-4, 1.6e-3))])
def test_a_method_is_tried_at_the_rates_of_its_own_grid_too(rate, first, tried):
    space = SearchSpace(("vanilla", "bitfit"), rate, (3, 12))
    assert space.defaults()[0].settings["training.learning_rate"] == first
    assert space.grid("bitfit")["training.learning_rate"] == pytest.approx(tried)
    assert space.grid("vanilla")["training.learning_rate"] == pytest.approx([rate / 4, rate * 4])


def test_of_a_method_that_does_not_learn_by_steps_its_own_keys_are_searched():
    methods = ("vanilla", "linear-probe")
    assert SearchSpace(methods, 1e-4, (3, 12)).defaults()[0].settings == {"method.l2": 1.0}


def test_a_candidate_is_named_by_method_and_settings():
    assert Candidate("vanilla", {"training.learning_rate": 1e-4, "model.dropout": 0.0}).name == (
        "vanilla learning_rate 0.0001, dropout 0"
    )


def test_an_unknown_method_is_refused_and_plain_fine_tuning_always_among_them():
    assert check_methods(["mixout"]) == ("vanilla", "mixout")
    with pytest.raises(RequestError, match="did you mean 'mixout'"):
        check_methods(["mixuot"])
