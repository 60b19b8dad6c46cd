"""From a task to its examples: splits read, labels turned into indices, training examples held out or drawn."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dpstune.common.textfile import SAVE_AS_UTF_8
from dpstune.data.columns import USUAL_PAIRS, USUAL_TEXTS
from dpstune.data.examples import Examples
from dpstune.data.files import find_files
from dpstune.data.gold_labels import NO_GOLD_LABEL, UNLABELLED, gaps, label_examples, several, sort_names
from dpstune.data.parts import draw_parts
from dpstune.data.sources import Columns, MissingColumnError, RawSplit, read_files, read_glue, read_hub
from dpstune.data.splitting import rows_together
from dpstune.data.written_forms import nearest
from dpstune.device.randomness import stream
from dpstune.errors import RequestError, counted, some_of
from dpstune.settings.metrics import USUAL_METRIC, listed_metrics
from dpstune.settings.sections import AnyTask, DataSection, DatasetTask, OwnTask, TableTask, UserTask, task_name
from dpstune.settings.tasks import HubSource, Kind, Task, get_task

if TYPE_CHECKING:
    import numpy as np

COMMON_SET = 5  # so many examples with the same set of labels are a stratum of their own
ASK_FOR_THE_TASKS_ENCODING = (
    f"{SAVE_AS_UTF_8}, or say what it is by the task's key encoding: --set task.encoding=latin-1, cp1252 or utf-16-le"
)
HELD_OUT = "held_out"  # the split that data.held_out makes of training examples


@dataclass(frozen=True)
class TaskData:
    """A task and its examples.

    Args:
        name: The task's name; that of a user's own task is for people only.
        kind: Classification, regression, or several labels an example.
        label_names: In the order of the model's outputs; empty for regression.
        metric: The headline metric.
        splits: The examples, by split; ``train`` first, then the splits to evaluate, the headline's first.
        notes: What a person should know: what was dropped, and how many.
        whole: The task before training examples were drawn from it; None if none were drawn.
        more_metrics: What is measured beside the headline and what always stands with that.
    """

    name: str
    kind: Kind
    label_names: tuple[str, ...]
    metric: str
    splits: dict[str, Examples]
    notes: tuple[str, ...]
    whole: TaskData | None = field(default=None, compare=False, repr=False)
    more_metrics: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured, the headline first."""
        return (self.metric, *self.more_metrics)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes when any example does."""
        digest = hashlib.sha256()
        for split, examples in self.splits.items():
            content = [split, examples.ids, examples.texts, examples.labels]
            digest.update(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    @property
    def source_fingerprint(self) -> str:
        """The fingerprint before training examples were drawn: equal for every seed."""
        return (self.whole or self).fingerprint


def read_task(task: AnyTask, data: DataSection, *, splits: Sequence[str] | None = None) -> TaskData:
    """Read a task's examples, all that seeds draw theirs from.

    Args:
        task: A recipe's task.
        data: Where it lies, and what is held out.
        splits: Which splits; by default what a training run needs: training, validation, and the test split of a user's
            own task.

    Raises:
        RequestError: A file, split, column or label is wrong; the message says which and where.
        RunError: The hub could not be reached.
    """
    if data.held_out is not None and (splits is None or HELD_OUT in splits):
        if isinstance(task, UserTask) and task.group is not None:
            raise RequestError(
                f"data.held_out: {data.held_out} would tear groups of {task.group!r} apart; say validation: 0.2 or "
                "folds: 5 of the task instead"
            )
        return _hold_out(_read_splits(task, data, ("train",)), data.held_out, isinstance(task, UserTask))
    return _read_splits(task, data, splits)


def _read_splits(task: AnyTask, data: DataSection, splits: Sequence[str] | None) -> TaskData:
    if isinstance(task, OwnTask | DatasetTask):
        return _load_own(task, splits)
    known = _known_task(task)
    found = _load_known(known, data, splits or ("train", *known.validation_splits))
    return measured_by(found, task.metric) if isinstance(task, TableTask) else found


def _known_task(task: AnyTask) -> Task:
    """Return a task of the table, read from where a recipe says that it lies."""
    known = get_task(task_name(task))
    if isinstance(task, TableTask) and task.moved:
        known = replace(known, hub=_moved(known, task))
    return known


def measured_by(task: TaskData, asked: str | Sequence[str] | None) -> TaskData:
    """Return a task with the metrics that are asked for, the headline first; as it is for None."""
    if asked is None:
        return task
    headline, *more = listed_metrics(asked, task.metric)
    return replace(task, metric=headline, more_metrics=tuple(more))


def _hold_out(task: TaskData, size: int, with_copies: bool) -> TaskData:
    """Move ``size`` examples, the same for every seed, from the training split to a split to evaluate.

    Args:
        task: The task.
        size: How many.
        with_copies: Whether examples may have equal texts; those that have stay in the training split.
    """
    train = task.splits["train"]
    blocks = rows_together(train.texts, None) if with_copies else [[row] for row in range(len(train))]
    alone = [block[0] for block in blocks if len(block) == 1]
    open_task = replace(task, splits={"train": train.take(alone)})
    most = len(alone) - len(set(_strata(open_task)))
    if size > most:
        copies = len(train) - len(alone)
        why = f" ({copies} have the texts of another, and stay)" if copies else ""
        raise RequestError(
            f"data.held_out: {size} leaves too few of the {len(train)} training examples of {task.name}{why}; "
            f"at most {most}"
        )
    held = [alone[row] for row in _draw(open_task, size, stream(0, "held-out"), leave=1)]
    rest = sorted(set(range(len(train))).difference(held))
    return replace(task, splits={"train": train.take(rest), HELD_OUT: train.take(held)})


def draw_training_part(task: TaskData, size: int | None, *, seed: int) -> TaskData:
    """Return a task with ``size`` of its training examples, drawn from the seed; all of them for None.

    Raises:
        RequestError: There are fewer, or all have the same label.
    """
    if size is not None and "train" in task.splits:
        task = replace(task, splits={**task.splits, "train": _subsample(task, size, seed)}, whole=task)
    _refuse_one_class(task, "every training example" if size is None else f"each of the {size} training examples drawn")
    return task


def _moved(known: Task, task: TableTask) -> HubSource:
    if known.hub is None:
        raise RequestError(f"task {known.name} is generated by dpstune; it is not on the hub")
    return replace(
        known.hub,
        id=task.hub_id or known.hub.id,
        config=task.hub_config if task.hub_id or task.hub_config else known.hub.config,
        revision=task.hub_revision or known.hub.revision,
        text=task.text or known.hub.text,
        label=task.label or known.hub.label,
    )


def _load_known(task: Task, data: DataSection, wanted: Sequence[str]) -> TaskData:
    if task.toy:
        from dpstune.data.toy import generate

        for split in wanted:
            _refuse_unknown_split(task.name, split, task.splits)
        splits = {split: generate(task.name, split) for split in wanted}
        return TaskData(task.name, task.kind, task.labels, task.metric, splits, ())
    raw = {split: part for split in wanted for split, part in _read(task, data.dir, split)}
    notes: list[str] = []
    names = task.glue.names if task.glue is not None and data.dir is not None else {}
    splits = {}
    for split, part in raw.items():
        if names:
            part = replace(part, labels=[names.get(label or "", label) for label in part.labels])
        marks = (*UNLABELLED, *NO_GOLD_LABEL) if task.kind == "classification" else UNLABELLED
        splits[split] = label_examples(part, task.kind, task.labels, split, notes, marks)
    return TaskData(task.name, task.kind, task.labels, task.metric, splits, tuple(notes))


def _read(task: Task, folder: Path | None, split: str) -> list[tuple[str, RawSplit]]:
    """Read one split; return it with its name, which for local JSONL files may be plain ``validation``."""
    if folder is None:
        assert task.hub is not None
        _refuse_unknown_split(task.name, split, task.hub.splits)
        return [(split, read_hub(task.hub, split))]
    if not folder.is_dir():
        raise RequestError(
            f"there is no folder {folder}; --data-dir names the folder that holds the tasks' own folders, "
            "and without it the hub is asked"
        )
    if task.glue is not None and (folder / task.glue.folder).is_dir():
        _refuse_unknown_split(task.name, split, task.glue.files)
        return [(split, read_glue(folder, task.glue, split))]
    if not (folder / task.name).is_dir():
        expected = f"{task.glue.folder}/*.tsv or " if task.glue is not None else ""
        raise RequestError(f"no task {task.name} in {folder}: expected {expected}{task.name}/*.jsonl there")
    plain = split.partition("_")[0]
    if split not in {known.partition("_")[0] for known in task.splits}:
        _refuse_unknown_split(task.name, split, task.splits)
    name = split if (folder / task.name / f"{split}.jsonl").exists() else plain
    path = folder / task.name / f"{name}.jsonl"
    return [(name, _read_jsonl(path, task, label_required=plain != "test"))]


def folder_with_task(folders: Sequence[Path], name: str) -> Path | None:
    """Return the first folder that holds a task's data, in GLUE's layout or as JSONL; None where none does."""
    layout = get_task(name).glue
    inside = [name, *([layout.folder] if layout is not None else [])]
    return next((folder for folder in folders for each in inside if (folder / each).is_dir()), None)


def _refuse_unknown_split(task: str, split: str, known: Collection[str]) -> None:
    if split not in known:
        raise RequestError(f"task {task} has no split {split!r}; it has {', '.join(known)}")


def _read_jsonl(path: Path, task: Task, label_required: bool) -> RawSplit:
    """Read a task's JSONL file; its text columns may have any of the task's usual names."""
    assert task.hub is not None
    candidates = [task.hub.text, *([task.glue.text] if task.glue is not None else [])]
    candidates += USUAL_PAIRS if len(task.hub.text) > 1 else [(text,) for text in USUAL_TEXTS]
    problem: MissingColumnError | None = None
    for text in candidates:
        try:
            return read_files([path], Columns(text, "label", label_required=label_required))
        except MissingColumnError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _load_own(task: OwnTask | DatasetTask, wanted: Sequence[str] | None) -> TaskData:
    name, parts = task_name(task), task.parts
    for split in wanted or ():
        _refuse_unknown_split(name, split, parts.names)
    asked = [split for split in parts.names if wanted is None or split in wanted or split == "train"]
    raw = {split: _read_own(task, split) for split in asked if parts.place(split) is not None}
    _refuse_a_column_without_text(raw["train"], task.text)
    marks = gaps(task.kind)
    names, seen = _labels_of(task, raw["train"], marks)
    notes: list[str] = [note for part in raw.values() for note in part.notes]
    if unseen := [label for label in names if label not in seen]:
        notes.append(f"{raw['train'].source}: no example has the label {some_of(unseen)}, which the dataset knows")
    splits = {split: label_examples(part, task.kind, names, split, notes, marks) for split, part in raw.items()}
    if parts.are_drawn:
        splits |= draw_parts(task, raw["train"].source, splits["train"], names, notes)
    splits = {split: splits[split] for split in asked}
    return measured_by(TaskData(name, task.kind, names, USUAL_METRIC[task.kind], splits, tuple(notes)), task.metric)


def _labels_of(
    task: OwnTask | DatasetTask, train: RawSplit, marks: Sequence[str | None]
) -> tuple[tuple[str, ...], set[str]]:
    """Return the labels in the order of their indices, none for values, and those that a training row has."""
    seen: set[str] = set()
    if task.kind == "classification":
        seen = {label for label in train.labels if label is not None and label not in marks}
        return _positive_last(task, sort_names({*train.label_names} or seen)), seen
    if task.kind == "multilabel":
        seen = {name for label in train.labels if label not in marks for name in several(label)}
        return sort_names({name for label in train.label_names for name in several(label)} or seen), seen
    return (), seen


def _positive_last(task: OwnTask | DatasetTask, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels in the order of their indices: of two, the second is that of which ``f1`` and ``roc_auc`` are.

    Raises:
        RequestError: The task says which of two labels that is, and has no such label, or others than two.
    """
    if task.positive is None:
        return names
    where = f"task.positive: {task_name(task)}"
    if task.positive not in names:
        hint = nearest(task.positive, names)
        raise RequestError(f"{where} has no label {task.positive!r}; its labels are {some_of(names)}{hint}")
    if len(names) != 2:
        raise RequestError(f"{where} has {counted(len(names), 'label')} ({some_of(names)}); it names one of two")
    return (*(name for name in names if name != task.positive), task.positive)


