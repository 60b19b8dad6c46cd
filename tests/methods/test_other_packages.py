"""Methods that another package offers, by its entry points."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from pydantic import Field

from dpstune.errors import RequestError
from dpstune.evaluation.trained import find_trained
from dpstune.methods import GROUP, REGISTRY, build_method, foreign_code, method_class
from dpstune.recipe.recipe import load_recipe, load_run_recipe
from dpstune.recipe.schema import UnknownMethod, recipe_schema

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"
CODE = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)[1]
LINE = re.search(r'^gradient-noise = "(.*)"$', PAGE.read_text(), flags=re.MULTILINE)[1]


@pytest.fixture
def package(tmp_path):
    """The page's package, as if it were installed; returns what runs a command line beside it."""
    module, _ = LINE.split(":")
    file = tmp_path / "site" / f"{module.replace('.', '/')}.py"
    file.parent.mkdir(parents=True)
    file.write_text(CODE)
    info = tmp_path / "site" / "mymethods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mymethods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ngradient-noise = {LINE}\nvanilla = {LINE}\n")
    paths = os.pathsep.join([str(tmp_path / "site"), str(PAGE.parents[1])])

    def run(*arguments):
        words = [sys.executable, "-m", "dpstune", *map(str, arguments)]
        return subprocess.run(
            words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
        )

    run.file = file
    return run


@pytest.fixture
def offered(monkeypatch):
    """Offer a class, or anything else, as a method of another package."""

    def offer(name, thing, value="elsewhere:Thing"):
        module = ModuleType("elsewhere")
        module.Thing = thing
        monkeypatch.setitem(sys.modules, "elsewhere", module)
        monkeypatch.setitem(REGISTRY, name, EntryPoint(name, value, GROUP))

    return offer


@pytest.mark.slow
def test_the_pages_method_is_there_for_every_command(package, tiny_task, tmp_path):
    short = ("--set", "training.steps=3", "--set", "training.warmup_steps=1")
    done = package("train", "--recipe", tiny_task, "--method", "gradient-noise", "--set", "method.eta=0.5", *short)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*/gradient-noise/seed-*")
    grid = ("--grid", "method.eta=0.1,0.2", "--seeds", 2, "--jobs", 2)
    swept = package("sweep", "--recipe", tiny_task, "--method", "gradient-noise", "--method", "vanilla", *grid, *short)
    assert swept.returncode == 0, swept.stderr
    assert len([*(tmp_path / "runs").glob("*/gradient-noise/seed-*")]) == 5
    wrapped = package("train", "--recipe", tiny_task, "--method", "ema", "--set", "method.of=gradient-noise", *short)
    assert wrapped.returncode == 0, wrapped.stderr
    schema = json.loads(package("recipes", "schema").stdout)
    assert "eta" in schema["$defs"]["gradient-noise"]["properties"]
    assert "seed-" in package("eval", run, "--json").stdout
    listed = package("methods")
    assert re.search(r"^gradient-noise +mymethods +Normal noise of variance", listed.stdout, flags=re.MULTILINE)
    assert re.search(r"^vanilla +dpstune ", listed.stdout, flags=re.MULTILINE)
    assert "method.eta: number; 0.01 by default" in package("methods", "gradient-noise").stdout

    before = {*run.parent.glob("seed-*")}
    again = package("train", "--recipe", tiny_task, "--method", "gradient-noise", "--set", "method.eta=0.5", *short)
    assert "finished already" in again.stderr
    package.file.write_text(CODE.replace("0.55", "0.5"))
    again = package("train", "--recipe", tiny_task, "--method", "gradient-noise", "--set", "method.eta=0.5", *short)
    assert again.returncode == 0, again.stderr
    assert len({*run.parent.glob("seed-*")} - before) == 1


