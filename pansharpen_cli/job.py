"""The whole job of `pansharpen fuse` and `pansharpen evaluate`: from paths to finished files and their report."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch

from . import __version__, classical, device
from .adapt.sampling import Progress, quiet
from .errors import InputError, PansharpenError, ReadError
from .fusion import fit as fitting
from .fusion import loop, register
from .fusion.fit import Fit, Options
from .models import REGISTRY, weights
from .publish import TIFF, Publication, check_target, orphans
from .quality import assess
from .quality.assess import Radiometry, Raster, Score, array_reader
from .raster.geometry import Window, area, intersect
from .raster.grid import Grid
from .raster.messages import gdal_messages
from .raster.scene import Scene
from .raster.source import bounded_cache, open_raster
from .raster.writer import (
    PROVENANCE,
    SceneWriter,
    parse_creation_options,
    picture_bytes,
    raster_versions,
    raster_writer,
    to_dtype,
)
from .report import files, gallery, html
from .report.gallery import Pictures
from .report.verdict import verdict, warnings_of

SCHEMA = "pansharpen-report/1"
EVALUATION_SCHEMA = "pansharpen-evaluation/1"

COMPARED = ("exp", "mtf-glp-fs")
"""Methods that an HTML report puts beside the result."""

COMPARED_SIDE = 1024
"""Side of the part of a larger scene on which they are compared, in PAN pixels: whole blocks of the indices."""

SHOWN = 4
"""Results of an evaluation whose pictures are in its HTML report, best first."""

FULL_MAPS = ("hqnr", "d_lambda_k", "d_s", "sam")
REFERENCE_MAPS = ("q2n", "sam")
"""Figures of which `evaluate --map` writes maps."""

_AGAINST_REFERENCE = ("q2n", "q", "sharpness", "scc", "psnr", "ssim", "cc")
LIMITED = {"full": ("fidelity", "hqnr", "qnr"), "reference": _AGAINST_REFERENCE, "wald": _AGAINST_REFERENCE}
"""Figures by kind of evaluation of which a least value can be asked for: too low is bad."""

PICTURES = (".png", ".jpg", ".jpeg")
"""How the names of quicklooks end."""

BLOCK = 32
"""Side of the blocks of the maps, in PAN pixels."""


@dataclass(frozen=True)
class Pair:
    """How to open a scene: the arguments of `Scene.open`, and what paths are called in reports if not as they are."""

    pan: str
    ms: Sequence[str]
    open_options: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Scene:
        return Scene.open(self.pan, self.ms, labels=self.labels, **self.open_options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Output:
    """Where and how to write: all of it is published together, or nothing.

    `command` is what the reports say was called; `batch`: what they say of the scene in a batch.
    """

    path: Path
    driver: str = "GTiff"
    creation_options: Sequence[str] = ()
    overviews: bool = False
    overwrite: bool = False
    quicklook: Path | None = None
    reports: Sequence[Path] = ()
    command: str | None = None
    batch: Mapping[str, object] | None = None


def fuse_scene(pair: Pair, output: Output, options: Options, score: bool = True, progress: Progress = quiet) -> dict:
    """Fuse a pair into a file and return the report; the file is at its path only if everything went well.

    Raises InputError for bad input or options before anything is written, PansharpenError for failures while running.
    """
    started = time.perf_counter()
    creation_options = parse_creation_options(output.creation_options)
    fitting.check_method(options)
    device.choose_device(options.device)
    with gdal_messages() as said, ExitStack() as stack:
        scene, registration = opened(pair, options, stack, partial(check_targets, output), progress=progress)
        aligning, illustrated = time.perf_counter() - started, any(map(_is_html, output.reports))
        with SceneWriter(
            output.path, scene, driver=output.driver, creation_options=creation_options, overviews=output.overviews
        ) as writer:
            apart = registration.found is not None and register.is_apart(registration.found)
            # tiles of different places would teach a network the wrong thing, and judge it by the same
            fit = fitting.fit(scene, replace(options, adapt="off") if apart else options, progress)
            clock = time.perf_counter()
            valid = loop.write_fused(scene, fit.fuser, writer, options.tile_size, progress)
            written = writer.finish()
            fused_seconds = time.perf_counter() - clock
            quality, comparison, pictures = None, None, None
            clock = time.perf_counter()
            with Raster.on_scene(written, scene) as raster:
                measured = _scored(scene, raster, progress) if score else None
                score_seconds = time.perf_counter() - clock
                if measured is not None:
                    quality = _quality(measured, scene)
                    score_seconds = time.perf_counter() - clock
                if illustrated:
                    pictures = _pictures(scene, raster, measured, progress)
                    if measured is not None and quality is not None:
                        comparison = _comparison(scene, raster, options.method, measured, quality, progress)
            scene.check_unchanged()
            picture = html.quicklook(written, scene.band_names) if output.quicklook else None
            seconds = {"aligning": aligning, **(fit.seconds or {}), "fusing": fused_seconds, "scoring": score_seconds}
            facts = _report(scene, pair, output, options, fit, valid, quality, seconds, started)
            facts |= {"comparison": comparison, "registration": registration.facts()}
            facts["verdict"] = verdict(quality, scene.band_names, options.method)
            facts |= {"batch": output.batch} if output.batch else {}
            if apart and facts["adaptation"]["mode"] != "off":
                facts["adaptation"]["mode"] = "off"
                facts["adaptation"]["reason"] = "PAN and MS do not show the same in the same place"
            facts["output"]["bytes"] = writer.ready(_provenance(facts))
            facts["warnings"] += [*said.notes(), *warnings_of(facts["verdict"])]
            facts["seconds"]["total"] = time.perf_counter() - started
            if output.quicklook and picture is not None:
                writer.files.add(output.quicklook, picture_bytes(picture, output.quicklook.suffix))
            for path in output.reports:
                shown = [(output.path.name, pictures)] if pictures is not None else []
                writer.files.add(path, _report_bytes(path, facts, shown))
            writer.files.publish()
    return facts


def _report_bytes(path: Path, facts: Mapping, shown: Sequence[tuple[str, Pictures]]) -> bytes:
    """A report of the kind that its path asks for."""
    return html.html_bytes(facts, shown) if _is_html(path) else files.json_bytes(facts)


def check_targets(output: Output, scene: Scene) -> None:
    """Raises InputError if `fuse_scene` could not write its output, report or quicklook.

    What is going to be removed, as it would be read with the output, is among the scene's warnings.
    """
    targets = [(output.path, TIFF), *((p, ()) for p in output.reports)]
    targets += [(output.quicklook, PICTURES)] if output.quicklook else []
    if len({os.path.realpath(p) for p, _ in targets}) < len(targets):
        raise InputError("the output, the report and the quicklook need different paths")
    for path in output.reports:
        _is_html(path)
    for path, endings in targets:
        check_target(path, scene.files(), output.overwrite, endings)
        scene.warnings += [f"{p} is removed: without {path.name} it was a part of nothing" for p in orphans(path)]


ALIGN = ("auto", "off", "measure")


@dataclass(frozen=True)
class Registration:
    """What `align` made of a scene: the shift that was applied, and the one `found`, or the file that names it."""

    mode: str
    applied: tuple[float, float] = (0.0, 0.0)
    found: register.Shift | None = None
    source: str = ""

    def facts(self) -> dict | None:
        """For the report; None where nothing was measured or read."""
        if not self.source:
            return None
        shift = (self.found.rows, self.found.cols) if self.found else self.applied
        known = asdict(self.found) if self.found else {}
        facts = {"mode": self.mode, "source": self.source, "shift": list(shift), "applied": list(self.applied)}
        return facts | {k: v for k, v in known.items() if k not in ("rows", "cols")}

    def notes(self) -> list[str]:
        """What the user ought to know, a line each."""
        if self.found is not None:
            return register.remarks(self.found, any(self.applied))
        moved = f"the MS is moved by {register.described(self.applied)}, as for {self.source}"
        return [moved] if any(self.applied) else []


def takes_measured_mtf(options: Options) -> bool:
    """Whether MTF gains are measured for the method: for networks, unless the sensor's are asked for."""
    return options.mtf != "sensor" and options.method in REGISTRY


