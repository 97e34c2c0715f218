"""The shell around the command line: closed streams, errors, silence."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any

import typer

from .. import interrupts
from ..errors import InputError
from .progress import say_line

UsageError: Any = typer.BadParameter.__mro__[2]
"""Typer's base of everything that is wrong with the command line (ClickException, which recent Typers vendor)."""


class _Closed(io.StringIO):
    """In the place of a closed stdout: a result that cannot be printed is none."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed", "stdout")


def replace_closed_streams() -> None:
    """Streams that the caller has closed (`>&-`): nothing that is opened later must take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or _Closed(), sys.stderr or io.StringIO()


def complain(message: str, code: int, debug: bool) -> int:
    if interrupts.asked():  # whatever it was that a signal has turned it into
        message, code = "interrupted", interrupts.CODE
    if debug:
        import traceback

        traceback.print_exc()
    say_line(f"error: {' '.join(message.split())}", err=True)
    return code


def check_folder() -> None:
    """Raises InputError where the current folder is gone: libraries end in words of their own then, or at once."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the current folder does not exist any more; change to another one") from None


_HOME = re.compile(r"(--[\w-]+=)?(~[\w.-]*(?:[/\\].*)?)", re.DOTALL)


def with_home(argument: str) -> str:
    """An argument with a leading `~` or `~user` of its value replaced by the home folder. Shells leave it alone in
    `--output=~/a.tif` and in quotes. Raises InputError where there is neither such a user nor such a folder."""
    found = _HOME.fullmatch(argument)
    if not found:
        return argument
    path, user = os.path.expanduser(found[2]), found[2].partition("/")[0]
    if path.startswith(f"{user}/") and not os.path.lexists(user):
        raise InputError(f"{path}: there is no user {user[1:]} here; of a folder that is called so, write ./{user}")
    return (found[1] or "") + path


def check_numbers(arguments: Sequence[str], options: Collection[str]) -> None:
    """Raises InputError for 1_0 as the value of an option that takes a number: Python takes it for 10."""
    for argument, after in zip(arguments, (*arguments[1:], ""), strict=False):
        option, sign, value = argument.partition("=")
        if option in options and "_" in (value := value if sign else after):
            raise InputError(f"{option} takes a number, not '{value}'")


def plain_message(message: str) -> str:
    """A message of the parser without words that its libraries have for each other."""
    message = re.sub(r"Value error, |, unable to parse \w+ as an? \w+", "", message)
    return message.replace("Input should be", "it should be")


def takes_text(stream: Any) -> bool:
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return False
    return True
