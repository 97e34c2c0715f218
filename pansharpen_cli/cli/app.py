"""The command line: parse, call one library function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__, interrupts
from ..errors import InputError, PansharpenError
from ..foreign import printable
from .options import (
    Adapt,
    Adaptation,
    AdaptLoss,
    AdaptSeconds,
    AdaptTerms,
    Align,
    Alignment,
    Bidx,
    Bounds,
    Co,
    Debug,
    Device,
    Driver,
    Dtype,
    Extent,
    FitBands,
    FittedBands,
    Footprint,
    Json,
    KeptFit,
    Method,
    MsFiles,
    Mtf,
    Nodata,
    Optics,
    Overviews,
    Overwrite,
    PanFile,
    PixelWindow,
    Precision,
    Quiet,
    Rgb,
    SaveFit,
    Score,
    Seed,
    Sensor,
    StretchOf,
    TileSize,
    Verbose,
    Weights,
    bands_of,
    figure_limits,
    scene_options,
)
from .progress import BatchProgressBars, ProgressBar, log_line, say_line
from .shell import UsageError, complain, ignore, plain, replace_closed_streams, takes_text, with_home
from .weights import weights_app

app = typer.Typer(
    name="pansharpen",
    help="Fuse a panchromatic (PAN) and a multispectral (MS) GeoTIFF into one sharp multispectral GeoTIFF.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _check_finite(**given: float | None) -> None:
    """Raises InputError for options that are no finite numbers."""
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} takes a number, not {value}")


def _version(shown: bool) -> None:
    if shown:
        say_line(f"pansharpen {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


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
    fit_bands: FittedBands = FitBands.all,
    window: PixelWindow = None,
    bbox: Bounds = None,
    extent: Footprint = Extent.intersection,
    align: Alignment = Align.auto,
    mtf: Optics = Mtf.auto,
    nodata: Nodata = None,
    dtype: Dtype = None,
    driver: Driver = "GTiff",
    co: Co = None,
    overviews: Overviews = None,
    overwrite: Overwrite = False,
    score: Score = True,
    report: Annotated[Path | None, typer.Option(help="Write the report to this .html or .json file.")] = None,
    quicklook: Annotated[Path | None, typer.Option(help="Write a .png or .jpg to look at.")] = None,
    rgb: Rgb = None,
    stretch: StretchOf = "auto",
    save_fit: SaveFit = None,
    fit: KeptFit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done and write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Fuse PAN and MS into one sharp multispectral GeoTIFF on the PAN grid."""
    _check_finite(adapt_seconds=adapt_seconds)
    with interrupts.starting():
        from ..fusion.options import Options
        from ..jobs import picture, request

    open_options = scene_options(sensor, bidx, fit_bands, nodata, extent, dtype, window, bbox)
    reports = () if report is None else (report,)
    target = request.FusionOutput(
        output, driver, co or (), overviews, overwrite, quicklook, reports, _command(),
        rgb=picture.request_of(bands_of("--rgb", rgb and [rgb]), stretch), save_fit=save_fit,
    )  # fmt: skip
    options = Options(
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
        None if fit is None else str(fit),
    )
    pair = request.Pair(pan, ms, open_options)
    if not dry_run:
        request.refuse(pair, target, options)
    _import_jobs()
    with ProgressBar(quiet, verbose) as progress:
        if dry_run:
            from ..check import check as checking

            facts = checking.plan(pair, target, options, score, progress)
        else:
            from ..jobs import fuse

            facts = fuse.fuse_scene(pair, target, options, score, progress)
    if dry_run:
        _print_check(facts, as_json, quiet)
    else:
        _print(facts, as_json, quiet, verbose)


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
    fit_bands: FittedBands = FitBands.all,
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
    _import_jobs()
    from ..check import check as checking
    from ..fusion import fit
    from ..jobs import opened

    open_options = scene_options(sensor, bidx, fit_bands, nodata, extent, dtype, window, bbox)
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
    with ProgressBar(quiet, verbose) as progress:
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
    adapt: Annotated[
        Adapt, typer.Option(case_sensitive=False, help="With --wald: adaptation of the networks.")
    ] = Adapt.fast,
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
    with interrupts.starting():
        from ..fusion.options import Options
        from ..jobs import request

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
    limits = figure_limits(fail_under or ())
    open_options = {"sensor": sensor, "bidx": bands_of("--bidx", bidx), "fit_bands": "bidx", "nodata": nodata}
    if kind == "reference":
        request.refuse_files([path for path in (reference, *(fused or ()), pan) if path is not None])
    else:
        pair = request.Pair(pan or "", ms or (), open_options if wald else {**open_options, "extent": "pan"})
        request.refuse_files(fused or (), pair)
    _import_jobs()
    from ..jobs import evaluate

    evaluate.check_limits(kind, limits)
    output = evaluate.EvaluationOutput(report, maps, overwrite, _command())
    with ProgressBar(quiet, verbose) as progress:
        if reference is not None:
            facts = evaluate.evaluate_against(reference, fused or (), ratio or 4.0, peak, output, progress, nodata, pan)
        elif wald:
            options = Options(adapt=adapt.value, device=device, align=align.value, mtf="sensor")
            names = [n.strip().lower() for n in (methods or "").split(",") if n.strip()]
            facts = evaluate.evaluate_wald(pair, names, options, peak, output, progress)
        else:
            facts = evaluate.evaluate(fused or (), pair, output, progress, align.value)
    below = evaluate.shortfalls(facts, limits)
    _print(facts, as_json, quiet, verbose, as_csv)
    if below:
        say_line(f"error: {'; '.join(below)}", err=True)
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
    from ..training import recipe

    _check_finite(minutes=minutes)
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps exclude each other")
    chosen = recipe.read(config) if config is not None else recipe.Recipe()
    chosen = chosen.changed(network=network, bands=bands, start=start, seed=seed, minutes=minutes, steps=steps)
    if print_config:
        say_line(recipe.to_toml(chosen), nl=False)
        return
    if not sources or output is None:
        raise InputError("train needs scenes and --output, e.g. pansharpen train scenes -o my.safetensors")
    _import_jobs()
    from ..training import train as training

    with ProgressBar(quiet, verbose=False) as progress:

        def say(line: str) -> None:
            if progress.bar:
                progress.bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            elif not quiet:
                log_line(line)

        target = training.TrainingOutput(output, overwrite, resume, _command())
        made = training.run(
            sources, validation or (), target, chosen, device=device, threads=threads, say=say, progress=progress
        )
    for warning in () if quiet else made["warnings"]:
        say_line(f"warning: {warning}", err=True)
    if as_json:
        from ..report.files import to_json

        say_line(to_json(made))
    elif not quiet:
        say_line(training.summary(made))


