"""Examples that every restart answers alike and against their label."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpstune.studies.wrong_labels import likely_wrong

ANSWERS = st.lists(st.sampled_from("abc"), min_size=8, max_size=8)


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=8, max_size=8), st.lists(ANSWERS, min_size=2, max_size=4)
)
def test_suspects_are_what_all_answer_alike_and_against_the_label(labels, answers):
    found = {suspect.place for suspect in likely_wrong(labels, answers)}
    for place, label in enumerate(labels):
        given_answers = {each[place] for each in answers}
        assert (place in found) == (label is not None and len(given_answers) == 1 and label not in given_answers)


def test_the_least_likely_labels_come_first():
    labels, answers = ["a"] * 4, [["b"] * 4, ["b"] * 4]
    given_to_the_label = [np.array([0.3, 0.1, 0.3, 0.4]), np.array([0.4, 0.1, 0.1, 0.6])]
    found = likely_wrong(labels, answers, given_to_the_label)
    assert [suspect.place for suspect in found] == [1, 2, 0, 3]
    assert [round(suspect.label_probability, 2) for suspect in found] == [0.1, 0.2, 0.35, 0.5]
    assert {(suspect.label, suspect.answer, suspect.restarts) for suspect in found} == {("a", "b", 2)}


def test_one_restart_alone_tells_nothing_and_an_unknown_probability_is_none():
    assert likely_wrong(["a"], [["b"]]) == []
    (found,) = likely_wrong(["a"], [["b"], ["b"]], [np.array([0.9]), None])
    assert found.label_probability is None
