"""The page on one trained model: its metrics, each label by itself, what it takes for what, how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpstune.errors import RequestError, RunError, counted
from dpstune.evaluation.multilabel import THRESHOLD
from dpstune.report.figures import write_figure
from dpstune.report.header import runs_header
from dpstune.report.page import REPORT_FILES, Block, Bullets, Facts, Heading, Image, Paragraph, Table, write_report
from dpstune.report.progress import format_value
from dpstune.report.run_figures import confusion_figure, curves_figure, reliability_figure, scatter_figure
from dpstune.report.tables import digits, metric_words, percent, short_text
from dpstune.runs.folder import RunFolder, read_metrics, read_predictions
from dpstune.settings.metrics import constant_answer, told_of_one_label
from dpstune.studies.records import RunRecord, read_run
from dpstune.training.results import choice_note, kept_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpstune.data.reading import TaskData
    from dpstune.evaluation.multilabel import LabelRow
    from dpstune.evaluation.scoring import Evaluation

Picture = Callable[[str, "Figure", str], Image]
"""Writes a figure under a name, and returns it for a page, with words that describe it."""

MOST_LABELS_DRAWN = 20
RELIABILITY, CONFUSION, SCATTER = "reliability.png", "confusion.png", "scatter.png"
_MOST_LISTED = 10
_EXAMPLE = frozenset([1])  # the column that holds an example's texts
_PARTS = 5  # of the gold values, in the table of residuals


def write_run_page(folder: Path, task: TaskData, command: str | None = None) -> Path:
    """Write the page of a finished run into its folder, from its predictions alone: report.html, report.md, figures.

    Args:
        folder: The run's folder.
        task: Its examples.
        command: The command line that makes the page again.

    Returns:
        The HTML page; it needs no other file.

    Raises:
        RunError: The run's files cannot be read, or the folder cannot be written to.
    """
    try:
        record = read_run(folder)
        evaluations = _read_evaluations(record, task)
        lines = read_metrics(RunFolder(folder).metrics)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder} holds no predictions to make a page of: {error}") from None
    title = f"{record.result['recipe']}: {record.method}, seed {record.seed}"
    return write_evaluation_page(
        folder,
        title,
        runs_header([record], command),
        task,
        evaluations,
        told=list(_how_it_went(record, task)),
        lines=lines,
    )


def write_evaluation_page(
    folder: Path,
    title: str,
    header: Facts,
    task: TaskData,
    evaluations: Mapping[str, Evaluation],
    *,
    told: Sequence[str] = (),
    lines: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write a page on what a model makes of a task: report.html, report.md and figures.

    Args:
        folder: Where to; made where it is not there.
        title: The page's title.
        header: What it opens with.
        task: The task; what a constant answer gets is told by its training split, or else by what is evaluated.
        evaluations: By split, the headline's first; figures are of that one. One without labels is listed alone.
        told: What else there is to say, a paragraph each.
        lines: Of metrics.jsonl, for the course of the training.

    Returns:
        The HTML page; it needs no other file.

    Raises:
        RequestError, RunError: The folder cannot be written to.
    """

    picture = pictures_in(folder)
    headline = next((each for each in evaluations.values() if each.gold), None)
    blocks: list[Block] = [header, *map(Paragraph, told)]
    if evaluations:
        blocks += [Heading("Metrics"), _metrics_table(task, evaluations)]
    if headline is not None:
        if task.kind == "regression":
            blocks += _values_section(task, headline, picture)
        elif task.kind == "multilabel":
            blocks += [Heading(f"{headline.split}: each label"), label_table(headline)]
        else:
            blocks += _labels_section(task, headline, picture)
        for other in evaluations.values():
            if other.gold and other is not headline:
                blocks += [
                    Heading(f"{other.split}: {'residuals' if task.kind == 'regression' else 'each label'}"),
                    _residuals(other) if task.kind == "regression" else label_table(other),
                ]
    curves = curves_figure(lines, task.metric)
    if curves is not None:
        blocks += [Heading("Training"), picture("training.png", curves, "Training loss and evaluations over steps")]
    if evaluations:
        blocks += [Heading("How to read the numbers"), Bullets(_explanations(task))]
    return write_report(folder, title, blocks)