def _refuse_a_column_without_text(train: RawSplit, columns: Sequence[str]) -> None:
    for column in train.without_text(columns):
        raise RequestError(
            f"{train.source}: column {column!r} has no text in any row; name another column, or leave it out"
        )


def _read_own(task: OwnTask | DatasetTask, split: str) -> RawSplit:
    """Read a split that lies in a place of its own; only that of ``train`` must have the group column."""
    place, label_required, group_required = task.parts.place(split), split != "test", split == "train"
    if isinstance(task, OwnTask):
        columns = Columns(task.text, task.label, task.group, label_required, group_required)
        return read_files(find_files(place), columns, task.encoding, ASK_FOR_THE_TASKS_ENCODING)
    read = read_hub(
        HubSource(task.dataset, task.config, task.text, {split: place}, task.label, task.revision),
        split,
        group=task.group,
        label_required=label_required,
        group_required=group_required,
        minus_one=True,
        remedy="save it as files and name them under task.files",
        no_split=f"; where it has no {split} split, a share of the training rows will do: {split}: 0.2",
    )
    if not label_required and set(read.labels) == {"-1"}:  # so are hidden labels written
        read.labels = []
    return read


def _subsample(task: TaskData, size: int, seed: int) -> Examples:
    """Return ``size`` training examples, each label with its share, in their old order."""
    train = task.splits["train"]
    if size > len(train):
        raise RequestError(f"data.train_size: {size} is more than the {len(train)} training examples of {task.name}")
    return train.take(_draw(task, size, stream(seed, "subsample")))


