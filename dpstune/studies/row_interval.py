"""How far a model's score hangs on which rows were scored: the bootstrap over rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dpstune.studies.answers import Answers, scorer
from dpstune.studies.choice import Verdict, judge_by_examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dpstune.data.reading import TaskData
    from dpstune.evaluation.scoring import Evaluation


def intervals_over_rows(task: TaskData, evaluations: Mapping[str, Evaluation]) -> dict[str, Verdict]:
    """Return the headline metric of each split with its 95% interval; a split on which it is undefined is left out.

    Where every draw gives the same, as where all answers are right, there is no interval: its ends are None. Nor is
    there of a calibration error.

    Rows with equal texts, or of one group, are drawn together. Another seed's model is another one: how far a score
    hangs on that, restarts tell.

    Args:
        task: What was evaluated.
        evaluations: By split.
    """
    scored = {split: each for split, each in evaluations.items() if each.metrics.get(task.metric) is not None}
    return {split: _over_rows(task, each) for split, each in scored.items()}


def _over_rows(task: TaskData, each: Evaluation) -> Verdict:
    examples = task.splits[each.split]
    scores = each.scores if each.probabilities is None else each.probabilities
    answers = Answers(examples.ids, np.array(each.gold), np.array(each.predictions), scores)
    score = scorer([answers], replace(task, label_names=each.names))
    found = judge_by_examples(lambda rows: (score(0, rows), None), examples, examples.ids, task.metric)
    return replace(found, low=None, high=None) if found.low == found.high else found
