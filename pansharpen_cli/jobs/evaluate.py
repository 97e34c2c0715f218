"""Evaluation of fused files: at full resolution, against a reference, by Wald's protocol."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import and_
from pathlib import Path

import numpy as np

from .. import __version__, classical
from ..errors import InputError, PansharpenError
from ..fusion import fit as fitting
from ..fusion import loop
from ..fusion.options import Options
from ..models import REGISTRY, weights
from ..progress import Progress, quiet
from ..publish import Publication, check_absent, check_place
from ..quality import assess
from ..quality.assess import Score
from ..quality.rasters import Raster
from ..quality.reference import Radiometry, against_reference, radiometry
from ..quality.wald import degrade
from ..raster.grid import Grid
from ..raster.messages import gdal_messages
from ..raster.options import OpenOptions
from ..raster.plain import raster_writer
from ..raster.scene import Scene
from ..raster.source import bounded_cache
from ..raster.writer import SceneWriter
from ..report import files, html
from ..report import pictures as report_pictures
from ..report.facts import EvaluationFacts, FusionFacts, Quality
from ..report.pictures import Pictures
from ..report.verdict import verdict
from .facts import FULL_MAPS, MAP_BLOCK, pictures_of, quality_facts, scene_facts, software_facts
from .opened import Registration, opened
from .request import Pair, is_html

EVALUATION_SCHEMA = "pansharpen-evaluation/1"

SHOWN = 8
"""Most results of an evaluation whose pictures are in its HTML report: those that are chosen, else the best."""

REFERENCE_MAPS = ("q2n", "sam")
"""Figures of which `evaluate --map` writes maps."""

_AGAINST_REFERENCE = ("q2n", "q", "sharpness", "scc", "psnr", "ssim", "cc")
LIMITED = {"full": ("fidelity", "hqnr", "qnr"), "reference": _AGAINST_REFERENCE, "wald": _AGAINST_REFERENCE}
"""Figures by kind of evaluation of which a least value can be asked for: too low is bad."""


def report_bytes(path: Path, facts: FusionFacts | EvaluationFacts, shown: Sequence[tuple[str, Pictures]]) -> bytes:
    """A report of the kind that its path asks for."""
    return html.html_bytes(facts, shown) if is_html(path) else files.json_bytes(facts)


@dataclass(frozen=True)
class EvaluationOutput:
    """Where an evaluation writes: a report (.html or .json) and a folder of maps; nothing by default.

    `command` is what the report says was called. `show`: the results whose pictures are in an HTML report, by their
    names or those of their files; the best ones where there is no choice.
    """

    report: Path | None = None
    maps: Path | None = None
    overwrite: bool = False
    command: str | None = None
    show: Sequence[str] = ()

    def shown(self, names: Sequence[str]) -> list[str]:
        """Those of `names`, the best first, whose pictures are shown; none without an HTML report."""
        if not is_html(self.report):
            return []
        return [name for name in names if not self.show or _names(name) & set(self.show)][:SHOWN]

    def check_shown(self, names: Sequence[str]) -> None:
        """Raises InputError for a choice of what is not among `names`, of more than fit on a page, or for no page."""
        if self.show and not is_html(self.report):
            raise InputError("--show chooses the pictures of an HTML page: --report PAGE.html")
        if len(self.show) > SHOWN:
            raise InputError(f"--show takes up to {SHOWN} results, not {len(self.show)}: a page holds no more pictures")
        for each in self.show:
            if not any(each in _names(name) for name in names):
                raise InputError(f"--show {each}: that is none of {', '.join(names)}")


def _names(name: str) -> set[str]:
    """What a result may be called: by a method, a path, or a file's name with its ending or without."""
    return {name, Path(name).name, Path(name).stem}


@dataclass
class _Result:
    """One scored image of an evaluation; `show` reads its pictures."""

    name: str
    path: str | None
    quality: Quality
    score: Score
    grid: Grid
    show: Callable[[], Pictures]


def evaluate(
    files: Sequence[str],
    pair: Pair,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    align: str = "auto",
) -> EvaluationFacts:
    """Full-resolution figures of any files on the PAN grid, ranked by fidelity: the facts of an evaluation.

    Each is scored on the part of the scene that it covers, all with the MS where `align` puts it: where the files say
    that they were fused with it, else where it is measured. Raises InputError if one does not fit the scene.
    """
    targets: list[Path] = []
    with gdal_messages() as said, ExitStack() as stack:
        scene, registration = opened(
            pair,
            Options(align=align, mtf="sensor"),
            stack,
            lambda scene: targets.extend(_check_outputs(output, {*scene.files(), *files}, files, FULL_MAPS)),
            files,
            progress,
        )
        for path in files:
            Raster.on_scene(path, scene).close()
        check_absent(targets, output.overwrite)

        def result(path: str) -> _Result:
            with Raster.on_scene(path, scene) as raster, _naming(path):
                score = assess.full_resolution(scene, raster.read, raster.window, progress)

            def show() -> Pictures:
                with Raster.on_scene(path, scene) as raster:
                    return pictures_of(scene, raster, score, progress)

            return _Result(path, path, quality_facts(score, scene), score, scene.pan_grid, show)

        results = [result(path) for path in dict.fromkeys(files)]
        notes = [*scene.warnings, *said.notes()]
        return _finish("full", results, output, scene, notes, FULL_MAPS, registration)