def opened(
    pair: Pair,
    options: Options,
    stack: ExitStack,
    ready: Callable[[Scene], None] = lambda scene: None,
    files: Sequence[str] = (),
    progress: Progress = quiet,
) -> tuple[Scene, Registration]:
    """The scene, with its MS moved where `align` corrects it and a warning of that, and how it was settled.

    A scene that a network fuses gets the MTF gains that are measured, unless `mtf` asks for the sensor's, and the
    offsets of its single bands.
    `ready` is called with the scene before anything is measured. Of fused `files` to be measured, the shift that they
    were aligned by counts more than what is measured. Raises InputError for what cannot be fused.
    """
    if options.align not in ALIGN:
        raise InputError(f"unknown --align '{options.align}'; there is {', '.join(ALIGN)}")
    measured = takes_measured_mtf(options)

    def settle(scene: Scene, found: register.Shift) -> None:
        scene.fitted_gains = found.gains
        if options.align == "auto":
            scene.band_offsets = register.band_offsets(found)

    given = dict(pair.open_options)
    parts = {k: given.pop(k, None) for k in ("window", "bbox")} if options.align != "off" else {}
    scene = stack.enter_context(replace(pair, open_options=given).open())
    ready(scene)
    if options.align == "off":
        if measured:
            settle(scene, register.measure(scene, options.seed, progress))
        return scene, Registration(options.align)
    found, source, applied = None, _recorded_shift(files, scene) if options.align == "auto" else None, (0.0, 0.0)
    if source is not None:
        applied = source[0]
    else:
        found = register.measure(scene, options.seed, progress)
        if options.align == "auto" and register.is_off(found):
            applied = found.rows, found.cols
    if any(applied) or any(part is not None for part in parts.values()):
        # the part is one of where the MS lies now; files that change in between are seen
        moved = replace(pair, open_options={**pair.open_options, "shift": applied})
        scene, first = stack.enter_context(moved.open()), scene
        scene.stamps.update(first.stamps)
        scene.warnings.extend(w for w in first.warnings if w not in scene.warnings)
    if measured and found is not None:
        settle(scene, found)
    registration = Registration(options.align, applied, found, source[1] if source else "measured")
    scene.warnings.extend(registration.notes())
    return scene, registration


