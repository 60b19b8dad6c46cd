"""``dpstune check``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpstune.commands.options import AsJson, DataDir, SecondTextColumn, TextColumn, tell_of_the_hub, text_pair
from dpstune.common.paths import expanded
from dpstune.errors import RequestError, RunError, counted, did_you_mean, some_of
from dpstune.report.output import print_json, tell

if TYPE_CHECKING:
    from dpstune.data.lengths import Lengths
    from dpstune.data.reading import RawTask
    from dpstune.settings.sections import ModelSection
    from dpstune.settings.tasks import Kind

USUAL_MODEL = "minilm"
USUAL_MAX_LENGTH = 128


@dataclass(frozen=True)
class _Subject:
    """What is checked.

    Args:
        task: As it is written.
        model: The recipe's; None for a file.
        max_length: Where training would cut.
        standardised: Whether training standardises the values of regression.
    """

    task: RawTask
    model: ModelSection | None
    max_length: int
    standardised: bool = False


def check(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RECIPE", help="A table of rows, or a dataset's id or folder; or a recipe's name or YAML file."
        ),
    ],
    text: TextColumn = None,
    text2: SecondTextColumn = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The label column of DATA.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Rows that belong together, such as those of one author.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME", help="The configuration of a dataset of the hub.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Whose tokens are counted: the recipe's, or minilm.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Tokens an example is cut to: the recipe's, or 128.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="What DATA is in; UTF-8, or what its byte-order mark says.")
    ] = None,
    data_dir: DataDir = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 where there is an error or a warning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at data before it is trained on, and say what is wrong with it.

    Example: dpstune check tickets.csv --text message --label topic
    """
    from dpstune.data.checking import check_task
    from dpstune.data.files import FILE_FORMATS, form_of, names_a_dataset
    from dpstune.recipe.finding import may_be_a_recipe, shipped_recipes
    from dpstune.report.check_report import print_findings
    from dpstune.settings.base import check_settings
    from dpstune.settings.sections import ModelSection

    first, second = text_pair(text, text2)
    columns = {"--text": first, "--text2": second, "--label": label}
    if names_a_dataset(subject) and subject not in shipped_recipes():
        about = _read_dataset(subject, columns, group, config, {"--encoding": encoding, "--data-dir": data_dir})
    elif form_of(Path(subject)).format in FILE_FORMATS or (any(columns.values()) and not may_be_a_recipe(subject)):
        _refuse(subject, "a file", {"--config": config, "--data-dir": data_dir})
        about = _read_file(subject, columns, group, encoding)
    else:
        _refuse(subject, "a recipe, and says this itself", {**columns, "--encoding": encoding, "--config": config})
        about = _read_recipe(subject, group, data_dir)
    task = about.task
    asked = None
    if model is not None:
        name = str(expanded(model).absolute()) if model.startswith((".", "~")) else model
        asked = check_settings(ModelSection, {"name": name}, place="--model")
    lengths = _lengths(task, asked, about.model, max_length or about.max_length)
    findings = check_task(task, lengths=lengths, standardised=about.standardised)
    rows = {split: len(part.texts) for split, part in task.splits.items()}
    print_findings(subject, rows, findings)
    if as_json:
        print_json({"data": subject, "rows": rows, "findings": [asdict(finding) for finding in findings]})
    counts = [sum(finding.severity == severity for finding in findings) for severity in ("error", "warning")]
    if strict and any(counts):
        raise RequestError(f"{subject}: {counted(counts[0], 'error')} and {counted(counts[1], 'warning')} (--strict)")


def _refuse(subject: str, what: str, flags: dict[str, Any]) -> None:
    """Refuse flags that do not go with what is checked."""
    for flag, value in flags.items():
        if value is not None:
            raise RequestError(f"{flag} {value}: {subject} is {what}; leave {flag} out")


