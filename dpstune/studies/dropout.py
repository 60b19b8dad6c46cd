"""The dropout of methods that are compared: one for all, or each by its own rule; and which each of them had.

DPS and mixout switch dropout off by their own rule, plain fine-tuning has the model's. So a table in which each method
follows its rule compares dropouts as much as methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dpstune.errors import DpstuneError, RequestError
from dpstune.methods import BASELINE, build_method, needs_own_dropout
from dpstune.recipe.draft import split_override
from dpstune.recipe.yaml_text import read_value
from dpstune.studies.grid import load_first, parse_method

if TYPE_CHECKING:
    from dpstune.studies.records import RunRecord
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest

MATCH, OWN = "match", "own"
_KEY = "model.dropout"


def settle_dropout(request: SweepRequest, asked: str | None) -> SweepRequest:
    """Return the request of a study with the dropout that its methods are to have.

    Where one dropout is for all, vanilla is among the methods; it is added if it is not named.

    Args:
        request: The study, each method by its own rule.
        asked: ``match``: the recipe's ``model.dropout`` for all, 0 if it has none; ``own``: each method's own rule; a
            number: this for all. None: ``match`` if several methods are compared and nothing else says a dropout, but
            a study that was begun with ``own`` stays as it is; otherwise ``own``.

    Raises:
        RequestError: ``asked`` is none of these; or the request sets ``model.dropout``, too; or ``own``, and the recipe
            sets it; or see ``Sweep``.
    """
    given = _given(request)
    if asked is not None and given:
        raise RequestError(f"--dropout {asked}: {given[0]} sets the dropout, too; leave out one of the two")
    number = None if asked in (None, MATCH, OWN) else _as_dropout(asked)
    fixed = _fixed(request)
    if asked == OWN and fixed is not None:
        raise RequestError(
            f"--dropout own: recipe {request.recipe} sets model.dropout {fixed:g} for every method; leave out one of "
            "the two"
        )
    if asked == OWN or (asked is None and (given or fixed is not None or not compares(request))):
        return request
    named = [parse_method(each)[0] for each in request.methods]
    methods = request.methods if BASELINE in named else (*request.methods, BASELINE)
    matched = replace(request, methods=methods, dropout=(fixed or 0.0) if number is None else number)
    return request if asked is None and _is_begun(request) and not _is_begun(matched) else matched


def as_flag(request: SweepRequest) -> str | None:
    """Return what ``--dropout`` has to be for the same study, whatever was begun before; None where it may be left out.

    Args:
        request: A study whose dropout is settled.
    """
    if request.dropout is not None:
        return str(request.dropout)
    return OWN if compares(request) and not _given(request) and _fixed(request) is None else None


def compares(request: SweepRequest) -> bool:
    """Tell whether a study is of several methods; what wraps another is another method with another one inside."""
    inside = ("method.of=", "method.of.name=")
    found = (
        (name, [each for each in own if each.startswith(inside)]) for name, own in map(parse_method, request.methods)
    )
    return len({(name, *wrapped) for name, wrapped in found}) > 1


def planned_dropout(sweep: Sweep) -> str | None:
    """Say, before a study runs, which dropout its methods will have.

    None where only one method runs, or where the grid itself varies the dropout.
    """
    if sweep.request.dropout is not None:
        return f"dropout {sweep.request.dropout:g} for every method{_but(sweep.with_own_dropout())}"
    if not compares(sweep.request) or any(flag == "grid" for flag, _ in _setting_dropout(sweep.request)):
        return None
    if sweep.fixed_dropout is not None:
        return f"dropout {sweep.fixed_dropout:g} for every method"
    return "dropout: each method's own rule, which the report names; --dropout match gives every method the same"


def found_dropout(records: Sequence[RunRecord]) -> str | None:
    """Say which dropout the methods of some runs had; None where they are of one method."""
    found = dropout_by_method(records)
    if len(found) < 2:
        return None
    needing = {
        _called(record)
        for record in records
        if record.recipe.model.dropout is None and needs_own_dropout(record.recipe.method)
    }
    others = [set(values) for method, values in found.items() if method not in needing] or list(
        map(set, found.values())
    )
    if all(values == others[0] for values in others):
        own = sorted(method for method in needing if set(found[method]) != others[0])
        same = next(values for values in found.values() if set(values) == others[0])
        return f"Dropout {_any_of(same)} for every method{_but(own)}."
    each = "; ".join(f"{method} {_any_of(values)}" for method, values in found.items())
    return f"Dropout is not the same for every method: {each}. So the table compares dropouts, too."


def dropout_by_method(records: Sequence[RunRecord]) -> dict[str, list[float | None]]:
    """Return the dropouts that each method's runs had, without repeats; None stands for the model's own."""
    found: dict[str, list[float | None]] = {}
    for record in records:
        values = found.setdefault(_called(record), [])
        if (value := dropout_of(record)) not in values:
            values.append(value)
    return found


def dropout_of(record: RunRecord) -> float | None:
    """Return the dropout that a run's model was built with; None for the model's own."""
    if record.recipe.model.dropout is not None:
        return record.recipe.model.dropout
    try:
        return build_method(record.recipe.method).dropout(_planned_steps(record))
    except RequestError:  # a method whose library is not installed here
        return None


def _called(record: RunRecord) -> str:
    """Return the method's name; of one that wraps another, both."""
    return " of ".join(record.recipe.method.names)


