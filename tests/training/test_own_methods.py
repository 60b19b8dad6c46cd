"""What the loop asks of methods that others write, and says where they do not keep to it."""

import sys
import types
from typing import Literal

import pytest
import torch

from dpstune.errors import RequestError, RunError
from dpstune.methods import REGISTRY, build_method
from dpstune.methods.base import Method, MethodConfig
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine


class OwnConfig(MethodConfig):
    """Settings of the methods below."""

    name: Literal["own"] = "own"
    layers: tuple[int, ...] = (1, 2)
    table: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it


class Own(Method[OwnConfig]):
    """Plain fine-tuning by another name."""

    config_class = OwnConfig


class NotCounting(Own):
    """Forgets the base class's part."""

    def after_update(self):
        pass


class Leaving(Own):
    """Leaves a weight in the model."""

    def acquire(self, model):
        model.register_buffer("mine", torch.zeros(1))


class Unloadable(Own):
    """Keeps a generator."""

    def state_dict(self):
        return {**super().state_dict(), "drawn": [{"by": torch.Generator()}]}


@pytest.fixture
def train(tiny_task, tmp_path, monkeypatch):
    """Train the tiny task for two steps by one of the classes above."""

    def train(cls, *overrides):
        module = types.ModuleType("dpstune.methods.own")
        module.Own = cls
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(REGISTRY, "own", "own:Own")
        settings = ["training.epochs=null", "training.steps=2", "training.warmup_steps=1", *overrides]
        return engine.train(load_recipe(str(tiny_task), method="own", overrides=settings), output=tmp_path)

    return train


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (NotCounting, "method own: its after_update should call super().after_update()"),
        (Leaving, "method own should leave the model's weights under the names that they had; 'mine' is new, or gone"),
        (Unloadable, "method own: state_dict()['drawn'][0]['by'] is of type Generator; a checkpoint holds tensors"),
    ],
)
def test_one_that_would_lose_a_users_work_is_an_error_of_one_line(train, tmp_path, cls, told):
    with pytest.raises(RunError) as refused:
        train(cls)
    if cls is Unloadable:  # before a step is lost
        assert not [path for path in tmp_path.rglob("metrics.jsonl") if path.read_text()]
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_may_be_tuples_and_mappings(train):
    run = train(Own, "method.layers=[3, 4]", "method.table={a: 0.5}")
    assert run.result["method"] == {"name": "own", "layers": [3, 4], "table": {"a": 0.5}}
    assert "own (layers [3, 4], table {'a': 0.5})" in (run.folder / "model" / "README.md").read_text()


def test_averages_are_not_averaged_again():
    class Averaging(Own):
        weights_decide = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpstune.methods.ema.method_class", lambda name: Averaging)
        with pytest.raises(RequestError, match="own already ends with other weights than it trains; give it another"):
            build_method({"name": "ema", "of": "own"})