def _recorded_shift(files: Sequence[str], scene: Scene) -> tuple[tuple[float, float], str] | None:
    """By how much fused files say that this MS was moved, and one that says so; None if none does or they differ."""
    shifts: dict[tuple[float, float], str] = {}
    for path in files:
        with open_raster(path) as dataset:
            tags = dataset.tags(ns=PROVENANCE)
        if "ALIGN" in tags and tags.get("MS") == _names(s.label for s in scene.ms):
            try:
                rows, cols = (float(v) for v in tags.get("ALIGN_SHIFT", "0 0").split())
            except ValueError:
                continue  # not ours
            if all(abs(v) <= register.FAR + register.SEARCH for v in (rows, cols)):  # no NaN
                shifts.setdefault((rows, cols), path)
    return next(iter(shifts.items())) if len(shifts) == 1 else None


def _names(paths: Iterable[str]) -> str:
    return " ".join(os.path.basename(p) for p in dict.fromkeys(paths))


@dataclass(frozen=True)
class EvaluationOutput:
    """Where an evaluation writes: a report (.html or .json) and a folder of maps; nothing by default.

    `command` is what the report says was called.
    """

    report: Path | None = None
    maps: Path | None = None
    overwrite: bool = False
    command: str | None = None


@dataclass
class _Result:
    """One scored image of an evaluation; `show` reads its pictures."""

    name: str
    path: str | None
    quality: dict
    score: Score
    grid: Grid
    show: Callable[[], Pictures]


