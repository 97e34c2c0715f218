"""The command line: parse, call one library function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import errno
import gc
import io
import json
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, interrupts
from .errors import InputError, PansharpenError, WeightsError
from .foreign import printable

app = typer.Typer(
    name="pansharpen",
    help="Fuse a panchromatic (PAN) and a multispectral (MS) GeoTIFF into one sharp multispectral GeoTIFF.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Adapt(StrEnum):
    off = "off"
    fast = "fast"
    best = "best"


class Align(StrEnum):
    auto = "auto"
    off = "off"
    measure = "measure"


class Mtf(StrEnum):
    auto = "auto"
    sensor = "sensor"


class AdaptTerms(StrEnum):
    sharp = "sharp"
    paper = "paper"


class Extent(StrEnum):
    intersection = "intersection"
    pan = "pan"


def _say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print to stdout, or a line to stderr: names may hold what commands a terminal, which is shown and not sent."""
    shown = printable(str(text))
    typer.echo(shown.replace("\n", " ") if err else shown, err=err, nl=nl)


def _check_finite(**given: float | None) -> None:
    """Raises InputError for options that are no finite numbers."""
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} takes a number, not {value}")


def _version(shown: bool) -> None:
    if shown:
        _say(f"pansharpen {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Sensor = Annotated[str, typer.Option(help="Sensor whose MTF is used: auto (from the metadata), generic or a name.")]
Bidx = Annotated[str | None, typer.Option(help="MS bands to use, 1-based over all MS files, e.g. 1,2,3,7.")]
Nodata = Annotated[float | None, typer.Option(help="Nodata value of inputs and output; default: the files' own.")]
Alignment = Annotated[
    Align, typer.Option(help="Shift of the MS against the PAN: measured and corrected, left alone, or only reported.")
]
Optics = Annotated[
    Mtf, typer.Option(help="MTF of networks: what optics explain of the measured one, the sensor's, or as measured.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Method = Annotated[
    str, typer.Option(help="A network (glpnet, fusionnet ...) or a classical method (exp, gsa, bt-h ...); see docs.")
]
Weights = Annotated[str | None, typer.Option(help="Weights file (.safetensors) instead of the installed ones.")]
Adaptation = Annotated[Adapt, typer.Option(help="Adaptation of the network to the scene (ERFT).")]
AdaptLoss = Annotated[
    AdaptTerms, typer.Option(help="What the adaptation asks for: a sharp and clean result, or the terms of the paper.")
]
AdaptSeconds = Annotated[float | None, typer.Option(help="Upper bound of the adaptation's time.", min=0.0)]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
TileSize = Annotated[
    int, typer.Option(help="Side of the tiles in PAN pixels; the pixels do not depend on it.", min=64, max=8192)
]
Seed = Annotated[int, typer.Option(help="Seed of the sampling and the adaptation.", min=0, max=2**32 - 1)]
PixelWindow = Annotated[str | None, typer.Option(help="Part to fuse, PAN pixels: COL_OFF,ROW_OFF,WIDTH,HEIGHT.")]
Bounds = Annotated[str | None, typer.Option(help="Part to fuse, PAN's CRS: LEFT,BOTTOM,RIGHT,TOP.")]
Footprint = Annotated[Extent, typer.Option(help="intersection of the footprints, or the whole PAN.")]
Dtype = Annotated[str | None, typer.Option(help="Output type, e.g. uint16; default: the MS's.")]
Score = Annotated[bool, typer.Option(help="Measure the quality of what was written.")]
PanFile = Annotated[str, typer.Argument(help="Panchromatic raster: anything that GDAL opens.", metavar="PAN")]
MsFiles = Annotated[
    list[str], typer.Argument(help="Multispectral raster, or several with the bands in order.", metavar="MS...")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Driver = Annotated[str, typer.Option(help="GTiff or COG.")]
Co = Annotated[list[str] | None, typer.Option("--co", help="Creation option of the driver.", metavar="KEY=VALUE")]
Overviews = Annotated[bool, typer.Option(help="Build overviews (a COG always has them).")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log each stage to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def fuse(
    pan: PanFile,
    ms: MsFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="Fused GeoTIFF.")],
    method: Method = "glpnet",
    weights: Weights = None,
    sensor: Sensor = "auto",
    adapt: Adaptation = Adapt.fast,
    adapt_seconds: AdaptSeconds = None,
    adapt_loss: AdaptLoss = AdaptTerms.sharp,
    device: Device = "auto",
    precision: Precision = "auto",
    tile_size: TileSize = 512,
    seed: Seed = 0,
    bidx: Bidx = None,
    window: PixelWindow = None,
    bbox: Bounds = None,
    extent: Footprint = Extent.intersection,
    align: Alignment = Align.auto,
    mtf: Optics = Mtf.auto,
    nodata: Nodata = None,
    dtype: Dtype = None,
    driver: Driver = "GTiff",
    co: Co = None,
    overviews: Overviews = False,
    overwrite: Overwrite = False,
    score: Score = True,
    report: Annotated[Path | None, typer.Option(help="Write the report to this .html or .json file.")] = None,
    quicklook: Annotated[Path | None, typer.Option(help="Write a .png or .jpg to look at.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done and write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Fuse PAN and MS into one sharp multispectral GeoTIFF on the PAN grid."""
    _check_finite(adapt_seconds=adapt_seconds)
    _heavy()
    from .fusion import fit
    from .jobs import fuse, opened

    open_options = _open_options(sensor, bidx, nodata, extent, dtype, window, bbox)
    reports = () if report is None else (report,)
    target = fuse.Output(output, driver, co or (), overviews, overwrite, quicklook, reports, _command())
    options = fit.Options(
        method.lower(),
        weights,
        adapt.value,
        adapt_seconds,
        device,
        precision,
        tile_size,
        seed,
        align.value,
        mtf.value,
        adapt_loss.value,
    )
    with _Progress(quiet, verbose) as progress:
        if dry_run:
            from .check import check as checking

            facts = checking.plan(opened.Pair(pan, ms, open_options), target, options, score, progress)
        else:
            facts = fuse.fuse_scene(opened.Pair(pan, ms, open_options), target, options, score, progress)
    if dry_run:
        _print_check(facts, as_json, quiet)
    else:
        _print(facts, as_json, quiet)


@app.command()
def check(
    pan: PanFile,
    ms: MsFiles,
    method: Method = "glpnet",
    weights: Weights = None,
    sensor: Sensor = "auto",
    adapt: Adaptation = Adapt.fast,
    adapt_seconds: AdaptSeconds = None,
    adapt_loss: AdaptLoss = AdaptTerms.sharp,
    device: Device = "auto",
    precision: Precision = "auto",
    tile_size: TileSize = 512,
    seed: Seed = 0,
    bidx: Bidx = None,
    window: PixelWindow = None,
    bbox: Bounds = None,
    extent: Footprint = Extent.intersection,
    align: Alignment = Align.auto,
    mtf: Optics = Mtf.auto,
    nodata: Nodata = None,
    dtype: Dtype = None,
    score: Score = True,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Say what a pair is like, what is wrong with it and what fusing it will take; exit 2 if `fuse` would refuse it."""
    _check_finite(adapt_seconds=adapt_seconds)
    _heavy()
    from .check import check as checking
    from .fusion import fit
    from .jobs import opened

    open_options = _open_options(sensor, bidx, nodata, extent, dtype, window, bbox)
    options = fit.Options(
        method.lower(),
        weights,
        adapt.value,
        adapt_seconds,
        device,
        precision,
        tile_size,
        seed,
        align.value,
        mtf.value,
        adapt_loss.value,
    )
    with _Progress(quiet, verbose) as progress:
        facts = checking.check(opened.Pair(pan, ms, open_options), options, score, progress=progress)
    _print_check(facts, as_json, quiet)
    if facts["refused"]:
        raise InputError(facts["refused"])


@app.command()
def evaluate(
    fused: Annotated[
        list[str] | None, typer.Argument(help="Fused rasters, whoever made them.", metavar="FUSED...")
    ] = None,
    pan: Annotated[
        str | None, typer.Option(help="Panchromatic raster; with --reference it adds the error beside edges.")
    ] = None,
    ms: Annotated[list[str] | None, typer.Option(help="Multispectral raster; again for more files.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="True bands at the fused resolution to compare with.", metavar="GT")
    ] = None,
    wald: Annotated[
        bool, typer.Option("--wald", help="Degrade PAN and MS by their ratio, fuse them, compare with the MS.")
    ] = False,
    methods: Annotated[
        str | None, typer.Option(help="With --wald: methods and networks, separated by commas, or all.")
    ] = None,
    adapt: Annotated[Adapt, typer.Option(help="With --wald: adaptation of the networks.")] = Adapt.fast,
    device: Device = "auto",
    ratio: Annotated[
        float | None, typer.Option(help="With --reference: MS pixel size in PAN pixels; default 4.", min=1.0)
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="Full value in DN, for PSNR and SSIM; default: that of the bit depth.")
    ] = None,
    sensor: Sensor = "auto",
    bidx: Bidx = None,
    align: Alignment = Align.auto,
    nodata: Nodata = None,
    maps: Annotated[
        Path | None, typer.Option("--map", help="Write figures per block as GeoTIFFs into this folder.", metavar="DIR")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report to this .html or .json file.")] = None,
    overwrite: Overwrite = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 3 if a figure of any result is lower, e.g. FIDELITY=0.7.", metavar="FIGURE=VALUE"),
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the figures as CSV instead of a table.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Measure fused rasters: at full resolution, against a reference, or methods by Wald's protocol."""
    _heavy()
    from .fusion import fit
    from .jobs import evaluate, opened

    _check_evaluation(fused, pan, ms, reference, wald, methods, as_json, as_csv)
    if reference is not None and (sensor != "auto" or bidx or align != Align.auto):
        raise InputError("--sensor, --bidx and --align belong to --pan and --ms; a reference is compared band by band")
    if not wald and (adapt != Adapt.fast or device != "auto"):
        raise InputError("--adapt and --device belong to --wald: nothing else fuses here")
    kind = "wald" if wald else "full" if reference is None else "reference"
    if ratio is not None and kind != "reference":
        raise InputError("--ratio belongs to --reference; otherwise the files tell it")
    if ratio is not None and ratio > 100:
        raise InputError(f"--ratio takes a value from 1 to 100, not {ratio:g}")
    if peak is not None and (kind == "full" or not 0 < peak < 1e15):
        raise InputError("--peak takes a positive value in DN and belongs to --reference and --wald")
    limits = _limits(fail_under or ())
    evaluate.check_limits(kind, limits)
    output = evaluate.EvaluationOutput(report, maps, overwrite, _command())
    open_options = {"sensor": sensor, "bidx": _integers("--bidx", bidx), "nodata": nodata}
    with _Progress(quiet, verbose) as progress:
        if reference is not None:
            facts = evaluate.evaluate_against(reference, fused or (), ratio or 4.0, peak, output, progress, nodata, pan)
        elif wald:
            options = fit.Options(adapt=adapt.value, device=device, align=align.value, mtf="sensor")
            names = [n.strip().lower() for n in (methods or "").split(",") if n.strip()]
            pair = opened.Pair(pan or "", ms or (), open_options)
            facts = evaluate.evaluate_wald(pair, names, options, peak, output, progress)
        else:
            pair = opened.Pair(pan or "", ms or (), {**open_options, "extent": "pan"})
            facts = evaluate.evaluate(fused or (), pair, output, progress, align.value)
    below = evaluate.shortfalls(facts, limits)
    _print(facts, as_json, quiet, as_csv)
    if below:
        _say(f"error: {'; '.join(below)}", err=True)
        raise typer.Exit(3)


@app.command()
def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Folders, globs, CSVs or GeoTIFFs: MS, with the PAN beside it.", metavar="SOURCE..."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Weights file to make (.safetensors).")] = None,
    network: Annotated[str | None, typer.Option(help="Network to train; default: glpnet.")] = None,
    bands: Annotated[int | None, typer.Option(help="Band count; default: any, or that of all scenes.", min=1)] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Weights to start from: a file, or the name of installed ones.", metavar="WEIGHTS"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with all choices; options given here count more.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all choices as TOML and train nothing.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="Time to train for; default: 60.", min=0.0)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for instead of a time.", min=1)] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Scenes held out, as SOURCE; again for more.", metavar="SOURCE")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint beside the output, if there is one.")] = True,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads; default: all cores.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, split and samples.", min=0, max=2**32 - 1)] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a network on GeoTIFFs of your own and write its weights for `fuse --weights`."""
    from .training import recipe

    _check_finite(minutes=minutes)
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps exclude each other")
    chosen = recipe.read(config) if config is not None else recipe.Recipe()
    chosen = chosen.changed(network=network, bands=bands, start=start, seed=seed, minutes=minutes, steps=steps)
    if print_config:
        _say(recipe.to_toml(chosen), nl=False)
        return
    if not sources or output is None:
        raise InputError("train needs scenes and --output, e.g. pansharpen train scenes -o my.safetensors")
    _heavy()
    from .training import train as training

    with _Progress(quiet, verbose=False) as progress:

        def say(line: str) -> None:
            if progress.bar:
                progress.bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            elif not quiet:
                _say(line, err=True)

        target = training.Output(output, overwrite, resume, _command())
        made = training.run(
            sources, validation or (), target, chosen, device=device, threads=threads, say=say, progress=progress
        )
    for warning in () if quiet else made["warnings"]:
        _say(f"warning: {warning}", err=True)
    if as_json:
        from .report.files import to_json

        _say(to_json(made))
    elif not quiet:
        _say(training.summary(made))