@app.command()
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders, globs, rasters, archives, CSV/JSONL manifests or STAC.", metavar="SOURCE..."),
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
        bool, typer.Option("--dry-run", help="Show the pairs and what is left over; write nothing. Needs no -o.")
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
    fit_bands: FittedBands = FitBands.all,
    extent: Footprint = Extent.intersection,
    align: Alignment = Align.auto,
    mtf: Optics = Mtf.auto,
    nodata: Nodata = None,
    dtype: Dtype = None,
    driver: Driver = "GTiff",
    co: Co = None,
    overviews: Overviews = None,
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
    if output is None and not dry_run:
        raise InputError("batch needs the folder to write to: --output OUTDIR")
    if scheduler is not None and (jobs != 1 or ram is not None):
        raise InputError(
            "--jobs and --ram belong to this machine; with --scheduler the cluster's workers have their own"
        )
    _check_finite(ram=ram, timeout=timeout, adapt_seconds=adapt_seconds)
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output} is no folder")
    _import_jobs()
    from ..archive import batch, pairs, planning, workers
    from ..fusion.fit import Options

    pairing = pairs.find(sources, pair_regex, output)
    file = os.path.abspath(weights) if weights is not None else None
    choices = planning.Choices(
        Options(
            method.lower(), file, adapt.value, adapt_seconds, device, precision, tile_size, seed, align.value,
            mtf.value, adapt_loss.value,
        ),
        scene_options(sensor, bidx, fit_bands, nodata, extent, dtype),
        driver, tuple(co or ()), overviews, score, html, _command(),
    )  # fmt: skip
    choices.check(here=scheduler is None)
    tasks = planning.plan(pairing.found, output, choices, template)
    if output is None or dry_run:
        plan = planning.dry_run(tasks, output, pairing.left, retry_failed, overwrite)
        say_line(json.dumps(plan, indent=2) if as_json else planning.listing(plan))
    if not tasks:
        left = f"{len(pairing.left)} files are left over" + ("" if dry_run else " (--dry-run says why)")
        reasons = pairing.empty + ([left] if pairing.left else [])
        raise InputError(f"no PAN/MS pair in {' '.join(sources)}: {'; '.join(reasons)}")
    for note in () if quiet else pairing.empty:
        say_line(f"warning: {note}", err=True)
    if output is None or dry_run:
        return
    if pairing.left and not quiet:
        say_line(f"warning: {len(pairing.left)} files are in no pair (--dry-run says why)", err=True)
    if scheduler is None:
        if ram is not None and not quiet and not workers.resident(os.getpid()):
            say_line("warning: this system does not tell what a process holds: --ram limits the jobs only", err=True)
        execute = batch.local(choices, jobs, timeout, None if ram is None else int(ram * 1e9))
    else:
        try:
            from ..archive import cluster
        except ImportError as error:
            raise InputError("--scheduler needs Dask: pip install 'pansharpen[distributed]'") from error
        execute = cluster.execute(choices, scheduler, timeout)
    with BatchProgressBars(quiet) as watch:
        tally = batch.run(
            tasks, output, execute, retry_failed=retry_failed, overwrite=overwrite, left=pairing.left, watch=watch
        )
    facts = batch.summary(tally, len(pairing.left))
    if as_json:
        say_line(json.dumps(facts, indent=2))
    elif not quiet:
        say_line(batch.sentence(facts))
    for key in ("failed", "failed_before"):
        for each in facts[key]:
            say_line(f"{key.replace('_', ' ')}: {each['scene']}: {each['error']}", err=True)
    if count := len(facts["failed"] + facts["failed_before"]):
        again = "; --retry-failed tries again what failed before" if facts["failed_before"] else ""
        raise PansharpenError(f"{count} of {tally.scenes} scenes failed{again}")


