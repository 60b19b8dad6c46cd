"""What a fit found: the winner, an honest score of the choice, and the winner trained on everything."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpstune.common.progress import Progress, SilentProgress
from dpstune.common.writing import write_folder, write_text
from dpstune.errors import RequestError, RunError, counted, some_of
from dpstune.methods import BASELINE
from dpstune.recipe.recipe import dump_recipe
from dpstune.runs.folder import RunFolder
from dpstune.settings.metrics import METRICS, beats_one_answer, direction
from dpstune.studies.answers import Answers, read_answers, scorer
from dpstune.studies.choice import Verdict, choose, judge_by_bootstrap, judge_by_test_rows
from dpstune.studies.fit.fit import MOST_FAILURES, Fit, NewProgress, Tell, failures_in_a_row
from dpstune.studies.fit.parts import TEST, VALIDATION
from dpstune.studies.fit.search import CandidateSearch, Trial
from dpstune.studies.fit.side_by_side import NewView, no_view, try_side_by_side
from dpstune.studies.records import RunRecord
from dpstune.studies.wrong_labels import FEWEST_RESTARTS, Suspect, likely_wrong

if TYPE_CHECKING:
    from dpstune.training.engine import RunResult

FEWEST_OF_A_LABEL = 10
OF_EACH_LABEL = ("macro_f1", "balanced_accuracy", "f1", "matthews")


@dataclass(frozen=True)
class Tried:
    """A candidate, and what came out.

    Args:
        trial: The candidate, and its score on each part.
        score: The headline metric over the rows of all parts; None where parts are missing, or it is undefined.
        records: Its runs, by part.
    """

    trial: Trial
    score: float | None
    records: dict[int, RunRecord]

    @property
    def seconds(self) -> float:
        """Wall time of its runs."""
        return sum(record.all_seconds for record in self.records.values())


@dataclass(frozen=True)
class FitOutcome:
    """What a fit found.

    Args:
        fit: What was asked, and the task.
        tried: Every candidate, in the order in which they were tried.
        winner: The chosen one.
        baseline: The best of plain fine-tuning's; None where none was tried on every part.
        verdict: The score of the choice, and its difference from plain fine-tuning.
        scored_rows: How many rows it is of.
        majority: What one answer to all gets on them (``constant_answer``); None where it has no value, as of a
            correlation.
        suspects: Rows whose label is likely wrong; their place is one among ``rows``.
        voters: How many candidates said so: different ones, tried on every part, that learned something.
        left_out: How many that were tried on every part learned nothing.
        answered: What the winner's runs answered to the rows that chose.
        final: The run that trained the winner on everything.
        notes: What a reader should know, a line each.
    """

    fit: Fit
    tried: list[Tried]
    winner: Tried
    baseline: Tried | None
    verdict: Verdict
    scored_rows: int
    majority: float | None
    suspects: list[Suspect]
    voters: int
    left_out: int
    answered: Answers
    final: RunResult
    notes: list[str]

    @property
    def nothing_learned(self) -> bool:
        """Whether the chosen one is no better than one answer to all, or has no correlation above 0."""
        metric, value = self.fit.data.metric, self.verdict.value
        if value is None:
            return self.fit.data.kind == "regression" and len(np.unique(self.answered.predictions)) == 1
        return not beats_one_answer(metric, value, self.majority)

    @property
    def rows(self) -> list[str]:
        """The ids of the rows that chose."""
        return self.answered.ids

    @property
    def model(self) -> Path:
        """The winner's model folder."""
        return self.fit.folder / "model"

    @property
    def recipe(self) -> Path:
        """The recipe that trains the winner again."""
        return self.fit.folder / "recipe.yaml"


def run_fit(
    fit: Fit,
    progress: NewProgress = SilentProgress,
    tell: Tell = lambda line: None,
    new_view: NewView = no_view,
) -> FitOutcome:
    """Try candidates until the budget is spent, choose one, score the choice, and train it on everything.

    To be called under the fit's lock, as is what writes its report.

    Args:
        fit: What was asked.
        progress: Makes who is told how a run goes.
        tell: Is told what was tried, a line each.
        new_view: Shows what is trained side by side.

    Raises:
        RequestError, RunError: See ``Fit.try_candidates`` and ``conclude``.
        Interrupted: A signal came; the same call goes on.
    """
    for line in fit.findings:
        tell(line)
    search = fit.search()
    if fit.request.jobs == 1:
        fit.try_candidates(search, progress, tell)
    else:
        try_side_by_side(fit, search, new_view, tell)
    return conclude(fit, search, progress, tell)