@app.command()
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders, globs, rasters, CSV/JSONL manifests or STAC .json on disk.", metavar="SOURCE..."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the outputs, their reports and batch.jsonl.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="Output name; knows {folder}, {name}, {pan}, {ms}, {method} and {date}.")
    ] = "{folder}/{name}.tif",
    pair_regex: Annotated[
        str | None, typer.Option(help="Pairs other names: a regular expression with groups scene, pan, ms, maybe band.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the pairs and what is left over; write nothing.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try scenes again that failed before.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Scenes at a time, each in its own process.", min=1)] = 1,
    timeout: Annotated[float | None, typer.Option(help="Seconds that a scene may take.", min=0.1)] = None,
    ram: Annotated[float | None, typer.Option(help="GB of memory that all jobs together may hold.", min=0.1)] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on a Dask cluster instead of here.", metavar="tcp://HOST:PORT")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write an HTML report of each scene, too.")] = False,
    method: Method = "glpnet",
    weights: Weights = None,
    sensor: Sensor = "auto",
    adapt: Adaptation = Adapt.fast,
    adapt_seconds: AdaptSeconds = None,
    adapt_loss: AdaptLoss = AdaptTerms.sharp,
    device: Device = "auto",
    precision: Precision = "auto",
    tile_size: TileSize = 512,
    seed: Seed = 0,
    bidx: Bidx = None,
    extent: Footprint = Extent.intersection,
    align: Alignment = Align.auto,
    mtf: Optics = Mtf.auto,
    nodata: Nodata = None,
    dtype: Dtype = None,
    driver: Driver = "GTiff",
    co: Co = None,
    overviews: Overviews = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that no batch has written; what is done stays.")
    ] = False,
    score: Score = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the pairs or the summary as JSON.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find PAN/MS pairs, fuse each on its own and log it; run again, do what is missing or changed.

    `pansharpen batch report OUTDIR` makes index.html there: all scenes with quicklooks, figures and failures.
    """
    if sources[0] == "report" and output is None:
        return _batch_index(sources[1:], quiet)
    if output is None:
        raise InputError("batch needs the folder to write to: --output OUTDIR")
    if scheduler is not None and (jobs != 1 or ram is not None):
        raise InputError(
            "--jobs and --ram belong to this machine; with --scheduler the cluster's workers have their own"
        )
    _check_finite(ram=ram, timeout=timeout, adapt_seconds=adapt_seconds)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is no folder")
    _heavy()
    from .archive import batch, pairs
    from .fusion.fit import Options

    pairing = pairs.find(sources, pair_regex, output)
    file = os.path.abspath(weights) if weights is not None else None
    choices = batch.Choices(
        Options(
            method.lower(), file, adapt.value, adapt_seconds, device, precision, tile_size, seed, align.value,
            mtf.value, adapt_loss.value,
        ),
        _open_options(sensor, bidx, nodata, extent, dtype),
        driver, tuple(co or ()), overviews, score, html, _command(),
    )  # fmt: skip
    choices.check(here=scheduler is None)
    tasks = batch.plan(pairing.found, output, choices, template)
    if dry_run:
        plan = batch.dry_run(tasks, output, pairing.left, retry_failed, overwrite)
        _say(json.dumps(plan, indent=2) if as_json else batch.listing(plan))
    if not tasks:
        left = f"{len(pairing.left)} files are left over" + ("" if dry_run else " (--dry-run says why)")
        reasons = pairing.empty + ([left] if pairing.left else [])
        raise InputError(f"no PAN/MS pair in {' '.join(sources)}: {'; '.join(reasons)}")
    for note in () if quiet else pairing.empty:
        _say(f"warning: {note}", err=True)
    if dry_run:
        return
    if pairing.left and not quiet:
        _say(f"warning: {len(pairing.left)} files are in no pair (--dry-run says why)", err=True)
    if scheduler is None:
        execute = batch.local(choices, jobs, timeout, None if ram is None else int(ram * 1e9))
    else:
        try:
            from .archive import cluster
        except ImportError as error:
            raise InputError("--scheduler needs Dask: pip install 'pansharpen[distributed]'") from error
        execute = cluster.execute(choices, scheduler, timeout)
    with _BatchProgress(quiet) as watch:
        tally = batch.run(tasks, output, execute, retry_failed=retry_failed, overwrite=overwrite, watch=watch)
    facts = batch.summary(tally, len(pairing.left))
    if as_json:
        _say(json.dumps(facts, indent=2))
    elif not quiet:
        _say(batch.sentence(facts))
    for key in ("failed", "failed_before"):
        for each in facts[key]:
            _say(f"{key.replace('_', ' ')}: {each['scene']}: {each['error']}", err=True)
    if count := len(facts["failed"] + facts["failed_before"]):
        again = "; --retry-failed tries again what failed before" if facts["failed_before"] else ""
        raise PansharpenError(f"{count} of {tally.scenes} scenes failed{again}")


def _batch_index(folders: Sequence[str], quiet: bool) -> None:
    """`batch report OUTDIR`."""
    if len(folders) != 1:
        raise InputError("batch report takes the output folder of a batch: pansharpen batch report OUTDIR")
    _heavy()
    from .archive import batch
    from .report import index

    path = index.write(Path(folders[0]), batch.read_log(Path(folders[0])).values())
    if not quiet:
        _say(path)


class _BatchProgress:
    """A bar over all scenes and a row per worker on a terminal, a line per scene elsewhere, nothing with -q."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.all: Any = None
        self.rows: dict[Any, Any] = {}
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False), TimeElapsedColumn(),
            )  # fmt: skip
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)

    def __call__(self, event: Any, tally: Any, record: dict | None) -> None:
        interrupts.check()
        line = ""
        if record is not None:
            fidelity = record.get("figures", {}).get("fidelity")
            line = f"[{tally.ended}/{tally.todo}] {record['scene']}: {record['status']}"
            line += f": {record['error']}" if "error" in record else f" in {record['seconds']:.1f} s"
            line += f", fidelity {fidelity:.3f}" if fidelity is not None else ""
        if self.bar is None:
            if line and not self.quiet:
                _say(line, err=True)
            return
        if self.all is None:
            self.all = self.bar.add_task("scenes", total=tally.todo, note="")
        note = f"{tally.per_hour:.0f} an hour, {len(tally.failed)} failed" if tally.ended else ""
        self.bar.update(self.all, completed=tally.ended, note=note)
        if event.kind == "refused":
            self.bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            return
        row = self.rows.get(event.worker)
        if row is None:
            row = self.rows[event.worker] = self.bar.add_task("", total=None, note="")
        if event.kind == "started":
            self.bar.reset(row, description=printable(event.task.scene), total=None, note="")
        elif event.kind == "progress":
            stage, done, total = event.result
            self.bar.update(row, completed=done, total=total, note=stage)
        elif event.kind == "failed" or (record is not None and record["status"] == "failed"):
            self.bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> _BatchProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()