def _strata(task: TaskData) -> Sequence[float]:
    """Return each training example's stratum, of which a draw keeps the shares: its label; one for regression.

    Of several labels an example it is the set of them; sets that fewer than five examples have are one stratum.
    """
    train = task.splits["train"]
    if task.kind == "multilabel" and train.labels is not None:
        counts = Counter(train.labels)
        common = sorted(labels for labels, count in counts.items() if count >= COMMON_SET)
        number = {labels: place for place, labels in enumerate(common, start=1)}
        return [number.get(labels, 0) for labels in train.labels]
    return train.labels if task.kind == "classification" and train.labels is not None else [0] * len(train)


def _draw(task: TaskData, size: int, generator: np.random.Generator, leave: int = 0) -> list[int]:
    """Draw ``size`` positions of the training split, each label with its share, in ascending order.

    Args:
        task: The task.
        size: How many.
        generator: Draws them.
        leave: How many of each label always stay undrawn.
    """
    labels = _strata(task)
    shuffled: list[int] = generator.permutation(len(labels)).tolist()
    counts = Counter(labels)
    exact = {label: size * count / len(labels) for label, count in counts.items()}
    least = 1 if size >= len(exact) else 0  # no label is lost where there is room for all
    quota = {label: min(counts[label] - leave, max(least, math.floor(share))) for label, share in exact.items()}
    while sum(quota.values()) > size:
        quota[max(quota, key=lambda label: (quota[label], label))] -= 1
    while sum(quota.values()) < size:
        open_labels = [label for label in exact if quota[label] < counts[label] - leave]
        quota[min(open_labels, key=lambda label: (quota[label] - exact[label], label))] += 1
    chosen = []
    for index in shuffled:
        if quota[labels[index]] > 0:
            quota[labels[index]] -= 1
            chosen.append(index)
    return sorted(chosen)


