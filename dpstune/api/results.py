"""What the functions return: folders, tables, numbers, and a picture where a notebook shows them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.textfile import read_cell
from dpstune.common.writing import read_json
from dpstune.errors import counted

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("text", "text1", "text2", "label", "answer")  # columns whose cells are as ``shown_cell`` writes them
_OF_TEXTS = ("id", *_SHOWN, "right_label")  # columns; 007 is not 7


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What every result has.

    Args:
        folder: Where the files lie that it is made from.
        rows: The table's rows, by column.
        notes: What a reader should know: rows that were left out, data that have changed since.
    """

    folder: Path
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default=(), kw_only=True)

    @property
    def table(self) -> pd.DataFrame:
        """The numbers, a row each."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def picture(self) -> Path | None:
        """A PNG file that shows them; None where there is none."""
        return None

    def _title(self) -> str:
        return ""

    def __repr__(self) -> str:
        said = [self._title(), f"folder={str(self.folder)!r}"]
        return f"{type(self).__name__}({', '.join(filter(None, said))})"

    def _repr_html_(self) -> str:
        """Show title, notes, picture and table in a notebook."""
        parts = [f"<p>{escape(line)}</p>" for line in (self._title() or str(self.folder), *self.notes)]
        if self.picture is not None and self.picture.is_file():
            content = base64.b64encode(self.picture.read_bytes()).decode()
            parts.append(f'<img style="max-width: 100%; width: 44rem" src="data:image/png;base64,{content}">')
        return "\n".join([*parts, self.table.to_html(index=False)])


@dataclass(frozen=True, eq=False, repr=False)
class TrainResult(Result):
    """A finished run; its table has a row a split.

    Args:
        result: The content of its result.json.
    """

    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The fine-tuned model, a plain transformers folder."""
        return self.folder / "model"

    @property
    def value(self) -> float | None:
        """The headline metric of the weights that were kept."""
        value: float | None = self.result["value"]
        return value

    @property
    def metric(self) -> str:
        """The name of the headline metric."""
        return str(self.result["metric"])

    @property
    def predictions(self) -> pd.DataFrame:
        """What it answered: split, id, label, prediction, and ``score_LABEL`` for each label, or ``score`` of values.

        Scores are the model's outputs: before the softmax, or before the sigmoid where labels are several. They are
        ``score_0`` and so on where no model was kept that knows the labels' names.
        """
        import pandas as pd

        from dpstune.runs.folder import RunFolder, read_predictions

        run = RunFolder(self.folder)
        known = (read_json(self.model / "config.json") or {}).get("id2label", {})
        names = [known[key] for key in sorted(known, key=int)]
        columns = {row["split"]: read_predictions(run.predictions(row["split"])) for row in self.rows}
        frames = [prediction_frame(split, found, names) for split, found in columns.items()]
        return pd.concat(frames, ignore_index=True)

    def _title(self) -> str:
        from dpstune.report.progress import format_value

        method, seed = self.result["method"]["name"], self.result["seed"]
        return f"{self.result['recipe']}, {method}, seed {seed}: {self.metric} {format_value(self.value)}"


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Result):
    """A sweep's finished runs; its table has a row a point.

    Args:
        report: The HTML page.
        runs: The runs' folders.
        best_run: The folder of the best run of the best point.
        failed: The runs that could not be finished, by method, settings and seed, with their errors. The column
            ``failed`` of the table counts finished ones that learned nothing.
    """

    report: Path = Path()
    runs: Sequence[Path] = field(default=())
    best_run: Path = Path()
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Path | None:
        """The model of the best run of the best point; None where weights were not kept."""
        model = self.best_run / "model"
        return model if model.is_dir() else None

    @property
    def picture(self) -> Path | None:
        """Every seed at each method's best point."""
        return self.folder / "best-points.png"

    def _title(self) -> str:
        left = f", {len(self.failed)} could not be finished (see .failed)" if self.failed else ""
        return f"{counted(len(self.runs), 'run')}{left}"


@dataclass(frozen=True, eq=False, repr=False)
class CaseStudyResult(Result):
    """A case study; its table has a row a method.

    Args:
        report: The HTML page, to look through the examples.
    """

    report: Path = Path()

    @property
    def picture(self) -> Path | None:
        """Proportions of easy and of hard examples."""
        return self.folder / "figure.png"

    @property
    def examples(self) -> pd.DataFrame:
        """Every example, with how many restarts of each method get it right."""
        return _read_csv(self.folder / "examples.csv")

    @property
    def wrong_labels(self) -> pd.DataFrame:
        """The examples whose labels are likely wrong, the likeliest first; ids and labels are texts."""
        return _read_wrong_labels(self.folder / "wrong_labels.csv")


