"""The toy tasks: the same everywhere, balanced, and not to be solved by looking at words alone."""

import hashlib
import json
import re
from collections import Counter

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.linear_model import LogisticRegression

from dpstune.data.toy import SIZES, generate
from dpstune.errors import RequestError
from dpstune.settings.tasks import TASKS

TOY = [name for name in TASKS if TASKS[name].toy]
NLI = [name for name in TOY if TASKS[name].labels]
STS = [name for name in TOY if not TASKS[name].labels]

# A change here changes every toy result ever reported.
DIGESTS = {
    "toy-nli": "6c5d37e9eb119956c117e55a3650fa3655863ccbacd4b7aafe2ee5a710f972b6",
    "toy-nli-shift": "7a5e811fa258a65e780668c5b55b173d4c66746139d97a68b903e5c36b6ec29c",
    "toy-rte": "91cf8ed64df60eeb34c088f6b90c39c4ceba89acc2a4fe8a6e995a2733ffdbe1",
    "toy-rte-shift": "5aff471236bcf43ec4974547f6b36dc47b3ca4a124565fe1975b5b2351fe6442",
    "toy-sts": "4e67daa396e03e27b5180fa8c1d66227502eaafeefcda0a9447d17f421f3690e",
    "toy-sts-shift": "b12f5c18d36db6712dfa62fbff04fbbb466cac4d5fc39ba6c99e302ced882abf",
}


def digest(name, split):
    examples = generate(name, split)
    content = [examples.ids, examples.texts, examples.labels, examples.phenomena]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@pytest.mark.parametrize("name", TOY)
def test_train_split_is_the_recorded_one(name):
    assert digest(name, "train") == DIGESTS[name]


@pytest.mark.parametrize("name", TOY)
def test_splits_have_their_sizes_and_ids(name):
    for split, size in SIZES.items():
        examples = generate(name, split)
        assert examples.ids == [f"{name}-{split}-{i}" for i in range(size)]
        assert len(examples.texts) == len(examples.labels) == len(examples.phenomena) == size
    assert SIZES == {"train": 2000, "validation": 500, "test": 500}


@pytest.mark.parametrize("name", TOY)
def test_no_pair_comes_twice(name):
    pairs = [pair for split in SIZES for pair in generate(name, split).texts]
    assert len(set(pairs)) == len(pairs)


def test_a_caller_who_changes_a_split_changes_only_their_own():
    before = digest("toy-rte", "test")
    generate("toy-rte", "test").texts.clear()
    assert digest("toy-rte", "test") == before


@pytest.mark.parametrize("name", TOY)
def test_sentences_are_clean(name):
    for pair in generate(name, "train").texts:
        for text in pair:
            assert re.fullmatch(r"[A-Z][A-Za-z0-9, ]+\.", text), text
            assert "  " not in text
            assert 5 <= len(text.split()) <= 15, text


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("name", NLI)
def test_labels_are_balanced_within_each_phenomenon(name, split):
    examples = generate(name, split)
    cells = Counter(zip(examples.phenomena, examples.labels, strict=True))
    labels, phenomena = set(examples.labels), set(examples.phenomena)
    assert labels == set(range(len(TASKS[name].labels)))
    assert len(phenomena) == 10
    even = SIZES[split] / len(labels) / len(phenomena)
    assert all(abs(cells[phenomenon, label] - even) <= 1 for phenomenon in phenomena for label in labels)


@pytest.mark.parametrize("view", ["premise", "hypothesis", "both"])
@pytest.mark.parametrize("name", NLI)
def test_words_alone_do_not_tell_the_label(name, view):
    shown = {"premise": lambda pair: pair[0], "hypothesis": lambda pair: pair[1], "both": " ".join}[view]
    train, unseen = generate(name, "train"), [generate(name, split) for split in ("validation", "test")]
    vectorizer = CountVectorizer()
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(map(shown, train.texts)), train.labels)
    right = total = 0
    for examples in unseen:
        predicted = model.predict(vectorizer.transform(map(shown, examples.texts)))
        right, total = right + (predicted == examples.labels).sum(), total + len(examples)
    assert right / total < 1 / len(TASKS[name].labels) + 0.06


