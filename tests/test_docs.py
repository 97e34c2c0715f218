"""The documents name every command and every option, lead where they say, and their Python examples run."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest
import typer
from rasters import painted, seldom, write_scene

import pansharpen_cli as pansharpen
from pansharpen_cli import tables
from pansharpen_cli.cli import options as cli_options
from pansharpen_cli.cli.app import app
from pansharpen_cli.training import simulate

ROOT = Path(__file__).parent.parent
TEXT = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/cli.md"))
COMMAND = typer.main.get_command(app)
COMMANDS = dict(COMMAND.commands)
OPTIONS = sorted(
    {
        (name, option)
        for name, command in [("", COMMAND), *COMMANDS.items()]
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
)


def test_there_is_something_to_document() -> None:
    assert {"fuse", "evaluate"} <= set(COMMANDS)
    assert {("fuse", "--output"), ("fuse", "--no-overviews"), ("", "--version")} <= set(OPTIONS)


def test_every_help_is_that_of_an_option() -> None:
    groups = [COMMAND, *COMMANDS.values(), *COMMANDS["weights"].commands.values()]
    shown = {parameter.help for command in groups for parameter in command.params}
    told = {words for table in tables.read(cli_options.__file__).values() for words in table.values()}
    assert told <= shown


def test_every_command_is_documented() -> None:
    assert not [command for command in COMMANDS if f"pansharpen {command}" not in TEXT]


def test_every_option_is_documented() -> None:
    assert not [each for each in OPTIONS if not re.search(rf"(?<![\w-]){each[1]}(?![\w-])", TEXT)]


def test_no_option_is_documented_that_does_not_exist() -> None:
    known = {option for _, option in OPTIONS} | {"--help"}
    for command, options in re.findall(r"pansharpen (\w+)((?:[^\n`]|\\\n)*)", TEXT):
        assert command in COMMANDS or "--" not in options
        assert set(re.findall(r"(?<![\w-])--[\w-]+", options)) <= known
    described = re.findall(r"^\| (`-.*?) \|", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"--[\w-]+", " ".join(described))) <= known


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sample_data").rglob("*.md")])
USERS = [page for page in PAGES if "lab" not in page.parts and page.name not in ("quality.md", "benchmarks.md")]


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page: its headings, as GitHub spells them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_links_and_pictures_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{page.name}: {target}"


def test_versions_to_install_are_those_of_the_constraints() -> None:
    known = (ROOT / "constraints.txt").read_text().splitlines()
    pages = [page.read_text() for page in USERS]
    named = {version for page in pages for version in re.findall(r"`(\w+==[\w.]+)`", page)}
    assert named and named <= set(known)
    assert not [page for page in pages if "--index-url" in page]  # where packages come from is the user's choice


def test_the_changelog_has_what_is_unreleased_and_dated_versions() -> None:
    first, *versions = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "[Unreleased]" and versions[0].startswith(f"[{pansharpen.__version__}] - ")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions)


def test_the_pages_say_the_same_of_systems() -> None:
    pages = ((ROOT / page).read_text() for page in ("README.md", "docs/howto/small-machines.md"))
    one, other = (re.search(r"^Linux on x86-64 .*?; Windows is unsupported", page, re.MULTILINE) for page in pages)
    assert one and other and one[0] == other[0]


def sentences(page: Path) -> list[str]:
    """Sentences of a page's prose, list items and cells of tables."""
    text = re.sub(r"^```.*?^```|^#.*?$|\]\([^)]*\)", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[-*|] |\d+\. )|\s\|\s", text)
    ends = re.compile(r"(?<=[.?!])[)*_]*\s+(?=[A-Z0-9`\[(*])")
    return [sentence for part in parts for sentence in ends.split(" ".join(part.split()))]


READ = [
    ROOT / f"{name}.md" for name in ("README", "docs/tutorial", "docs/registration", "docs/weights", "docs/methods")
]
READ += [page for page in USERS if page.parent.name in ("howto", "explanation")]


@pytest.mark.parametrize("page", READ, ids=[page.stem for page in READ])
def test_sentences_have_at_most_30_words(page: Path) -> None:
    found = sentences(page)
    assert len(found) > 9
    assert not [each for each in found if len([word for word in each.split() if re.search(r"\w", word)]) > 30]


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs/index.md"
    linked = {(index.parent / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)\s]+)\)", index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} <= linked