def _batch_index(folders: Sequence[str], quiet: bool) -> None:
    """`batch report OUTDIR`."""
    if len(folders) != 1:
        raise InputError("batch report takes the output folder of a batch: pansharpen batch report OUTDIR")
    _import_jobs()
    from ..archive import batch_log
    from ..report import index

    folder = Path(folders[0])
    path = index.write(folder, batch_log.read_log(folder).values(), batch_log.read_left(folder))
    if not quiet:
        say_line(path)


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


def _print(facts: dict, as_json: bool, quiet: bool, verbose: bool, as_csv: bool = False) -> None:
    from ..report.files import to_json
    from ..report.text import ranking, ranking_csv, table

    if not quiet:
        for warning in facts["warnings"]:
            say_line(f"warning: {warning}", err=True)
        for note in facts["notes"] if verbose else ():
            say_line(f"note: {note}", err=True)
    if as_json:
        say_line(to_json(facts))
    elif as_csv:
        say_line(ranking_csv(facts), nl=False)
    elif not quiet:
        say_line(ranking(facts) if "results" in facts else table(facts))


def _print_check(facts: dict, as_json: bool, quiet: bool) -> None:
    from ..report.files import to_json
    from ..report.text import check_table

    if as_json:
        say_line(to_json(facts))
    elif not quiet:
        say_line(check_table(facts))


def _import_jobs() -> None:
    """Import the jobs and all that they import; collecting garbage meanwhile takes a fifth of the time."""
    gc.disable()
    try:
        with interrupts.starting():
            from ..jobs import (
                evaluate,  # noqa: F401
                fuse,  # noqa: F401
            )

        gc.freeze()  # what is imported stays
    finally:
        gc.enable()


def _command() -> str:
    return shlex.join(["pansharpen", *sys.argv[1:]])


def main() -> None:
    """Entry point: runs the app and turns every error into one line on stderr and an exit code."""
    interrupts.handle(interrupts.raise_once)
    interrupts.watch(_clear)
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")  # libraries' remarks; what concerns the user is in the report
        os.environ.setdefault("CPL_LOG", os.devnull)  # those of GDAL in threads that nobody listens to
        sys.unraisablehook = ignore  # rasterio's about text of GDAL that is no UTF-8
    replace_closed_streams()
    try:
        code = app(
            args=[with_home(argument) for argument in sys.argv[1:]], prog_name="pansharpen", standalone_mode=False
        )
        sys.stdout.flush()
        interrupts.check()
        if code == interrupts.CODE:  # Typers differ in what they make of it
            raise KeyboardInterrupt
    except UsageError as error:
        # asked for nothing: its message is the help
        if type(error).__name__ == "NoArgsIsHelpError":
            say_line(error.format_message())
            code = 2
        else:
            code = complain(plain(error.format_message()), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        code = complain("interrupted", interrupts.CODE, debug)
    except PansharpenError as error:
        code = complain(str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = error.filename or ("" if takes_text(sys.stdout) else "stdout")
        code = complain(f"{where}: {error.strerror}" if where else str(error), 1, debug)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, MemoryError) or re.search("allocate memory|not enough memory|out of memory", text):
            code = complain("out of memory; try a smaller --tile-size", 1, debug)
        else:
            code = complain(f"unexpected {type(error).__name__}: {text} (run again with --debug)", 1, debug)
    sys.exit(interrupts.CODE if interrupts.asked() else code or 0)


def _clear() -> None:
    """Remove temporary files, if any module that makes them is there."""
    publish = sys.modules.get("pansharpen_cli.publish")
    if publish is not None:
        publish.clear()


app.add_typer(weights_app, name="weights")
