"""A linear probe: how well a linear function of a model's features gives another task's labels.

The model stays as it is. Sources: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier
probes"; that a fine-tuned model's features do less for other tasks is what Aghajanyan et al. 2021, "Better Fine-Tuning
by Reducing Representational Collapse", call collapse.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpstune.device.randomness import stream
from dpstune.errors import RequestError, counted
from dpstune.evaluation.targets import find_target
from dpstune.settings.metrics import direction
from dpstune.studies.answers import Answers, scorer
from dpstune.studies.choice import Compared, Rows, Scorer, Verdict, judge_by_examples
from dpstune.studies.probe.request import FEWEST_ROWS
from dpstune.studies.probe.similarity import Features

if TYPE_CHECKING:
    from dpstune.data.examples import Examples
    from dpstune.data.reading import TaskData

FOLDS = 5
LOGISTIC_C = tuple(10.0**power for power in range(-4, 2))
RIDGE_ALPHA = tuple(10.0**power for power in range(-1, 6))
_ITERATIONS = 2000


@dataclass(frozen=True)
class ProbedTask:
    """A task that a linear probe is trained and scored on.

    Args:
        name: What it is called in tables.
        data: The task; its metric and label names are used.
        split: The split that is scored.
        train: The rows that the probe is trained on.
        scored: The rows that it is scored on.
    """

    name: str
    data: TaskData
    split: str
    train: Examples
    scored: Examples

    @property
    def is_regression(self) -> bool:
        """Whether its labels are values."""
        return self.data.kind == "regression"

    @property
    def majority(self) -> float | None:
        """What always giving the training rows' commonest label gets; None where that is no floor."""
        from dpstune.evaluation.metrics import constant_value

        assert self.train.labels is not None
        assert self.scored.labels is not None
        count = len(self.data.label_names)
        return constant_value(self.data.metric, self.train.labels, self.scored.labels, label_count=count)


def read_probed_task(asked: str, data_dirs: Sequence[Path], train_rows: int, scored_rows: int) -> ProbedTask:
    """Read a task for a linear probe; the same rows are drawn each time.

    Args:
        asked: See ``find_target``; its split is the one that is scored.
        data_dirs: Likewise.
        train_rows: The most training rows to take, label-stratified.
        scored_rows: The most rows to score.

    Raises:
        RequestError: There is no such task, a split is missing or has no labels, an example has several labels, or a
            label has a single training row; or there are too few rows.
        RunError: The hub could not be reached.
    """
    from dpstune.data.reading import draw_training_part

    target = find_target(asked, data_dirs)
    data = target.read()
    if data.kind == "multilabel":
        raise RequestError(f"--on {asked}: it is multilabel; a linear probe reads one label or value an example")
    if len(data.splits) > 1:
        raise RequestError(f"--on {asked}: it has several splits: {', '.join(data.splits)}; name one")
    ((split, examples),) = data.splits.items()
    if split == "train":
        raise RequestError(f"--on {asked}: the probe is trained on split train; name another one to score it on")
    if examples.labels is None:
        raise RequestError(f"--on {asked}: split {split} has no labels to score against")
    whole = replace(target, split="train").read()
    size = min(train_rows, len(whole.splits["train"]))
    for part, count in (("train", size), (split, min(scored_rows, len(examples)))):
        if count < FEWEST_ROWS:
            raise RequestError(
                f"--on {asked}: {counted(count, 'row')} of split {part} cannot show what a linear probe reads; "
                f"it takes {FEWEST_ROWS} or more"
            )
    train = draw_training_part(whole, size, seed=0).splits["train"]
    _refuse_a_lonely_label(asked, data, train)
    name = target.name if ":" not in asked and asked != "mnli-mm" else f"{target.name} {split}"
    return ProbedTask(name, data, split, train, draw_rows(examples, scored_rows))


def draw_rows(examples: Examples, most: int) -> Examples:
    """Return at most so many examples, drawn at random, the same ones each time, in their old order."""
    drawn = stream(0, "probe").permutation(len(examples))[:most]
    return examples.take(sorted(drawn.tolist()))


