"""The report on a fit: the answer first, then every candidate, then how to read the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.writing import write_json, write_text
from dpstune.errors import counted
from dpstune.methods import BASELINE
from dpstune.report.figures import dress, method_colour, method_marker, new_figure, plain_text, write_figure
from dpstune.report.header import runs_header
from dpstune.report.page import Block, Bullets, Heading, Image, Paragraph, Table, write_report
from dpstune.report.run_report import Picture, confusions, label_table, pictures_in
from dpstune.report.tables import csv_text, digits, with_interval
from dpstune.report.wrong_labels import write_wrong_labels, wrong_labels_section
from dpstune.runs.folder import FIT_RESULT
from dpstune.settings.metrics import better, constant_answer
from dpstune.studies.fit.outcome import FitOutcome, Tried
from dpstune.studies.fit.parts import VALIDATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = {
    "complete": "",
    "given up": "given up: not in the better half",
    "failed": "could not be trained",
    "open": "not finished",
}


def write_fit_report(
    outcome: FitOutcome, command: str | None = None, tell: Callable[[str], None] | None = None
) -> Path:
    """Write report.html, report.md, fit.json, candidates.csv, candidates.png and wrong_labels.csv into its folder.

    Args:
        outcome: What the fit found.
        command: The command line that makes it again.
        tell: See ``write_wrong_labels``.

    Returns:
        The HTML page; it needs no other file.
    """
    folder = outcome.fit.folder
    write_json(folder / FIT_RESULT, outcome_as_json(outcome))
    write_text(folder / "candidates.csv", _candidates_csv(outcome))
    write_figure(folder / "candidates.png", candidates_figure(outcome))
    texts = _texts(outcome)
    if outcome.fit.data.label_names:
        write_wrong_labels(folder, outcome.suspects, outcome.rows, texts, tell)
    metric = outcome.fit.data.metric
    blocks: list[Block] = [
        runs_header([each.records[1] for each in outcome.tried if 1 in each.records], command),
        *(Paragraph(text) for text in answer(outcome)),
        Heading("What was tried"),
        _candidates_table(outcome),
        Image(folder / "candidates.png", f"{metric} of each candidate on each part, the chosen one marked"),
        *_each_label(outcome, pictures_in(folder)),
        *_wrong_labels(outcome, texts),
        Heading("How to read the numbers"),
        Bullets(_explanations(outcome)),
    ]
    if outcome.notes:
        blocks += [Heading("Notes"), Bullets(outcome.notes)]
    return write_report(folder, f"Fit of {outcome.fit.request.name}", blocks)


def _wrong_labels(outcome: FitOutcome, texts: Sequence[tuple[str, ...]]) -> list[Block]:
    """Return the section on likely wrong labels; nothing where labels are values."""
    if not outcome.fit.data.label_names:
        return []
    asked, left_out = outcome.voters, outcome.left_out
    return wrong_labels_section(outcome.suspects, outcome.rows, texts, asked, "candidate", left_out=left_out)


def _each_label(outcome: FitOutcome, picture: Picture) -> Iterator[Block]:
    """Yield how the chosen one does on each label, by the answers of runs that had not seen the rows."""
    from dpstune.evaluation.scoring import Evaluation

    names, answered = outcome.fit.data.label_names, outcome.answered
    if not names:
        return
    rows = "rows that choose"
    each = Evaluation(rows, {}, answered.scores, answered.predictions.tolist(), answered.gold.tolist(), names)
    yield Heading("The chosen one, label by label")
    chose = "These rows chose it: a little too good."
    if outcome.fit.parts.test is not None:
        chose = "This table and the candidates' column are of the rows that chose, not of the test rows."
    yield Paragraph(f"On the {rows}, answered by runs that had not seen them. {chose}")
    yield label_table(each)
    yield from confusions(each, picture)


def answer(outcome: FitOutcome) -> list[str]:
    """Say what was chosen, how good it is, whether it can be told from plain fine-tuning, and where it lies."""
    metric, verdict = outcome.fit.data.metric, outcome.verdict
    always = ""
    if outcome.majority is not None:
        one_answer = constant_answer(metric, outcome.fit.data.kind).capitalize()
        always = f" {one_answer} gets {digits(outcome.majority)}."
    score = with_interval(verdict.value, verdict.low, verdict.high, metric=metric, groups=verdict.groups)
    return [
        f"Chosen: {outcome.winner.trial.candidate.name}. Its {metric} on {_scored_rows(outcome)} is {score}.{always}",
        *_nothing_learned(outcome),
        _comparison(outcome),
        f"The model, trained on all {outcome.fit.rows} rows, is {outcome.model}; {outcome.recipe} trains it again.",
    ]


def outcome_as_json(outcome: FitOutcome) -> dict[str, Any]:
    """Return what a fit found, for programs."""
    verdict = outcome.verdict
    return {
        "task": outcome.fit.request.name,
        "rows": outcome.fit.rows,
        "labels": list(outcome.fit.data.label_names),
        "metric": outcome.fit.data.metric,
        "folds": outcome.fit.parts.folds,
        "winner": _candidate_json(outcome.winner),
        "baseline": None if outcome.baseline is None else _candidate_json(outcome.baseline),
        "score": {
            "value": verdict.value,
            "low": verdict.low,
            "high": verdict.high,
            "rows": outcome.scored_rows,
            "groups": verdict.groups,
            "majority": outcome.majority,
        },
        "difference_from_vanilla": {
            "value": verdict.difference,
            "low": verdict.difference_low,
            "high": verdict.difference_high,
            "told_apart": verdict.told_apart,
        },
        "likely_wrong": [outcome.rows[suspect.place] for suspect in outcome.suspects],
        "tried": [_candidate_json(each) for each in outcome.tried],
        "model": str(outcome.model),
        "recipe": str(outcome.recipe),
        "final_run": str(outcome.final.folder),
        "notes": outcome.notes,
    }


def _texts(outcome: FitOutcome) -> list[tuple[str, ...]]:
    """Return the texts of the rows that chose."""
    known = outcome.fit.texts("validation")
    return [known.get(name, ()) for name in outcome.rows]


def _candidate_json(each: Tried) -> dict[str, Any]:
    trial = each.trial
    return {
        "method": trial.candidate.method,
        "settings": dict(trial.candidate.settings),
        "state": trial.state,
        "error": trial.error,
        "score": each.score,
        "parts": {str(part): record.value for part, record in each.records.items()},
        "seconds": round(each.seconds, 3),
        "runs": [str(record.folder) for record in each.records.values()],
    }


def _scored_rows(outcome: FitOutcome) -> str:
    if outcome.fit.parts.test is None:
        return f"rows that took no part in the choice (of {outcome.scored_rows} rows, by bootstrap)"
    return f"the {outcome.scored_rows} test rows, which took no part in the choice,"


def _nothing_learned(outcome: FitOutcome) -> list[str]:
    """Say so where the chosen candidate is no better than one answer for all rows."""
    if not outcome.nothing_learned:
        return []
    found = "There is no correlation above 0"
    if outcome.majority is not None:
        found = "That is no better than one answer for all rows"
    return [f"{found}: there is no sign that anything was learned. More rows or other labels may help."]


def _comparison(outcome: FitOutcome) -> str:
    verdict, baseline = outcome.verdict, outcome.baseline
    if baseline is None:
        return "Plain fine-tuning was not tried on every part: there is nothing to compare with."
    if outcome.winner is baseline:
        return "The chosen one is plain fine-tuning itself: no method was better on the rows that choose."
    tried = [each.trial.candidate for each in outcome.tried if each.score is not None]
    plain = sum(each.method == BASELINE and each not in tried[:place] for place, each in enumerate(tried))
    against = f"the best of {counted(plain, 'plain candidate')}, {baseline.trial.candidate.name}"
    if verdict.difference is None:
        return f"The difference from {against}, is undefined."
    metric, low, high = outcome.fit.data.metric, verdict.difference_low, verdict.difference_high
    difference = with_interval(verdict.difference, low, high, "+", metric=metric, groups=verdict.groups)
    if not verdict.told_apart:
        why = "" if low is None or high is None else ", and 0 lies inside"
        if verdict.too_few:
            why = f": too few {'groups' if verdict.grouped else 'rows'} to tell"
        return f"It cannot be told from {against}: the difference is {difference}{why}."
    is_better = better(metric, verdict.difference, 0.0)
    seed = "" if outcome.fit.parts.folds else ", with this seed; another may turn it round"
    return f"It is {'better' if is_better else 'worse'} than {against}: the difference is {difference}{seed}."


def _candidates_table(outcome: FitOutcome) -> Table:
    parts = outcome.fit.parts
    header = ["candidate", "", outcome.fit.data.metric, "folds" if parts.folds else "parts", "seconds"]
    rows = [
        [
            each.trial.candidate.name,
            STATES[each.trial.state],
            digits(each.score),
            f"{len(each.records)}/{parts.count}",
            f"{each.seconds:.0f}",
        ]
        for each in outcome.tried
    ]
    chosen = frozenset(number for number, each in enumerate(outcome.tried) if each is outcome.winner)
    return Table(header, rows, words=2, strong=chosen)


def candidates_figure(outcome: FitOutcome) -> Figure:
    """Draw each candidate's score on each part as a dot, and its score over all of them as a line."""
    shown = outcome.tried
    figure, axes = new_figure(9.0, 1.4 + 0.36 * len(shown))
    for place, each in enumerate(reversed(shown)):
        method = each.trial.candidate.method
        values = [record.score for record in each.records.values()]
        axes.scatter(
            values, [place] * len(values), color=method_colour(method), marker=method_marker(method), s=30, alpha=0.6
        )
        if each.score is not None:
            axes.vlines(each.score, place - 0.3, place + 0.3, color=method_colour(method), linewidth=2.5)
    names = [f"{'chosen: ' if each is outcome.winner else ''}{each.trial.candidate.name}" for each in reversed(shown)]
    axes.set_yticks(range(len(shown)), [plain_text(name) for name in names])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    what = "fold" if outcome.fit.parts.folds else "run"
    dress(axes, f"Dots: one {what} each; lines: all of them", outcome.fit.data.metric, "", grid="x")
    return figure


