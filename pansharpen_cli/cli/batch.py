"""`pansharpen batch`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import interrupts
from ..columns import counted
from ..errors import InputError, PansharpenError
from ..publish import check_on_disk
from .options import AsJson, Debug, FitBy, Fusing, Opening, Quiet, Writing, bands_of, check_finite
from .printing import command_line, import_jobs, settle_threads
from .progress import BatchProgressBars, after, say_line

if TYPE_CHECKING:
    from ..archive.batch import Execute
    from ..archive.pairs import Pairing
    from ..archive.planning import Choices, Task
    from ..fusion.options import Options
    from ..jobs.picture import Request

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...")]


@dataclass(frozen=True)
class PairingOptions:
    """Which scenes there are, and where their outputs go."""

    output: Annotated[Path | None, typer.Option("--output", "-o")] = None
    template: str = "{folder}/{name}.tif"
    pair_regex: str | None = None
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False
    retry_failed: Annotated[bool, typer.Option("--retry-failed")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False
    html: Annotated[bool, typer.Option("--html")] = False
    fit_by: FitBy = FitBy.scene
    score: bool = True
    as_json: AsJson = False
    quiet: Quiet = False
    debug: Debug = False

    @property
    def is_dry(self) -> bool:
        return self.output is None or self.dry_run

    def check(self) -> None:
        """Raises InputError where there is no folder to write to."""
        if self.output is None and not self.dry_run:
            raise InputError("batch needs the folder to write to: --output OUTDIR")
        if self.output is not None:
            check_on_disk(self.output)
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            raise InputError(f"{self.output} is no folder")

    def choices(self, options: Options, opening: Opening, writing: Writing, picturing: Picturing) -> Choices:
        """What all scenes are fused with. Raises InputError for a picture that cannot be."""
        from ..archive import planning

        return planning.Choices(
            replace(options, weights=None if options.weights is None else os.path.abspath(options.weights)),
            opening.options(), driver=writing.driver, creation_options=tuple(writing.co or ()),
            overviews=writing.overviews, score=self.score, html=self.html, command=command_line(),
            fit_by=self.fit_by.value, rgb=picturing.request(self.output),
        )  # fmt: skip

    def tasks(self, pairing: Pairing, choices: Choices, here: bool) -> list[Task]:
        """A task for each pair, with the fit that it shares and what its neighbours lend. `here`: on this machine, of
        whose files a dry run tells those that are missing."""
        from ..archive import neighbours, planning, shared_fit

        tasks = planning.plan(pairing.found, self.output, choices, self.template, look=self.is_dry and here)
        return neighbours.lending(shared_fit.sharing(tasks, choices.fit_by, self.output))


@dataclass(frozen=True)
class Picturing:
    """The 8-bit pictures beside the outputs."""

    rgb: Annotated[str | None, typer.Option(metavar="BANDS")] = None
    stretch: Annotated[str, typer.Option(metavar="STRETCH")] = "auto"

    def request(self, folder: Path | None) -> Request | None:
        """Raises InputError where the two options do not go together."""
        from ..jobs.picture import request_of

        asked = self.stretch
        if asked.lower() == "shared":
            asked = str((folder or Path()) / "stretch.json")
        kept = os.path.abspath(asked) if asked.lower().endswith(".json") else asked
        return request_of(bands_of("--rgb", self.rgb), kept)


@dataclass(frozen=True)
class Working:
    """Where the scenes are fused, and what that may take."""

    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1)] = 1
    timeout: Annotated[float | None, typer.Option(min=0.1)] = None
    ram: Annotated[float | None, typer.Option(min=0.1, max=1e6)] = None
    threads: Annotated[int | None, typer.Option(min=1, max=1024)] = None
    scheduler: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT")] = None

    def check(self) -> None:
        """Raises InputError for options that do not go together."""
        check_finite(ram=self.ram, timeout=self.timeout)
        if self.scheduler is not None and (self.jobs != 1 or self.ram is not None or self.threads is not None):
            raise InputError(
                "--jobs, --threads and --ram belong to this machine; with --scheduler the cluster's workers have their "
                "own"
            )

    def start_ahead(self) -> None:
        """Let the workers' imports begin beside those of this process."""
        with interrupts.starting():
            from ..archive import workers

        settle_threads(self.threads)
        workers.start_ahead("pansharpen_cli.archive.batch")

    def make_stretch(self, tasks: Sequence[Task], choices: Choices) -> bool:
        """The stretch that all pictures share, where one is asked for that is not there yet; whether it was."""
        from ..archive import pictures

        memory = None if self.ram is None else int(self.ram * 1e9)
        return pictures.make_stretch(tasks, choices, self.jobs, self.timeout, memory)

    def execute(self, choices: Choices, debug: bool) -> Execute:
        """What runs the scenes. Raises InputError where Dask is asked for and not installed."""
        from ..archive import batch

        if self.scheduler is None:
            return batch.local(choices, self.jobs, self.timeout, None if self.ram is None else int(self.ram * 1e9))
        try:
            from ..archive import cluster
        except ImportError as error:
            raise InputError("--scheduler needs Dask: pip install 'pansharpen[distributed]'") from error
        if not debug:
            cluster.be_quiet()
        return cluster.execute(choices, self.scheduler, self.timeout)