def refuse_taken_folder(folder: Path, *, force: bool) -> None:
    """Refuse to overwrite a report, a picture or a run's page, before anything is computed.

    Raises:
        RequestError: One is there and ``force`` is not given.
    """
    if force:
        return
    if RunFolder(folder).recipe.exists():
        raise RequestError(
            f"--report {folder}: it is a run's folder; choose another folder, or overwrite its page with --force"
        )
    if any((folder / name).exists() for name in REPORT_FILES):
        raise RequestError(f"--report {folder}: it holds a report; choose another folder, or overwrite it with --force")
    for name in (RELIABILITY, CONFUSION, SCATTER):
        if (folder / name).exists():
            raise RequestError(
                f"--report {folder}: it holds a {name}; choose another folder, or have it overwritten with --force"
            )


def pictures_in(folder: Path) -> Picture:
    """Return what writes a figure into a folder, and puts it on a page."""

    def picture(name: str, figure: Figure, description: str) -> Image:
        write_figure(folder / name, figure)
        return Image(folder / name, description)

    return picture


def _read_evaluations(record: RunRecord, task: TaskData) -> dict[str, Evaluation]:
    """Return what a finished run's model made of each split, from its predictions files."""
    from dpstune.evaluation.scoring import Evaluation

    found = {}
    place = {name: number for number, name in enumerate(task.label_names)}
    for split, metrics in kept_metrics(record.result).items():
        columns = read_predictions(RunFolder(record.folder).predictions(split))
        predictions, gold = columns["prediction"], columns["label"]
        labelled = bool(gold) and gold[0] is not None
        if task.kind == "multilabel":
            predictions = [_row_of(names, task) for names in predictions]
            gold = [_row_of(names, task) for names in gold] if labelled else gold
        elif task.kind == "classification":
            predictions = [place[name] for name in predictions]
            gold = [place[name] for name in gold] if labelled else gold
        scores = np.array(columns["scores"], dtype=np.float32)
        probabilities = scores if task.kind == "classification" else None
        found[split] = Evaluation(
            split, metrics, scores, predictions, gold if labelled else None, task.label_names, probabilities
        )
    return found


def _row_of(names: Sequence[str], task: TaskData) -> LabelRow:
    return tuple(int(name in names) for name in task.label_names)


def _how_it_went(record: RunRecord, task: TaskData) -> Iterator[str]:
    result, metric = record.result, record.metric
    examples = record.examples("train")
    trained_on = f", on {counted(examples, 'training example')}" if examples else ""
    took = f"{counted(result['steps'], 'step')} in {record.seconds:.0f} s{trained_on}."
    if result["split"] is None:
        yield f"Nothing was evaluated: no examples were kept for that. It was trained for {took}"
        return
    yield f"{metric_words(metric)} on {record.split}: {format_value(record.value)}, after {took}"
    if record.majority is not None:
        learned = " The model does no better: it has learned nothing yet." if record.failed else ""
        yield f"{constant_answer(metric, task.kind).capitalize()}: {format_value(record.majority)}.{learned}"
    note = choice_note(result)
    best = result.get("best")
    if note is not None:
        yield f"{note[0].upper()}{note[1:]}."
    elif best and best["step"] != result["last"]["step"]:
        value = best["metrics"][record.split][metric]
        yield (
            f"The best evaluation was that after step {best['step']}: {format_value(value)}. What is reported is the "
            "last: choosing a step on the split that is reported is choosing on the test."
        )


def _metrics_table(task: TaskData, evaluations: Mapping[str, Evaluation]) -> Table:
    names = list(dict.fromkeys(name for each in evaluations.values() for name in each.metrics))
    rows = []
    for split, each in evaluations.items():
        cells = [format_value(each.metrics[name]) if name in each.metrics else "" for name in names]
        rows.append([split, *cells, str(len(each.predictions))])
        if each.gold:
            constant = {name: value for name, value in _constant(task, each).items() if each.metrics[name] is not None}
            rows.append([f"{split}: one answer to all", *(digits(constant.get(name)) for name in names), ""])
    strong = frozenset(number for number, row in enumerate(rows) if row[-1])
    return Table(["split", *names, "examples"], rows, strong=strong)


