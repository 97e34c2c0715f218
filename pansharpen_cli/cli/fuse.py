"""`pansharpen fuse` and `pansharpen check`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import interrupts
from ..errors import InputError
from ..publish import file_named
from .options import (
    FileToWrite,
    Fusing,
    MsFiles,
    Opening,
    OutputFile,
    Overwrite,
    PanFile,
    Printing,
    Region,
    Writing,
    bands_of,
)
from .printing import command_line, import_jobs, print_check, print_report
from .progress import ProgressBar, after

if TYPE_CHECKING:
    from ..jobs.request import FusionOutput


@dataclass(frozen=True)
class FusionOutputs:
    """What `fuse` writes."""

    output: OutputFile
    overwrite: Overwrite = False
    score: bool = True
    report: FileToWrite = None
    quicklook: FileToWrite = None
    rgb: Annotated[str | None, typer.Option(metavar="BANDS")] = None
    stretch: Annotated[str, typer.Option(metavar="STRETCH")] = "auto"
    rgb_only: Annotated[bool, typer.Option("--rgb-only")] = False
    save_fit: Annotated[Path | None, typer.Option(parser=file_named, metavar="FILE")] = None
    fit: Annotated[Path | None, typer.Option(metavar="FILE")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False

    def target(self, writing: Writing) -> FusionOutput:
        """Raises InputError for a picture that cannot be."""
        from ..jobs import picture, request

        return request.FusionOutput(
            self.output, driver=writing.driver, creation_options=writing.co or (), overviews=writing.overviews,
            overwrite=self.overwrite, quicklook=self.quicklook,
            reports=() if self.report is None else (self.report,), command=command_line(),
            rgb=picture.request_of(bands_of("--rgb", self.rgb), self.stretch, self.rgb_only), save_fit=self.save_fit,
        )  # fmt: skip


def fuse(
    pan: PanFile, ms: MsFiles, outputs: FusionOutputs, fusing: Fusing, opening: Opening, part: Region, writing: Writing,
    printing: Printing,
) -> None:  # fmt: skip
    """Fuse PAN and MS into one sharp multispectral GeoTIFF on the PAN grid."""
    with interrupts.starting():
        from ..jobs import request

    options = replace(fusing.options(), fit=None if outputs.fit is None else str(outputs.fit))
    pair, target = request.Pair(pan, ms, opening.options(part.window, part.bbox)), outputs.target(writing)
    with pair.held() as pair:
        if not outputs.dry_run:
            request.refuse(pair, target, options)
        import_jobs(printing.threads)
        with ProgressBar(printing.quiet, printing.verbose) as progress:
            if outputs.dry_run:
                from ..checks import check as checking

                planned = checking.plan(pair, target, options, outputs.score, progress)
            else:
                from ..jobs import fuse as fusion

                facts = fusion.fuse_scene(pair, target, options, outputs.score, progress)
    if outputs.dry_run:
        print_check(planned, printing)
    else:
        with after(outputs.output):
            print_report(facts, printing)


def check(
    pan: PanFile, ms: MsFiles, fusing: Fusing, opening: Opening, part: Region, printing: Printing, score: bool = True
) -> None:
    """Describe a pair, list its faults and predict what fusing it takes; exit with 2 if `fuse` would refuse it."""
    import_jobs(printing.threads)
    from ..checks import check as checking
    from ..jobs import request

    pair, options = request.Pair(pan, ms, opening.options(part.window, part.bbox)), fusing.options()
    with ProgressBar(printing.quiet, printing.verbose) as progress:
        facts = checking.check(pair, options, score, progress=progress)
    print_check(facts, printing)
    if facts.refused:
        raise InputError(facts.refused)