def _any_of(dropouts: Sequence[float | None]) -> str:
    return " or ".join(map(_in_words, dropouts))


def _in_words(dropout: float | None) -> str:
    """Return a dropout for people.

    >>> _in_words(0.1), _in_words(None)
    ('0.1', "the model's own")
    """
    return "the model's own" if dropout is None else f"{dropout:g}"


def _but(own: Sequence[str]) -> str:
    return f", but for {' and '.join(own)}: the loss needs dropout, which method.dropout sets" if own else ""


def _setting_dropout(request: SweepRequest) -> list[tuple[str, str]]:
    """Return what of a request sets the model's dropout: ``set`` or ``grid``, and the text after the flag."""
    given = [*(("set", each) for each in request.overrides), *(("grid", each) for each in request.grid)]
    return [(flag, each) for flag, each in given if _sets_dropout(each)]


def _sets_dropout(override: str) -> bool:
    """Tell whether ``KEY=VALUES`` says the model's dropout, by its own key or in a mapping for the whole section."""
    key, text = split_override(override)
    if key != "model" or text is None:
        return key == _KEY
    try:
        values = read_value(f"[{text}]", override)
    except RequestError:  # whoever loads the recipe tells it
        return False
    return any(isinstance(value, dict) and "dropout" in value for value in values)


def _fixed(request: SweepRequest) -> float | None:
    """Return the dropout that the recipe says for every method; None where it says none."""
    return load_first(request.recipe, request.methods, request.overrides, request.data_dir).recipe.model.dropout


def _given(request: SweepRequest) -> list[str]:
    return [f"--{flag} {each}" for flag, each in _setting_dropout(request)]


def _as_dropout(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1.0:
        raise RequestError(f"--dropout {text}: should be match, own, or a number from 0 to below 1")
    return value + 0.0  # -0.0 is 0.0


def _is_begun(request: SweepRequest) -> bool:
    from dpstune.studies.sweep.sweep import Sweep

    sweep = Sweep(request)
    try:
        return sweep.is_begun
    except DpstuneError:  # data, model or database may be within other machines' reach alone
        return False


def _planned_steps(record: RunRecord) -> int:
    """Return the steps that a run was planned with: more than it took, where patience ended it."""
    training, last = record.recipe.training, record.result.get("last", {})
    if training.steps is not None:
        return training.steps
    if training.epochs is None or not last.get("epoch"):
        return int(record.result["steps"])
    steps_per_epoch = float(last["step"]) / float(last["epoch"])
    return round(steps_per_epoch * training.epochs)