def _constant(task: TaskData, evaluation: Evaluation) -> dict[str, float | None]:
    from dpstune.evaluation.metrics import constant_metrics

    train = task.splits.get("train")
    gold = evaluation.gold or []
    known = gold if train is None or train.labels is None else train.labels
    return constant_metrics(task.metrics, known, gold, label_count=len(evaluation.names))


def _labels_section(task: TaskData, each: Evaluation, picture: Picture) -> Iterator[Block]:
    from dpstune.evaluation.metrics import reliability

    yield Heading(f"{each.split}: each label")
    yield label_table(each)
    yield Heading(f"{each.split}: what is taken for what")
    yield from confusions(each, picture)
    if each.probabilities is not None and each.gold:
        yield Heading(f"{each.split}: how far probabilities can be trusted")
        figure = reliability_figure(reliability(each.gold, each.predictions, each.probabilities), each.split)
        yield picture(RELIABILITY, figure, f"Share of right answers on {each.split} against their probability")
        yield from _surest_mistakes(task, each)


def confusions(each: Evaluation, picture: Picture) -> Iterator[Block]:
    """Yield what is taken for what: a confusion matrix, or of many labels a list of the largest confusions.

    Args:
        each: Answers, one label an example.
        picture: Writes a figure under a name, with words that describe it.
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(each.gold, each.predictions, labels=range(len(each.names)))
    if len(each.names) <= MOST_LABELS_DRAWN:
        shown = confusion_figure(matrix, each.names, each.split)
        yield picture(CONFUSION, shown, f"Confusion matrix on {each.split}: gold labels down, answers across")
    else:
        yield from _largest_confusions(matrix, each.names)


def label_table(each: Evaluation) -> Table:
    """Return precision, recall and F1 of each label."""
    from sklearn.metrics import precision_recall_fscore_support

    gold, predictions = np.array(each.gold), np.array(each.predictions)
    several = gold.ndim > 1
    # scikit-learn takes a single column of several labels for two classes
    labels = [1] if several and len(each.names) == 1 else range(len(each.names))
    found = precision_recall_fscore_support(gold, predictions, labels=labels, zero_division=0.0)
    numbers, support = np.array(found[:3]), np.array(found[3])
    answered = predictions.sum(axis=0) if several else np.bincount(predictions, minlength=len(each.names))
    there = (support > 0) | (answered > 0)
    counting = np.ones(len(each.names)) if several else there
    rows = [
        [
            name,
            *(map(digits, numbers[:, label]) if there[label] else [""] * 3),
            str(support[label]),
            str(answered[label]),
        ]
        for label, name in enumerate(each.names)
    ]
    for title, weights in (("mean", counting), ("mean, weighted by examples", support)):
        means = [*map(digits, np.average(numbers, axis=1, weights=weights))] if weights.any() else [""] * 3
        rows.append([title, *means, str(support.sum()), str(answered.sum())])
    strong = frozenset((len(rows) - 2, len(rows) - 1))
    return Table(["label", "precision", "recall", "F1", "examples", "answered"], rows, strong=strong)


def _largest_confusions(matrix: np.ndarray[Any, Any], names: Sequence[str]) -> Iterator[Block]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: 2 * _MOST_LISTED]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    rows = [
        [names[row], names[column], str(wrong[row, column]), percent(wrong[row, column] / matrix[row].sum())]
        for row, column in pairs
        if wrong[row, column]
    ]
    yield Paragraph(
        f"The largest of the confusions among {len(names)} labels: {int(wrong.sum())} of {int(matrix.sum())} answers "
        "are wrong."
    )
    if rows:
        yield Table(["gold label", "answer", "examples", "of the gold label"], rows, words=2)


def _surest_mistakes(task: TaskData, each: Evaluation) -> Iterator[Block]:
    gold, answers, probabilities = np.array(each.gold), np.array(each.predictions), np.array(each.probabilities)
    sure = probabilities[np.arange(len(answers)), answers]
    wrong = [int(place) for place in np.argsort(-sure, kind="stable") if gold[place] != answers[place]]
    if not wrong:
        return
    rows = [
        [
            *_words(task, each, place),
            each.names[gold[place]],
            each.names[answers[place]],
            digits(float(sure[place])),
        ]
        for place in wrong[:_MOST_LISTED]
    ]
    yield Heading(f"{each.split}: the surest mistakes")
    yield Paragraph(
        f"The surest {len(rows)} of {counted(len(wrong), 'wrong answer')}; some may have a wrong gold label."
    )
    yield Table(["id", "example", "gold label", "answer", "probability"], rows, words=4, prose=_EXAMPLE)


def _values_section(task: TaskData, each: Evaluation, picture: Picture) -> Iterator[Block]:
    gold, predicted = np.array(each.gold), np.array(each.predictions)
    yield Heading(f"{each.split}: predicted and gold values")
    yield picture(SCATTER, scatter_figure(gold, predicted, each.split), f"Predicted over gold values on {each.split}")
    yield Heading(f"{each.split}: residuals")
    yield _residuals(each)
    yield Heading(f"{each.split}: the largest residuals")
    far = np.argsort(-np.abs(predicted - gold), kind="stable")[:_MOST_LISTED]
    rows = [
        [
            *_words(task, each, place),
            *map(digits, (gold[place], predicted[place])),
            f"{predicted[place] - gold[place]:+.4f}",
        ]
        for place in far
    ]
    yield Table(["id", "example", "gold", "predicted", "residual"], rows, words=2, prose=_EXAMPLE)


def _residuals(each: Evaluation) -> Table:
    """Return how far predictions lie from gold values, by fifths of the examples, lowest gold values first."""
    gold, predicted = np.array(each.gold), np.array(each.predictions)
    parts = [part for part in np.array_split(np.argsort(gold, kind="stable"), _PARTS) if len(part)]
    rows = []
    for part in [*parts, np.arange(len(gold))]:
        residuals = predicted[part] - gold[part]
        ends = [digits(gold[part].min()), digits(gold[part].max())]
        numbers = [digits(predicted[part].mean()), f"{residuals.mean():+.4f}", digits(np.abs(residuals).mean())]
        rows.append([*ends, str(len(part)), *numbers])
    header = ["gold from", "to", "examples", "mean predicted", "mean residual", "mean absolute residual"]
    return Table(header, rows, words=0, strong=frozenset([len(rows) - 1]))


def _words(task: TaskData, each: Evaluation, place: int) -> list[str]:
    examples = task.splits[each.split]
    return [examples.ids[place], short_text(examples.texts[place])]


def _explanations(task: TaskData) -> list[str]:
    by = "training labels" if "train" in task.splits else "labels that are evaluated"
    if task.kind == "regression":
        return [
            f"One answer to all: the mean of the {by}. A correlation is undefined for it.",
            "A residual is the predicted value less the gold value. The table of residuals has a row a fifth of the "
            "examples, by their gold value, and one for all.",
        ]
    if task.kind == "multilabel":
        return [
            "One answer to all: the labels that more than half of the "
            f"{'training examples' if 'train' in task.splits else 'examples that are evaluated'} have.",
            f"A label is answered where its probability is {THRESHOLD} or more. Precision: how many answers of a label "
            "are right. Recall: how many of a label's examples are found. F1: their harmonic mean. The mean is "
            "that of macro_f1: a label that no example has and no answer is counts as 0.",
        ]
    return [
        f"One answer to all: the commonest of the {by}, with the shares of these labels as probabilities.",
        *told_of_one_label(task.metrics, task.label_names),
        "Precision: how many of the answers of a label are right. Recall: how many of a label's examples are found. "
        "F1: their harmonic mean. The mean leaves out labels that no example has and no answer is.",
        "Calibration error (Guo et al. 2017): the examples are sorted by the probability of their answer into 15 bins "
        "of equal width; it is the sum over the bins of their share of the examples times the distance between the "
        "share that is right and the mean probability.",
    ]