def _refuse_a_lonely_label(asked: str, data: TaskData, train: Examples) -> None:
    if data.kind == "regression" or train.labels is None:
        return
    label, count = min(Counter(train.labels).items(), key=lambda pair: pair[1])
    if count < 2:
        name = data.label_names[int(label)]
        raise RequestError(
            f"--on {asked}: of the {len(train)} training rows one alone has the label {name!r}; to choose a penalty by "
            "cross-validation takes two: raise --train-rows"
        )


def answer_linearly(task: ProbedTask, train: Features, scored: Features) -> Answers:
    """Train a linear probe and return its answers to the scored rows.

    Features are brought to mean 0 and variance 1. Labels: logistic regression; its penalty has the lowest log loss in
    5-fold cross-validation over the training rows. Values: ridge regression; its penalty has the lowest squared error
    where each training row is left out in turn.

    Args:
        task: The task.
        train: The training rows' features, [rows, width].
        scored: The scored rows' features, likewise.
    """
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels, gold = np.array(task.train.labels), np.array(task.scored.labels)
    if task.is_regression:
        found = make_pipeline(StandardScaler(), RidgeCV(RIDGE_ALPHA)).fit(train, labels).predict(scored)
        return Answers(task.scored.ids, gold, found, found[:, None].astype(np.float32))
    folds = StratifiedKFold(min(FOLDS, min(Counter(labels.tolist()).values())), shuffle=True, random_state=0)
    probe = LogisticRegressionCV(Cs=LOGISTIC_C, cv=folds, scoring="neg_log_loss", max_iter=_ITERATIONS)
    probe = make_pipeline(StandardScaler(), probe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what later versions of scikit-learn will call by other names
        probe.fit(train, labels)
    scores = np.zeros((len(gold), len(task.data.label_names)), dtype=np.float32)
    scores[:, probe.classes_] = probe.predict_proba(scored)
    return Answers(task.scored.ids, gold, scores.argmax(axis=1), scores)


def compare_with_pretrained(task: ProbedTask, restarts: Sequence[Answers], pretrained: Answers) -> Verdict:
    """Compare the mean of restarts' scores with the pre-trained model's, with intervals by paired bootstrap over rows.

    Rows with equal texts, or of one group, are drawn together. An undefined score is left out of the mean, which is
    undefined where all are; a sample of rows on which it is undefined is left out of the interval. See ``score_of`` for
    correlations.

    Args:
        task: The task.
        restarts: Each restart's answers to the scored rows.
        pretrained: The pre-trained model's.
    """
    score = _score_on_rows(task, [*restarts, pretrained])

    def compare(rows: Rows) -> Compared:
        *own, theirs = (score(number, rows) for number in range(len(restarts) + 1))
        mean = mean_of_defined(own)
        return mean, None if mean is None or theirs is None else mean - theirs

    return judge_by_examples(compare, task.scored, task.scored.ids, task.data.metric)


def score_of(task: ProbedTask, answers: Answers) -> float | None:
    """Return the headline metric of answers to the scored rows; None where these rows leave it undefined.

    A correlation that is undefined because all answers are the same is 0, as in a sweep: nothing was read off.
    """
    value = _score_on_rows(task, [answers])(0, np.arange(len(answers.ids)))
    return None if value is None else direction(task.data.metric) * value


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that there are; None where there is none.

    >>> mean_of_defined([0.5, None, 1.0]), mean_of_defined([None])
    (0.75, None)
    """
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _score_on_rows(task: ProbedTask, answers: Sequence[Answers]) -> Scorer:
    """Return what ``scorer`` returns, but for correlations that are undefined; see ``score_of``."""
    defined = scorer(answers, task.data)

    def score(candidate: int, rows: Rows) -> float | None:
        value = defined(candidate, rows)
        if value is None and task.is_regression and len(np.unique(answers[candidate].gold[rows])) > 1:
            return 0.0
        return value

    return score
