import pytest

from dpstune.studies.summary import best_points, compare_with_baseline, summarize_points
from tests.studies.test_records import record


def test_one_lucky_restart_is_not_the_best_point():
    records = [record("mixout", seed, 0.6, ["method.p=0.1"]) for seed in (1, 2, 3, 4)]
    records += [record("mixout", seed, 0.7, ["method.p=0.2"]) for seed in (1, 2)]
    records += [record("mixout", 1, 0.9, ["method.p=0.3"])]
    best = best_points(summarize_points(records))
    assert best["mixout"].point.label == "p 0.2"


def test_the_comparison_is_over_shared_seeds():
    records = [record("vanilla", seed, value) for seed, value in ((1, 0.5), (2, 0.6), (3, 0.9))]
    records += [record("mixout", seed, value) for seed, value in ((1, 0.7), (2, 0.7), (9, 0.1))]
    records += [record("reinit", 5, 0.6)]
    mixout, reinit = compare_with_baseline(best_points(summarize_points(records)))
    assert mixout.seeds == (1, 2)
    assert mixout.difference == pytest.approx(0.15)
    assert (mixout.p_value, mixout.smallest) == (0.5, 0.5)
    assert (reinit.seeds, reinit.difference, reinit.p_value, reinit.corrected) == ((), None, None, None)
    assert compare_with_baseline(best_points(summarize_points(records[3:]))) == []


def test_p_values_are_corrected_for_the_number_of_methods():
    seeds = range(1, 7)
    values = {"vanilla": 0.5, "mixout": 0.7, "dps-mix": 0.8}
    records = [record(method, seed, value + seed / 100) for method, value in values.items() for seed in seeds]
    records += [record("r3f", 9, 0.6)]
    found = {each.best.point.method: each for each in compare_with_baseline(best_points(summarize_points(records)))}
    assert [found[method].p_value for method in ("mixout", "dps-mix", "r3f")] == [2 / 64, 2 / 64, None]
    assert [found[method].corrected for method in ("mixout", "dps-mix", "r3f")] == [4 / 64, 4 / 64, None]


def test_an_undefined_value_makes_a_point_worse_not_better():
    (summary,) = summarize_points([record(seed=1, value=0.8, majority=None), record(seed=2, value=None, majority=None)])
    assert (summary.mean, summary.best, summary.undefined, summary.failed) == (0.4, 0.8, 1, 1)


def test_a_diverged_restart_has_the_worst_calibration_error():
    runs = [record(seed=seed, value=0.05, metric="calibration_error", majority=None) for seed in range(4)]
    other = [record("mixout", seed, 0.02, metric="calibration_error", majority=None) for seed in range(2)]
    lost = [record("mixout", seed, None, metric="calibration_error", majority=None, error="nan") for seed in (2, 3)]
    means = {summary.point.method: summary.mean for summary in summarize_points([*runs, *other, *lost])}
    assert means == pytest.approx({"vanilla": 0.05, "mixout": 0.51})


def test_diverged_restarts_count_as_restarts_that_learned_nothing():
    records = [record("mixout", seed, 0.8) for seed in (1, 2)]
    records += [record("mixout", seed, None, error="the loss is nan", seconds=1.0) for seed in (3, 4)]
    records += [record("vanilla", seed, 0.7) for seed in (1, 2, 3, 4)]
    best = best_points(summarize_points(records))
    assert (best["mixout"].mean, best["mixout"].failed) == (pytest.approx((0.8 + 0.34) / 2), 2)
    assert best["mixout"].best == 0.8
    assert (best["mixout"].diverged, best["mixout"].undefined, best["mixout"].seconds) == (2, 0, 3.5)
    (compared,) = compare_with_baseline(best)
    assert compared.seeds == (1, 2, 3, 4)
    assert compared.difference == pytest.approx((0.1 + 0.1 - 0.36 - 0.36) / 4)


def test_the_best_of_a_point_is_of_a_run_with_a_model():
    (point,) = summarize_points([record(seed=1, value=0.2), record(seed=2, value=None, error="the loss is nan")])
    assert (point.best, point.mean) == (0.2, pytest.approx(0.27))


def test_a_point_without_a_model_is_not_the_best_where_another_has_one():
    records = [record("mixout", seed, 0.2, ["method.p=0.1"]) for seed in (1, 2)]
    records += [record("mixout", seed, None, ["method.p=0.2"], error="the loss is nan") for seed in (1, 2)]
    assert best_points(summarize_points(records))["mixout"].point.label == "p 0.1"
    assert best_points(summarize_points(records[2:]))["mixout"].failed == 2


def test_where_lower_is_better_the_lowest_mean_is_best():
    lower = {"metric": "log_loss", "majority": 0.69}
    records = [record("mixout", seed, 0.3 + seed / 100, ["method.p=0.1"], **lower) for seed in (1, 2)]
    records += [record("mixout", seed, 0.5, ["method.p=0.2"], **lower) for seed in (1, 2)]
    records += [record("vanilla", seed, 0.7, **lower) for seed in (1, 2)]
    summaries = summarize_points(records)
    best = best_points(summaries)["mixout"]
    assert (best.point.label, best.best, best.failed) == ("p 0.1", 0.31, 0)
    assert next(each for each in summaries if each.point.method == "vanilla").failed == 2
    (comparison,) = compare_with_baseline(best_points(summaries))
    assert comparison.difference == pytest.approx(0.315 - 0.7)


def test_without_a_value_to_beat_no_restart_has_failed():
    (summary,) = summarize_points([record(seed=1, value=0.2, metric="calibration_error", majority=None)])
    assert summary.failed == 0