def evaluate(
    files: Sequence[str],
    pair: Pair,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    align: str = "auto",
) -> dict:
    """Full-resolution figures of any files on the PAN grid, ranked by fidelity: the facts of an evaluation.

    Each is scored on the part of the scene that it covers, all with the MS where `align` puts it: where the files say
    that they were fused with it, else where it is measured. Raises InputError if one does not fit the scene.
    """
    with gdal_messages() as said, ExitStack() as stack:
        scene, registration = opened(
            pair,
            Options(align=align, mtf="sensor"),
            stack,
            lambda scene: _check_outputs(output, {*scene.files(), *files}, files, FULL_MAPS),
            files,
            progress,
        )

        def result(path: str) -> _Result:
            with Raster.on_scene(path, scene) as raster, _naming(path):
                score = assess.full_resolution(scene, raster.read, raster.window, progress)

            def show() -> Pictures:
                with Raster.on_scene(path, scene) as raster:
                    return _pictures(scene, raster, score, progress)

            return _Result(path, path, _quality(score, scene), score, scene.pan_grid, show)

        results = [result(path) for path in dict.fromkeys(files)]
        notes = [*scene.warnings, *said.notes()]
        return _finish("full", results, output, scene, notes, FULL_MAPS, registration.facts())


def evaluate_against(
    reference: str,
    files: Sequence[str],
    ratio: float,
    peak: float | None = None,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    nodata: float | None = None,
    pan: str | None = None,
) -> dict:
    """Figures of files against the true bands on the same grid, ranked by Q2n.

    `ratio`: MS pixel size in PAN pixels, for ERGAS and the error beside edges, which `pan` is needed for; `peak`: DN,
    for PSNR and SSIM, by default that of `assess.radiometry`; `nodata` replaces all files' own value. Raises InputError
    if a file does not fit the reference.
    """
    with gdal_messages() as said, bounded_cache(), Raster.open(reference, nodata) as truth, ExitStack() as stack:
        inputs = {reference, *files} | ({pan} if pan is not None else set())
        _check_outputs(output, inputs, files, REFERENCE_MAPS)
        detail = stack.enter_context(Raster.pan_on(pan, truth)) if pan is not None else None
        known = assess.radiometry(truth, peak)
        against = _Reference(truth, detail, ratio, known)
        results = [_compared_with(against, path, path, path, progress) for path in dict.fromkeys(files)]
        return _finish("reference", results, output, None, known.notes + said.notes(), REFERENCE_MAPS)