@pytest.mark.slow
def test_a_run_can_be_used_where_its_method_is_not_known(package, run, tiny_task, tmp_path):
    done = package(
        "train", "--recipe", tiny_task, "--method", "gradient-noise", "--set", "training.steps=2", "--set",
        "training.warmup_steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (trained,) = (tmp_path / "runs").glob("*/gradient-noise/seed-*")
    result = json.loads((trained / "result.json").read_text())
    code, out, err = run("eval", trained, "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"] == result["last"]["metrics"]
    assert run("predict", trained / "model", tiny_task.parent / "validation.csv")[0] == 0
    code, _, err = run("train", "--recipe", trained / "recipe.yaml")
    assert code == 2
    assert "unknown method 'gradient-noise'" in err
    method = find_trained(trained).recipe.method
    assert isinstance(method, UnknownMethod)
    assert method.model_dump() == {"name": "gradient-noise", "eta": 0.01}


def test_a_name_of_dpstunes_own_stays_its_own(package):
    done = subprocess.run(
        [sys.executable, "-c", "from dpstune.methods import REGISTRY as r; print(r['vanilla'], 'gradient-noise' in r)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package.file.parents[1]), str(PAGE.parents[1])])},
    )
    assert done.stdout == "vanilla:Vanilla True\n", done.stderr


def test_its_code_is_part_of_what_a_run_is(offered):
    vanilla = method_class("vanilla")
    config = type("OtherConfig", (vanilla.config_class,), {"__annotations__": {"name": str}, "name": "other"})
    offered("other", type("Other", (vanilla,), {"config_class": config, "__module__": __name__}))
    assert foreign_code(build_method("vanilla").config) == {}
    assert foreign_code(build_method("other").config).keys() == {"other"}
    assert foreign_code(build_method({"name": "ema", "of": "other"}).config).keys() == {"other"}


def test_what_cannot_be_imported_or_is_no_method_is_one_line(offered):
    offered("broken", None, "no_such_module:Thing")
    with pytest.raises(RequestError, match=r"^method broken, which .* offers as no_such_module:Thing, cannot be imp"):
        build_method("broken")
    offered("broken", int)
    with pytest.raises(RequestError, match=r"is no class derived from dpstune\.methods\.base\.Method"):
        build_method("broken")
    offered("broken", method_class("vanilla"))
    with pytest.raises(RequestError, match="the name in its config should be 'broken', by default"):
        build_method("broken")


def test_an_unknown_method_is_what_is_told_whatever_its_keys():
    with pytest.raises(RequestError, match="unknown method 'score-mask'"):
        load_recipe("demo", method="score-mask", overrides=["method.keep=0.5"])


@pytest.mark.parametrize(
    "method",
    ["{name: ema, of: {name: score-mask, keep: 0.5}}", "{name: score-mask, keep: 0.5}", "{name: broken, a: [1]}"],
)
def test_a_run_of_one_that_cannot_be_had_is_read(offered, tmp_path, method):
    offered("broken", None, "no_such_module:Thing")
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: {{name: minilm}}\ntask: toy-nli\nmethod: {method}\n")
    assert isinstance(load_run_recipe(file).method, UnknownMethod)
    assert "$defs" in recipe_schema()
    with pytest.raises(RequestError, match=r"unknown method 'score-mask'|cannot be imported"):
        load_recipe(str(file))


def test_a_method_is_built_of_its_name_and_of_itself():
    assert build_method("dps-mix").config == build_method({"name": "dps-mix"}).config
    method = build_method("mixout")
    assert build_method(method) is method


def test_the_page_of_one_shows_keys_of_any_kind(offered, run):
    vanilla = method_class("vanilla")

    class OtherConfig(vanilla.config_class):
        name: Literal["other"] = "other"
        rates: list[float] = Field(default_factory=lambda: [0.5, 1.0])
        most: float | None = None
        least: int

    class Other(vanilla):
        """What it is, in a line
        and a half.

        How it is.

        Example:
            >>> 1 / 0
        """

        config_class = OtherConfig

    offered("other", Other)
    code, out, _ = run("methods", "other")
    assert code == 0
    assert out.startswith("What it is, in a line and a half.\n\nHow it is.\n\nIt is a method of the package ")
    assert "method.rates: list; [0.5, 1.0] by default\n" in out
    assert "method.most: number|null; null by default\n" in out
    assert "method.least: integer; must be given\n" in out
    assert "Example" not in out


def test_one_whose_keys_cannot_be_shown_is_left_out_of_the_list(offered, run):
    vanilla = method_class("vanilla")
    keys = {"name": Literal["other"], "of": Callable[[int], int]}
    config = type("OtherConfig", (vanilla.config_class,), {"__annotations__": keys, "name": "other", "of": abs})
    offered("other", type("Other", (vanilla,), {"config_class": config}))
    code, out, err = run("methods")
    assert (code, "dps-mix" in out) == (0, True)
    assert "left out: the keys of method other, of another package, cannot be shown" in err
    assert "$defs" in recipe_schema()


def test_the_list_of_methods_says_which_cannot_be_had(offered, run):
    offered("broken", None, "no_such_module:Thing")
    code, out, err = run("methods")
    assert code == 0
    assert "broken" not in out
    assert "left out: method broken, which another package offers as no_such_module:Thing, cannot be imported" in err
    assert run("methods", "broken")[0] == 2
