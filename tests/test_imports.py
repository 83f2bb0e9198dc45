"""Imports run downwards only, as CONTRIBUTING.md's table has the rooms, and in no circle.

Those inside of functions and for type checkers count too: a circle that is only put off is one.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


def modules(source: Path) -> dict[str, Path]:
    """Each module's file, by its dotted name."""
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it; of `from a import b` both a and a.b,
    as b may be a module."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(source: Path) -> dict[str, set[str]]:
    """What each module imports of the others."""
    known = modules(source)
    return {name: {*imports(name, path)} & known.keys() for name, path in known.items()}


def room(module: str) -> str:
    """The room of a module, the empty one of the package itself."""
    return [*module.split("."), ""][1]


def rooms() -> list[set[str]]:
    """Rows of the table, from the lowest on."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z]+(?:/|\.py)`(?:, )?)+) \|", text, re.M)
    return [set(re.findall(r"`([a-z]+)", row)) for row in rows]


def circle(found: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, empty where there is none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle() -> None:
    assert circle(graph(SOURCE)) == []


def test_no_import_goes_up() -> None:
    height = {name: at for at, row in enumerate(rooms()) for name in row}
    found = graph(SOURCE)
    assert {room(name) for name in found} == height.keys() | {"", "__main__"}
    upward = [
        (name, other)
        for name, others in found.items()
        for other in others
        if height.get(room(other), -1) > height.get(room(name), len(height))
    ]
    assert upward == []


@pytest.mark.parametrize(
    "text",
    [
        "from teleflm.b import x",
        "import teleflm.b",
        "from teleflm import b",
        "from .b import x",
        "from . import b",
        "def f():\n    from teleflm.b import x",
        "if TYPE_CHECKING:\n    import teleflm.b",
    ],
)
def test_it_finds_a_circle_however_it_is_written(tmp_path: Path, text: str) -> None:
    package = tmp_path / "teleflm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(text, encoding="utf-8")
    (package / "b.py").write_text("import teleflm.a", encoding="utf-8")
    assert set(circle(graph(tmp_path))) == {"teleflm.a", "teleflm.b"}