def batch(
    sources: Sources, finding: PairingOptions, working: Working, fusing: Fusing, opening: Opening, writing: Writing,
    picturing: Picturing,
) -> None:  # fmt: skip
    """Find PAN/MS pairs, fuse each and log it. A second run does what is missing or has changed.

    `pansharpen batch report OUTDIR` makes index.html there: all scenes with quicklooks, figures and failures, and the
    seams between neighbours.
    """
    if "report" in sources and not os.path.lexists("report"):
        raise InputError("'report' comes first and takes a folder only: pansharpen batch report OUTDIR")
    finding.check()
    working.check()
    options = fusing.options()
    if working.scheduler is None and not finding.is_dry:
        working.start_ahead()
    import_jobs(working.threads)
    from ..archive import pairs

    pairing = pairs.find(sources, finding.pair_regex, finding.output)
    choices = finding.choices(options, opening, writing, picturing)
    here = working.scheduler is None
    choices.check(here)
    tasks = finding.tasks(pairing, choices, here)
    show_pairs(sources, pairing, tasks, finding)
    if not finding.is_dry:
        if working.make_stretch(tasks, choices):
            tasks = finding.tasks(pairing, choices, here)  # what they were made with includes it
        run(tasks, pairing, finding, working.execute(choices, finding.debug))


def show_pairs(sources: Sequence[str], pairing: Pairing, tasks: Sequence[Task], finding: PairingOptions) -> None:
    """The pairs of a dry run, and what the user ought to know of them. Raises InputError where there is none."""
    from ..archive import planning
    from ..report.files import to_json

    if finding.is_dry:
        plan = planning.dry_run(tasks, finding.output, pairing.left, finding.retry_failed, finding.overwrite)
        say_line(to_json(plan) if finding.as_json else planning.listing(plan))
    if not tasks:
        count = counted(len(pairing.left), "file")
        left = f"left over: {count}" + ("" if finding.dry_run else " (--dry-run says why)")
        reasons = pairing.empty + ([left] if pairing.left else [])
        raise InputError(f"no PAN/MS pair in {' '.join(sources)}: {'; '.join(reasons)}")
    if finding.is_dry and all(task.refused for task in tasks):
        raise InputError(f"no scene can be fused: {tasks[0].scene} is refused: {tasks[0].refused}")
    if finding.quiet:
        return
    for note in pairing.empty:
        say_line(f"warning: {note}", err=True)
    if pairing.left and not finding.is_dry:
        say_line(f"warning: in no pair: {counted(len(pairing.left), 'file')} (--dry-run says why)", err=True)


def run(tasks: Sequence[Task], pairing: Pairing, finding: PairingOptions, execute: Execute) -> None:
    """Run the tasks and print what became of them. Raises PansharpenError if any scene failed, now or before."""
    from ..archive import batch
    from ..report.files import to_json

    assert finding.output is not None
    with BatchProgressBars(finding.quiet) as watch:
        tally = batch.run(
            tasks, finding.output, execute, retry_failed=finding.retry_failed, overwrite=finding.overwrite,
            left=pairing.left, watch=watch,
        )  # fmt: skip
    facts = batch.summary(tally, len(pairing.left))
    with after(Path(facts.log)):
        if finding.as_json:
            say_line(to_json(facts))
        elif not finding.quiet:
            say_line(batch.sentence(facts))
    if (warned := batch.warned(tally)) and not finding.quiet:
        scene, text = warned[0]
        say_line(
            f"warning: {counted(len({s for s, _ in warned}), 'scene')} with warnings, such as {scene}: {text}; "
            f"{facts.log} has all of them", err=True,
        )  # fmt: skip
    if tally.left and not finding.quiet:
        others = f" and {counted(len(tally.left) - 1, 'more file')}" if len(tally.left) > 1 else ""
        say_line(
            f"warning: left of earlier results: {tally.left[0]}{others}; make them anew with --rgb or --html, or "
            "remove them", err=True,
        )  # fmt: skip
    for what, scenes in (("failed", facts.failed), ("failed before", facts.failed_before)):
        for each in scenes:
            say_line(f"{what}: {each.scene}: {each.error}", err=True)
    if count := len(facts.failed + facts.failed_before):
        again = "; --retry-failed tries again what failed before" if facts.failed_before else ""
        raise PansharpenError(f"{count} of {tally.scenes} scenes failed{again}")


def report(
    folder: Annotated[Path, typer.Argument(metavar="OUTDIR")], quiet: Quiet = False, debug: Debug = False
) -> None:
    """Make OUTDIR/index.html of the folder of a batch: all scenes with quicklooks, figures and failures, what was left
    over, and the seams between neighbours. Print the page's path; stderr tells the worst seam."""
    import_jobs()
    from ..archive import batch_log, seams
    from ..report import index

    records = list(batch_log.read_log(folder).values())
    found = seams.measure(folder, records)
    path = index.write(folder, records, batch_log.read_left(folder), found)
    if not quiet:
        with after(path):
            say_line(path)
        if found:
            say_line(seams.sentence(found), err=True)