def conclude(
    fit: Fit, search: CandidateSearch, progress: NewProgress = SilentProgress, tell: Tell = lambda line: None
) -> FitOutcome:
    """Choose among the candidates that were tried on every part, score the choice, and train the winner.

    Leaves ``model/`` and ``recipe.yaml`` in the fit's folder.

    Args:
        fit: The fit, of which a candidate at least was tried on every part.
        search: Its candidates and their scores.
        progress: Makes who is told how the last run goes.
        tell: Is told what was chosen.

    Raises:
        RunError: A run failed, or none on every part.
        Interrupted: A signal came; the same call goes on.
    """
    trials = [trial for trial in search.trials() if trial.values or trial.state == "failed"]
    records = {trial.number: {part: fit.train(trial, part) for part in trial.values} for trial in trials}
    full = [trial for trial in trials if trial.state == "complete"]
    if not full:
        first = next(trial for trial in trials if trial.state == "failed")
        raise RunError(f"no candidate could be trained on every part; the first, {first.candidate.name}: {first.error}")
    runs = [list(records[trial.number].values()) for trial in full]
    answers = _answers(runs, VALIDATION, fit)
    units = fit.units(VALIDATION)
    notes = _notes(trials, fit)
    score, every = scorer(answers, fit.data), np.arange(len(answers[0].ids))
    baselines = [number for number, trial in enumerate(full) if trial.candidate.method == BASELINE]
    winner = choose(score, range(len(full)), every)
    baseline = choose(score, baselines, every) if baselines else None
    if fit.parts.test is None:
        scored = answers[winner]
        verdict = judge_by_bootstrap(score, range(len(full)), baselines, [units[name] for name in scored.ids])
    else:
        tests = _unseen(_answers(runs, TEST, fit), fit, notes)
        scored, units = tests[winner], fit.units(TEST)
        test_score = scorer(tests, fit.data)
        verdict = judge_by_test_rows(test_score, winner, baseline, [units[name] for name in scored.ids])
    verdict = replace(verdict, grouped=fit.grouped(VALIDATION if fit.parts.test is None else TEST))
    notes += _labels_of_few_rows(scored, fit)
    different = _different(full)
    voters = [answers[number] for number in different if _has_learned(answers[number], fit)]
    tell(f"{full[winner].candidate.name} is trained on all {fit.rows} rows")
    way = direction(fit.data.metric)
    values = {trial.number: score(number, every) for number, trial in enumerate(full)}
    tried = [
        Tried(trial, None if (value := values.get(trial.number)) is None else way * value, records[trial.number])
        for trial in trials
    ]
    of_trial = {each.trial.number: each for each in tried}
    return FitOutcome(
        fit,
        tried,
        of_trial[full[winner].number],
        None if baseline is None else of_trial[full[baseline].number],
        verdict.in_the_metric(fit.data.metric),
        len(set(scored.ids)),
        _majority(scored, fit),
        _suspects(voters, fit),
        len(voters),
        len(different) - len(voters),
        answers[winner],
        _train_the_winner(fit, full[winner], progress(), tell),
        notes,
    )


def _answers(runs: Sequence[Sequence[RunRecord]], split: str, fit: Fit) -> list[Answers]:
    """Return what each candidate's runs answered, all of them for the same rows in the same order.

    A test row is there once for each fold's run.
    """
    found = [read_answers([record.folder for record in own], split, fit.data) for own in runs]
    same = all(each.ids == found[0].ids for each in found)
    return found if same else [each.in_the_order_of(found[0].ids) for each in found]


def _unseen(tests: Sequence[Answers], fit: Fit, notes: list[str]) -> list[Answers]:
    """Return the answers to the test rows of which no row that trains or chooses has the texts or the group."""
    seen, names = fit.seen_elsewhere(TEST), tests[0].ids
    kept = [name for name in names if name not in seen]
    if len(kept) == len(names):
        return list(tests)
    if not kept:
        raise RequestError(
            "every test row has the texts or the group of a row that trains or chooses: nothing is left to score by"
        )
    left = len(set(names)) - len(set(kept))
    notes.append(f"{counted(left, 'test row')} with the texts or the group of a row that trains or chooses: not scored")
    rows = [row for row, name in enumerate(names) if name not in seen]
    return [each.of_rows(rows) for each in tests]


def _majority(scored: Answers, fit: Fit) -> float | None:
    """Return the metric of one answer to all rows; see ``constant_metrics``."""
    from dpstune.evaluation.metrics import constant_value

    known = fit.data.splits["train"].labels or []
    return constant_value(fit.data.metric, known, scored.gold.tolist(), label_count=len(fit.data.label_names))


