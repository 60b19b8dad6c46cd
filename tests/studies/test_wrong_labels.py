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


def test_the_surest_come_first():
    labels, answers = ["a"] * 4, [["b"] * 4, ["b"] * 4]
    confidences = [np.array([0.5, 0.9, 0.7, 0.6]), np.array([0.6, 0.9, 0.9, 0.4])]
    found = likely_wrong(labels, answers, confidences)
    assert [suspect.place for suspect in found] == [1, 2, 0, 3]
    assert [round(suspect.confidence, 2) for suspect in found] == [0.9, 0.8, 0.55, 0.5]
    assert {(suspect.label, suspect.answer, suspect.restarts) for suspect in found} == {("a", "b", 2)}


def test_one_restart_alone_tells_nothing_and_unknown_confidence_is_none():
    assert likely_wrong(["a"], [["b"]]) == []
    (found,) = likely_wrong(["a"], [["b"], ["b"]], [np.array([0.9]), None])
    assert found.confidence is None
