"""The tasks: columns, labels, metric, splits, and where their data lives; one table.

GLUE is Table 1 of the paper; the NLI corpora are what its transfer experiments read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dpstune.errors import RequestError, did_you_mean

Kind = Literal["classification", "regression", "multilabel"]


@dataclass(frozen=True)
class HubSource:
    """Where a task lies on the Hugging Face hub.

    Args:
        id: Dataset id.
        config: Its configuration, or None.
        text: The one or two text columns.
        label: The label column: label indices with names, label names, or values.
        splits: Our split names to the hub's.
        revision: A branch, tag or commit; None for the newest.
    """

    id: str
    config: str | None
    text: tuple[str, ...]
    splits: Mapping[str, str]
    label: str = "label"
    revision: str | None = None


@dataclass(frozen=True)
class GlueLayout:
    """How GLUE distributes a task: a folder of TSV files in which quotes are plain characters.

    Args:
        folder: The folder's name.
        files: Our split names to file names.
        text: The one or two text columns, by the header's names (by position where there is no header).
        label: The label column, likewise.
        names: Label names by raw label; empty where the files hold the names.
        header: Whether the labelled files open with a header; the test files of every task do.
    """

    folder: str
    files: Mapping[str, str]
    text: tuple[str, ...]
    label: str = "label"
    names: Mapping[str, str] = field(default_factory=dict)
    header: bool = True


@dataclass(frozen=True)
class Task:
    """A task dpstune knows by name.

    Args:
        name: Its name.
        kind: What its labels are.
        labels: Label names, in the order of the model's outputs; empty for regression.
        metric: The metric family; its headline comes first among its metrics.
        splits: Split names: ``train``, the validation splits in order, then test splits.
        hub: Where it lies on the hub, if it does.
        glue: How GLUE distributes it, if it does.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    metric: str
    splits: tuple[str, ...] = ("train", "validation", "test")
    hub: HubSource | None = None
    glue: GlueLayout | None = None

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """The splits a training run evaluates, the headline's first."""
        return tuple(split for split in self.splits if split.startswith("validation"))

    @property
    def toy(self) -> bool:
        """Whether dpstune generates it."""
        return self.name.startswith("toy-")


ENTAILMENT = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")
_GLUE_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_SAME_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
_PAIR = ("sentence1", "sentence2")
_NLI_PAIR = ("premise", "hypothesis")
# SICK and HANS lie on the hub as loading scripts, which `datasets` no longer runs; this branch holds them as Parquet.
_PARQUET_BRANCH = "refs/convert/parquet"
_MNLI_SPLITS = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")


def _glue_hub(config: str, text: tuple[str, ...], splits: Mapping[str, str] = _SAME_SPLITS) -> HubSource:
    return HubSource("nyu-mll/glue", config, text, splits)


_TABLE = (
    Task(
        "rte",
        "classification",
        ENTAILMENT,
        "accuracy",
        hub=_glue_hub("rte", _PAIR),
        glue=GlueLayout("RTE", _GLUE_FILES, _PAIR),
    ),
    Task(
        "mrpc",
        "classification",
        ("not_equivalent", "equivalent"),
        "f1",
        hub=_glue_hub("mrpc", _PAIR),
        glue=GlueLayout(
            "MRPC",
            _GLUE_FILES,
            ("#1 String", "#2 String"),
            "Quality",
            {"0": "not_equivalent", "1": "equivalent"},
        ),
    ),
    Task(
        "stsb",
        "regression",
        (),
        "spearman",
        hub=_glue_hub("stsb", _PAIR),
        glue=GlueLayout("STS-B", _GLUE_FILES, _PAIR, "score"),
    ),
    Task(
        "cola",
        "classification",
        ("unacceptable", "acceptable"),
        "matthews",
        hub=_glue_hub("cola", ("sentence",)),
        glue=GlueLayout(
            "CoLA",
            _GLUE_FILES,
            ("sentence",),
            names={"0": "unacceptable", "1": "acceptable"},
            header=False,
        ),
    ),
    Task(
        "sst2",
        "classification",
        ("negative", "positive"),
        "accuracy",
        hub=_glue_hub("sst2", ("sentence",)),
        glue=GlueLayout("SST-2", _GLUE_FILES, ("sentence",), names={"0": "negative", "1": "positive"}),
    ),
    Task(
        "qnli",
        "classification",
        ENTAILMENT,
        "accuracy",
        hub=_glue_hub("qnli", ("question", "sentence")),
        glue=GlueLayout("QNLI", _GLUE_FILES, ("question", "sentence")),
    ),
    Task(
        "qqp",
        "classification",
        ("not_duplicate", "duplicate"),
        "accuracy",
        hub=_glue_hub("qqp", ("question1", "question2")),
        glue=GlueLayout(
            "QQP",
            _GLUE_FILES,
            ("question1", "question2"),
            "is_duplicate",
            {"0": "not_duplicate", "1": "duplicate"},
        ),
    ),
    Task(
        "mnli",
        "classification",
        NLI,
        "accuracy",
        splits=_MNLI_SPLITS,
        hub=_glue_hub("mnli", _NLI_PAIR, {split: split for split in _MNLI_SPLITS}),
        glue=GlueLayout(
            "MNLI",
            {
                "train": "train.tsv",
                "validation_matched": "dev_matched.tsv",
                "validation_mismatched": "dev_mismatched.tsv",
                "test_matched": "test_matched.tsv",
                "test_mismatched": "test_mismatched.tsv",
            },
            _PAIR,
            "gold_label",
        ),
    ),
    Task(
        "snli",
        "classification",
        NLI,
        "accuracy",
        hub=HubSource("stanfordnlp/snli", None, _NLI_PAIR, _SAME_SPLITS),
        glue=GlueLayout("SNLI", _GLUE_FILES, _PAIR, "gold_label"),
    ),
    Task(
        "sick",
        "classification",
        NLI,
        "accuracy",
        hub=HubSource("RobZamp/sick", None, ("sentence_A", "sentence_B"), _SAME_SPLITS, revision=_PARQUET_BRANCH),
    ),
    Task(
        "scitail",
        "classification",
        ("entails", "neutral"),
        "accuracy",
        hub=HubSource("allenai/scitail", "tsv_format", _NLI_PAIR, _SAME_SPLITS),
    ),
    Task(
        "hans",
        "classification",
        ("entailment", "non-entailment"),
        "accuracy",
        splits=("train", "validation"),
        hub=HubSource(
            "jhu-cogsci/hans",
            None,
            _NLI_PAIR,
            {"train": "train", "validation": "validation"},
            revision=_PARQUET_BRANCH,
        ),
    ),
    Task("toy-nli", "classification", NLI, "accuracy"),
    Task("toy-nli-shift", "classification", NLI, "accuracy"),
    Task("toy-rte", "classification", ENTAILMENT, "accuracy"),
    Task("toy-rte-shift", "classification", ENTAILMENT, "accuracy"),
    Task("toy-sts", "regression", (), "spearman"),
    Task("toy-sts-shift", "regression", (), "spearman"),
)

TASKS: dict[str, Task] = {task.name: task for task in _TABLE}


def get_task(name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        RequestError: There is none; the nearest name is offered.

    >>> get_task("mrpc").labels
    ('not_equivalent', 'equivalent')
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS) or f"; there are {', '.join(TASKS)}"
        raise RequestError(f"unknown task {name!r}{hint}")
    return TASKS[name]
