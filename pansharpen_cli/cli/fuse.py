"""`pansharpen fuse` and `pansharpen check`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from .. import interrupts
from ..errors import InputError
from ..publish import file_named
from .options import (
    Fusing,
    MsFiles,
    Opening,
    Overwrite,
    PanFile,
    Printing,
    Region,
    Report,
    Score,
    Writing,
    bands_of,
)
from .printing import command_line, import_jobs, print_check, print_report
from .progress import ProgressBar, after


@dataclass(frozen=True)
class Outputs:
    """What `fuse` writes."""

    output: Annotated[Path, typer.Option("--output", "-o", help="Fused GeoTIFF.", parser=file_named, metavar="PATH")]
    overwrite: Overwrite = False
    score: Score = True
    report: Report = None
    quicklook: Annotated[
        Path | None, typer.Option(help="Write a small picture (.png or .jpg).", parser=file_named, metavar="PATH")
    ] = None
    rgb: Annotated[
        str | None,
        typer.Option(
            help="Write an 8-bit picture OUT_rgb.tif, too: true (colours), or bands, e.g. 5,3,2.", metavar="BANDS"
        ),
    ] = None
    stretch: Annotated[
        str,
        typer.Option(
            help="Of --rgb: auto (percentiles), LOW,HIGH in DN, or a .json that keeps it: used if it is there.",
            metavar="STRETCH",
        ),
    ] = "auto"
    rgb_only: Annotated[bool, typer.Option("--rgb-only", help="Write the picture of --rgb as OUT, and no data.")] = (
        False
    )
    save_fit: Annotated[
        Path | None,
        typer.Option(
            help="Keep what the fit found (statistics, tailor, gains, shift) in this .safetensors file.",
            parser=file_named,
            metavar="FILE",
        ),
    ] = None
    fit: Annotated[
        Path | None, typer.Option(help="Take the fit of this file instead of fitting the scene.", metavar="FILE")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done and write nothing.")] = False


def fuse(
    pan: PanFile, ms: MsFiles, outputs: Outputs, fusing: Fusing, opening: Opening, part: Region, writing: Writing,
    printing: Printing,
) -> None:  # fmt: skip
    """Fuse PAN and MS into one sharp multispectral GeoTIFF on the PAN grid."""
    with interrupts.starting():
        from ..jobs import picture, request

    options = replace(fusing.options(), fit=None if outputs.fit is None else str(outputs.fit))
    pair = request.Pair(pan, ms, opening.options(part.window, part.bbox))
    target = request.FusionOutput(
        outputs.output, driver=writing.driver, creation_options=writing.co or (), overviews=writing.overviews,
        overwrite=outputs.overwrite, quicklook=outputs.quicklook,
        reports=() if outputs.report is None else (outputs.report,), command=command_line(),
        rgb=picture.request_of(bands_of("--rgb", outputs.rgb), outputs.stretch, outputs.rgb_only),
        save_fit=outputs.save_fit,
    )  # fmt: skip
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
    pan: PanFile, ms: MsFiles, fusing: Fusing, opening: Opening, part: Region, printing: Printing, score: Score = True
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