def evaluate_against(
    reference: str,
    files: Sequence[str],
    ratio: float,
    peak: float | None = None,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    nodata: float | None = None,
    pan: str | None = None,
) -> EvaluationFacts:
    """Figures of files against the true bands on the same grid, ranked by Q2n.

    `ratio`: MS pixel size in PAN pixels, for ERGAS and the error beside edges, which `pan` is needed for; `peak`: DN,
    for PSNR and SSIM, by default that of `radiometry`; `nodata` replaces all files' own value. Raises InputError
    if a file does not fit the reference.
    """
    with gdal_messages() as said, bounded_cache(), Raster.open(reference, nodata) as truth, ExitStack() as stack:
        inputs = {reference, *files} | ({pan} if pan is not None else set())
        targets = _check_outputs(output, inputs, files, REFERENCE_MAPS)
        detail = stack.enter_context(Raster.pan_on(pan, truth)) if pan is not None else None
        for path in files:
            Raster.on_reference(path, truth).close()
        check_absent(targets, output.overwrite)
        known = radiometry(truth, peak)
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
) -> EvaluationFacts:
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
    targets: list[Path] = []
    with gdal_messages() as said, ExitStack() as stack:
        scene, registration = opened(
            pair,
            options,
            stack,
            lambda scene: targets.extend(_check_outputs(output, scene.files(), names, REFERENCE_MAPS)),
            progress=progress,
        )
        for name in () if every else names:
            with _naming(name):
                fitting.preload(replace(options, method=name), scene.bands)
        check_absent(targets, output.overwrite)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pansharpen-")))
        reduced = degrade(scene, folder, progress)
        ratio = scene.phase.mean_ratio
        low = Pair(str(reduced.pan), [str(reduced.ms)], OpenOptions(scene.sensor.name, dtype=scene.dtype))
        results, notes = [], list(scene.warnings)
        with Raster.open(reduced.reference) as written, Raster.pan_on(reduced.pan, written) as detail:
            truth = written.called("the MS")
            values = radiometry(truth, peak)
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
            return _finish("wald", results, output, scene, notes + said.notes(), REFERENCE_MAPS, registration)


def _keep_shown(results: list[_Result], output: EvaluationOutput, folder: Path) -> None:
    """Remove the fused files that no report will show."""
    shown = output.shown([result.name for result in sorted(results, key=_worth)])
    for name in {result.name for result in results} - set(shown):
        (folder / f"{name}.tif").unlink(missing_ok=True)


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


def shortfalls(facts: EvaluationFacts, limits: Mapping[str, float]) -> list[str]:
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
        known, image = against.known, raster.called(name)
        score = against_reference(truth, image, against.ratio, known, against.pan, progress)

    def show() -> Pictures:
        with Raster.on_reference(path, truth) as raster:
            return replace(
                report_pictures.collect_reference(
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
    registration: Registration | None = None,
) -> EvaluationFacts:
    """Rank, write what is asked for and return the facts. Raises ReadError if the scene's files have changed."""
    if scene is not None:
        scene.check_unchanged()
    results.sort(key=_worth)
    notes = [
        *warnings,
        *(n if r.name in n or len(results) == 1 else f"{r.name}: {n}" for r in results for n in r.score.notes),
    ]
    counts, windows = [r.quality["blocks"] for r in results], [r.score.window for r in results]
    common = reduce(and_, windows).area / max(window.area for window in windows)
    if common < 0.95 or min(counts) < 0.95 * max(counts):
        parts = ", ".join(f"{r.name} {r.quality['blocks']} in {r.score.window}" for r in results)
        notes.append(f"the figures are of different parts of the scene; 32 x 32 blocks measured: {parts}")
    names = scene.band_names if scene is not None else ()
    facts: EvaluationFacts = {
        "schema": EVALUATION_SCHEMA,
        "version": __version__,
        "command": output.command,
        "software": software_facts(),
        "kind": kind,
        "scene": scene_facts(scene) if scene is not None else None,
        "registration": registration.facts() if registration is not None else None,
        "results": [
            {
                "rank": rank,
                "name": r.name,
                "path": r.path,
                "quality": r.quality,
                "verdict": verdict(r.quality, names, mismatched=registration is not None and registration.mismatched),
            }
            for rank, r in enumerate(results, 1)
        ],
        "warnings": notes,
        "notes": scene.notes if scene is not None else [],
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
            chosen = output.shown([result.name for result in results])
            shown = [(r.name, r.show()) for r in results if r.name in chosen]
            files.add(output.report, report_bytes(output.report, facts, shown))
        files.publish()
    return facts


def _check_outputs(output: EvaluationOutput, inputs: set[str], names: Sequence[str], maps: Sequence[str]) -> list[Path]:
    """The files to be written. Raises InputError before anything is measured if one cannot be written. Existing files
    are reported last (`check_absent`)."""
    is_html(output.report)
    output.check_shown(names)
    targets = [output.report] if output.report is not None else []
    if output.maps is not None:
        if output.report is not None and os.path.abspath(output.report) == os.path.abspath(output.maps):
            raise InputError("--report and --map need different paths")
        stems = [Path(n).stem for n in dict.fromkeys(names)]
        if len(set(stems)) < len(stems):
            raise InputError("--map names its files after the fused ones: these need different names")
        if output.maps.is_dir():
            targets += [output.maps / f"{stem}_{figure}.tif" for stem in stems for figure in maps]
        elif output.maps.exists() or not output.maps.resolve().parent.is_dir():
            raise InputError(f"cannot make the folder {output.maps} of --map")
    for target in targets:
        check_place(target, inputs, output.overwrite)
    return targets


def _write_maps(folder: Path, result: _Result, maps: Sequence[str], files: Publication) -> None:
    for figure in maps:
        values = result.score.maps[figure]
        grid = result.grid.window(result.score.window).blocks(MAP_BLOCK, values.shape)
        with raster_writer(
            folder / f"{Path(result.name).stem}_{figure}.tif", grid, 1, np.dtype("float32"), (figure,), files
        ) as write:
            write(grid.whole, values[None].astype(np.float32))
