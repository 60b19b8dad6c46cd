"""A data frame: its rows, and the file that a fit reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import shown
from dpstune.errors import RequestError, some_of

if TYPE_CHECKING:
    import pyarrow as pa


def write_frame(frame: Any, needed: Mapping[str, Any], more: Sequence[Any], place: Path) -> Path:
    """Write the columns of a data frame that a fit reads; the same rows have the same file.

    A frame without a column of ids has those of its index, unless that only counts rows, or has gaps or equal names.

    Args:
        frame: A pandas data frame.
        needed: The columns it must name, by parameter.
        more: Other columns, None for none.
        place: The folder of such files; only this user can read it.

    Raises:
        RequestError: It is no data frame; a column is not named, not there, there twice, or holds no text.
        RunError: The place is a link, or another user's.
    """
    import hashlib

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dpstune.common.private import make_private_folder
    from dpstune.common.writing import write_atomically, writing_to
    from dpstune.data.sources import ID_COLUMNS, no_column
    from dpstune.data.tables import refuse_what_is_there_twice

    if not isinstance(frame, pd.DataFrame):
        raise RequestError(
            f"a fit takes a file's name or a pandas data frame, not {shown(frame)}; pandas.DataFrame(rows) makes one"
        )
    names = [str(name) for name in frame.columns]
    for parameter, column in needed.items():
        if column is None:
            raise RequestError(
                f"{parameter}= is missing: which column of the data frame holds the {parameter}s? "
                f"there are {some_of(names)}"
            )
    asked = [column for column in (*needed.values(), *more) if column is not None]
    for column in asked:
        if column not in names:
            raise no_column("the data frame", str(column), names)
    kept = [number for number, name in enumerate(names) if name in asked or name in ID_COLUMNS]
    refuse_what_is_there_twice([names[number] for number in kept], "the data frame", "columns")
    columns = {names[number]: frame.iloc[:, number] for number in kept}
    index = pd.Series(list(frame.index), dtype=object)
    if not columns.keys() & set(ID_COLUMNS) and _names_rows(index):
        columns[ID_COLUMNS[0]] = index
    table = pa.table({name: _cells(name, cells) if name in asked else _ids(cells) for name, cells in columns.items()})
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:10]
    file = place / digest / "table.parquet"
    with writing_to(place):
        make_private_folder(place, "choose another place with --output")
    write_atomically(file, lambda beside: pq.write_table(table, beside))
    return file.absolute()


def frame_rows(frame: Any) -> list[dict[str, Any]]:
    """Return a data frame's rows by column; a cell is None where pandas or numpy marks it as missing.

    Raises:
        RequestError: It is no data frame, or two of its columns have one name.
    """
    import pandas as pd

    from dpstune.data.tables import refuse_what_is_there_twice

    if not isinstance(frame, pd.DataFrame):
        raise RequestError(f"{shown(frame)} should be a name, a path or a pandas data frame")
    names = [str(name) for name in frame.columns]
    refuse_what_is_there_twice(names, "the data frame", "columns")
    return [readable_row(row) for row in frame.to_dict("records")]


def readable_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row by its columns' names; a cell that is marked as missing is None, one that is an array a list."""
    return {str(column): _readable(value) for column, value in row.items()}


def _readable(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if isinstance(value, np.ndarray | tuple | set | frozenset):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


def _cells(name: str, column: Any) -> pa.Array:
    """Return a column as Arrow holds it; as texts where it mixes kinds of values, or Arrow's kind is not a text's."""
    import pandas as pd
    import pyarrow as pa

    from dpstune.data.sources import plain_cell

    if isinstance(column.dtype, pd.CategoricalDtype | pd.PeriodDtype | pd.IntervalDtype):
        column = column.astype(object)  # 2020-01 and (0, 3] are written so
    try:
        return pa.array(column, from_pandas=True)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        rows = enumerate(zip(column, column.isna(), strict=True))
        place = "the data frame, row"
        cells = [None if gap else plain_cell({name: value}, name, f"{place} {row}") for row, (value, gap) in rows]
        return pa.array(cells, pa.string())


def _names_rows(index: Any) -> bool:
    """Tell whether an index, as a series, says which row is which, and more than its place."""
    return bool(index.is_unique and index.notna().all() and list(index) != list(range(len(index))))


def _ids(column: Any) -> pa.Array:
    import pyarrow as pa

    cells = zip(column, column.isna(), strict=True)
    return pa.array([None if gap else str(value).encode(errors="replace").decode() for value, gap in cells])
