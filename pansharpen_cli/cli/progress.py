"""Progress on stderr, of one scene and of a batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import typer

from .. import interrupts
from ..errors import PansharpenError
from ..untrusted import printable


def say_line(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print to stdout, or a line to stderr: names may hold what commands a terminal, which is shown and not sent. A
    stderr that nobody can write to changes nothing."""
    shown = printable(str(text))
    with suppress(OSError) if err else nullcontext():
        typer.echo(shown.replace("\n", " ") if err else shown, err=err, nl=nl)


def log_line(text: object) -> None:
    """A line to stderr of what a long run does, with the time of day."""
    say_line(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", err=True)


@contextmanager
def after(*written: Path | None) -> Iterator[None]:
    """For printing a report on files that are written. Raises PansharpenError that names the first one where it
    cannot be printed."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        there = next((path for path in written if path is not None), None)
        if there is None or isinstance(error, BrokenPipeError):
            raise
        raise PansharpenError(
            f"{there} is written; the report on it cannot be printed: stdout: {error.strerror}"
        ) from error


class _OnTerminal:
    """A bar of rich's on stderr where that is a terminal; `bar` is None elsewhere, and with -q."""

    heading = "{task.description}"
    clock = "TimeElapsedColumn"

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            words = [progress.TextColumn(text, markup=False) for text in (self.heading, "{task.fields[note]}")]
            columns = words[0], progress.BarColumn(), progress.MofNCompleteColumn(), words[1]
            clock = getattr(progress, self.clock)()
            self.bar = progress.Progress(*columns, clock, console=Console(stderr=True), transient=True)

    def say(self, line: str) -> None:
        """A line of a long run: above the bar, or to stderr with the time of day."""
        if self.bar:
            self.bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        elif not self.quiet:
            log_line(line)

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()


class BatchProgressBars(_OnTerminal):
    """A bar over all scenes and a row per worker on a terminal, a line per scene elsewhere, nothing with -q."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self.all: Any = None
        self.rows: dict[Any, Any] = {}

    def __call__(self, event: Any, tally: Any, record: Any) -> None:
        interrupts.check()
        line = ""
        if record is not None:
            from ..report.verdict import in_short

            fidelity = (record.figures or {}).get("fidelity")
            line = f"[{tally.ended}/{tally.todo}] {record.scene}: {record.status}"
            line += f": {record.error}" if record.error is not None else f" in {record.seconds:.1f} s"
            line += f", fidelity {fidelity:.3f}" if fidelity is not None else ""
            found = record.verdict or {"level": "good"}
            line += f", {in_short(found['text'])}" if found["level"] != "good" else ""
        if self.bar is None:
            if line:
                self.say(line)
            return
        if self.all is None:
            self.all = self.bar.add_task("scenes", total=tally.todo, note="")
        note = f"{tally.per_hour:.0f} an hour, {len(tally.failed)} failed" if tally.ended else ""
        self.bar.update(self.all, completed=tally.ended, note=note)
        if event.kind == "refused":
            self.say(line)
            return
        row = self.rows.get(event.worker)
        if row is None:
            row = self.rows[event.worker] = self.bar.add_task("", total=None, note="")
        if event.kind == "started":
            self.bar.reset(row, description=printable(event.task.scene), total=None, note="")
        elif event.kind == "progress":
            stage, done, total = event.result
            self.bar.update(row, completed=done, total=total, note=stage)
        elif event.kind == "failed" or (record is not None and record.has_failed):
            self.say(line)


class ProgressBar(_OnTerminal):
    """Progress on stderr: a bar on a terminal, a line per stage with -v elsewhere, nothing with -q."""

    heading = "{task.description:<9}"
    clock = "TimeRemainingColumn"

    def __init__(self, quiet: bool, verbose: bool) -> None:
        super().__init__(quiet)
        self.task: Any = None
        self.stage = ""
        self.verbose = verbose and not quiet

    def __call__(self, stage: str, done: int, total: int) -> None:
        interrupts.check()
        if stage != self.stage:
            self.stage = stage
            if self.verbose:
                log_line(f"{stage} ...")
            if self.bar:
                if self.task is not None:
                    self.bar.remove_task(self.task)
                self.task = self.bar.add_task(stage, total=total, note="")
        if self.bar:
            speed = self.bar.tasks[0].speed
            self.bar.update(self.task, completed=done, total=total, note=f"{speed:.1f}/s" if speed else "")
