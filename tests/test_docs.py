"""The documents name every command and every option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from pansharpen_cli.cli import app

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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"pansharpen {command}" in TEXT


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_documented(command: str, option: str) -> None:
    assert re.search(rf"(?<![\w-]){option}(?![\w-])", TEXT)


def test_no_option_is_documented_that_does_not_exist() -> None:
    known = {option for _, option in OPTIONS} | {"--help"}
    for command, options in re.findall(r"pansharpen (\w+)((?:[^\n`]|\\\n)*)", TEXT):
        assert command in COMMANDS or "--" not in options
        assert set(re.findall(r"(?<![\w-])--[\w-]+", options)) <= known
    described = re.findall(r"^\| (`-.*?) \|", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"--[\w-]+", " ".join(described))) <= known


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
