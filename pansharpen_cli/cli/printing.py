"""What commands print of facts, and the imports that they wait for."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from .. import interrupts
from .options import Printing
from .progress import say_line

if TYPE_CHECKING:
    from ..report.facts import CheckFacts, EvaluationFacts, FusionFacts


def print_report(facts: FusionFacts | EvaluationFacts, printing: Printing, as_csv: bool = False) -> None:
    """A fusion or an evaluation: warnings to stderr, the report to stdout."""
    from ..report.files import to_json
    from ..report.text import ranking, ranking_csv, table

    of_several: Any = facts

    if not printing.quiet:
        for warning in facts["warnings"]:
            say_line(f"warning: {warning}", err=True)
        for note in facts["notes"] if printing.verbose else ():
            say_line(f"note: {note}", err=True)
    if printing.as_json:
        say_line(to_json(facts))
    elif as_csv:
        say_line(ranking_csv(of_several), nl=False)
    elif not printing.quiet:
        say_line(ranking(of_several) if "results" in facts else table(facts, printing.verbose))


def print_check(facts: CheckFacts, printing: Printing) -> None:
    from ..report.files import to_json
    from ..report.text import check_table

    if printing.as_json:
        say_line(to_json(facts))
    elif not printing.quiet:
        say_line(check_table(facts))


def settle_threads(threads: int | None) -> None:
    """How many threads torch, scipy, GDAL's compression and workers may use, before any of them is there."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def import_jobs(threads: int | None = None) -> None:
    """Import the jobs and all that they import, and settle how many threads all of it may use; collecting garbage
    meanwhile takes a fifth of the time."""
    settle_threads(threads)
    gc.disable()
    try:
        with interrupts.starting():
            from ..jobs import evaluate, fuse  # noqa: F401

        gc.freeze()  # what is imported stays
    finally:
        gc.enable()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)  # it may have been imported before


def command_line() -> str:
    """What was called, for the reports."""
    return shlex.join(["pansharpen", *sys.argv[1:]])
