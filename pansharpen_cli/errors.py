"""The errors a user can meet; `cli/app.py` turns each into one line on stderr and an exit code."""

import re


class PansharpenError(Exception):
    """Something that went wrong while running (exit code 1)."""

    exit_code = 1


class InputError(PansharpenError):
    """Bad input or usage: the message says which file or option, what is wrong and what to do (exit code 2)."""

    exit_code = 2


class ReadError(InputError):
    """A file that opened and could not be read to its end, or changed meanwhile (exit code 1: it may pass)."""

    exit_code = 1


class WeightsError(InputError):
    """Weights that are missing, damaged, untrusted or made for something else."""


_SOURCE = re.compile(r"[^\s:='\"]+\.(c|cc|cpp|h), \d+: ")
"""Where in GDAL's own code something failed, in what it says."""


def without_source(text: str) -> str:
    """What GDAL says, without the line of its own code."""
    return _SOURCE.sub("", text)


def reason_of(error: BaseException) -> str:
    """The first line of what was behind an error: rasterio's own message may only point at GDAL's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return without_source(str(error).splitlines()[0]) if str(error) else type(error).__name__


def unforeseen(error: Exception) -> str:
    """An error that nobody has a line for: what GDAL says in places where it seldom fails, or a fault of ours."""
    text = without_source(" ".join(str(error).split()))[:300]
    return (
        f"GDAL: {text}"
        if type(error).__module__.startswith("rasterio")
        else f"unexpected {type(error).__name__}: {text}"
    )
