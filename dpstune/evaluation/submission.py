"""Predictions in the format of the GLUE server: a TSV file of index and prediction for each test set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dpstune.common.writing import write_text
from dpstune.errors import RequestError
from dpstune.settings.sections import UserTask
from dpstune.settings.tasks import TASKS

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.evaluation.targets import Target

FILES = {
    ("cola", "test"): "CoLA.tsv",
    ("sst2", "test"): "SST-2.tsv",
    ("mrpc", "test"): "MRPC.tsv",
    ("stsb", "test"): "STS-B.tsv",
    ("qqp", "test"): "QQP.tsv",
    ("mnli", "test_matched"): "MNLI-m.tsv",
    ("mnli", "test_mismatched"): "MNLI-mm.tsv",
    ("qnli", "test"): "QNLI.tsv",
    ("rte", "test"): "RTE.tsv",
}
"""The server's file names, by task and split. (GLUE benchmark, "How do I submit?")"""

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 5.0  # of STS-B


def refuse_no_submission(target: Target) -> None:
    """Refuse a target that the server takes no predictions of, before anything is computed.

    Raises:
        RequestError: The task is not one of GLUE's, or a split is not its test set.
    """
    task = target.name
    if isinstance(target.task, UserTask):
        raise RequestError(f"--submission: {task} is a task of your own; the GLUE server takes only its own")
    for split in target.splits:
        if (task, split) not in FILES:
            known = [f"{name} --split {part}" for name, part in FILES if name == task]
            tasks = ", ".join(dict.fromkeys(name for name, _ in FILES))
            hint = f"it takes --task {known[0]}" if known else f"its tasks are {tasks}"
            raise RequestError(f"--submission: the GLUE server takes no {split} of {task}; {hint}")


def refuse_taken_files(place: Path, task: str, splits: Iterable[str], *, force: bool) -> None:
    """Refuse to overwrite what is there, before anything is computed.

    Raises:
        RequestError: A file is there and ``force`` is not given, or what is there is not a file.
    """
    for file in _files(place, task, splits):
        if file.exists() and not file.is_file():
            raise RequestError(f"--submission {file}: is not a file; choose another place")
        if file.exists() and not force:
            raise RequestError(f"{file} exists; choose another place, or overwrite it with --force")


def write_submission(place: Path, task: TaskData, evaluation: Evaluation) -> Path:
    """Write one test set's predictions.

    The header is ``index`` and ``prediction``; indices run from 0 without a gap; labels have the names of GLUE's own
    files (0 and 1 where those hold numbers); STS-B's values are cut to 0 to 5.

    Args:
        place: The file, or a folder that takes the server's own file name.
        task: The task.
        evaluation: The evaluation of the test split.

    Returns:
        The file.

    Raises:
        RequestError: The examples are not numbered as the server expects, or the file cannot be written.
    """
    ids = task.splits[evaluation.split].ids
    if ids != [str(number) for number in range(len(ids))]:
        raise RequestError(
            f"--submission: the examples of {task.name} {evaluation.split} are not numbered 0 to {len(ids) - 1}, as "
            "the GLUE server wants them; read the test set as GLUE distributes it"
        )
    (file,) = _files(place, task.name, [evaluation.split])
    lines = ["index\tprediction", *map("\t".join, zip(ids, _answers(task, evaluation), strict=True))]
    write_text(file, "\n".join(lines) + "\n", flag="--submission")
    return file


def _files(place: Path, task: str, splits: Iterable[str]) -> list[Path]:
    """Return the file each split's predictions go to: ``place``, or in that folder the server's own file name."""
    return [place / FILES[task, split] if place.is_dir() else place for split in splits]


def _answers(task: TaskData, evaluation: Evaluation) -> list[str]:
    if task.kind == "regression":
        return [f"{min(max(value, LOWEST_SCORE), HIGHEST_SCORE):.3f}" for value in evaluation.predictions]
    layout = TASKS[task.name].glue
    raw = {name: label for label, name in (layout.names if layout is not None else {}).items()}
    names = [raw.get(name, name) for name in evaluation.names]
    return [names[index] for index in evaluation.predictions]
