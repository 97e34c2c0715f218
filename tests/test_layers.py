"""Imports run one way, and rasterio, torch and typer stay where they belong."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from rasters import write_pair

import pansharpen_cli

PACKAGE = Path(pansharpen_cli.__file__).parent
NAME = PACKAGE.name

# Folders from the bottom up ("" is the package's own), and their files likewise. A file imports from folders above its
# own in this list, and from files before it in its own folder. A new file needs a place here.
FOLDERS = (
    ("", ("__init__ errors interrupts progress tables", "columns untrusted", "publish")),
    (
        "raster",
        (
            "__init__ bands side_files geometry messages tiff values",
            "gdal_files options sensor_table truncated vrt_work",
            "items levels linked no_raster projections tails",
            "references sensors",
        ),
    ),
    ("raster", ("band_kinds packed texts", "vrt_sources", "intact")),
    (
        "raster",
        (
            "grid source tiles",
            "band_choice creation files masks mean_pan rpc warper_view",
            "plain stretch warping",
            "scene",
        ),
    ),
    ("raster", ("blocks grid_groups tags virtual", "overlap writer")),
    ("", ("arguments covariance device physics",)),
    ("models", ("base", "fusionnet glpnet msdcnn pancrafter pannet pantiny pnn u2net", "__init__", "weights")),
    ("classical", ("layers", "method", "bdsd substitution", "multiresolution", "registry", "__init__")),
    ("adapt", ("__init__ losses", "tailor", "sampling")),
    ("fusion", ("__init__ fusers options shifts", "pan_relation saved_fit", "fit overshoot register", "loop")),
    ("report", ("__init__ facts figures pictures", "verdict", "charts files", "sections text", "html", "index")),
    (
        "quality",
        ("__init__ metrics.blocks", "metrics.errors metrics.q2n", "metrics.detail", "metrics.full metrics.reference"),
    ),
    ("quality", ("metrics", "fidelity rasters", "assess", "reference wald")),
    ("jobs", ("__init__ pair picture", "request", "opened", "facts", "evaluate", "fuse")),
    (
        "archive",
        (
            "__init__ names workers",
            "batch_log containers lists places tar_zip",
            "mosaic",
            "pairs planning",
            "neighbours shared_fit",
            "batch",
            "cluster pictures seams",
        ),
    ),
    ("checks", ("__init__ look", "judge", "predict", "check")),
    ("training", ("__init__ landscape scenes sensing settings", "simulate", "sampler", "loss", "train")),
    ("", ("indices simulate",)),
    ("api", ("options result", "inputs", "fusing measuring", "__init__")),
    ("cli", ("__init__ options progress", "printing shell weights", "batch evaluate fuse train", "app")),
    ("", ("__main__", "rio")),
)


def ranks() -> dict[str, tuple[int, int]]:
    """(folder, row of files) of each module by its dotted name within the package."""
    found = {}
    for i, (folder, rows) in enumerate(FOLDERS):
        for k, row in enumerate(rows):
            for file in row.split():
                parts = [p for p in (*folder.split("."), *file.split(".")) if p and p != "__init__"]
                found[".".join(parts)] = (i, k)
    return found


RANKS = ranks()

RASTERS = {
    "errors", "progress", "publish", "tables", "untrusted", "raster", "report.facts", "report.pictures",
    "archive.names", "archive.lists", "archive.mosaic", "archive.tar_zip", "archive.containers", "archive.places",
    "archive.pairs",
}  # fmt: skip
"""Know files and arrays, and no torch."""
TENSORS = {
    "errors", "physics", "covariance", "device", "models", "classical", "adapt.losses", "adapt.tailor",
    "quality.metrics", "columns", "raster.bands", "raster.geometry", "raster.sensors", "raster.sensor_table",
    "raster.values", "publish", "untrusted", "quality.fidelity", "tables",
}  # fmt: skip
"""Know tensors, and no files of pixels."""
ALLOWED = {
    "rasterio": {"raster", "training.landscape", "training.simulate", "api"},
    "affine": {"raster", "training.simulate", "archive", "api"},
    "xarray": {"api"},
    "click": {"rio"},
    "typer": {"cli"},
    "distributed": {"archive.cluster"},
    "pystac": {"archive.lists"},
}


def module_of(path: Path) -> str:
    """The dotted name of a source within the package; a folder's `__init__` is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> list[str]:
    """Full dotted names of all that a source imports, in functions as well.

    The package itself may name its interface to type checkers, and loads it when it is asked for.
    """
    package = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    tree = parsed(path)
    if module_of(path) == "":
        body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
        tree = ast.Module(body, [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = [*base, *(node.module or "").split(".")] if node.module else base
            found += [".".join([*origin, alias.name]) for alias in node.names]
    return found


def own(names: list[str]) -> set[str]:
    """Modules of this package among dotted names; a name that a module defines counts as the module."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == NAME:
            within = [".".join(parts[1:n]) for n in range(len(parts), 0, -1)]
            found.add(next(n for n in within if n in MODULES))
    return found


def within(module: str, places: set[str]) -> bool:
    """Whether a module is one of the places or lies in one."""
    return any(f"{module}.".startswith(f"{place}.") for place in places)


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(p) for p in SOURCES}


@pytest.fixture(scope="module")
def imported() -> dict[Path, list[str]]:
    """What each source imports."""
    return {path: imports_of(path) for path in SOURCES}


def test_all_sources_are_seen():
    assert {"", "physics", "raster.scene", "fusion.loop", "models", "cli.app"} <= MODULES


def test_every_place_is_a_file():
    assert set(RANKS) <= MODULES


def test_every_folder_says_what_lives_in_it():
    for path in SOURCES:
        if path.stem == "__init__":
            assert ast.get_docstring(parsed(path)), path


def test_a_file_has_at_most_600_lines_and_a_function_60():
    long = []
    for path in SOURCES:
        long += [path] if len(path.read_text().splitlines()) > 600 else []
        functions = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))
        long += [(path, node.name) for node in functions if node.end_lineno - node.lineno >= 60]
    assert not long


def private_names(path: Path) -> set[str]:
    """Names with one leading `_` that a test takes from what it imports of the package, or patches anywhere."""
    tree, ours, found = ast.parse(path.read_text()), {NAME}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import) and NAME in (
            getattr(node, "module", None) or ast.unparse(node)
        ):
            ours |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}.isdisjoint(
            ours
        ):
            found.add(node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "patch", "patch.object")):
            found |= {str(a.value).rpartition(".")[2] for a in node.args if isinstance(a, ast.Constant)}
    return {name for name in found | ours if re.match("_[^_]", name)}


def test_no_test_takes_a_private_name():
    taken = {path.name: private_names(path) for path in (PACKAGE.parent / "tests").glob("*.py")}
    assert not {name: names for name, names in taken.items() if names}


def keys_taken(path: Path) -> set[str]:
    """Literal keys that a source gets from a dict, or computes figures by: what the type checker lets pass."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            found |= {ast.unparse(each) for each in node.args[:1]}
        if isinstance(node, ast.FunctionDef) and node.name == "compute":
            found |= {ast.unparse(k) for n in ast.walk(node) if isinstance(n, ast.Dict) for k in n.keys if k}
    return {literal[1:-1] for literal in found if re.fullmatch("'[a-z_]+'", literal)}


def test_keys_of_facts_are_those_of_their_types():
    facts = [n for n in ast.walk(parsed(PACKAGE / "report/facts.py")) if isinstance(n, ast.AnnAssign)]
    others = {"flat", "absent", "total", "held_out", "detail_gains", "detail_places"}  # of fields, losses, no report
    others |= {"align_bands"}  # of tags
    known = {ast.unparse(each.target) for each in facts} | others
    places = ("report/*.py", "jobs/*.py", "quality/**/*.py", "archive/batch.py", "cli/progress.py", "api/result.py")
    taken = {path: keys_taken(path) for place in places for path in PACKAGE.glob(place)}
    assert len(set().union(*taken.values())) > 40
    assert not {path.name: keys - known for path, keys in taken.items() if keys - known}


def test_public_classes_have_a_name_of_their_own():
    defined = [n.name for path in SOURCES for n in parsed(path).body if isinstance(n, ast.ClassDef)]
    assert not {name for name in defined if not name.startswith("_") and defined.count(name) > 1}


@pytest.mark.parametrize("command", ["fuse", "batch", "evaluate", "train"])
def test_a_command_has_at_most_20_lines(command):
    path = PACKAGE / f"cli/{command}.py"
    (function,) = (n for n in parsed(path).body if isinstance(n, ast.FunctionDef) and n.name == command)
    first, *_, last = function.body[1:]  # after its help
    lines = path.read_text().splitlines()[first.lineno - 1 : last.end_lineno]
    assert len([line for line in lines if line.strip()]) <= 20


def test_imports_run_one_way(imported):
    wrong = []
    for path, names in imported.items():
        module = module_of(path)
        others = own(names) - {module}
        if path.stem == "__init__" and not others:
            continue  # says what lives in the folder, no more
        wrong += [] if module in RANKS else [f"give {module} a place in FOLDERS"]
        higher = (o for o in others if module in RANKS and not (o in RANKS and RANKS[o] < RANKS[module]))
        wrong += [f"{module} imports {other}" for other in higher]
    assert not wrong


def test_networks_import_nothing_but_their_base(imported):
    for path, names in imported.items():
        module = module_of(path)
        if module.startswith("models.") and module != "models.weights":
            inside = {m for m in own(names) if within(m, {"models"})}
            assert inside <= ({"models.base"} if module != "models.base" else set()), module


def test_libraries_stay_where_they_belong(imported):
    for path, names in imported.items():
        module, roots = module_of(path), {n.split(".")[0] for n in names}
        for library, homes in ALLOWED.items():
            assert library not in roots or within(module, homes), f"{module} imports {library}"
        if within(module, RASTERS):
            assert not roots & {"torch", "safetensors"}, f"{module} imports torch"
            assert all(within(m, RASTERS) for m in own(names) - {""}), module
        if within(module, TENSORS):
            assert all(within(m, TENSORS) for m in own(names) - {""}), module


def test_the_command_line_starts_without_the_heavy_libraries():
    code = f"import sys, {NAME}.cli.app; print(sorted({{'torch', 'rasterio', 'numpy', 'scipy'}} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True, cwd=PACKAGE.parent).stdout.strip() == b"[]"


COMMANDS = (
    (0, "--help"),
    (0, "fuse", "--help"),
    (0, "weights", "list"),
    (0, "weights", "show", "glpnet"),
    (2, "weights", "show", "no-such-weights"),
    (2, "fuse", "no.tif", "ms.tif", "-o", "out.tif"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "magic"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "gsa", "--weights", "w.safetensors"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--device", "tpu"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--precision", "float8"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--sensor", "sputnik"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--report", "report.txt"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--co", "nonsense"),
    (2, "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--no-such-option"),
    (2, "evaluate", "no.tif", "--pan", "pan.tif", "--ms", "ms.tif"),
    (2, "evaluate", "there.tif", "--reference", "no.tif"),
    (2, "evaluate", "--wald", "--pan", "pan.tif", "--ms", "ms.tif"),
)


@pytest.mark.slow
def test_help_lists_and_refusals_come_without_torch(tmp_path: Path) -> None:
    """A second of import before a line that says what is wrong with a name."""
    write_pair(tmp_path, 96, 96, 4)
    (tmp_path / "there.tif").write_bytes((tmp_path / "ms.tif").read_bytes())
    code = f"""
import sys
from {NAME}.cli import app
for command in {[c[1:] for c in COMMANDS]}:
    sys.argv = ["pansharpen", *command]
    try:
        app.main()
    except SystemExit as end:
        print("ended", end.code, sorted({{"torch", "scipy"}} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment, text=True)
    ends = [line for line in told.stdout.splitlines() if line.startswith("ended")]
    assert ends == [f"ended {code} []" for code, *_ in COMMANDS], told.stderr


@pytest.mark.parametrize("given", ["", "0", "abc", "2,x", "9" * 30, "2", "4,2"])
def test_a_number_of_threads_that_is_none_is_left_out(given):
    environment = os.environ | {"OMP_NUM_THREADS": given}
    command = [sys.executable, "-c", f"import {NAME}, os; print(os.environ.get('OMP_NUM_THREADS'))"]
    told = subprocess.run(command, capture_output=True, check=True, cwd=PACKAGE.parent, env=environment, text=True)
    assert told.stdout.strip() == (given if given in ("2", "4,2") else "None")


@pytest.mark.parametrize(("given", "seen"), [({}, ["passive", "4"]), ({"OMP_WAIT_POLICY": "active"}, ["active", "4"])])
def test_threads_wait_passively_unless_told_otherwise(given, seen):
    names = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
    environment = {k: v for k, v in os.environ.items() if k not in names} | given
    read = f"*(os.environ[name] for name in {names})"
    code = f"import sys, {NAME}, os; print({read}, any(m in sys.modules for m in ('torch', 'numpy')))"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, check=True, cwd=PACKAGE.parent, env=environment, text=True)
    assert told.stdout.split() == [*seen, "False"]