def test_commands_in_the_pages_exist_and_take_what_they_are_given() -> None:
    pattern = re.compile(r"^(?:\$ )?pansharpen (\w+)([^\n#]*)", re.MULTILINE)
    for page, name, rest in ((p, *e) for p in USERS for e in pattern.findall(p.read_text().replace("\\\n", " "))):
        assert name in COMMANDS, f"{page.name}: pansharpen {name}"
        command = COMMANDS[name]
        words = rest.split()
        if hasattr(command, "commands"):
            command = command.commands[words[0]]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        used = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
        assert used <= known, f"{page.name}: pansharpen {name} {sorted(used - known)}"


PYTHON = {page: re.findall(r"^```py\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) for page in USERS}
EXAMPLES = [page for page, found in PYTHON.items() if found and page.name not in ("clusters.md", "grids.md")]
"""Pages of which the examples run here. Those of clusters.md need a cluster, those of grids.md run in test_rpc.py."""


def test_the_python_examples_are_python() -> None:
    for page, examples in PYTHON.items():
        for example in examples:
            compile(example, str(page), "exec")


@pytest.fixture
def at_a_pair(tmp_path: Path, monkeypatch):
    made = painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2))
    for folder in (tmp_path, tmp_path / "sample_data"):
        folder.mkdir(exist_ok=True)
        write_scene(made, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.parametrize(
    "page", seldom(EXAMPLES, [ROOT / "README.md"]), ids=[str(p.relative_to(ROOT)) for p in EXAMPLES]
)
def test_the_python_examples_run(page: Path, at_a_pair) -> None:
    names: dict = {}
    for example in PYTHON[page]:
        exec(compile(example, str(page), "exec"), names)
    assert names and os.listdir(".")


def test_the_python_interface_is_documented_and_has_the_options_of_the_command_line() -> None:
    text = (ROOT / "docs/python.md").read_text()
    for name in {*pansharpen.__all__, *pansharpen.indices.__all__} - {"__version__"}:
        assert re.search(rf"\b{name}\b", text), name
    from pansharpen_cli import api

    here_only = {"output", "creation_options", "progress"}
    shell_only = {"co", "as_json", "quiet", "verbose", "debug", "dry_run", "threads"}
    for name in ("fuse", "check"):
        options = {p.name for p in COMMANDS[name].params if p.name not in ("pan", "ms")}
        keywords = set(inspect.signature(getattr(api, name)).parameters) - {"pan", "ms"}
        assert keywords - here_only == options - shell_only - here_only
        for keyword in keywords:
            assert f"`{keyword}`" in text, keyword


def test_every_command_and_option_has_a_help_text() -> None:
    for command in COMMANDS.values():
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help"


def test_the_tests_that_the_table_of_faults_points_to_exist() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)(?:\[(.*?)\])?`", (ROOT / "docs/reliability.md").read_text())
    assert len(named) > 40
    for file, test, case in named:
        text = (ROOT / "tests" / file).read_text()
        assert f"def {test}(" in text, f"{file}::{test}"
        assert f'"{case}"' in text or not case, f"{file}::{test}[{case}]"


OF_THE_CODE = "".join((ROOT / page).read_text() for page in ("docs/architecture.md", "CONTRIBUTING.md"))


def test_the_files_and_folders_that_the_pages_of_the_code_name_exist() -> None:
    named = re.findall(r"`([\w./-]+(?:/|\.(?:css|j2|md|py|toml|txt)))`", OF_THE_CODE)
    homes = ("pansharpen_cli", "tests", "benchmarks", "weights", "docs")
    places = [*ROOT.glob("*"), *(path for home in homes for path in (ROOT / home).rglob("*"))]
    known = [f"{path}/" if path.is_dir() else str(path) for path in places]
    assert len(named) > 100
    assert not [each for each in named if not any(path.endswith(f"/{each}") for path in known)]


def test_the_names_beside_files_in_the_pages_of_the_code_are_in_them() -> None:
    file, name = r"`([\w/]+\.(?:py|css))`", r"`([A-Za-z_][\w.]*)(?:\[.*?\])?`"
    text = re.sub(r"\s+", " ", OF_THE_CODE)
    named = [(f, n) for n, f in re.findall(rf"{name} of {file}", text)]
    for path, names, _ in re.findall(rf"{file}: ((?:(?:, )?{name})+)", text):
        named += [(path, each) for each in re.findall(name, names)]
    assert len(named) > 20
    for path, each in named:
        folder = ROOT / ("tests" if path.startswith("test_") else "pansharpen_cli")
        code = (ROOT / path if path.startswith("tests/") else folder / path).read_text()
        for part in each.split("."):
            assert re.search(rf"\b{part}\b", code), f"{path}: {each}"