@dataclass(frozen=True, eq=False, repr=False)
class EvaluateResult(Result):
    """A model's scores on a task; its table has a row a split.

    Args:
        metric: The headline metric.
        labels: How the model's labels were read there; None for regression.
        interval: The 95% interval of ``value``, by bootstrap over rows; None twice where it is undefined.
        groups: How many groups were drawn for it; None where rows were.
        answers: The parts of ``predictions``.
    """

    metric: str = ""
    labels: str | None = None
    interval: tuple[float | None, float | None] = (None, None)
    answers: Sequence[pd.DataFrame] = ()
    groups: int | None = None

    @property
    def model(self) -> Path:
        """The model that was scored."""
        return self.folder

    @property
    def value(self) -> float | None:
        """The headline metric on the first split."""
        value: float | None = self.rows[0].get(self.metric)
        return value

    @property
    def predictions(self) -> pd.DataFrame:
        """What it answered: split, id, label, prediction, and ``score_LABEL`` for each label, or ``score`` of values.

        Scores are the model's outputs: before the softmax, or before the sigmoid where labels are several.
        """
        import pandas as pd

        return pd.concat(list(self.answers), ignore_index=True)

    def _title(self) -> str:
        from dpstune.report.progress import format_value
        from dpstune.report.tables import with_interval

        low, high = self.interval
        if low is None or high is None:
            return f"{self.metric} {format_value(self.value)}"
        return f"{self.metric} {with_interval(self.value, low, high, groups=self.groups)}"


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult(Result):
    """How far fine-tuning moved representations; its table has a row a point.

    Args:
        report: The HTML page.
        layer_rows: The rows of ``layers``.
    """

    report: Path = Path()
    layer_rows: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def layers(self) -> pd.DataFrame:
        """Linear CKA and mean cosine with the pre-trained model, a row a run and layer; layer 0 is the embeddings."""
        import pandas as pd

        return pd.DataFrame(list(self.layer_rows))

    @property
    def picture(self) -> Path | None:
        """Both over the layers, a line a method."""
        return self.folder / "layers.png"


@dataclass(frozen=True, eq=False, repr=False)
class FitResult(Result):
    """What a fit found; its table has a row a candidate.

    Args:
        found: The content of its fit.json.
        report: The HTML page.
    """

    found: Mapping[str, Any] = field(default_factory=dict)
    report: Path = Path()

    @property
    def model(self) -> Path:
        """The winner, trained on all rows: a plain transformers folder.

        It is that of the fit's own folder, unless the fit went on since and left another one there.
        """
        return self._place / "model"

    @property
    def recipe(self) -> Path:
        """The recipe that trains the winner again."""
        return self._place / "recipe.yaml"

    @property
    def _place(self) -> Path:
        now = read_json(self.folder / "fit.json") or {}
        final = self.found.get("final_run")
        return self.folder if final is None or now.get("final_run", final) == final else Path(final)

    @property
    def metric(self) -> str:
        """The name of the headline metric."""
        return str(self.found["metric"])

    @property
    def value(self) -> float | None:
        """The headline metric on rows that took no part in the choice."""
        value: float | None = self.found["score"]["value"]
        return value

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Its 95% interval."""
        return self.found["score"]["low"], self.found["score"]["high"]

    @property
    def wrong_labels(self) -> pd.DataFrame | None:
        """The rows whose labels are likely wrong, the likeliest first; None where labels are values.

        Ids and labels are texts. ``id`` is the row's name in the data frame's index, unless the frame has a column of
        ids.
        """
        file = self.folder / "wrong_labels.csv"
        return _read_wrong_labels(file) if file.exists() else None

    @property
    def picture(self) -> Path | None:
        """Each candidate's score on each part."""
        return self.folder / "candidates.png"

    def _title(self) -> str:
        return " ".join(self.found.get("answer", ()))


def prediction_frame(split: str, columns: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> pd.DataFrame:
    """Return the columns of a predictions file as a data frame, with a column for each label's score."""
    import pandas as pd

    scores = pd.DataFrame(list(columns["scores"]))
    names = labels if len(labels) == scores.shape[1] else scores.columns
    scores.columns = pd.Index([f"score_{name}" for name in names] if scores.shape[1] > 1 else ["score"])
    plain = {key: list(values) for key, values in columns.items() if key != "scores"}
    return pd.concat([pd.DataFrame({"split": split, **plain}), scores], axis=1)


def _read_wrong_labels(file: Path) -> pd.DataFrame:
    from dpstune.report.wrong_labels import read_list

    text, separator = read_list(file.read_bytes())
    return _read_csv(StringIO(text), separator)


def _read_csv(source: Path | StringIO, separator: str = ",") -> pd.DataFrame:
    import pandas as pd

    found = pd.read_csv(source, sep=separator, keep_default_na=False, dtype=dict.fromkeys(_OF_TEXTS, str))
    return found.assign(**{column: found[column].map(read_cell) for column in _SHOWN if column in found})
