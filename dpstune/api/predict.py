"""``dpstune.predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpstune.api.evaluate import ModelLike, model_folder

if TYPE_CHECKING:
    import pandas as pd


def predict(
    model: ModelLike,
    rows: pd.DataFrame | Sequence[str] | Sequence[tuple[str, str]] | Sequence[Mapping[str, Any]],
    *,
    text: str | Sequence[str] | None = None,
    max_length: int | None = None,
) -> pd.DataFrame:
    """Label rows, with scores.

    Args:
        model: A run's folder, a local model folder, or what ``train`` or ``fit`` returned.
        rows: A data frame, a list of texts, of pairs of texts, or of mappings by column.
        text: The one or two text columns of a data frame or of mappings; those the model was trained on.
        max_length: Tokens an example is cut to; the run's.

    Returns:
        The rows with columns ``prediction`` and ``score_LABEL``; of regression with the former alone.

    Raises:
        RequestError: There is no such model or column, or a row has no text.
        RunError: A score is not finite.

    >>> import dpstune
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> found = dpstune.predict(run, [("A cat sleeps.", "An animal sleeps.")])
    >>> found.columns.tolist()[2:]
    ['prediction', 'score_entailment', 'score_neutral', 'score_contradiction']
    """
    import pandas as pd

    from dpstune.evaluation.prediction import predict_rows
    from dpstune.evaluation.trained import TrainedModel, find_trained

    trained = TrainedModel(find_trained(model_folder(model)), max_length)
    columns = [text] if isinstance(text, str) else text
    listed = _as_mappings(rows)
    found = [
        {
            **each.row,
            "prediction": each.prediction,
            **{f"score_{label}": score for label, score in each.scores.items()},
        }
        for each in predict_rows(trained, enumerate(listed), "rows", columns)
    ]
    return pd.DataFrame(found)


def _as_mappings(rows: Any) -> list[dict[str, Any]]:
    """Return rows by column, whatever they were given as."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    found: list[dict[str, Any]] = []
    for row in rows:
        if isinstance(row, str):
            found.append({"text": row})
        elif isinstance(row, Mapping):
            found.append(dict(row))
        else:
            first, second = row
            found.append({"text1": first, "text2": second})
    return found
