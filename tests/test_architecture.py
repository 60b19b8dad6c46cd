"""The rooms of docs/architecture.md are the folders of dpstune/, and imports run one way between them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
FILES = sorted((ROOT / "dpstune").rglob("*.py"))


def room(module):
    """Return the room of ``dpstune.ROOM.FILE``; the package itself, which only passes names on, has none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path):
    """Yield every module of dpstune that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "dpstune" else [f"dpstune.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("dpstune."))


def test_the_page_lists_every_room():
    names = [path.name for path in (ROOT / "dpstune").iterdir()]
    own = {name.removesuffix(".py") for name in names if not name.startswith(("_", "."))}
    data = {"recipes"}  # in a wheel the recipes' YAML lies there
    assert set(ROOMS) == own - data - {"py.typed"}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    here = room(module_of(path))
    if here in (None, "__main__"):
        return
    below = [
        f"{module_of(path)} imports {module}"
        for module in imports(path)
        if room(module) in ROOMS and ROOMS.index(room(module)) > ROOMS.index(here)
    ]
    assert not below


def test_no_file_waits_for_itself():
    graph = {module_of(path): set(imports(path)) for path in FILES}
    done, open_ = set(), []

    def visit(module):
        if module in done or module not in graph:
            return
        assert module not in open_, f"a circle: {' -> '.join([*open_[open_.index(module) :], module])}"
        open_.append(module)
        for other in sorted(graph[module]):
            visit(other)
        done.add(open_.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize("path", re.findall(r"`(\w+(?:/\w+)*\.py)`", PAGE))
def test_files_that_the_page_names_are_there(path):
    assert (ROOT / path).is_file() or (ROOT / "dpstune" / path).is_file()
