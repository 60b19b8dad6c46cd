"""The parts of a user's own task that are drawn from its training rows: shares and folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from dpstune.data.examples import Examples
from dpstune.data.sources import RawSplit
from dpstune.data.splitting import rows_together, split_rows
from dpstune.errors import RequestError, counted, some_of
from dpstune.settings.sections import UserTask


def draw_parts(
    task: UserTask, source: str, examples: Examples, names: Sequence[str], notes: list[str]
) -> dict[str, Examples]:
    """Cut the parts that lie in no place of their own off a training split; ids stay those of the whole.

    The test part is drawn before the others, so that it is the same for any of them.

    Args:
        task: The task.
        source: What the training split was read from.
        examples: Its labelled examples.
        names: The labels; empty for regression.
        notes: Takes what a reader should know.

    Returns:
        ``train`` and each part that was drawn.

    Raises:
        RequestError: The rows are too few for the parts.
    """
    parts = task.parts
    test, validation = parts.share("test"), parts.share("validation")
    cutter = _Cutter(task, source, examples)
    train, drawn = list(range(len(examples))), {}
    if test:
        train, drawn["test"] = cutter.cut(train, [1 - test, test])
    if parts.folds is not None:
        folds = cutter.cut(train, [1 / parts.folds] * parts.folds)
        drawn["validation"] = folds.pop((parts.fold or 1) - 1)
        train = sorted(row for fold in folds for row in fold)
    elif validation:
        share = validation / (1 - test)
        train, drawn["validation"] = cutter.cut(train, [1 - share, share])
    rows = {"train": train, **drawn}
    for split, held in rows.items():
        if not held:
            what = f"a share of {parts.share(split):g}" if split in drawn else "what is left"
            raise RequestError(f"{source}: {split}: {what} of {counted(len(examples), 'row')} is no row")
    notes.append(_told(task, source, rows))
    if names:
        notes += _missing_labels(task, source, names, cutter.labels, rows)
    return {split: examples.take(held) for split, held in rows.items()}


def units_of(rows: Examples | RawSplit) -> dict[str, int]:
    """Return what each row, by its id, counts with: rows with equal texts or of one group are one unit.

    >>> units_of(Examples(["0", "1", "2"], [("a",), ("b",), ("A",)], None))
    {'0': 0, '2': 0, '1': 1}
    """
    blocks = rows_together(rows.texts, rows.groups or None)
    return {rows.ids[row]: number for number, block in enumerate(blocks) for row in block}


def has_groups(rows: Examples | RawSplit) -> bool:
    """Tell whether all rows belong to groups that a user named."""
    return all(group is not None for group in rows.groups) if rows.groups else False


class _Cutter:
    """Cuts rows into parts.

    Args:
        task: Their task.
        source: What they were read from.
        examples: The rows.
    """

    def __init__(self, task: UserTask, source: str, examples: Examples) -> None:
        assert examples.labels is not None
        several = task.kind == "multilabel"
        self.labels: list[tuple[float, ...]] = [
            tuple(index for index, is_there in enumerate(label) if is_there) if several else (label,)
            for label in examples.labels
        ]
        self._task, self._source, self._examples = task, source, examples

    def cut(self, rows: Sequence[int], shares: Sequence[float]) -> list[list[int]]:
        """Return the rows of each part."""
        groups = self._examples.groups
        values = self._task.kind == "regression"
        try:
            cuts = split_rows(
                [self.labels[row][0] if values else self.labels[row] for row in rows],
                [self._examples.texts[row] for row in rows],
                None if groups is None else [groups[row] for row in rows],
                shares=shares,
                seed=self._task.split_seed,
                values=values,
            )
        except RequestError as error:
            raise RequestError(f"{self._source}: {error}") from None
        return [[rows[position] for position in cut] for cut in cuts]


def _told(task: UserTask, source: str, rows: Mapping[str, Sequence[int]]) -> str:
    """Say how many rows went where."""
    counts = ", ".join(f"{len(rows[split])} {split}" for split in ("train", "validation", "test") if split in rows)
    parts = task.parts
    fold = f"fold {parts.fold or 1} of {parts.folds}, " if parts.folds is not None else ""
    group = f", groups of {task.group!r} kept together" if task.group is not None else ""
    total = sum(map(len, rows.values()))
    return f"{source}: {counted(total, 'row')} are cut into {counts} ({fold}split_seed {task.split_seed}{group})"


def _missing_labels(
    task: UserTask,
    source: str,
    names: Sequence[str],
    labels: Sequence[tuple[float, ...]],
    rows: Mapping[str, Sequence[int]],
) -> Iterator[str]:
    """Say which labels have too few examples to be in every part."""
    counts = Counter(label for row in labels for label in row)
    for split, held in rows.items():
        missing = [
            names[int(label)] for label in sorted(counts.keys() - {label for row in held for label in labels[row]})
        ]
        if missing:
            what = "is not trained on" if split == "train" else f"is not in {split}"
            yield f"{source}: the label {some_of(missing)} {what}: too few of its rows may stand apart"
    folds = task.parts.folds or 0
    few = [names[int(label)] for label, count in sorted(counts.items()) if count < folds]
    if few:
        yield f"{source}: the label {some_of(few)} has fewer rows than there are folds ({folds}): some hold none of it"