def _refuse_one_class(task: TaskData, which: str) -> None:
    train = task.splits.get("train")
    if train is None or train.labels is None or len(set(train.labels)) > 1:
        return
    if task.kind == "multilabel":
        raise RequestError(f"{which} of {task.name} has the same labels; there is nothing to learn")
    what = task.label_names[int(train.labels[0])] if task.label_names else train.labels[0]
    raise RequestError(f"{which} of {task.name} has the label {what!r}; there is nothing to learn")


@dataclass(frozen=True)
class RawTask:
    """A task as it is written, before labels are read and rows without one are left out.

    Args:
        kind: What the labels are.
        splits: By name; ``train`` first.
        unlabelled: What stands in the label column where a row has no label.
        text: The text columns' names; empty where they are of the task's own making.
        label: The label column's name; None likewise.
        parts: How many parts the training rows are yet to be cut into; None where they are not.
    """

    kind: Kind
    splits: dict[str, RawSplit]
    unlabelled: tuple[str | None, ...]
    text: tuple[str, ...] = ()
    label: str | None = None
    parts: int | None = None

    def rows_of(self, split: str) -> RawSplit:
        """Return the rows that a split's are among: its own, or the training rows where it is cut from them."""
        return self.splits.get(split, self.splits["train"])


def read_raw(task: AnyTask, data: DataSection) -> RawTask:
    """Read a task as it is written: the splits that a training run reads, and a user's own test file.

    Raises:
        RequestError: A file, split or column is wrong; the message says which and where.
        RunError: The hub could not be reached.
    """
    if isinstance(task, OwnTask | DatasetTask):
        raw = {split: _read_own(task, split) for split in _given_splits(task)}
        if task.positive is not None:
            _labels_of(task, raw["train"], gaps(task.kind))  # refuses one that is no label
        return RawTask(task.kind, raw, gaps(task.kind), task.text, task.label, _parts_to_cut(task))
    known = _known_task(task)
    wanted = ("train", *known.validation_splits)
    if known.toy:
        raw = {split: _as_written(known, split) for split in wanted}
    else:
        raw = {name: part for split in wanted for name, part in _read(known, data.dir, split)}
    for part in raw.values():  # GLUE's files hold what stands for a label
        part.label_names = (*known.labels, *(known.glue.names if known.glue is not None else ()))
    return RawTask(known.kind, raw, (*UNLABELLED, *NO_GOLD_LABEL) if known.labels else UNLABELLED)


def _given_splits(task: UserTask) -> list[str]:
    """Return the splits that lie in a place of their own."""
    return [split for split in task.parts.names if task.parts.place(split) is not None]


def _parts_to_cut(task: UserTask) -> int | None:
    """Return how many parts the training rows are cut into; None where they stay whole."""
    parts = task.parts
    if parts.folds is not None:
        return parts.folds
    return 1 + sum(parts.share(split) > 0 for split in ("validation", "test")) if parts.are_drawn else None


def _as_written(task: Task, split: str) -> RawSplit:
    """Return a split that dpstune makes as if it had been read."""
    from dpstune.data.toy import generate

    made = generate(task.name, split)
    labels = [task.labels[int(label)] if task.labels else str(label) for label in made.labels or ()]
    return RawSplit(f"{task.name} {split}", made.ids, made.texts, [*labels], list(range(1, len(made) + 1)))