@pytest.mark.parametrize("name", NLI)
def test_hypothesis_patterns_do_not_depend_on_the_label(name):
    # The words that decide: were one said more often under one label, a model could go by it.
    examples = generate(name, "train")
    count = Counter()
    for (_, hypothesis), label in zip(examples.texts, examples.labels, strict=True):
        count.update(
            (word, label) for word in ("not", "never", "no", "none", "all", "some") if word in hypothesis.split()
        )
    size = len(examples) / len(TASKS[name].labels)
    for word in {word for word, _ in count}:
        shares = [count[word, label] / size for label in range(len(TASKS[name].labels))]
        assert max(shares) - min(shares) < 0.08, word


@pytest.mark.parametrize("name", STS)
def test_sts_scores_cover_the_range(name):
    for split in SIZES:
        scores = generate(name, split).labels
        assert all(isinstance(score, float) for score in scores)
        assert min(scores) == 0.0
        assert 4.5 <= max(scores) <= 5.0
        assert all(sum(low <= score < low + 1 for score in scores) > len(scores) / 20 for low in range(5))


@pytest.mark.parametrize("name", STS)
def test_sts_score_follows_what_differs(name):
    examples = generate(name, "train")
    scores = {}
    for phenomenon, score in zip(examples.phenomena, examples.labels, strict=True):
        scores.setdefault(phenomenon, []).append(score)
    mean = {phenomenon: sum(values) / len(values) for phenomenon, values in scores.items()}
    assert len(mean) == 9
    assert mean["all"] < mean["several"] < mean["action"] < mean["place"] < mean["synonym"]
    assert len(set(scores["negation"])) == 2  # one sentence denied, or both


@pytest.mark.parametrize("name", ["toy-nli", "toy-rte", "toy-sts"])
def test_shifted_variant_has_other_words(name):
    logic = {"fewer", "exactly", "said"}
    plain, shifted = (
        {word for pair in generate(task, "train").texts for text in pair for word in re.findall("[a-z]+", text.lower())}
        - ENGLISH_STOP_WORDS
        - logic
        for task in (name, f"{name}-shift")
    )
    assert len(plain) > 80
    assert len(shifted) > 80
    assert len(plain & shifted) <= 0.05 * min(len(plain), len(shifted)), sorted(plain & shifted)


@pytest.mark.parametrize("name", TOY)
def test_unknown_split_names_the_known_ones(name):
    with pytest.raises(RequestError, match=r"no split 'validaton'.*train, validation, test"):
        generate(name, "validaton")


def test_unknown_task_is_refused():
    with pytest.raises(RequestError, match="toy-nli"):
        generate("mrpc", "train")
    with pytest.raises(RequestError, match="toy-nli"):
        generate("toy-nlu", "train")


def test_known_examples_read_as_meant():
    """Recompute labels from the words, for phenomena where the words suffice."""
    examples = generate("toy-nli", "train")
    names = TASKS["toy-nli"].labels
    bounds = {"fewer than": int.__lt__, "exactly": int.__eq__, "more than": int.__gt__}
    numbers = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    checked = 0
    for (premise, hypothesis), label, phenomenon in zip(
        examples.texts, examples.labels, examples.phenomena, strict=True
    ):
        if phenomenon == "number":
            counted = re.search(r"bought (\w+) (\w+)", premise)
            bound, number, noun = re.search(r"bought (fewer than|exactly|more than) (\w+) (\w+)", hypothesis).groups()
            holds = bounds[bound](numbers.index(counted[1]), numbers.index(number))
            same = re.search(rf" {noun}\b", premise)
            expected = "neutral" if not same else "entailment" if holds else "contradiction"
        elif phenomenon == "passive":
            (told, told_denied), (agent, denied) = _roles(premise), _roles(hypothesis)
            expected = "neutral" if told != agent else "entailment" if told_denied == denied else "contradiction"
        else:
            continue
        checked += 1
        assert names[label] == expected, (premise, hypothesis)
    assert checked == 400


def _roles(text):
    """Who acts in a sentence about two people, and whether it is denied."""
    words = text.lower().removesuffix(".")
    denied = " not " in words
    passive = re.search(r"\bby (the \w+|\w+)", words)
    return (passive or re.match(r"(the \w+|\w+)", words))[1], denied
