"""`dpstune methods`: the list, the page of a method, and both for programs."""

import json
import re

import pytest

from dpstune.methods import REGISTRY, build_method, method_class
from dpstune.methods.describing import describe_method


def test_the_list_has_a_line_for_each_method(run):
    code, out, err = run("methods")
    header, *lines = out.splitlines()
    assert (code, header.split()) == (0, ["NAME", "WHAT"])
    assert [line.split()[0] for line in lines] == list(REGISTRY)
    assert all(re.fullmatch(r"\S+ +\S.*\.", line) for line in lines)
    assert "dpstune methods METHOD" in err


@pytest.mark.parametrize("name", REGISTRY)
def test_the_page_of_a_method_has_its_keys_and_no_code(name, run):
    code, out, _ = run("methods", name)
    assert code == 0
    keys = [field.alias or key for key, field in method_class(name).config_class.model_fields.items() if key != "name"]
    assert re.findall(r"^method\.(\w+): ", out, flags=re.MULTILINE) == keys
    assert ("It has no keys." in out) == (not keys)
    for code_alone in (">>>", "``", "Raises:", "Args:", "before_clip", "add_scores"):
        assert code_alone not in out
    assert name == "vanilla" or "Source: " in out
    assert "KL: Kullback-Leibler divergence." in out


@pytest.mark.parametrize("name", REGISTRY)
def test_the_defaults_that_are_shown_are_those_that_a_method_has(name, run):
    _, out, _ = run("methods", name, "--json")
    described = json.loads(out)
    shown = {key["name"]: key["default"] for key in described["keys"]}
    assert build_method({"name": name, **shown}).config == build_method(name).config
    assert all(key["what"] for key in described["keys"])


def test_a_key_is_shown_as_a_recipe_writes_it(run):
    _, out, _ = run("methods", "r3f")
    assert "method.noise: normal|uniform; normal by default\n" in out
    assert "method.detach: true|false; true by default\n" in out
    assert "method.of: a method; vanilla by default\n" in run("methods", "ema")[1]


def test_programs_get_all_methods_at_once(run):
    _, out, err = run("methods", "--json")
    described = json.loads(out)["methods"]
    assert [each["name"] for each in described] == list(REGISTRY)
    assert {each["package"] for each in described} == {"dpstune"}
    assert not err


def test_a_misspelt_method_gets_a_hint(run):
    code, out, err = run("methods", "mixuot")
    assert (code, out) == (2, "")
    assert err == "error: unknown method 'mixuot'; did you mean 'mixout'?\n"


def test_the_description_of_a_method_is_that_of_its_file():
    described = describe_method("sam")
    assert described.what.startswith("SAM: ")
    assert described.how.startswith("Sharpness-aware minimisation.")
    assert described.how.endswith("flax_training.py.")
