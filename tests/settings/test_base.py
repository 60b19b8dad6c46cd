from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from dpstune.errors import RequestError
from dpstune.settings.base import Settings, check_settings


class Inner(Settings):
    depth: Annotated[int, Field(ge=1)] = 1
    betas: tuple[float, float] = (0.9, 0.999)
    names: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=2)] = ("a",)


class Outer(Settings):
    learning_rate: Annotated[float, Field(gt=0.0)]
    noise: Literal["normal", "uniform"] = "normal"
    inner: Inner = Inner()

    @field_validator("learning_rate")
    @classmethod
    def _is_no_typo(cls, value):
        if value >= 1:
            raise ValueError("a rate of 1 or more is a typo")
        return value


def refused(values):
    """Return the one line that refuses values."""
    with pytest.raises(RequestError) as error:
        check_settings(Outer, values, place="method mine")
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__
    return str(error.value)


def test_what_is_right_is_returned_with_defaults_filled_in():
    checked = check_settings(Outer, {"learning_rate": 0.5, "inner": {"depth": 3}}, place="x")
    assert checked == Outer(learning_rate=0.5, noise="normal", inner=Inner(depth=3, betas=(0.9, 0.999), names=("a",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learning_rate": 0.1, "nosie": "normal"},
            "method mine: nosie: unknown key 'nosie'; did you mean 'noise'?",
        ),
        (
            {"learning_rate": 0.1, "zzz": 1},
            "method mine: zzz: unknown key 'zzz'; known keys: learning_rate, noise, inner",
        ),
        (
            {"learning_rate": 0.1, "depth": 1},
            "method mine: depth: unknown key 'depth'; did you mean 'inner.depth'?",
        ),
        (
            {"learning_rate": 0.1, "inner": {"dept": 1}},
            "method mine: inner.dept: unknown key 'dept'; did you mean 'depth'?",
        ),
        (
            {"learning_rate": 0.1, "inner": {"zzz": 1}},
            "method mine: inner.zzz: unknown key 'zzz'; known keys: depth, betas, names",
        ),
        ({}, "method mine: learning_rate: key 'learning_rate' is missing"),
        (
            {"learning_rate": 0.0},
            "method mine: learning_rate: should be greater than 0, not 0.0",
        ),
        (
            {"learning_rate": 0.1, "noise": "loud"},
            "method mine: noise: should be 'normal' or 'uniform', not 'loud'",
        ),
        (
            {"learning_rate": 0.1, "inner": {"depth": 0}},
            "method mine: inner.depth: should be greater than or equal to 1, not 0",
        ),
        (
            {"learning_rate": 0.1, "inner": {"betas": [0.9]}},
            "method mine: inner.betas: has too few values",
        ),
        (
            {"learning_rate": 0.1, "inner": {"names": ["a", "b", "c"]}},
            "method mine: inner.names: should be at most 2 values, not ['a', 'b', 'c']",
        ),
        (
            {"learning_rate": 0.1, "inner": {"names": []}},
            "method mine: inner.names: should be at least 1 value, not []",
        ),
        (
            {"learning_rate": 0.1, "inner": {"names": [""]}},
            "method mine: inner.names.0: should be at least 1 character, not ''",
        ),
        ({"learning_rate": None}, "method mine: learning_rate: should be a valid number, not null"),
        (
            {"learning_rate": 0.1, "inner": {"depth": ["x" * 5000]}},
            f"method mine: inner.depth: should be a valid integer, not ['{'x' * 77}…",
        ),
        ({"learning_rate": 2.0}, "method mine: learning_rate: a rate of 1 or more is a typo"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(values, message):
    assert refused(values) == message


def test_a_misspelt_key_is_told_before_the_key_that_is_missing_for_it():
    assert refused({"learning_rat": 0.1}).endswith("unknown key 'learning_rat'; did you mean 'learning_rate'?")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    message = refused({"learning_rate": 0.1, "inner": {"betas": [0.9, value]}})
    assert message == f"method mine: inner.betas.1: should be a finite number, not {value}"


def test_settings_cannot_be_changed_once_checked():
    checked = Outer(learning_rate=0.1)
    with pytest.raises(ValidationError, match="frozen"):
        checked.learning_rate = 0.2
    assert checked.learning_rate == 0.1