def _explanations(outcome: FitOutcome) -> list[str]:
    parts = outcome.fit.parts
    if parts.folds:
        texts = [
            f"Rows were split into {parts.folds} folds, labels with their share in each. A run trains on all folds but "
            "one and answers that one; a candidate's score is over the answers to all rows.",
            "Candidates that were not in the better half after 1, 2 or 4 folds were given up (successive halving).",
        ]
    else:
        texts = ["Candidates were compared by held-out rows, which no run was trained on."]
        if outcome.fit.seen_elsewhere(VALIDATION):
            texts = [
                "Candidates were compared by the validation rows, some of which have the texts or the group of "
                "training rows."
            ]
    if parts.test is None:
        texts.append(
            "The best of many candidates looks better than it is on the rows that chose it. So the choice was repeated "
            "on bootstrap samples of the rows, and the chosen one scored on the rows outside the sample (Tsamardinos "
            "et al. 2018). Rows with equal texts or of one group are drawn together. The interval is that of these "
            "scores: rather too wide, so that small differences are not told. Candidates were also proposed and given "
            "up by these rows, so that the score may still be a little too good; rows for --test would tell."
        )
    else:
        texts.append(
            "The score is of test rows; its interval is the bootstrap's over these rows. The candidates' column is of "
            "the rows that chose."
        )
    texts.append(
        f"The difference from plain fine-tuning ({BASELINE}) is computed on the same rows, pair by pair, from the best "
        "of its own candidates. Learning rate, epochs and dropout differ, too: it says which model to take, not what a "
        "method is worth; dpstune sweep compares methods at equal settings."
    )
    texts.append("The last run saw all rows: no row is left to score it by, and its score is that of the choice.")
    return texts