def evaluate_wald(
    pair: Pair,
    methods: Sequence[str],
    options: Options,
    peak: float | None = None,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
) -> dict:
    """Wald's protocol: the pair degraded at its exact phase, fused by each method, compared with the MS itself.

    `methods`: names, or "all". Raises InputError for a method that does not take this scene; of "all" it is left out
    with a warning.
    """
    every = list(methods) == ["all"]
    known = [*classical.METHODS, *REGISTRY]
    trained = {card.network for card in weights.manifest().values()}
    asked = [n for n in known if n not in REGISTRY or n in trained] if every else methods
    names = list(dict.fromkeys(classical.ALIASES.get(m, m) for m in asked))
    unknown = [n for n in names if n not in known]
    if unknown or not names:
        what = f"unknown method '{unknown[0]}'" if unknown else "no method is named"
        raise InputError(f"{what}; there is all, {', '.join(known)}")
    with gdal_messages() as said, ExitStack() as stack:
        scene, registration = opened(
            pair,
            options,
            stack,
            lambda scene: _check_outputs(output, scene.files(), names, REFERENCE_MAPS),
            progress=progress,
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pansharpen-")))
        reduced = assess.degrade(scene, folder, progress)
        ratio = (scene.phase.ratio[0] * scene.phase.ratio[1]) ** 0.5
        low = Pair(str(reduced.pan), [str(reduced.ms)], {"sensor": scene.sensor.name, "dtype": scene.dtype})
        results, notes = [], list(scene.warnings)
        with Raster.open(reduced.reference) as truth, Raster.pan_on(reduced.pan, truth) as detail:
            truth.source.label = "the MS"
            values = assess.radiometry(truth, peak)
            notes += values.notes
            against = _Reference(truth, detail, ratio, values)
            for name in names:
                path = folder / f"{name}.tif"
                try:
                    _fuse_plainly(low, path, replace(options, method=name), progress)
                except InputError as error:
                    reason = str(error).replace(f"{folder}/", "the degraded ")
                    if not every:
                        raise InputError(f"{name}: {reason}") from error
                    notes.append(f"{name} is left out: {reason}")
                    continue
                results.append(_compared_with(against, str(path), name, None, progress))
                _keep_shown(results, output, folder)
            if not results:
                raise InputError(f"no method takes this scene: {notes[-1]}")
            return _finish("wald", results, output, scene, notes + said.notes(), REFERENCE_MAPS, registration.facts())


def _keep_shown(results: list[_Result], output: EvaluationOutput, folder: Path) -> None:
    """Remove the fused files that no report will show."""
    count = SHOWN if _is_html(output.report) else 0
    for result in sorted(results, key=_worth)[count:]:
        (folder / f"{result.name}.tif").unlink(missing_ok=True)


def _worth(result: _Result) -> tuple[float, ...]:
    """Sort key, the best first: fidelity or Q2n; where that is undefined HQNR or ERGAS."""
    keys = {"fidelity": -1, "hqnr": -1} if "fidelity" in result.quality else {"q2n": -1, "ergas": 1}
    return tuple(math.inf if result.quality[k] is None else sign * result.quality[k] for k, sign in keys.items())


def check_limits(kind: str, limits: Mapping[str, float]) -> None:
    """Raises InputError for a limit on what is no figure of that kind of evaluation, or is the better the lower."""
    for figure in limits:
        if figure not in LIMITED[kind]:
            known = ", ".join(f.upper() for f in LIMITED[kind])
            raise InputError(f"--fail-under knows {known} here, not '{figure.upper()}'")


def shortfalls(facts: Mapping, limits: Mapping[str, float]) -> list[str]:
    """What of an evaluation is below the given limits, one line each; a figure that is undefined is below any."""
    lines = []
    for figure, limit in limits.items():
        for result in facts["results"]:
            value = result["quality"][figure]
            if value is None or value < limit:
                shown = "undefined" if value is None else f"{value:.4f}"
                lines.append(f"{result['name']}: {figure.upper()} is {shown}, under {limit:g}")
    return lines


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of what is scored before an error."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Reference:
    """What files are compared with: the true bands and their PAN, if known, and what the figures need besides."""

    truth: Raster
    pan: Raster | None
    ratio: float
    known: Radiometry


def _compared_with(against: _Reference, path: str, name: str, shown_path: str | None, progress: Progress) -> _Result:
    truth = against.truth
    with Raster.on_reference(path, truth) as raster, _naming(name):
        raster.source.label = name
        score = assess.against_reference(truth, raster, against.ratio, against.known, against.pan, progress)

    def show() -> Pictures:
        with Raster.on_reference(path, truth) as raster:
            return replace(
                gallery.collect_reference(
                    truth.read, raster.read, raster.window, truth.names, progress=partial(progress, "drawing")
                ),
                maps=score.maps,
            )

    quality = dict(score.figures) | {
        "ratio": against.ratio,
        "peak": against.known.peak,
        "measured_on": "against the reference, its valid pixels that the image covers",
    }
    return _Result(name, shown_path, quality, score, truth.grid, show)


def _fuse_plainly(pair: Pair, path: Path, options: Options, progress: Progress) -> None:
    with pair.open() as scene, SceneWriter(path, scene) as writer:
        fit = fitting.fit(scene, options, progress)
        loop.write_fused(scene, fit.fuser, writer, options.tile_size, progress)
        writer.finish()
        writer.commit({"METHOD": options.method})


def _finish(
    kind: str,
    results: list[_Result],
    output: EvaluationOutput,
    scene: Scene | None,
    warnings: Sequence[str],
    maps: Sequence[str],
    registration: dict | None = None,
) -> dict:
    """Rank, write what is asked for and return the facts. Raises ReadError if the scene's files have changed."""
    if scene is not None:
        scene.check_unchanged()
    results.sort(key=_worth)
    notes = [
        *warnings,
        *(n if r.name in n or len(results) == 1 else f"{r.name}: {n}" for r in results for n in r.score.notes),
    ]
    counts, windows = [r.quality["blocks"] for r in results], [r.score.window for r in results]
    common = area(reduce(intersect, windows)) / max(map(area, windows))
    if common < 0.95 or min(counts) < 0.95 * max(counts):
        parts = ", ".join(f"{r.name} {r.quality['blocks']} in {_place(r.score.window)}" for r in results)
        notes.append(f"the figures are of different parts of the scene; 32 x 32 blocks measured: {parts}")
    names = scene.band_names if scene is not None else ()
    facts = {
        "schema": EVALUATION_SCHEMA,
        "version": __version__,
        "command": output.command,
        "software": _software(),
        "kind": kind,
        "scene": scene_facts(scene) if scene is not None else None,
        "registration": registration,
        "results": [
            {"rank": rank, "name": r.name, "path": r.path, "quality": r.quality, "verdict": verdict(r.quality, names)}
            for rank, r in enumerate(results, 1)
        ],
        "warnings": notes,
    }
    if output.maps is not None:
        try:
            output.maps.mkdir(exist_ok=True)
        except OSError as error:
            raise PansharpenError(f"cannot make the folder {output.maps}: {error.strerror}") from error
    with Publication() as files:
        if output.maps is not None:
            for result in results:
                _write_maps(output.maps, result, maps, files)
        if output.report is not None:
            shown = [(r.name, r.show()) for r in results[:SHOWN]] if _is_html(output.report) else []
            files.add(output.report, _report_bytes(output.report, facts, shown))
        files.publish()
    return facts


def _place(window: Window) -> str:
    return "rows {}-{}, columns {}-{}".format(*window)


def _check_outputs(output: EvaluationOutput, inputs: set[str], names: Sequence[str], maps: Sequence[str]) -> None:
    """Raises InputError before anything is measured if something could not be written in the end."""
    _is_html(output.report)
    if output.report is not None:
        check_target(output.report, inputs, output.overwrite)
        if output.maps is not None and os.path.abspath(output.report) == os.path.abspath(output.maps):
            raise InputError("--report and --map need different paths")
    if output.maps is None:
        return
    stems = [Path(n).stem for n in dict.fromkeys(names)]
    if len(set(stems)) < len(stems):
        raise InputError("--map names its files after the fused ones: these need different names")
    if not output.maps.is_dir():
        if output.maps.exists() or not output.maps.resolve().parent.is_dir():
            raise InputError(f"cannot make the folder {output.maps} of --map")
        return
    for stem in stems:
        for figure in maps:
            check_target(output.maps / f"{stem}_{figure}.tif", inputs, output.overwrite)


def _write_maps(folder: Path, result: _Result, maps: Sequence[str], files: Publication) -> None:
    for figure in maps:
        values = result.score.maps[figure]
        grid = result.grid.window(result.score.window).blocks(BLOCK, values.shape)
        with raster_writer(
            folder / f"{Path(result.name).stem}_{figure}.tif", grid, 1, np.dtype("float32"), (figure,), files
        ) as write:
            write((0, grid.height, 0, grid.width), values[None].astype(np.float32))


def _is_html(path: Path | None) -> bool:
    """Which kind of report a path asks for. Raises InputError if its ending says neither."""
    if path is None or path.suffix.lower() == ".json":
        return False
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report takes a .html or a .json file, not {path}")
    return True


def _pictures(scene: Scene, raster: Raster, score: Score | None, progress: Progress) -> Pictures:
    detail = score.maps["detail"] if score is not None else None
    pictures = gallery.collect(scene, raster.read, raster.window, detail, progress=partial(progress, "drawing"))
    shown = {k: v for k, v in score.maps.items() if k in FULL_MAPS} if score is not None else {}
    return replace(pictures, maps=shown)


def _comparison(
    scene: Scene, raster: Raster, method: str, score: Score, quality: dict, progress: Progress
) -> dict | None:
    """The result beside other methods: on all of a small output, on the part richest in detail of a large one.

    None where nothing can be measured on that part.
    """
    window = _richest_part(scene.window, score.maps["detail"])
    part = scene
    place = "all that was fused"
    try:
        if window != scene.window:
            part = replace(scene, full=window, window=window)
            quality = _quality(assess.full_resolution(scene, raster.read, window), scene)
            place = f"{_place(window)}, to which the others are fitted"
        rows = [{"name": "this result", **quality}]
        for name in (n for n in COMPARED if n != method):
            fused, valid = loop.fuse_array(part, fitting.fit(part, Options(method=name), progress).fuser)
            values = to_dtype(fused, valid, np.dtype(scene.dtype), scene.nodata).astype(np.float32)
            measured = assess.full_resolution(part, array_reader(values, valid, (window[0], window[2])), window)
            rows.append({"name": name, **_quality(measured, part)})
    except InputError as error:
        scene.warnings.append(f"no comparison with other methods: {error}")
        return None
    return {"measured_on": place, "rows": rows}


def _richest_part(window: Window, detail: np.ndarray) -> Window:
    """The whole of a small window; else the square with the most detail, on the lattice of blocks."""
    blocks = COMPARED_SIDE // BLOCK
    if min(detail.shape) <= blocks and max(detail.shape) <= 2 * blocks:
        return window
    rows, cols = (min(n, blocks) for n in detail.shape)
    worth = np.isfinite(detail) + np.nan_to_num(detail) / max(np.nanmax(detail, initial=0.0), 1e-9)
    sums = np.pad(worth, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    energy = sums[rows:, cols:] - sums[:-rows, cols:] - sums[rows:, :-cols] + sums[:-rows, :-cols]
    r, c = (int(i) * BLOCK for i in np.unravel_index(energy.argmax(), energy.shape))
    return window[0] + r, window[0] + r + rows * BLOCK, window[2] + c, window[2] + c + cols * BLOCK


def _scored(scene: Scene, raster: Raster, progress: Progress) -> Score | None:
    """The figures, or None with a warning where the scene has no whole valid block to measure."""
    try:
        score = assess.full_resolution(scene, raster.read, scene.window, progress)
    except ReadError:
        raise
    except InputError as error:
        scene.warnings.append(str(error))
        return None
    scene.warnings.extend(score.notes)
    return score


def _quality(score: Score, scene: Scene) -> dict:
    return {
        **score.figures,
        "measured_on": "full resolution, valid 32 x 32 blocks, MS expanded at the true phase",
        "mtf_gains": list(scene.gains),
    }


def _software() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, **raster_versions()}


def scene_facts(scene: Scene) -> dict:
    return {
        "pan": scene.pan.label,
        "ms": list(dict.fromkeys(s.label for s in scene.ms)),
        "bands": scene.bands,
        "band_names": list(scene.band_names),
        "dtype": scene.dtype,
        "nodata": None if scene.nodata != scene.nodata else scene.nodata,
        "crs": scene.pan_grid.crs.to_string() if scene.pan_grid.crs else None,
        "ratio": list(scene.phase.ratio),
        "offset": list(scene.phase.offset),
        "sensor": scene.sensor.name,
        "sensor_recognised_in": scene.sensor_source,
        "warped": scene.warped,
        "window": list(scene.window),
    }


def _report(
    scene, pair: Pair, output, options: Options, fit: Fit, valid: int, quality, seconds: dict, started: float
) -> dict:
    rows, cols = scene.window[1] - scene.window[0], scene.window[3] - scene.window[2]
    adaptation = {"mode": options.adapt if fit.card is not None else "off"}
    if fit.outcome is not None:
        adaptation |= fit.outcome.as_dict()
    total = time.perf_counter() - started
    return {
        "schema": SCHEMA,
        "version": __version__,
        "command": output.command,
        "software": _software(),
        "output": {
            "path": str(output.path), "driver": output.driver, "rows": rows, "cols": cols, "valid_pixels": valid,
        },
        "scene": scene_facts(scene),
        "method": {
            "name": options.method,
            "weights": fit.card.path.name if fit.card else None,
            "weights_sha256": fit.card.sha256 if fit.card else None,
            "scale": fit.stats.scale_in_dn if fit.stats else None,
            "mtf": options.mtf if scene.fitted_gains else "sensor",
            "mtf_gains": list(scene.effective_gains),
            "band_offsets": [list(offset) for offset in scene.band_offsets],
            "device": fit.device,
            "precision": fit.precision,
            "tile_size": options.tile_size,
            "seed": options.seed,
        },
        "options": {k: v for k, v in {**pair.open_options, **asdict(options)}.items() if v is not None},
        "adaptation": adaptation,
        "quality": quality,
        "seconds": seconds | {"total": total},
        "megapixels_per_second": rows * cols / 1e6 / max(seconds["fusing"], 1e-9),
        "warnings": scene.warnings,
    }  # fmt: skip


def _provenance(facts: dict) -> dict[str, str]:
    """The report as flat GDAL tags; nothing in it depends on the clock, so that the same input gives the same bytes."""
    scene, method, adaptation, quality = facts["scene"], facts["method"], facts["adaptation"], facts["quality"]
    tags = {
        "VERSION": facts["version"],
        "METHOD": method["name"],
        "WEIGHTS": method["weights"],
        "WEIGHTS_SHA256": method["weights_sha256"],
        "SCALE": method["scale"],
        "PRECISION": method["precision"],
        "SEED": method["seed"],
        "PAN": os.path.basename(scene["pan"]),
        "MS": _names(scene["ms"]),
        "SENSOR": f"{scene['sensor']} ({scene['sensor_recognised_in']})",
        "RATIO": " ".join(f"{v:.9g}" for v in scene["ratio"]),
        "OFFSET": " ".join(f"{v:.9g}" for v in scene["offset"]),
        "MS_WARPED": "YES" if scene["warped"] else "NO",
        "ALIGN": facts["options"]["align"],
        "MTF": method["mtf"],
        "MTF_GAINS": " ".join(f"{v:.9g}" for v in method["mtf_gains"]),
        "ADAPT": adaptation["mode"],
        "OPTIONS": json.dumps({k: v for k, v in facts["options"].items() if k != "weights"}),
    }
    aligned = facts["registration"]
    if aligned and any(aligned["applied"]):
        tags["ALIGN_SHIFT"] = " ".join(f"{v:.9g}" for v in aligned["applied"])
        tags["ALIGN_CONFIDENCE"] = aligned["confidence"]
    if "kept" in adaptation:
        tags["ADAPT_KEPT"] = "YES" if adaptation["kept"] else "NO"
        tags["ADAPT_TILES"], tags["ADAPT_EPOCHS"] = adaptation["tiles"], adaptation["epochs"]
        for name in ("before", "after"):
            if "total" in adaptation[name]:
                tags[f"ADAPT_LOSS_{name.upper()}"] = f"{adaptation[name]['total']:.6g}"
    for key in ("fidelity", "hqnr", "d_lambda_k", "d_s"):
        if quality and quality[key] is not None:
            tags[key.upper()] = f"{quality[key]:.6f}"
    return {k: str(v) for k, v in tags.items() if v is not None}