def _check_evaluation(fused, pan, ms, reference, wald: bool, methods, as_json: bool, as_csv: bool) -> None:
    """Raises InputError for options that do not go together."""
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other")
    if wald:
        if fused or reference is not None:
            raise InputError("--wald fuses by itself: it takes --pan, --ms and --methods, no fused file or reference")
        if not methods:
            raise InputError("--wald needs --methods, e.g. --methods exp,gsa,glpnet or --methods all")
    else:
        if methods:
            raise InputError("--methods belongs to --wald")
        if not fused:
            raise InputError("name one or more fused files, or use --wald")
    if reference is not None:
        if ms:
            raise InputError("--reference takes no --ms: give its pixel size in PAN pixels with --ratio")
    elif pan is None or not ms:
        raise InputError("evaluate needs --pan and --ms, or --reference")


def _limits(texts: Sequence[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        try:
            limit, name = float(value), name.strip().lower()
            if not sign or not math.isfinite(limit):
                raise ValueError
            limits[name] = max(limit, limits.get(name, limit))
        except ValueError:
            raise InputError(f"--fail-under takes FIGURE=VALUE, e.g. FIDELITY=0.7, not '{text}'") from None
    return limits


def _print(facts: dict, as_json: bool, quiet: bool, as_csv: bool = False) -> None:
    from .report.files import to_json
    from .report.text import ranking, ranking_csv, table

    if not quiet:
        for warning in facts["warnings"]:
            _say(f"warning: {warning}", err=True)
    if as_json:
        _say(to_json(facts))
    elif as_csv:
        _say(ranking_csv(facts), nl=False)
    elif not quiet:
        _say(ranking(facts) if "results" in facts else table(facts))


def _print_check(facts: dict, as_json: bool, quiet: bool) -> None:
    from .report.files import to_json
    from .report.text import check_table

    if as_json:
        _say(to_json(facts))
    elif not quiet:
        _say(check_table(facts))


class _Progress:
    """Progress on stderr: a bar on a terminal, a line per stage with -v elsewhere, nothing with -q."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.stage = ""
        self.verbose = verbose and not quiet
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        interrupts.check()
        if stage != self.stage:
            self.stage = stage
            if self.verbose:
                _say(f"{stage} ...", err=True)
            if self.bar:
                if self.task is not None:
                    self.bar.remove_task(self.task)
                self.task = self.bar.add_task(stage, total=total, rate="")
        if self.bar and self.task is not None:
            speed = self.bar.tasks[0].speed
            self.bar.update(self.task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

    def __enter__(self) -> _Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()


def _heavy() -> None:
    """Import the jobs and all that they import; collecting garbage meanwhile takes a fifth of the time."""
    gc.disable()
    try:
        with interrupts.starting():
            from .jobs import (
                evaluate,  # noqa: F401
                fuse,  # noqa: F401
            )

        gc.freeze()  # what is imported stays
    finally:
        gc.enable()


def _open_options(
    sensor: str,
    bidx: str | None,
    nodata: float | None,
    extent: Extent,
    dtype: str | None,
    window: str | None = None,
    bbox: str | None = None,
) -> dict[str, Any]:
    """The arguments of `Scene.open`."""
    return {
        "sensor": sensor,
        "bidx": _integers("--bidx", bidx),
        "nodata": nodata,
        "extent": extent.value,
        "window": _pixel_window(window),
        "bbox": _bounds(bbox),
        "dtype": _dtype(dtype),
    }


def _command() -> str:
    return shlex.join(["pansharpen", *sys.argv[1:]])


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _integers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        values = [int(t) for t in _split(text)]
    except ValueError:
        values = []
    if not values:
        raise InputError(f"{option} takes whole numbers separated by commas, not '{text}'")
    return values


def _pixel_window(text: str | None) -> tuple[int, int, int, int] | None:
    values = _integers("--window", text)
    if values is None:
        return None
    if len(values) != 4 or min(values[2:]) < 1:
        raise InputError(f"--window takes COL_OFF,ROW_OFF,WIDTH,HEIGHT in whole pixels, not '{text}'")
    col, row, width, height = values
    return row, row + height, col, col + width


def _bounds(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        left, bottom, right, top = (float(t) for t in _split(text))
        if not all(math.isfinite(v) for v in (left, bottom, right, top)):
            raise ValueError
    except ValueError:
        raise InputError(f"--bbox takes LEFT,BOTTOM,RIGHT,TOP, not '{text}'") from None
    return left, bottom, right, top


def _dtype(name: str | None) -> str | None:
    from .raster.writer import check_dtype

    return None if name is None else check_dtype(name)


_UsageError: Any = typer.BadParameter.__mro__[2]
"""Typer's base of everything that is wrong with the command line (ClickException, which recent Typers vendor)."""


def main() -> None:
    """Entry point: runs the app and turns every error into one line on stderr and an exit code."""
    interrupts.handle(interrupts.raise_once)
    interrupts.watch(_clear)
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")  # libraries' remarks; what concerns the user is in the report
        os.environ.setdefault("CPL_LOG", os.devnull)  # those of GDAL in threads that nobody listens to
        sys.unraisablehook = _unheard  # rasterio's about text of GDAL that is no UTF-8
    _replace_closed_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        interrupts.check()
        if code == interrupts.CODE:  # Typers differ in what they make of it
            raise KeyboardInterrupt
    except _UsageError as error:
        # asked for nothing: its message is the help
        if type(error).__name__ == "NoArgsIsHelpError":
            _say(error.format_message())
            code = 2
        else:
            code = _complain(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted", interrupts.CODE, debug)
    except PansharpenError as error:
        code = _complain(str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = error.filename or ("" if _takes_text(sys.stdout) else "stdout")
        code = _complain(f"{where}: {error.strerror}" if where else str(error), 1, debug)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, MemoryError) or re.search("allocate memory|not enough memory|out of memory", text):
            code = _complain("out of memory; try a smaller --tile-size", 1, debug)
        else:
            code = _complain(f"unexpected {type(error).__name__}: {text} (run again with --debug)", 1, debug)
    sys.exit(interrupts.CODE if interrupts.asked() else code or 0)


class _Closed(io.StringIO):
    """In the place of a closed stdout: a result that cannot be printed is none."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "cannot print the result, it is closed", "stdout")


def _replace_closed_streams() -> None:
    """Streams that the caller has closed (`>&-`): nothing that is opened later must take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or _Closed(), sys.stderr or io.StringIO()


def _clear() -> None:
    """Remove temporary files, if any module that makes them is there."""
    publish = sys.modules.get("pansharpen_cli.publish")
    if publish is not None:
        publish.clear()


def _complain(message: str, code: int, debug: bool) -> int:
    if interrupts.asked():  # whatever it was that a signal has turned it into
        message, code = "interrupted", interrupts.CODE
    if debug:
        import traceback

        traceback.print_exc()
    _say(f"error: {' '.join(message.split())}", err=True)
    return code


def _takes_text(stream: Any) -> bool:
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return False
    return True


def _unheard(*_) -> None: ...


weights_app = typer.Typer(help="List, show, verify and import the networks' weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

JsonCards = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@weights_app.command("list")
def list_weights(as_json: JsonCards = False, debug: Debug = False) -> None:
    """List the installed weights."""
    with interrupts.starting():
        from .models import weights

    cards = [weights.facts(card) for card in weights.manifest().values()]
    _say(json.dumps(cards, indent=2) if as_json else weights.listing(cards))


@weights_app.command("show")
def show_weights(
    name: Annotated[str, typer.Argument(help="Installed weights, or a .safetensors file.", metavar="NAME|FILE")],
    as_json: JsonCards = False,
    debug: Debug = False,
) -> None:
    """Show all that is known about weights: network, scale, licence, training, hashes."""
    with interrupts.starting():
        from .models import weights

    known = weights.facts(weights.get(name))
    _say(json.dumps(known, indent=2) if as_json else weights.description(known))


@weights_app.command("verify")
def verify_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Installed weights or .safetensors files; default: all installed.", metavar="[NAME|FILE]..."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Check hash, shapes and values of weights; exit with 1 if any is not as it should be."""
    with interrupts.starting():
        from .models import weights

    faults = []
    names = names or list(weights.manifest())
    if not names:
        raise PansharpenError(f"no weights are installed in {weights.folder()}; reinstall")
    for name in names:
        try:
            _say(weights.check(name))
        except WeightsError as error:
            faults.append(str(error))
    if faults:
        raise PansharpenError("; ".join(faults))


@weights_app.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Public checkpoint, as torch.save wrote it.", metavar="FILE.pth")],
    network: Annotated[str, typer.Option(help="The network it is for: fusionnet, pnn, pannet, msdcnn or u2net.")],
    bands: Annotated[int, typer.Option(help="Its band count: 4 or 8.")],
    scale: Annotated[float, typer.Option(help="What its training divided DN by: 2047 for 11 bit, 1023 for 10 bit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights file to make (.safetensors).")],
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Make a weights file for `fuse --weights` of a public checkpoint; nothing in it is run."""
    with interrupts.starting():
        from .models import weights
        from .publish import check_target

    weights.check_import(network, bands, scale, output)
    check_target(output, [str(checkpoint)], overwrite)
    card = weights.import_checkpoint(checkpoint, network, bands, scale, output)
    parameters = weights.facts(card)["parameters"]
    _say(f"{output}: {network}, {bands} bands, {parameters} parameters, values / {scale:g}, from {card.source}")