def _read_file(name: str, columns: dict[str, str | None], group: str | None, encoding: str | None) -> _Subject:
    from dpstune.common.textfile import ASK_FOR_AN_ENCODING, known_encoding
    from dpstune.data.columns import guess_columns, read_table, refuse_wrong_names
    from dpstune.data.files import find_files
    from dpstune.data.gold_labels import gaps
    from dpstune.data.reading import RawTask
    from dpstune.data.sources import Columns, read_files
    from dpstune.studies.fit.parts import FOLDS

    encoding = encoding and known_encoding(encoding)
    paths = find_files(expanded(name))
    refuse_wrong_names(columns["--text"], columns["--text2"], columns["--label"])
    if columns["--text"] is not None and columns["--label"] is not None:
        texts = tuple(column for column in (columns["--text"], columns["--text2"]) if column is not None)
        label = columns["--label"]
    else:
        guess = guess_columns(read_table(paths[0], encoding), columns["--text"], columns["--text2"], columns["--label"])
        texts, label = guess.text, guess.label
        for flag, taken, what in (("--text", texts, "text"), ("--label", (label,), "label")):
            if columns[flag] is None:
                columns_are = "column is" if len(taken) == 1 else "columns are"
                tell(f"{name}: the {what} {columns_are} taken to be {some_of(map(repr, taken))}; {flag} names another")
    rows = read_files(paths, Columns(texts, label, group), encoding, ASK_FOR_AN_ENCODING)
    if not rows.texts:
        raise RequestError(f"{name} holds no rows to look at")
    kind: Kind = "multilabel" if rows.first_list is not None else "classification"
    return _Subject(RawTask(kind, {"train": rows}, gaps(kind), texts, label, FOLDS), None, USUAL_MAX_LENGTH)


def _read_dataset(
    name: str, columns: dict[str, str | None], group: str | None, config: str | None, others: dict[str, Any]
) -> _Subject:
    from dpstune.data.files import folder_called
    from dpstune.data.gold_labels import gaps
    from dpstune.data.reading import read_raw
    from dpstune.recipe.finding import shipped_recipes
    from dpstune.settings.base import check_settings
    from dpstune.settings.sections import DataSection, DatasetTask
    from dpstune.studies.fit.parts import FOLDS

    texts = [column for column in (columns["--text"], columns["--text2"]) if column is not None]
    if columns["--text"] is None or columns["--label"] is None:
        missing = f"no recipe and no file is called {name!r}{did_you_mean(name, shipped_recipes())}"
        what = missing if folder_called(name) is None else f"{name} is a folder"
        raise RequestError(f"{what}; of a dataset, name --text and --label, too")
    _refuse(name, "a dataset", others)
    place = {"dataset": folder_called(name) or name, "config": config, "splits": {"train": "train", "folds": FOLDS}}
    tell_of_the_hub(name)
    values = {**place, "text": texts, "label": columns["--label"], "group": group}
    raw = read_raw(check_settings(DatasetTask, values, place=name), DataSection())
    kind: Kind = "classification" if raw.splits["train"].first_list is None else "multilabel"
    return _Subject(replace(raw, kind=kind, unlabelled=gaps(kind)), None, USUAL_MAX_LENGTH)


def _read_recipe(name: str, group: str | None, data_dir: Path | None) -> _Subject:
    from dpstune.data.reading import read_raw
    from dpstune.recipe.recipe import load_recipe
    from dpstune.settings.sections import UserTask

    recipe = load_recipe(name, data_dir=data_dir and expanded(data_dir)).recipe
    task = recipe.task
    if group is not None:
        if not isinstance(task, UserTask):
            raise RequestError(f"--group {group}: only a user's own data has groups, and {name} has a known task")
        task = task.model_copy(update={"group": group})
    return _Subject(read_raw(task, recipe.data), recipe.model, recipe.data.max_length, recipe.training.standardise)


def _lengths(task: RawTask, asked: ModelSection | None, of_recipe: ModelSection | None, max_length: int) -> Lengths:
    """Count tokens with the model that was asked for, the recipe's or minilm; words where no tokenizer can be had."""
    from dpstune.data.lengths import token_lengths, word_lengths
    from dpstune.models.loading import load_tokenizer
    from dpstune.settings.sections import ModelSection

    if asked is not None:
        try:
            return token_lengths(task.splits, load_tokenizer(asked), asked.name, max_length)
        except RunError as error:
            why = str(error).partition(";")[0]
            raise RunError(f"--model {asked.name}: {why}; name a local model folder, or leave it out") from None
    names = dict.fromkeys([*([of_recipe.name] if of_recipe is not None else []), USUAL_MODEL])
    for name in names:
        section = of_recipe if of_recipe is not None and of_recipe.name == name else ModelSection(name=name)
        try:
            return token_lengths(task.splits, load_tokenizer(section), name, max_length)
        except (RequestError, RunError) as error:
            tell(f"no tokens of {name} are counted: {str(error).partition(';')[0]}")
    return word_lengths(task.splits, max_length)
