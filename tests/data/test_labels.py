"""Labels of one task read as another's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.data.labels import map_labels
from dpstune.errors import RequestError
from dpstune.settings.tasks import TASKS

THREE_WAY = ("entailment", "neutral", "contradiction")
TWO_WAY = {  # a two-label set, with the name of its entailment label
    ("entailment", "not_entailment"): "entailment",
    ("entailment", "non-entailment"): "entailment",
    ("entails", "neutral"): "entails",
}
ANY_ORDER_OF_THREE = st.permutations(THREE_WAY).map(tuple)
ANY_ORDER_OF_TWO = st.sampled_from(list(TWO_WAY)).flatmap(st.permutations).map(tuple)


def entails(labels: tuple[str, ...]) -> int:
    return next(index for index, name in enumerate(labels) if name in ("entailment", "entails"))


@given(
    st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True).flatmap(
        lambda names: st.tuples(st.permutations(names), st.permutations(names))
    )
)
def test_the_same_names_in_any_order_are_matched_by_name(orders):
    model, target = orders
    mapping = map_labels(model, target)
    assert [mapping.names[index] for index in mapping.predictions] == list(model)
    assert [mapping.names[index] for index in mapping.gold] == list(target)
    assert not mapping.two_way


@given(ANY_ORDER_OF_THREE, ANY_ORDER_OF_TWO)
def test_three_way_predictions_become_the_targets_two_labels(model, target):
    mapping = map_labels(model, target)
    assert (mapping.names, mapping.gold, mapping.two_way) == (target, (0, 1), False)
    for name, index in zip(model, mapping.predictions, strict=True):
        assert (index == entails(target)) == (name == "entailment")


@given(ANY_ORDER_OF_TWO, ANY_ORDER_OF_THREE)
def test_three_gold_labels_are_folded_for_a_two_way_model(model, target):
    mapping = map_labels(model, target)
    assert (mapping.names, mapping.predictions, mapping.two_way) == (model, (0, 1), True)
    for name, index in zip(target, mapping.gold, strict=True):
        assert (index == entails(model)) == (name == "entailment")


@given(ANY_ORDER_OF_TWO, ANY_ORDER_OF_TWO)
def test_two_labels_are_read_as_two_others_by_their_meaning(model, target):
    mapping = map_labels(model, target)
    assert mapping.predictions[entails(model)] == entails(target)
    assert (sorted(mapping.predictions), mapping.gold, mapping.two_way) == ([0, 1], (0, 1), False)


def test_scitails_neutral_is_not_the_neutral_of_three_labels():
    scitail = TASKS["scitail"].labels
    assert map_labels(THREE_WAY, scitail).predictions == (0, 1, 1)
    assert map_labels(THREE_WAY, scitail).description == (
        "predictions: entailment -> entails, contradiction -> neutral"
    )


def test_a_model_of_entails_neutral_contradiction_keeps_its_three_labels():
    assert map_labels(("contradiction", "entails", "neutral"), THREE_WAY).predictions == (2, 0, 1)


@pytest.mark.parametrize("target", ["hans", "rte", "qnli", "scitail"])
def test_the_shipped_two_label_tasks_take_three_way_predictions(target):
    labels = TASKS[target].labels
    assert [labels[index] for index in map_labels(THREE_WAY, labels).predictions] == [labels[0], labels[1], labels[1]]


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (THREE_WAY, TASKS["mrpc"].labels),
        (TASKS["mrpc"].labels, THREE_WAY),
        (THREE_WAY, ()),
        ((), THREE_WAY),
        ((), ()),
        (("entailment", "neutral"), THREE_WAY),
        (("entailment", "entails"), THREE_WAY),
        (("entailment", "entails", "not_entailment"), THREE_WAY),
    ],
)
def test_labels_that_do_not_stand_for_each_other_are_refused_by_name(model, target):
    with pytest.raises(RequestError) as refusal:
        map_labels(model, target)
    message = str(refusal.value)
    assert "\n" not in message
    for labels in (model, target):
        assert (", ".join(labels) if labels else "no labels (regression)") in message


def test_of_many_labels_that_do_not_match_the_first_few_are_named():
    with pytest.raises(RequestError, match=r"the labels 0, 1, 2, 3, 4, 5, 6, 7, \.\.\. \(1000 in all\) cannot be"):
        map_labels(tuple(map(str, range(1000))), THREE_WAY)