def _labels_of_few_rows(scored: Answers, fit: Fit) -> list[str]:
    """Say, in a line or none, which labels have few scored rows, where the metric weighs a label as much as another."""
    names, metric = fit.data.label_names, fit.data.metric
    if metric not in OF_EACH_LABEL:
        return []
    labels = dict(zip(scored.ids, scored.gold.tolist(), strict=True))
    counts = sorted(Counter(labels.values()).items(), key=lambda pair: pair[1])
    few = [f"{names[label]} has {counted(count, 'row')}" for label, count in counts if count < FEWEST_OF_A_LABEL]
    if not few:
        return []
    return [f"{some_of(few)}: {metric} over rows drawn anew is off where few rows have a label"]


def _different(trials: Sequence[Trial]) -> list[int]:
    """Return the places of trials of different candidates; of one that was proposed again, the first."""
    candidates = [trial.candidate for trial in trials]
    return [place for place, each in enumerate(candidates) if each not in candidates[:place]]


def _has_learned(answers: Answers, fit: Fit) -> bool:
    """Tell whether answers to the rows that choose are better than one answer to all; False where labels are values.

    It is the answers that vote, so that where the metric is of probabilities, accuracy judges them.
    """
    from dpstune.evaluation.metrics import constant_value

    if not fit.data.label_names or len(np.unique(answers.predictions)) == 1:
        return False
    metric = fit.data.metric if METRICS[fit.data.metric].needs == "labels" else "accuracy"
    score = scorer([answers], replace(fit.data, metric=metric))(0, np.arange(len(answers.ids)))
    gold = answers.gold.tolist()
    floor = constant_value(metric, gold, gold, label_count=len(fit.data.label_names))
    return score is not None and beats_one_answer(metric, score, floor)


def _suspects(answers: Sequence[Answers], fit: Fit) -> list[Suspect]:
    """Return the rows that all candidates answer alike and against their label; none for fewer than two candidates.

    A row whose texts were trained on is none of them: its label was learned with it.
    """
    names = fit.data.label_names
    if len(answers) < FEWEST_RESTARTS:
        return []
    given = [[names[answer] for answer in each.predictions] for each in answers]
    gold = answers[0].gold
    of_the_label = [each.scores[np.arange(len(gold)), gold] for each in answers]
    seen = fit.seen_elsewhere(VALIDATION, grouped=False)
    found = likely_wrong([names[label] for label in gold], given, of_the_label)
    return [each for each in found if answers[0].ids[each.place] not in seen]


def _train_the_winner(fit: Fit, winner: Trial, progress: Progress, tell: Tell) -> RunResult:
    """Train a candidate on everything, and put its model and its recipe into the fit's folder."""
    run = fit.train_on_everything(winner.candidate, progress, tell)

    def fill(place: Path) -> None:
        shutil.copytree(RunFolder(run.folder).model, place, copy_function=_link_or_copy, dirs_exist_ok=True)

    write_folder(fit.folder / "model", fill)
    file = fit.folder / "recipe.yaml"
    what = f"# {winner.candidate.name}: what fit chose, trained on all {fit.rows} rows."
    command = f"#   dpstune train --recipe {shlex.quote(str(file))}"
    write_text(file, f"{what}\n{command}\n{dump_recipe(fit.final_recipe(winner.candidate).recipe)}")
    return run


def _link_or_copy(source: str, target: str) -> None:
    """Give weights another name, which takes no room; copy what people may edit, and where links cannot be had."""
    if source.endswith(".safetensors"):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _notes(trials: Sequence[Trial], fit: Fit) -> list[str]:
    notes = [*fit.data.notes, *fit.findings]
    if seen := fit.seen_elsewhere(VALIDATION):
        what = counted(len(seen), "validation row")
        notes.append(f"{what} with the texts or the group of a training row: they choose all the same")
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        first = failed[0]
        what = counted(len(failed), "candidate")
        notes.append(f"{what} could not be trained; the first, {first.candidate.name}: {first.error}")
    if failures_in_a_row(trials) >= MOST_FAILURES:
        notes.append(f"the last {MOST_FAILURES} candidates could not be trained: no more were tried")
    notes += [
        f"{trial.candidate.name} was left after {len(trial.values)} of {fit.parts.count} parts"
        for trial in trials
        if trial.state == "open" and trial.values
    ]
    keep = fit.request.recipe.get("training", {}).get("keep", "last")
    if keep != "last":
        notes.append(f"training.keep: {keep} was left out: what chooses weights could not score them")
    return notes