def _candidates_csv(outcome: FitOutcome) -> str:
    keys = list(dict.fromkeys(key for each in outcome.tried for key in each.trial.candidate.settings))
    count = outcome.fit.parts.count
    header = ["method", *keys, "state", "score", *(f"part_{part}" for part in range(1, count + 1)), "seconds"]
    rows = []
    for each in outcome.tried:
        settings = each.trial.candidate.settings
        values = [each.records[part].value if part in each.records else None for part in range(1, count + 1)]
        own = [settings.get(key) for key in keys]
        rows.append([each.trial.candidate.method, *own, each.trial.state, each.score, *values, round(each.seconds, 3)])
    return csv_text([header, *rows])


def plan_text(plan: dict[str, Any]) -> str:
    """Say what a fit would do and how long it would take."""
    how = f"{plan['folds']} folds" if plan["folds"] else "held-out rows"
    low, high = plan["epochs"]
    runs = counted(plan["runs"], "run") + (f", {plan['jobs']} at a time" if plan["jobs"] > 1 else "")
    return (
        f"{plan['rows']} rows, chosen by {how}; {', '.join(plan['methods'])}; {low} to {high} epochs\n"
        f"about {plan['seconds_a_run']:.0f} s a run; {runs}, and one on all rows: about "
        f"{max(1, round(plan['seconds'] / 60))} min"
    )
