"""``dpstune.predict``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import as_columns, as_count_or_none, shown
from dpstune.api.evaluate import ModelLike, model_folder
from dpstune.api.frames import frame_rows, readable_row
from dpstune.api.guest import guest
from dpstune.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


@guest
def predict(
    model: ModelLike,
    rows: pd.DataFrame | pd.Series[str] | Sequence[str] | Sequence[tuple[str, str]] | Sequence[Mapping[str, Any]],
    *,
    text: str | Sequence[str] | None = None,
    max_length: int | None = None,
) -> pd.DataFrame:
    """Label rows, with scores.

    Args:
        model: A run's folder, a local model folder, or what ``train``, ``fit`` or ``sweep`` returned.
        rows: A data frame, or a list (or series) of texts, of pairs of texts, or of mappings by column.
        text: The one or two text columns of a data frame or of mappings; those the model was trained on.
        max_length: Tokens an example is cut to; the run's.

    Returns:
        The rows with columns ``prediction`` and ``score_LABEL``; of regression with the former alone. A data frame
        keeps its index and its columns, a series its index. Labels are texts, also where those of the training rows
        were numbers: 1 and 1.0 are ``"1"``, True is ``"True"``.

    Raises:
        RequestError: There is no such model or column, a row has no text, ``rows`` is no list, or it has a column that
            would be overwritten.
        RunError: A score is not finite.

    >>> import dpstune
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> found = dpstune.predict(run, [("A cat sleeps.", "An animal sleeps.")])
    >>> found.columns.tolist()[2:]
    ['prediction', 'score_entailment', 'score_neutral', 'score_contradiction']
    """
    import pandas as pd

    from dpstune.evaluation.prediction import predict_rows, refuse_taken
    from dpstune.evaluation.trained import TrainedModel, find_trained
    from dpstune.settings.sections import FEWEST_TOKENS

    columns, listed = as_columns(text), _as_mappings(rows)
    index = rows.index if isinstance(rows, pd.Series) else None
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(listed, index)
    place = find_trained(model_folder(model))
    trained = TrainedModel(place, as_count_or_none("max_length", max_length, FEWEST_TOKENS))
    scores = {label: f"score_{label}" for label in trained.label_names}
    refuse_taken(map(str, frame.columns), ["prediction", *scores.values()], "rows")
    found = list(predict_rows(trained, enumerate(map(readable_row, listed)), "rows", columns))
    added = {column: [each.scores[label] for each in found] for label, column in scores.items()}
    return frame.assign(prediction=[each.prediction for each in found], **added)


def _as_mappings(rows: Any) -> list[dict[Any, Any]]:
    """Return rows by column, whatever they were given as."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return frame_rows(rows)
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise RequestError(f"rows={shown(rows)}: should be a data frame or a list, for example [text]")
    return [_as_mapping(row, f"rows:{number}") for number, row in enumerate(rows)]


def _as_mapping(row: Any, place: str) -> dict[Any, Any]:
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, list | tuple) and len(row) == 2:
        return {"text1": row[0], "text2": row[1]}
    raise RequestError(f"{place} is {shown(row)}; it should be a text, a pair of texts or a mapping by column")
