"""Imports run one way, and rasterio, torch and typer stay where they belong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pansharpen_cli

PACKAGE = Path(pansharpen_cli.__file__).parent
NAME = PACKAGE.name

# A module imports from rows above its own only. A new module needs a place here.
LAYERS = (
    ("__init__", "errors", "interrupts"),
    ("foreign",),
    ("sensors", "recipe", "verdict", "pool", "publish", "whole", "references"),
    ("grid", "physics", "moments", "messages"),
    ("tiles", "losses", "metrics", "models", "simulate", "sensing"),
    ("scene", "classical", "weights", "indices"),
    ("writer", "tailor", "gallery", "pairs", "fidelity"),
    ("fuse", "charts"),
    ("assess", "report", "register"),
    ("job", "stacks", "index"),
    ("batch", "samples", "check"),
    ("cluster", "api"),
    ("objective",),
    ("train",),
    ("cli",),
    ("__main__",),
    ("rio",),
)
LEVEL = {module: level for level, row in enumerate(LAYERS) for module in row}

RASTERS = {
    "errors",
    "foreign",
    "references",
    "publish",
    "messages",
    "whole",
    "sensors",
    "grid",
    "tiles",
    "scene",
    "writer",
    "gallery",
    "pairs",
}
"""Know files and arrays, and no torch."""
TENSORS = {
    "errors",
    "foreign",
    "publish",
    "sensors",
    "physics",
    "moments",
    "losses",
    "metrics",
    "classical",
    "models",
    "weights",
    "tailor",
    "fidelity",
}
"""Know tensors, and no files of pixels."""
ALLOWED = {
    "rasterio": {"grid", "messages", "scene", "writer", "simulate", "api"},
    "affine": {"grid", "scene", "writer", "simulate", "pairs", "api"},
    "xarray": {"api"},
    "click": {"rio"},
    "typer": {"cli"},
    "distributed": {"cluster"},
    "pystac": {"pairs"},
}


def module_of(path: Path) -> str:
    """`models/glpnet.py` belongs to `models`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(tree: ast.AST, path: Path) -> list[str]:
    """Full dotted names of all that is imported anywhere below a node, in functions as well.

    The package itself names its interface to type checkers only, and loads it when it is asked for.
    """
    package = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    unseen = {id(n) for node in ast.walk(tree) if _is_for_types(node, path) for n in ast.walk(node)}
    for node in (n for n in ast.walk(tree) if id(n) not in unseen):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = [*base, *(node.module or "").split(".")] if node.module else base
            found += [".".join([*origin, alias.name]) for alias in node.names]
    return found


def _is_for_types(node: ast.AST, path: Path) -> bool:
    whole = path == PACKAGE / "__init__.py" and isinstance(node, ast.If)
    return whole and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def own(names: list[str]) -> set[str]:
    """Modules of this package among dotted names; what the package itself defines counts as `__init__`."""
    parts = [n.split(".")[1] for n in names if n.split(".")[0] == NAME and "." in n]
    return {p if p in LEVEL or (PACKAGE / f"{p}.py").exists() else "__init__" for p in parts}


SOURCES = sorted(PACKAGE.rglob("*.py"))
sources = pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(PACKAGE)) for p in SOURCES])


def test_all_sources_are_seen():
    assert {"physics", "scene", "fuse", "models", "cli"} <= {module_of(p) for p in SOURCES}


@sources
def test_imports_run_one_way(path):
    module = module_of(path)
    assert module in LEVEL, f"give {module} a place in LAYERS"
    for other in own(imports_of(ast.parse(path.read_text()), path)) - {module}:
        assert LEVEL[other] < LEVEL[module], f"{module} imports {other}"


@sources
def test_networks_import_nothing_but_their_base(path):
    if module_of(path) == "models" and path.stem != "__init__":
        inside = {
            n.split(".")[2] for n in imports_of(ast.parse(path.read_text()), path) if n.startswith(f"{NAME}.models.")
        }
        assert inside <= ({"base"} if path.stem != "base" else set())


@sources
def test_libraries_stay_where_they_belong(path):
    module = module_of(path)
    names = imports_of(ast.parse(path.read_text()), path)
    roots = {n.split(".")[0] for n in names}
    for library, homes in ALLOWED.items():
        assert library not in roots or module in homes, f"{module} imports {library}"
    if module in RASTERS:
        assert not roots & {"torch", "safetensors"}, f"{module} imports torch"
        assert own(names) <= RASTERS | {"__init__"}
    if module in TENSORS:
        assert own(names) <= TENSORS | {"__init__"}


def test_the_command_line_starts_without_the_heavy_libraries():
    code = f"import sys, {NAME}.cli; print(sorted({{'torch', 'rasterio', 'numpy', 'scipy'}} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True, cwd=PACKAGE.parent).stdout.strip() == b"[]"


@pytest.mark.parametrize(("given", "seen"), [(None, "passive"), ("active", "active")])
def test_threads_wait_passively_unless_told_otherwise(given, seen):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = f"import sys, {NAME}, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, check=True, cwd=PACKAGE.parent, env=environment, text=True)
    assert told.stdout.split() == [seen, "False"]
