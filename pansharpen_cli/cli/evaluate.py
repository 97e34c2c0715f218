"""`pansharpen evaluate`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import interrupts
from ..errors import InputError
from . import options
from .printing import command_line, import_jobs, print_report
from .progress import ProgressBar, after, say_line

if TYPE_CHECKING:
    from ..jobs.evaluate import EvaluationOutput
    from ..jobs.request import Pair
    from ..report.facts import EvaluationFacts


@dataclass(frozen=True)
class Measuring:
    """What is compared with what."""

    fused: Annotated[list[str] | None, typer.Argument(metavar="FUSED...")] = None
    pan: str | None = None
    ms: list[str] | None = None
    reference: Annotated[str | None, typer.Option(metavar="GT")] = None
    wald: Annotated[bool, typer.Option("--wald")] = False
    methods: str | None = None
    adapt: options.Adapt = options.Adapt.fast
    device: options.Device = "auto"
    ratio: Annotated[float | None, typer.Option(min=1.0)] = None
    peak: float | None = None
    sensor: str = "auto"
    bidx: options.Bidx = None
    align: options.Align = options.Align.auto
    nodata: float | None = None
    pan_from: options.PanFrom = None
    height: float | None = None
    dem: str | None = None

    @property
    def kind(self) -> str:
        return "wald" if self.wald else "full" if self.reference is None else "reference"

    def check(self) -> None:
        """Raises InputError for options that do not go together."""
        if self.wald and (self.fused or self.reference is not None):
            raise InputError("--wald fuses by itself: it takes --pan, --ms and --methods, no fused file or reference")
        if self.wald and not self.methods:
            raise InputError("--wald needs --methods, e.g. --methods exp,gsa,glpnet or --methods all")
        if not self.wald and self.methods:
            raise InputError("--methods belongs to --wald")
        if not self.wald and not self.fused:
            raise InputError("name one or more fused files, or use --wald")
        if self.reference is not None and self.ms:
            raise InputError("--reference takes no --ms: give its pixel size in PAN pixels with --ratio")
        if self.reference is None and (self.pan is None or not self.ms):
            raise InputError("evaluate needs --pan and --ms, or --reference")
        if self.reference is not None and (self.sensor != "auto" or self.bidx or self.align != options.Align.auto):
            raise InputError(
                "--sensor, --bidx and --align belong to --pan and --ms; a reference is compared band by band"
            )
        if self.reference is not None and (self.pan_from, self.height, self.dem) != (None, None, None):
            raise InputError("--pan-from, --height and --dem belong to --pan and --ms")
        options.check_finite(height=self.height)
        if not self.wald and (self.adapt != options.Adapt.fast or self.device != "auto"):
            raise InputError("--adapt and --device belong to --wald: nothing else fuses here")
        if self.ratio is not None and self.kind != "reference":
            raise InputError("--ratio belongs to --reference; otherwise the files tell it")
        if self.ratio is not None and self.ratio > 100:
            raise InputError(f"--ratio takes a value from 1 to 100, not {self.ratio:g}")
        if self.peak is not None and (self.kind == "full" or not 0 < self.peak < 1e15):
            raise InputError("--peak takes a positive value in DN and belongs to --reference and --wald")

    def pair(self, stack: ExitStack) -> Pair | None:
        """The pair that is measured with, held; None where a reference is. Raises InputError for what does not open."""
        from ..jobs import request
        from ..raster.options import OpenOptions

        if self.reference is not None:
            request.refuse_files([path for path in (self.reference, *(self.fused or ()), self.pan) if path is not None])
            return None
        opening = OpenOptions(
            sensor=self.sensor, bidx=options.bands_of("--bidx", self.bidx), fit_bands="bidx", nodata=self.nodata,
            extent="intersection" if self.wald else "pan", pan_from=options.bands_of("--pan-from", self.pan_from),
            height=self.height, dem=self.dem, measured=True,
        )  # fmt: skip
        pair = stack.enter_context(request.Pair(self.pan or "", self.ms or (), opening).held())
        request.refuse_files(self.fused or (), pair)
        return pair

    def facts(self, pair: Pair | None, output: EvaluationOutput, progress: ProgressBar) -> EvaluationFacts:
        """What the evaluation yields."""
        from ..fusion.options import Options
        from ..jobs import evaluate

        if pair is None:
            assert self.reference is not None
            return evaluate.evaluate_against(
                self.reference, self.fused or (), self.ratio or 4.0, self.peak, output, progress, self.nodata, self.pan
            )
        if self.wald:
            fusing = Options(adapt=self.adapt.value, device=self.device, align=self.align.value, mtf="sensor")
            names = [n.strip().lower() for n in (self.methods or "").split(",") if n.strip()]
            return evaluate.evaluate_wald(pair, names, fusing, self.peak, output, progress)
        return evaluate.evaluate(self.fused or (), pair, output, progress, self.align.value)


@dataclass(frozen=True)
class EvaluationOutputs:
    """What `evaluate` writes, and when it fails."""

    maps: Annotated[Path | None, typer.Option("--map", metavar="DIR")] = None
    report: options.FileToWrite = None
    show: Annotated[list[str] | None, typer.Option(metavar="NAME")] = None
    overwrite: options.Overwrite = False
    fail_under: Annotated[list[str] | None, typer.Option(metavar="FIGURE=VALUE")] = None
    as_csv: Annotated[bool, typer.Option("--csv")] = False

    def output(self) -> EvaluationOutput:
        from ..jobs import evaluate

        return evaluate.EvaluationOutput(self.report, self.maps, self.overwrite, command_line(), self.show or ())


def evaluate(measuring: Measuring, outputs: EvaluationOutputs, printing: options.Printing) -> None:
    """Measure fused rasters: at full resolution, against a reference, or methods by Wald's protocol."""
    if printing.as_json and outputs.as_csv:
        raise InputError("--json and --csv exclude each other")
    measuring.check()
    limits = options.figure_limits(outputs.fail_under or ())
    with ExitStack() as stack:
        with interrupts.starting():
            pair = measuring.pair(stack)
        import_jobs(printing.threads)
        from ..jobs import evaluate

        evaluate.check_limits(measuring.kind, limits)
        with ProgressBar(printing.quiet, printing.verbose) as progress:
            facts = measuring.facts(pair, outputs.output(), progress)
    below = evaluate.shortfalls(facts, limits)
    with after(outputs.report, outputs.maps):
        print_report(facts, printing, outputs.as_csv)
    if below:
        say_line(f"error: {'; '.join(below)}", err=True)
        raise typer.Exit(3)
